//! What all requests share.
use crate::config::ServerConfig;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::ids::RequestIds;
use crate::http::metrics::ModelMetrics;
use crate::http::unknown_fields::UnknownFields;
use engine::EngineHandle;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use text::{ChatTemplate, ConstraintError, ConstraintFactory};
use tokio::sync::watch;

/// The server's state. All clones share one.
#[derive(Clone)]
pub struct ServerState(Arc<SharedState>);

struct SharedState {
    config: ServerConfig,
    prometheus: PrometheusHandle,
    served: OnceLock<Arc<ServedModel>>,
    /// How many HTTP requests are active.
    active: ActiveCount,
    stage: watch::Sender<Stage>,
    unknown_fields: UnknownFields,
    ids: RequestIds,
}

/// How far the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not begun.
    Serving,
    /// New requests are refused, running ones go on.
    Closing,
    /// None runs any more: what is still to be sent is sent, and connections end.
    Ending,
}

/// What exists once the model is loaded.
pub(crate) struct ServedModel {
    pub engine: EngineHandle,
    /// Made when the first request needs it.
    constraints: OnceLock<Result<ConstraintFactory, ConstraintError>>,
    /// `None` if the model came without a chat template.
    pub template: Option<Arc<ChatTemplate>>,
    /// Names by which requests may ask for the model, at least one. Answers carry the first.
    pub names: Vec<String>,
    pub metrics: Arc<ModelMetrics>,
    /// When the model was loaded, in seconds since the epoch.
    pub created: u64,
    /// How many HTTP requests have been submitted to the engine and not been answered to their end.
    pub active: ActiveCount,
}

/// Counts the HTTP requests that have been taken on and not been answered to their end. All clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ActiveCount(watch::Sender<usize>);

/// Counts one HTTP request as active while it lives.
pub(crate) struct Active(ActiveCount);

impl ActiveCount {
    pub fn begin(&self) -> Active {
        self.0.send_modify(|n| *n += 1);
        Active(self.clone())
    }

    pub fn now(&self) -> usize {
        *self.0.borrow()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}

impl ServedModel {
    /// Makes the constraints of answers.
    ///
    /// Errors: a vocabulary for which none can be made.
    pub fn constraints(&self) -> Result<&ConstraintFactory, ApiError> {
        // Whoever asks while it is being made waits for it.
        let made = self.constraints.get_or_init(|| {
            let info = self.engine.info();
            ConstraintFactory::new(self.engine.tokenizer(), &info.turn_ends, info.vocab_size)
        });
        made.as_ref().map_err(|e| {
            let message = format!("answers of this model cannot be held to a grammar: {e}");
            ApiError::new(ErrorCode::UnsupportedParameter, message)
        })
    }

    /// The model's name in the answer to a request for `asked`. `None` and an empty name ask for the model, whatever
    /// its name.
    ///
    /// Errors: [`ErrorCode::ModelNotFound`].
    pub fn name(&self, asked: Option<&str>) -> Result<&str, ApiError> {
        match asked {
            Some(asked) if !asked.is_empty() && !self.names.iter().any(|name| name == asked) => {
                let names = self.names.join(", ");
                let message = format!("the model {asked:?} is not served here; this server serves {names}");
                Err(ApiError::new(ErrorCode::ModelNotFound, message).at("model"))
            }
            _ => Ok(&self.names[0]),
        }
    }
}

impl ServerState {
    /// A server whose model is still being loaded. `prometheus` comes from [`install_metrics`](crate::install_metrics).
    pub fn new(config: ServerConfig, prometheus: PrometheusHandle) -> Self {
        ServerState(Arc::new(SharedState {
            config,
            prometheus,
            served: OnceLock::new(),
            active: ActiveCount(watch::channel(0).0),
            stage: watch::channel(Stage::Serving).0,
            unknown_fields: UnknownFields::default(),
            ids: RequestIds::new(),
        }))
    }

    /// Begins to serve requests by `engine`. Without a chat template, requests that are made of messages are refused.
    /// A second call has no effect.
    pub fn set_engine(&self, engine: EngineHandle, template: Option<Arc<ChatTemplate>>) {
        let names = match self.0.config.served_model_name.as_slice() {
            [] => vec![engine.info().name.clone()],
            names => names.to_vec(),
        };
        let metrics = Arc::new(ModelMetrics::new(engine.info()));
        let active = self.0.active.clone();
        let constraints = OnceLock::new();
        let served = ServedModel { engine, constraints, template, names, metrics, created: unix_seconds(), active };
        let served = Arc::new(served);
        if self.0.served.set(served.clone()).is_err() {
            tracing::warn!("the server has an engine already");
            return;
        }
        // It takes a second for a large vocabulary, which the first request with tools should not wait for.
        if served.template.as_ref().is_some_and(|template| template.takes_tools()) {
            std::thread::spawn(move || drop(served.constraints().inspect_err(|error| tracing::warn!(%error))));
        }
    }

    /// Refuses new requests from now on and leaves accepted ones the configured limit.
    pub(crate) fn close(&self) {
        self.set_stage(Stage::Closing);
        if let Some(served) = self.0.served.get() {
            served.engine.shutdown(self.0.config.shutdown_limit);
        }
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.0.stage.send_replace(stage);
    }

    pub(crate) fn stages(&self) -> watch::Receiver<Stage> {
        self.0.stage.subscribe()
    }

    /// Waits until no request is active.
    pub(crate) async fn idle(&self) {
        // An error would mean that the sender is gone, but this state holds it.
        let _ = self.0.active.0.subscribe().wait_for(|active| *active == 0).await;
    }

    /// Counts a request as active that another process answers.
    pub(crate) fn begin(&self) -> Active {
        self.0.active.begin()
    }

    /// Errors: the server is shutting down.
    pub(crate) fn check_open(&self) -> Result<(), ApiError> {
        match *self.0.stage.borrow() {
            Stage::Serving => Ok(()),
            _ => Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down")),
        }
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.0.config
    }

    pub(crate) fn prometheus(&self) -> &PrometheusHandle {
        &self.0.prometheus
    }

    pub(crate) fn unknown_fields(&self) -> &UnknownFields {
        &self.0.unknown_fields
    }

    pub(crate) fn ids(&self) -> &RequestIds {
        &self.0.ids
    }

    /// The model that requests are served by.
    ///
    /// Errors: the model is being loaded, the server is shutting down, or its engine has ended by itself.
    pub(crate) fn served(&self) -> Result<&Arc<ServedModel>, ApiError> {
        if let Some(reason) = self.0.served.get().and_then(|served| served.engine.failure()) {
            return Err(ApiError::new(ErrorCode::EngineEnded, format!("this server is about to end: {reason}")));
        }
        self.check_open()?;
        let loading = || ApiError::new(ErrorCode::ModelLoading, "the model is being loaded; try again soon");
        self.0.served.get().ok_or_else(loading)
    }
}

/// The time in seconds since the epoch, as answers give it.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
