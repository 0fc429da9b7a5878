//! The client of models' processes.
use axum::body::{Body, Bytes};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use axum::response::Response;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use server::RelayedRequest;
use std::error::Error as _;
use std::io::{self, ErrorKind};

/// Whether nobody listens at the process's address any more.
pub fn is_refused(error: &Error) -> bool {
    let causes = std::iter::successors(error.source(), |cause| <dyn std::error::Error>::source(*cause));
    let kind = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).next();
    let gone = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset];
    error.is_connect() && kind.is_some_and(|kind| gone.contains(&kind))
}

/// Where a model's process listens, and the key that it asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcessAddress {
    /// Host and port.
    pub authority: String,
    pub key: String,
}

/// Sends requests to models' processes, each on a connection of its own. On one that had been used before, a request
/// could be lost to a process that has ended meanwhile, without a sign of whether it had begun to answer.
pub struct ModelClient(Client<HttpConnector, Full<Bytes>>);

impl ModelClient {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        ModelClient(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }

    /// Hands on a request. Dropping the answer, or this call, closes the connection, by which the process sees that
    /// the client has left.
    ///
    /// Errors: no connection ([`Error::is_connect`]), or one that ends before the answer begins.
    pub async fn send(&self, address: &ProcessAddress, request: &RelayedRequest) -> Result<Response, Error> {
        let RelayedRequest { method, path, headers, body, .. } = request;
        self.ask(address, method.clone(), path, headers.clone(), body.clone()).await
    }

    /// Returns a process's answer at a path, if its status is 200.
    pub async fn text(&self, address: &ProcessAddress, path: &str) -> Option<String> {
        let answer = self.ask(address, Method::GET, path, HeaderMap::new(), Bytes::new()).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let bytes = answer.into_body().collect().await.ok()?.to_bytes();
        String::from_utf8(bytes.into()).ok()
    }

    /// Returns a process's answer at `/v1/models`; null if it gives none.
    pub async fn models(&self, address: &ProcessAddress) -> Value {
        let text = self.text(address, "/v1/models").await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn ask(
        &self,
        address: &ProcessAddress,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // The path is one that was read before, and the key is of letters and digits.
        *request.uri_mut() = format!("http://{}{path}", address.authority).parse().unwrap_or_default();
        *request.headers_mut() = headers;
        if let Ok(key) = HeaderValue::try_from(format!("Bearer {}", address.key)) {
            request.headers_mut().insert(AUTHORIZATION, key);
        }
        Ok(self.0.request(request).await?.map(Body::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// The error of a request to a listener that does as `serve` says.
    async fn error(serve: impl AsyncFnOnce(TcpListener)) -> Error {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ProcessAddress { authority: listener.local_addr().unwrap().to_string(), key: "k".into() };
        let client = ModelClient::new();
        let asked = client.ask(&address, Method::GET, "/", HeaderMap::new(), Bytes::new());
        tokio::join!(asked, serve(listener)).0.unwrap_err()
    }

    /// Only a request of which nothing was sent may be sent again.
    #[tokio::test]
    async fn a_connection_that_is_refused_is_told_from_one_that_breaks() {
        assert!(is_refused(&error(async |listener| drop(listener)).await));
        let broken = error(async |listener: TcpListener| {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
        });
        assert!(!is_refused(&broken.await));
    }
}
