//! From a listener to a server that ends in order.
use crate::config::ServerConfig;
use crate::http::state::ServerState;
use axum::Router;
use axum::serve::ListenerExt;
use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How often the exporter is told to add samples to the buckets of histograms. Until then it keeps each sample.
const HISTOGRAM_FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How long the last events may take to reach their clients once the engine has ended.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Listens at the configured host and port.
///
/// Errors: the host has no address here, or the port is taken.
pub async fn bind(config: &ServerConfig) -> io::Result<TcpListener> {
    TcpListener::bind((config.host.as_str(), config.port)).await
}

/// Serves `router` until `shutdown` resolves, then refuses new requests and waits for accepted ones within the
/// configured limit.
///
/// Errors: the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // Without this option the system may hold a token back to send it together with the next one.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    let limit = state.config().shutdown_limit;
    let (closing, mut closed) = watch::channel(false);
    let on_shutdown = {
        let state = state.clone();
        async move {
            shutdown.await;
            state.close();
            closing.send_replace(true);
            // The engine fails at the limit what has not finished, so this wait ends soon after it.
            let _ = tokio::time::timeout(limit + DRAIN_GRACE / 2, state.idle()).await;
        }
    };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(on_shutdown).into_future();
    let deadline = async {
        // An error means that the server has ended, and then nobody awaits this future any more.
        let _ = closed.wait_for(|closed| *closed).await;
        tokio::time::sleep(limit + DRAIN_GRACE).await;
    };
    let flush_histograms = async {
        let mut ticks = tokio::time::interval(HISTOGRAM_FLUSH_EVERY);
        loop {
            ticks.tick().await;
            state.prometheus().run_upkeep();
        }
    };
    tokio::select! {
        result = server => result,
        () = deadline => {
            tracing::warn!("connections were still open at the end of the shutdown and are cut");
            Ok(())
        }
        never = flush_histograms => never,
    }
}
