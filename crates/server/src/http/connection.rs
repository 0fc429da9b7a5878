//! One connection, from its first byte to its end.
use crate::http::client::{Client, ClientIo, Watch};
use crate::http::state::Stage;
use crate::http::unread::Unread;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceExt;

/// How a connection is served.
pub struct Service {
    pub router: Router,
    /// Whether further requests may follow the first.
    pub keep_alive: bool,
    /// Bytes of a body that are read although its endpoint did not.
    pub discard_limit: usize,
}

/// Serves the requests of one client until it leaves, takes too long, or the server ends.
pub async fn serve(client: Arc<Client>, peer: SocketAddr, service: Service, mut stages: watch::Receiver<Stage>) {
    let Service { router, keep_alive, discard_limit } = service;
    let requests = {
        let (client, stages) = (client.clone(), stages.clone());
        service_fn(move |request: hyper::Request<Incoming>| {
            client.request_came(request.version());
            let (mut request, unread) = Unread::watch(request);
            request.extensions_mut().insert(ConnectInfo(peer));
            let (router, client, stages) = (router.clone(), client.clone(), stages.clone());
            async move {
                let response = router.oneshot(request).await?;
                unread.discard(response.status(), discard_limit, stages).await;
                Ok::<_, Infallible>(client.answer(response))
            }
        })
    };
    let io = TokioIo::new(ClientIo(client.clone()));
    // `Watch` knows the times that a client may take, and that a client that sends no more may still read.
    let http = http1::Builder::new().half_close(true).keep_alive(keep_alive).serve_connection(io, requests);
    let mut http = pin!(http);
    let mut watch = pin!(Watch::new(client.clone()));
    client.set_stage(*stages.borrow_and_update());
    loop {
        tokio::select! {
            biased;
            result = http.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "a connection failed");
                }
                return;
            }
            end = watch.as_mut() => {
                tracing::debug!(%peer, ?end, "a connection was ended");
                return;
            }
            changed = stages.changed() => {
                let stage = *stages.borrow_and_update();
                client.set_stage(stage);
                if stage == Stage::Ending {
                    http.as_mut().graceful_shutdown();
                }
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
