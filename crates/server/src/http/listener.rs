//! From a listener to a server that ends in order.
use crate::config::ServerConfig;
use crate::http::client::{Client, ClientLimits};
use crate::http::connection::{self, Service};
use crate::http::state::{ServerState, Stage};
use axum::Router;
use socket2::{SockRef, TcpKeepalive};
use std::collections::HashMap;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// How often the exporter is told to add samples to the buckets of histograms. Until then it keeps each sample.
const HISTOGRAM_FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How long the last events may take to reach their clients once the engine has ended.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// After how much silence a client's machine is asked whether it is there, and how often then.
const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));
/// Bytes of an answer that the system holds for a client that does not read, beside those that hyper holds. Linux alone
/// would take 4 MiB for each.
const SEND_BUFFER: usize = 128 << 10;
/// A body that is not taken, above all one that is too large, is read up to this multiple of the limit.
const DISCARD_FACTOR: usize = 16;
/// Connections beyond the limit, which only monitoring is answered on.
const MONITORING_CONNECTIONS: usize = 16;
/// How long those may take for anything.
const MONITORING_LIMIT: Duration = Duration::from_secs(5);
/// The pause after the system could not hand over a connection, and how often the log tells of it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Descriptors that connections leave to the rest of the process.
const OTHER_DESCRIPTORS: u64 = 48;

/// Listens at the configured host and port.
///
/// Errors: the host has no address here, or the port is taken.
pub async fn bind(config: &ServerConfig) -> io::Result<TcpListener> {
    TcpListener::bind((config.host.as_str(), config.port)).await
}

/// Lets the process have as many descriptors as the system allows it; each connection takes one. Shells on macOS allow
/// 256 unless they are asked.
pub fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// What connections are served with.
pub struct Routers {
    pub all: Router,
    /// Answers monitoring alone.
    pub monitoring: Router,
}

/// Serves until `shutdown` resolves, then refuses new requests and waits for accepted ones within the configured limit.
pub async fn serve(
    listener: TcpListener,
    routers: Routers,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let limit = state.config().shutdown_limit;
    let mut connections = Connections::new(routers, state.clone());
    let mut closed_at = Instant::now();
    let ended = async {
        shutdown.await;
        closed_at = Instant::now();
        state.close();
        // The engine fails at the limit what has not finished, so this wait ends soon after it.
        let _ = timeout(limit + DRAIN_GRACE / 2, state.idle()).await;
    };
    let flush_histograms = async {
        let mut ticks = tokio::time::interval(HISTOGRAM_FLUSH_EVERY);
        loop {
            ticks.tick().await;
            state.prometheus().run_upkeep();
        }
    };
    tokio::select! {
        () = ended => {}
        () = connections.accept(&listener) => {}
        () = flush_histograms => {}
    }
    drop(listener);
    state.set_stage(Stage::Ending);
    if tokio::time::timeout_at(closed_at + limit + DRAIN_GRACE, connections.all_ended()).await.is_err() {
        tracing::warn!("connections were still open at the end of the shutdown and are cut");
    }
}

/// The connections that are open.
struct Connections {
    routers: Routers,
    state: ServerState,
    limits: ClientLimits,
    /// How many are served whatever they ask for.
    limit: usize,
    tasks: JoinSet<()>,
    open: HashMap<Id, (Arc<Client>, AbortHandle)>,
    told_at: Option<Instant>,
}

impl Connections {
    fn new(routers: Routers, state: ServerState) -> Self {
        let config = state.config();
        let limits = ClientLimits {
            keep_alive: config.keep_alive_timeout,
            read: config.read_timeout,
            write: config.write_timeout,
        };
        let limit = config.max_connections.unwrap_or_else(|| {
            let descriptors = rlimit::Resource::NOFILE.get_soft().unwrap_or(256);
            let others = OTHER_DESCRIPTORS + MONITORING_CONNECTIONS as u64;
            let left = usize::try_from(descriptors.saturating_sub(others)).unwrap_or(usize::MAX);
            (left / config.descriptors_per_connection.max(1)).max(MONITORING_CONNECTIONS)
        });
        Connections { routers, state, limits, limit, tasks: JoinSet::new(), open: HashMap::new(), told_at: None }
    }

    /// Accepts connections for ever.
    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            let has_place = self.open.len() < self.limit.saturating_add(MONITORING_CONNECTIONS);
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.forget(ended),
                accepted = listener.accept(), if has_place => match accepted {
                    Ok((stream, peer)) => self.open(stream, peer),
                    Err(error) if is_of_one_client(&error) => {}
                    // Above all, the process or the system has no descriptors left.
                    Err(error) => {
                        self.tell(&format!("a connection cannot be accepted: {error}"));
                        self.close_longest_waiting();
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Serves a connection. If there are too many, the one that has waited longest makes place.
    fn open(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "a socket's options");
        }
        while self.open.len() >= self.limit && self.close_longest_waiting() {}
        let full = self.open.len() >= self.limit;
        let (router, limits) = if full {
            self.tell(&format!("{} connections have answers in work; new ones get 503", self.open.len()));
            let limit = MONITORING_LIMIT;
            (self.routers.monitoring.clone(), ClientLimits { keep_alive: limit, read: limit, write: limit })
        } else {
            (self.routers.all.clone(), self.limits)
        };
        let client = Client::new(stream, limits);
        let discard_limit = self.state.config().max_body_bytes.saturating_mul(DISCARD_FACTOR);
        let service = Service { router, keep_alive: !full, discard_limit };
        let task = self.tasks.spawn(connection::serve(client.clone(), peer, service, self.state.stages()));
        self.open.insert(task.id(), (client, task));
    }

    /// False if each connection has a request in work.
    fn close_longest_waiting(&mut self) -> bool {
        let waiting = self.open.iter().filter_map(|(id, (client, _))| Some((client.waiting_since()?, *id)));
        let Some((_, id)) = waiting.min_by_key(|(since, _)| *since) else { return false };
        if let Some((_, task)) = self.open.remove(&id) {
            task.abort();
        }
        true
    }

    fn forget(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a connection was lost to a fault of the server");
                }
                error.id()
            }
        };
        self.open.remove(&id);
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.forget(ended);
        }
    }

    fn tell(&mut self, what: &str) {
        if self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told_at = Some(Instant::now());
            tracing::warn!("{what}");
        }
    }
}

/// The connection failed before it was accepted; the next may not.
fn is_of_one_client(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Without this option the system may hold a token back to send it together with the next one.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    let (time, interval) = TCP_KEEPALIVE;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval))
}
