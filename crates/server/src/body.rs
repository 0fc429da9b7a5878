//! Request bodies: read within the limit, parsed, and looked at field by field.
use crate::error::{ApiError, ErrorCode};
use crate::state::ServerState;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_ignored::Path;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// A JSON object that came as a request's body.
pub(crate) struct JsonRequest {
    pub object: Value,
    /// The client's address, if known.
    pub peer: Option<String>,
}

impl FromRequest<ServerState> for JsonRequest {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_string());
        let bytes = read_limited(request, state.config().max_body_bytes).await?;
        let object: Value = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON: {e}")))?;
        if !object.is_object() {
            return Err(ApiError::new(ErrorCode::InvalidJson, "the body must be a JSON object"));
        }
        Ok(JsonRequest { object, peer })
    }
}

/// How much of a body that is too large is read to its end, and for how long.
const DRAIN_FACTOR: usize = 16;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Most clients read the answer only after they have sent everything, and see a broken connection if they cannot. So the rest
/// of a body that is too large is read and dropped before the answer, unless the client asked first.
async fn read_limited(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes, the most that this server takes");
        ApiError::new(ErrorCode::RequestTooLarge, message)
    };
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let length = header(CONTENT_LENGTH).and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
    if length > limit && header(EXPECT).is_some() {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::with_capacity(length.min(limit));
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|e| ApiError::new(ErrorCode::InvalidJson, format!("the body cannot be read: {e}")))?;
        if bytes.len() + chunk.len() > limit {
            drain(Body::from_stream(chunks), limit.saturating_mul(DRAIN_FACTOR)).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn drain(body: Body, limit: usize) {
    let mut chunks = body.into_data_stream();
    let all = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            read += chunk.len();
            if read > limit {
                break;
            }
        }
    };
    // However it ends, the answer follows.
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}

/// Serde's messages without Rust's names for numbers.
fn plain(message: String) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("expected usize", "expected an integer of at least 0"),
        ("expected u32", "expected an integer of at least 0"),
        ("expected i64", "expected an integer"),
        ("expected f32", "expected a number"),
    ];
    NAMES.iter().fold(message, |message, (rust, plain)| message.replace(rust, plain))
}

/// Typed views of one JSON object. Several small views take the place of serde's `flatten`, which loses the place of an error.
pub(crate) struct Fields<'a> {
    object: &'a Value,
    /// Fields that no view so far has read.
    unread: Option<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub fn new(object: &'a Value) -> Self {
        Fields { object, unread: None }
    }

    /// Errors: [`ErrorCode::InvalidValue`] with the field's path.
    pub fn view<T: Deserialize<'a>>(&mut self) -> Result<T, ApiError> {
        let mut ignored = BTreeSet::new();
        let mut note = |path: Path<'_>| {
            if let Path::Map { parent: Path::Root, key } = path {
                ignored.insert(key);
            }
        };
        let view = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(self.object, &mut note)).map_err(
            |e| {
                let path = e.path().to_string();
                ApiError::invalid(path.clone(), format!("{path}: {}", plain(e.into_inner().to_string())))
            },
        )?;
        self.unread = Some(match self.unread.take() {
            None => ignored,
            Some(unread) => unread.intersection(&ignored).cloned().collect(),
        });
        Ok(view)
    }

    /// The fields that no view has read.
    pub fn unread(self) -> BTreeSet<String> {
        self.unread.unwrap_or_default()
    }
}
