//! From a listener to a server that ends in order.
use crate::config::ServerConfig;
use crate::routes::router;
use crate::state::ServerState;
use axum::serve::ListenerExt;
use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Between two looks after the histograms, which otherwise keep every sample until the next scrape.
const UPKEEP: Duration = Duration::from_secs(5);
/// For the last events to reach their clients once the engine has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Listens at the configuration's host and port.
pub async fn bind(config: &ServerConfig) -> io::Result<TcpListener> {
    TcpListener::bind((config.host.as_str(), config.port)).await
}

/// Serves until `shutdown` resolves. Then new requests are refused with 503, accepted ones may finish within the configured
/// limit, and the listener closes.
pub async fn serve(
    listener: TcpListener,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // Each token goes out at once.
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
            let _ = tokio::time::timeout(limit + LAST_WORDS / 2, state.idle()).await;
        }
    };
    let service = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(on_shutdown).into_future();
    let deadline = async {
        // An error means that the server has ended, and with it this wait.
        let _ = closed.wait_for(|closed| *closed).await;
        tokio::time::sleep(limit + LAST_WORDS).await;
    };
    let upkeep = async {
        let mut ticks = tokio::time::interval(UPKEEP);
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
        never = upkeep => never,
    }
}
