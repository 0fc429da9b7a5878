//! What all requests share.
use crate::config::ServerConfig;
use crate::error::{ApiError, ErrorCode};
use crate::metrics::Recorders;
use engine::EngineHandle;
use metrics_exporter_prometheus::PrometheusHandle;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use text::ChatTemplate;
use tokio::sync::watch;

/// Names of unknown fields that are remembered as logged; a client may invent any number, of any length.
const MAX_UNKNOWN_FIELDS: usize = 1000;
const MAX_FIELD_NAME: usize = 100;

/// The server's state; clones are one.
#[derive(Clone)]
pub struct ServerState(Arc<Shared>);

struct Shared {
    config: ServerConfig,
    prometheus: PrometheusHandle,
    loaded: OnceLock<Loaded>,
    closing: AtomicBool,
    unknown_fields: Mutex<HashSet<String>>,
    /// Keeps ids of different runs apart.
    run: u64,
    next_id: AtomicU64,
}

/// What exists once the model is loaded.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub engine: EngineHandle,
    /// `None`: the model came without a chat template.
    pub template: Option<Arc<ChatTemplate>>,
    pub recorders: Arc<Recorders>,
    /// Seconds since the epoch.
    pub since: u64,
    /// Requests that have been submitted and not answered to their end.
    pub active: watch::Sender<usize>,
}

impl ServerState {
    /// A server that is still loading its model. `prometheus`: from [`crate::install_metrics`].
    pub fn new(config: ServerConfig, prometheus: PrometheusHandle) -> Self {
        ServerState(Arc::new(Shared {
            config,
            prometheus,
            loaded: OnceLock::new(),
            closing: AtomicBool::new(false),
            unknown_fields: Mutex::default(),
            run: RandomState::new().hash_one(std::process::id()),
            next_id: AtomicU64::new(0),
        }))
    }

    /// From now on requests are served. Only the first engine counts. `template`: `None` refuses requests of messages.
    pub fn set_engine(&self, engine: EngineHandle, template: Option<Arc<ChatTemplate>>) {
        let recorders = Arc::new(Recorders::new(engine.info()));
        let loaded = Loaded { engine, template, recorders, since: crate::wire::now(), active: watch::channel(0).0 };
        if self.0.loaded.set(loaded).is_err() {
            tracing::warn!("the server has an engine already");
        }
    }

    /// Refuses new requests and gives accepted ones until the configured limit.
    pub(crate) fn close(&self) {
        self.0.closing.store(true, SeqCst);
        if let Some(loaded) = self.0.loaded.get() {
            loaded.engine.shutdown(self.0.config.shutdown_limit);
        }
    }

    /// Waits until no request is active.
    pub(crate) async fn idle(&self) {
        if let Some(loaded) = self.0.loaded.get() {
            // An error would mean that the sender is gone, but this state holds it.
            let _ = loaded.active.subscribe().wait_for(|active| *active == 0).await;
        }
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.0.config
    }

    pub(crate) fn prometheus(&self) -> &PrometheusHandle {
        &self.0.prometheus
    }

    /// Errors: the model is loading, or the server is shutting down.
    pub(crate) fn loaded(&self) -> Result<&Loaded, ApiError> {
        if self.0.closing.load(SeqCst) {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"));
        }
        self.0
            .loaded
            .get()
            .ok_or_else(|| ApiError::new(ErrorCode::ModelLoading, "the model is being loaded; try again soon"))
    }

    /// Names that requests may use, the one in answers first.
    pub(crate) fn model_names<'a>(&'a self, engine: &'a EngineHandle) -> Vec<&'a str> {
        match self.0.config.served_model_name.as_slice() {
            [] => vec![engine.info().name.as_str()],
            names => names.iter().map(String::as_str).collect(),
        }
    }

    /// The name of the model in answers. `None` asks for the served model, whatever it is called.
    pub(crate) fn check_model(&self, engine: &EngineHandle, asked: Option<&str>) -> Result<String, ApiError> {
        let names = self.model_names(engine);
        match asked {
            Some(asked) if !names.contains(&asked) => {
                let message =
                    format!("the model {asked:?} is not served here; this server serves {}", names.join(", "));
                Err(ApiError::new(ErrorCode::ModelNotFound, message).at("model"))
            }
            _ => Ok(names[0].to_owned()),
        }
    }

    /// Logs fields that no endpoint reads, once each.
    pub(crate) fn note_unknown_fields(&self, path: &str, fields: impl IntoIterator<Item = String>) {
        let mut seen = self.0.unknown_fields.lock().unwrap_or_else(|e| e.into_inner());
        for field in fields {
            let field: String = field.chars().take(MAX_FIELD_NAME).collect();
            let name = format!("{path} {field}");
            if seen.len() < MAX_UNKNOWN_FIELDS && seen.insert(name) {
                tracing::warn!(endpoint = path, field, "unknown field ignored");
            }
        }
    }

    /// An id that no other answer has, such as `chatcmpl-..`.
    pub(crate) fn new_id(&self, prefix: &str) -> String {
        let number = self.0.next_id.fetch_add(1, SeqCst);
        format!("{prefix}-{:016x}{number:08x}", self.0.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn what_is_remembered_of_unknown_fields_is_bounded() {
        let state = ServerState::new(ServerConfig::default(), PrometheusBuilder::new().build_recorder().handle());
        state.note_unknown_fields("/a", ["é".repeat(1 << 20)]);
        state.note_unknown_fields("/a", (0..2 * MAX_UNKNOWN_FIELDS).map(|i| format!("{i}")));
        let seen = state.0.unknown_fields.lock().unwrap();
        assert_eq!(seen.len(), MAX_UNKNOWN_FIELDS);
        assert!(seen.contains("/a 0"));
        assert!(
            seen.iter().all(|name| name.chars().count() <= MAX_FIELD_NAME + 3),
            "{:?}",
            seen.iter().map(String::len).max()
        );
    }
}
