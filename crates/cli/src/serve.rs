//! `tallow serve`: the HTTP server first, so that /health can tell of the loading, then the model.
use crate::launch::LEAST_CONTEXT;
use crate::model::{self, ModelSource};
use crate::plan::grouped;
use crate::running::{self, RunningServer};
use crate::settings::Settings;
use crate::signals::{Signal, Signals};
use crate::{demo, output};
use anyhow::{Context, Error, Result, anyhow};
use bytesize::ByteSize;
use engine::{EngineHandle, KlNeed, StartError};
use server::{ServerConfig, ServerState};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long clients get to read why the server ends when a part of it has ended by itself.
const FAILURE_GRACE: Duration = Duration::from_secs(5);

/// Serves one model until the command is interrupted, or until a part of the server ends by itself. `is_for_person`:
/// somebody looks at a terminal, to whom the start is told in a block instead of lines of a log.
pub async fn serve_one(mut settings: Settings, signals: &Signals, is_for_person: bool) -> Result<()> {
    if settings.behind_front {
        return serve_front(&mut settings, signals).await;
    }
    if settings.model.is_none() {
        tracing::info!("{}", demo::NOTICE);
    }
    let begin = Instant::now();
    let mut running = Running::start(&settings).await?;
    tracing::info!("serving {} after {:.1} s", running.engine.info().name, begin.elapsed().as_secs_f64());
    if is_for_person {
        output::complain(format_args!("{}", running.welcome(&settings)));
    }
    let info = running.engine.info();
    let _registration = RunningServer {
        pid: std::process::id(),
        url: running.url(),
        model: info.name.clone(),
        max_model_len: Some(info.max_model_len),
        formats: info.cache_dtype(),
        since: running::now(),
    }
    .register();
    let interrupted = signals.next(&[Signal::Interrupt, Signal::Terminate]);
    tokio::select! {
        _ = interrupted => {}
        error = running.failure() => return Err(error),
    }
    tell_ending(&settings, is_for_person);
    running.stop().await
}

/// Says that the server ends, and how long it may take.
pub fn tell_ending(settings: &Settings, is_for_person: bool) {
    let limit = settings.shutdown_timeout.as_secs();
    let ending = format!("shutting down: running answers have {limit} s; interrupt again to end at once");
    tracing::info!("{ending}");
    if is_for_person {
        output::complain(format_args!("{ending}"));
    }
}

/// Serves a model for a front, which has started this process: its key is the first line of standard input, and the end
/// of standard input is as a signal to end, also if the front was killed. The address goes to standard output.
///
/// Errors: no key; those of [`serve_one`].
async fn serve_front(settings: &mut Settings, signals: &Signals) -> Result<()> {
    let mut key = String::new();
    std::io::stdin().read_line(&mut key).context("standard input has no key")?;
    settings.api_key = Some(key.trim_end().to_owned()).filter(|key| !key.is_empty());
    settings.api_key.as_ref().context("--behind-front is for fronts: standard input has no key")?;
    let watching = signals.clone();
    let watch = move || {
        // Whatever comes is read over; an error is an end too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        watching.raise(Signal::Terminate);
    };
    thread::Builder::new().name("tallow-stdin".into()).spawn(watch).context("the system gives no thread")?;
    let begin = Instant::now();
    let mut running = Running::start(settings).await?;
    tracing::info!("serving {} after {:.1} s", running.engine.info().name, begin.elapsed().as_secs_f64());
    let interrupted = signals.next(&[Signal::Interrupt, Signal::Terminate]);
    output::line(format_args!("{}", running.address));
    tokio::select! {
        _ = interrupted => running.stop().await,
        error = running.failure() => Err(error),
    }
}

/// What the HTTP server of a model, or of a front, is told.
pub fn server_config(settings: &Settings) -> ServerConfig {
    ServerConfig {
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
        behind_front: settings.behind_front,
        shutdown_limit: settings.shutdown_timeout,
        ..Default::default()
    }
}

/// Takes the port.
///
/// Errors: an address that cannot be bound.
pub async fn bind(config: &ServerConfig) -> Result<(TcpListener, SocketAddr)> {
    server::raise_descriptor_limit();
    let listener = server::bind(config).await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => ": another program listens there; take another --port, or 0 for any free one",
            ErrorKind::AddrNotAvailable => ": this machine has no such address; 127.0.0.1 is itself, 0.0.0.0 is all",
            _ => "",
        };
        Error::new(error).context(format!("--host {} --port {}{hint}", config.host, config.port))
    })?;
    let address = listener.local_addr()?;
    tracing::info!("listening on http://{address}");
    Ok((listener, address))
}

/// An address as clients on this machine use it.
pub fn url_of(address: SocketAddr) -> String {
    let ip = address.ip();
    let host = if ip.is_unspecified() { "127.0.0.1".to_owned() } else { SocketAddr::new(ip, 0).to_string() };
    format!("http://{}:{}", host.trim_end_matches(":0"), address.port())
}

/// A server with its model loaded.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The engine that answers.
    pub engine: EngineHandle,
    /// Why K and V are stored as they are; `None` where the flags say it, or where it was measured while loading.
    reason: Option<String>,
    /// Whether the chat template takes tools.
    takes_tools: bool,
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
        let config = server_config(settings);
        // A name that names no model is refused before a port is taken.
        let source = ModelSource::of(settings)?;
        let (listener, address) = bind(&config).await?;
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
            let plan = engine::plan(&engine_config)?.kv;
            let loaded = engine::load(&engine_config)?;
            let template = loaded.template.clone();
            let (engine, thread) = engine::launch(&engine_config, loaded)?;
            let is_as_planned = plan.kl_need != KlNeed::BeforeStart && plan.pair.k.name() == engine.info().k_quant;
            Ok::<_, StartError>((engine, thread, template, plan.reason.filter(|_| is_as_planned)))
        });
        let started = started.await?.map_err(|error| settings.explain(error));
        let (engine, thread, template, reason) = started.context("the model could not be loaded")?;
        let takes_tools = template.as_ref().is_some_and(|template| template.takes_tools());
        state.set_engine(engine.clone(), template);
        let thread = tokio::task::spawn_blocking(move || thread.join());
        Ok(Running { address, engine, reason, takes_tools, thread, http, shutdown: Some(shutdown) })
    }

    /// What somebody who has started the server wants to know of it.
    fn welcome(&self, settings: &Settings) -> String {
        let (info, url) = (self.engine.info(), self.url());
        let mut lines = vec![format!(
            "\nServing {} ({}, {} of weights)",
            info.name,
            info.model_type,
            ByteSize::b(info.weight_bytes)
        )];
        if settings.model.is_none() {
            lines.push(format!("{}.", demo::NOTICE));
        }
        let key = if settings.api_key.is_some() { "your --api-key" } else { "any key" };
        let blocks = grouped(info.num_blocks * info.block_size);
        let cache = ByteSize::b((info.num_blocks * info.bytes_per_block) as u64);
        let context = grouped(info.max_model_len);
        let trained = grouped(info.trained_len);
        let mut line = |name: &str, text: String| lines.push(format!("  {name:<9}{text}"));
        line("API", format!("{url}/v1 (OpenAI), {url} (Anthropic), with {key}"));
        line("Page", format!("{url}/"));
        line("Context", format!("{context} tokens a request, of {trained} that the model was made for"));
        line("Cache", format!("{blocks} tokens in {cache}, K {} V {}", info.k_quant, info.v_quant));
        self.reason.iter().for_each(|reason| line("Why", reason.clone()));
        if info.max_model_len < info.trained_len {
            let more = "--memory or --kv-preset give more context; `tallow plan` tells how much";
            line("More", more.to_owned());
        }
        if self.takes_tools {
            let agents = "tallow launch claude (or codex, opencode)";
            line(
                "Agents",
                match info.max_model_len as u64 >= LEAST_CONTEXT {
                    true => agents.to_owned(),
                    false => format!("{agents}, which need a context of {} tokens", grouped(LEAST_CONTEXT as usize)),
                },
            );
        }
        line("Stop", "Ctrl-C".to_owned());
        lines.join("\n") + "\n"
    }

    /// The address as clients on this machine use it.
    pub fn url(&self) -> String {
        url_of(self.address)
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
