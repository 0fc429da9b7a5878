//! `tallow serve`: the HTTP server first, so that /health can tell of the loading, then the model.
use crate::args::ServeArgs;
use crate::demo;
use crate::model::{self, ModelSource};
use crate::settings::Settings;
use anyhow::{Context, Result};
use engine::EngineHandle;
use server::{ServerConfig, ServerState};
use std::future::Future;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::JoinHandle as Task;

/// Runs the command until it is interrupted.
pub async fn serve(args: ServeArgs) -> Result<()> {
    let settings = Settings::read(args.model.config.as_deref(), &(&args.model, &args.kv, &args.step, &args.serving))?;
    if settings.model.is_none() {
        tracing::info!("{}", demo::NOTICE);
        #[cfg(target_os = "macos")]
        tracing::info!("{}", demo::BIGGER);
    }
    let begin = Instant::now();
    let running = Running::start(&settings).await?;
    tracing::info!("serving {} after {:.1} s", running.engine.info().name, begin.elapsed().as_secs_f64());
    interrupted().await;
    tracing::info!(
        "shutting down: running answers have {} s; interrupt again to end at once",
        settings.shutdown_timeout.as_secs()
    );
    tokio::select! {
        ended = running.stop() => ended,
        () = interrupted() => std::process::exit(130),
    }
}

/// A server with its model loaded.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The engine that answers.
    pub engine: EngineHandle,
    thread: JoinHandle<()>,
    http: Task<std::io::Result<()>>,
    shutdown: oneshot::Sender<()>,
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
            // If the sender is gone, nobody is left who could ask for the shutdown.
            let _ = signal.await;
        };
        let http = tokio::spawn(server::serve(listener, state.clone(), ended));
        let engine_config = model::fetch(settings, source).await?;
        tracing::info!("loading {}", engine_config.model.display());
        let started = tokio::task::spawn_blocking(move || {
            let loaded = engine::load(&engine_config)?;
            let template = loaded.template.clone();
            engine::launch(&engine_config, loaded).map(|(engine, thread)| (engine, thread, template))
        });
        let (engine, thread, template) = started.await?.context("the model could not be loaded")?;
        state.set_engine(engine.clone(), template);
        Ok(Running { address, engine, thread, http, shutdown })
    }

    /// Ends the server: running answers may finish within the limit, and the engine's thread is waited for.
    pub async fn stop(self) -> Result<()> {
        let _ = self.shutdown.send(());
        self.http.await??;
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow::anyhow!("the engine's thread panicked"))
    }
}

/// Ctrl-C, or SIGTERM where there is one.
fn interrupted() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = terminated => {}
        }
    }
}
