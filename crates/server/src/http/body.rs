//! Request bodies: read within the limit, parsed as JSON, and read field by field.
use crate::http::encoding::{ContentCoding, utf8_text};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::ids::HttpRequestId;
use crate::http::state::{ServerState, Stage};
use crate::http::strict_value::StrictValue;
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_ignored::Path;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// A JSON object that came as a request's body.
pub struct JsonRequest {
    /// The object; [`FieldReader`] reads it.
    pub object: Value,
    /// The client that sent it.
    pub peer: Peer,
}

/// The client of a request, as far as it is known.
pub struct Peer {
    /// Its address.
    pub address: Option<String>,
    /// The id that its request has.
    pub request_id: HttpRequestId,
}

impl FromRequest<ServerState> for JsonRequest {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        let extensions = request.extensions();
        let address = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_string());
        let request_id = extensions.get().cloned().unwrap_or_else(|| state.ids().of(request.headers()));
        let peer = Peer { address, request_id };
        let coding = ContentCoding::named_in(request.headers())?;
        let limit = state.config().max_body_bytes;
        let bytes = unpack(coding, read_in_time(request, state).await?, limit)?;
        let object: Value = parse(&bytes)?;
        if !object.is_object() {
            return Err(no_object());
        }
        Ok(JsonRequest { object, peer })
    }
}

/// A JSON object that came as a request's body, for a server that hands it on: the body as it came, and which model it
/// names.
pub struct UnreadRequest {
    pub bytes: Vec<u8>,
    /// The value of `model`; `None` if it is null or missing.
    pub model: Option<Value>,
}

impl UnreadRequest {
    /// Reads a body.
    ///
    /// Errors: what is refused of any JSON body, whatever its fields.
    pub async fn read(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        let coding = ContentCoding::named_in(request.headers())?;
        let bytes = read_in_time(request, state).await?;
        let text = match coding {
            ContentCoding::Identity => Cow::Borrowed(&bytes),
            _ => Cow::Owned(unpack(coding, bytes.clone(), state.config().max_body_bytes)?),
        };
        let ModelField(model) = parse(&text)?;
        Ok(UnreadRequest { model: Some(model).filter(|model| !model.is_null()), bytes })
    }
}

/// The field `model` of an object, null if it is missing. All else is passed over. Of several such fields the last one
/// counts, as it does for [`JsonRequest`].
struct ModelField(Value);

impl<'de> Deserialize<'de> for ModelField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ModelField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<ModelField, A::Error> {
                let mut model = Value::Null;
                while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                    if name == "model" {
                        model = fields.next_value()?;
                    } else {
                        fields.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(ModelField(model))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn unpack(coding: ContentCoding, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, ApiError> {
    let bytes = coding.unpack(bytes, limit)?;
    if bytes.len() > limit {
        return Err(too_large(limit));
    }
    Ok(bytes)
}

/// Errors: [`ErrorCode::InvalidJson`]. The types that are parsed take any object, so whatever is of a wrong type is no
/// object.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_str(utf8_text(bytes)?).map_err(|e| match e.is_data() {
        true => no_object(),
        false => ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON: {e}")),
    })
}

fn no_object() -> ApiError {
    ApiError::new(ErrorCode::InvalidJson, "the body must be a JSON object")
}

/// A body may take this multiple of the time after which a pause in it is too long.
const WHOLE_BODY_FACTOR: u32 = 10;

/// The body's bytes.
///
/// Errors: those of [`read_limited`], a body that takes too long, the server's end.
async fn read_in_time(request: Request, state: &ServerState) -> Result<Vec<u8>, ApiError> {
    let (limit, pause) = (state.config().max_body_bytes, state.config().read_timeout);
    let mut stages = state.stages();
    let ending = async {
        // An error would mean that the sender is gone, but this state holds it.
        let _ = stages.wait_for(|stage| *stage == Stage::Ending).await;
    };
    tokio::select! {
        bytes = read_limited(request, limit, pause) => bytes,
        () = tokio::time::sleep(pause * WHOLE_BODY_FACTOR) => Err(too_slow(pause * WHOLE_BODY_FACTOR)),
        () = ending => Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down")),
    }
}

/// The body's bytes.
///
/// Errors: a body of more than `limit` bytes or with a longer pause than `pause`, a connection that breaks.
async fn read_limited(request: Request, limit: usize, pause: Duration) -> Result<Vec<u8>, ApiError> {
    let (parts, body) = request.into_parts();
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
    if length > limit {
        return Err(too_large(limit));
    }
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::with_capacity(length);
    while let Some(piece) = timeout(pause, pieces.next()).await.map_err(|_| too_slow(pause))? {
        let piece =
            piece.map_err(|e| ApiError::new(ErrorCode::InvalidJson, format!("the body cannot be read: {e}")))?;
        if bytes.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body is larger than {limit} bytes, the most that this server takes");
    ApiError::new(ErrorCode::RequestTooLarge, message)
}

fn too_slow(limit: Duration) -> ApiError {
    let message = format!("the body did not come within {} s", limit.as_secs_f32());
    ApiError::new(ErrorCode::RequestTimeout, message)
}

/// Typed views of one JSON object. Several small views take the place of serde's `flatten`, which loses the path of a
/// wrong field.
pub struct FieldReader<'a> {
    object: &'a Value,
    /// Fields that no view so far has read; `None` before the first view.
    unread: Option<BTreeSet<String>>,
}

impl<'a> FieldReader<'a> {
    pub fn new(object: &'a Value) -> Self {
        FieldReader { object, unread: None }
    }

    /// A field's value; `None` if the field is null or missing.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// Reads the fields of `T`.
    ///
    /// Errors: [`ErrorCode::InvalidValue`] with the path of the first field that has a wrong type.
    pub fn view<T: Deserialize<'a>>(&mut self) -> Result<T, ApiError> {
        let mut ignored = BTreeSet::new();
        // One type of closure for all views, since each type of deserializers that they are compiled for is much code.
        let mut note: &mut dyn FnMut(Path<'_>) = &mut |path| {
            if let Path::Map { parent: Path::Root, key } = path {
                ignored.insert(key);
            }
        };
        let deserializer = serde_ignored::Deserializer::new(StrictValue(self.object), &mut note);
        let view = serde_path_to_error::deserialize(deserializer).map_err(|e| {
            let path = e.path().to_string();
            let message = format!("{path}: {}", in_json_terms(e.into_inner().to_string()));
            ApiError::invalid(path, message)
        })?;
        self.unread = Some(match self.unread.take() {
            None => ignored,
            Some(unread) => unread.intersection(&ignored).cloned().collect(),
        });
        Ok(view)
    }

    /// Logs the fields that no view has read, once each. `path` is the endpoint's.
    pub fn log_unread(self, state: &ServerState, path: &str) {
        state.unknown_fields().log(path, self.unread.unwrap_or_default());
    }
}

/// A message of serde without Rust's names for the types of numbers.
fn in_json_terms(message: String) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("expected usize", "expected an integer of at least 0"),
        ("expected u32", "expected an integer of at least 0"),
        ("expected i64", "expected an integer"),
        ("expected f32", "expected a number"),
    ];
    NAMES.iter().fold(message, |message, (rust, json)| message.replace(rust, json))
}
