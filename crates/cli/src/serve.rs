//! `tallow serve`: the HTTP server first, so that /health can tell of the loading, then the model.
use crate::args::ServeArgs;
use crate::demo;
use crate::model::{self, ModelSource};
use crate::settings::Settings;
use crate::signals::{Signal, Signals};
use anyhow::{Context, Error, Result, anyhow};
use engine::EngineHandle;
use server::{ServerConfig, ServerState};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long clients get to read why the server ends when a part of it has ended by itself.
const FAILURE_GRACE: Duration = Duration::from_secs(5);

/// Runs the command until it is interrupted, or until a part of the server ends by itself.
pub async fn serve(args: ServeArgs, signals: &Signals) -> Result<()> {
    let settings = Settings::of_serving(&args)?;
    if settings.model.is_none() {
        tracing::info!("{}", demo::NOTICE);
        #[cfg(target_os = "macos")]
        tracing::info!("{}", demo::BIGGER);
    }
    let begin = Instant::now();
    let mut running = Running::start(&settings).await?;
    tracing::info!("serving {} after {:.1} s", running.engine.info().name, begin.elapsed().as_secs_f64());
    let interrupted = signals.next(&[Signal::Interrupt, Signal::Terminate]);
    tokio::select! {
        _ = interrupted => {}
        error = running.failure() => return Err(error),
    }
    tracing::info!(
        "shutting down: running answers have {} s; interrupt again to end at once",
        settings.shutdown_timeout.as_secs()
    );
    running.stop().await
}

/// A server with its model loaded.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The engine that answers.
    pub engine: EngineHandle,
    /// Ends when the engine's thread does.
    thread: JoinHandle<thread::Result<()>>,
    http: JoinHandle<std::io::Result<()>>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Running {
    /// Binds the port, answers that the model is being loaded, and loads it.
    ///
    /// Errors: a model that there is not, an address that cannot be bound, whatever the engine refuses.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let config = ServerConfig {
            host: settings.host.clone(),
            port: settings.port,
            api_key: settings.api_key.clone(),
            cors_origins: settings.cors_origins.clone(),
            allowed_hosts: settings.allowed_hosts.clone(),
            served_model_name: settings.engine.served_model_name.clone().into_iter().collect(),
            max_tokens_default: settings.max_tokens_default,
            keep_alive_timeout: settings.keep_alive_timeout,
            read_timeout: settings.read_timeout,
            write_timeout: settings.write_timeout,
            shutdown_limit: settings.shutdown_timeout,
            ..Default::default()
        };
        server::raise_descriptor_limit();
        // A name that names no model is refused before a port is taken.
        let source = ModelSource::of(settings)?;
        let listener = server::bind(&config)
            .await
            .with_context(|| format!("--host {} --port {}", settings.host, settings.port))?;
        let address = listener.local_addr()?;
        tracing::info!("listening on http://{address}");
        let state = ServerState::new(config, server::install_metrics()?);
        let (shutdown, signal) = oneshot::channel();
        let ended = async {
            // The sender is dropped to ask for the shutdown.
            let _ = signal.await;
        };
        let http = tokio::spawn(server::serve(listener, state.clone(), ended));
        let engine_config = model::fetch(settings, source).await?;
        tracing::info!("loading {}", engine_config.model.display());
        let started = tokio::task::spawn_blocking(move || {
            // What does not fit is refused before weights are read.
            engine::plan(&engine_config)?;
            let loaded = engine::load(&engine_config)?;
            let template = loaded.template.clone();
            engine::launch(&engine_config, loaded).map(|(engine, thread)| (engine, thread, template))
        });
        let started = started.await?.map_err(|error| settings.explain(error));
        let (engine, thread, template) = started.context("the model could not be loaded")?;
        state.set_engine(engine.clone(), template);
        let thread = tokio::task::spawn_blocking(move || thread.join());
        Ok(Running { address, engine, thread, http, shutdown: Some(shutdown) })
    }

    /// Ends the server: running answers may finish within the limit, and the engine's thread is waited for.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.take();
        self.http.await??;
        self.thread.await?.map_err(|_| anyhow!("the engine's thread panicked"))
    }

    /// Waits for a part of the server to end by itself, which none should. Answers then end with an error.
    async fn failure(&mut self) -> Error {
        tokio::select! {
            ended = &mut self.thread => {
                self.shutdown.take();
                // Answers that never end are cut.
                let _ = tokio::time::timeout(FAILURE_GRACE, &mut self.http).await;
                match self.engine.failure() {
                    Some(reason) => anyhow!("{reason}"),
                    None => anyhow!("the engine has ended: {ended:?}"),
                }
            }
            ended = &mut self.http => match ended {
                Ok(Ok(())) => anyhow!("the HTTP server has ended"),
                Ok(Err(error)) => Error::new(error).context("the HTTP server has ended"),
                Err(error) => Error::new(error).context("the HTTP server has failed"),
            },
        }
    }
}
