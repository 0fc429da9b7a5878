//! Errors as clients see them, in OpenAI's form unless their protocol has another, and the one table that gives each
//! its status.
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{EngineError, RequestField, SubmitError};
use serde_json::{Value, json};
use text::TextError;
use thiserror::Error;

/// How an [`ErrorCode`] is sent.
struct OnTheWire {
    /// OpenAI's `code`.
    name: &'static str,
    status: StatusCode,
    /// OpenAI's `type`.
    kind: &'static str,
    /// Seconds after which the client may try again.
    retry_after: Option<u16>,
}

macro_rules! error_codes {
    ($(#[doc = $doc:literal] $code:ident = $name:literal, $status:ident, $kind:literal, $retry_after:expr;)*) => {
        /// The kinds of errors that clients can tell apart. The table in this file gives each its name, HTTP status and
        /// type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode { $(#[doc = $doc] $code,)* }

        impl ErrorCode {
            #[cfg(test)]
            const ALL: &[ErrorCode] = &[$(ErrorCode::$code),*];

            /// What has happened, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$code => $doc.trim_ascii(),)* }
            }

            const fn on_the_wire(self) -> OnTheWire {
                match self {
                    $(ErrorCode::$code => OnTheWire {
                        name: $name, status: StatusCode::$status, kind: $kind, retry_after: $retry_after,
                    },)*
                }
            }
        }
    };
}

error_codes! {
    /// The body is not JSON, or not an object.
    InvalidJson = "invalid_json", BAD_REQUEST, "invalid_request_error", None;
    /// A field has a wrong type or a value out of range.
    InvalidValue = "invalid_value", BAD_REQUEST, "invalid_request_error", None;
    /// A field asks for what this server does not do.
    UnsupportedParameter = "unsupported_parameter", BAD_REQUEST, "invalid_request_error", None;
    /// The prompt leaves no place in the model's context for an answer, or is longer than the context.
    ContextLengthExceeded = "context_length_exceeded", BAD_REQUEST, "invalid_request_error", None;
    /// The API key is wrong or missing.
    InvalidApiKey = "invalid_api_key", UNAUTHORIZED, "authentication_error", None;
    /// The request comes by a name that is not the server's, or from a web page or a machine that may not send it.
    NotAllowed = "not_allowed", FORBIDDEN, "permission_error", None;
    /// The request asks for a model that is not served here.
    ModelNotFound = "model_not_found", NOT_FOUND, "invalid_request_error", None;
    /// The request names a response that is not stored.
    ResponseNotFound = "response_not_found", NOT_FOUND, "invalid_request_error", None;
    /// No route has this path.
    NotFound = "not_found", NOT_FOUND, "invalid_request_error", None;
    /// The path is known, but not with this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "invalid_request_error", None;
    /// The body took longer to come than it may.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "invalid_request_error", None;
    /// The body is larger than the configured limit.
    RequestTooLarge = "request_too_large", PAYLOAD_TOO_LARGE, "invalid_request_error", None;
    /// The body is encoded in a way that is not known here.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", None;
    /// The model's chat template is missing or fails.
    InvalidTemplate = "invalid_template", UNPROCESSABLE_ENTITY, "invalid_request_error", None;
    /// A schema or a grammar is wrong, or asks for what cannot be held.
    InvalidSchema = "invalid_schema", UNPROCESSABLE_ENTITY, "invalid_request_error", None;
    /// As many requests wait as may.
    QueueFull = "queue_full", TOO_MANY_REQUESTS, "rate_limit_error", Some(1);
    /// The server has started and the model is still being loaded.
    ModelLoading = "model_loading", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(5);
    /// The model is not loaded, and what is asked for is no reason to load it.
    ModelNotLoaded = "model_not_loaded", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(5);
    /// As many requests wait for a model to be loaded as may, or one has waited as long as it may.
    LoadQueueFull = "load_queue_full", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(5);
    /// The model's process could not be started, or has ended by itself several times.
    ModelFailed = "model_failed", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(5);
    /// As many connections have answers in work as may.
    TooManyConnections = "too_many_connections", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(1);
    /// As many sequences run as can.
    NoSlot = "no_slot", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(1);
    /// The machine is critically short of memory.
    MemoryPressure = "memory_pressure", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(5);
    /// The server is shutting down.
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(30);
    /// The engine has ended by itself, and the server is about to.
    EngineEnded = "engine_ended", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(30);
    /// The step that served the request failed; the engine lives on.
    StepFailed = "step_failed", INTERNAL_SERVER_ERROR, "server_error", None;
    /// The model's process ended before its answer did; the next request starts another.
    ModelEnded = "model_ended", BAD_GATEWAY, "server_error", Some(1);
    /// The model needs more memory than there is for models, also where it is the only one.
    ModelTooLarge = "model_too_large", INSUFFICIENT_STORAGE, "server_error", None;
    /// The server has a fault.
    Internal = "internal_error", INTERNAL_SERVER_ERROR, "server_error", None;
}

impl ErrorCode {
    /// OpenAI's `code`.
    pub fn name(self) -> &'static str {
        self.on_the_wire().name
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.on_the_wire().status
    }
}

/// An error as it is sent.
#[derive(Debug, Clone, Error)]
#[error("{}: {message}", code.on_the_wire().name)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    param: Option<String>,
    /// Seconds after which the client may try again, where the table's are not right.
    retry_after: Option<u16>,
    /// Fields of the error object beside OpenAI's.
    details: Vec<(&'static str, Value)>,
}

impl ApiError {
    /// An error of this kind. The message says what is wrong and what is allowed.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), param: None, retry_after: None, details: Vec::new() }
    }

    /// A field's value is wrong; `message` says what is allowed.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::InvalidValue, message).at(param)
    }

    /// Names the request's field that the error is about.
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Tells the client to try again after this many seconds.
    pub fn retry_after(mut self, seconds: u16) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The engine refused a request. `name` gives the name that a field of it has for the client.
    pub(crate) fn refused(error: SubmitError, name: impl Fn(RequestField) -> &'static str) -> Self {
        match error {
            SubmitError::ContextLengthExceeded { n_prompt_tokens, n_ctx, .. } => ApiError {
                details: vec![("n_prompt_tokens", n_prompt_tokens.into()), ("n_ctx", n_ctx.into())],
                ..ApiError::new(ErrorCode::ContextLengthExceeded, error.to_string()).at(name(RequestField::Prompt))
            },
            SubmitError::Invalid { field, problem } => {
                ApiError::invalid(name(field), format!("{} {problem}", name(field)))
            }
            SubmitError::Unsupported { field, problem } => {
                let message = format!("{} {problem}", name(field));
                ApiError::new(ErrorCode::UnsupportedParameter, message).at(name(field))
            }
            SubmitError::QueueFull { .. } => ApiError::new(ErrorCode::QueueFull, error.to_string()),
            SubmitError::MemoryPressure => ApiError::new(ErrorCode::MemoryPressure, error.to_string()),
            SubmitError::ShuttingDown => ApiError::new(ErrorCode::ShuttingDown, error.to_string()),
        }
    }

    /// The prompt could not be made of the field `param`.
    pub(crate) fn from_text(error: TextError, param: &str) -> Self {
        let message = error.to_string();
        match error {
            TextError::Messages { path, .. } if path.starts_with(param) => ApiError::invalid(path, message),
            // The messages were made of another field.
            TextError::Messages { .. } => ApiError::invalid(param, message),
            // A template that refuses messages judges them as a schema would.
            TextError::Raised(_) | TextError::Encode(_) => ApiError::invalid(param, message),
            TextError::Render(_) | TextError::Template { .. } => ApiError::new(ErrorCode::InvalidTemplate, message),
            TextError::Read { .. } | TextError::Parse { .. } | TextError::Field { .. } => {
                ApiError::new(ErrorCode::Internal, message)
            }
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.on_the_wire().status
    }

    /// What is wrong and what is allowed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The kind of error.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The error object in OpenAI's form.
    pub fn to_json(&self) -> Value {
        let wire = self.code.on_the_wire();
        let mut error = json!({"message": self.message, "type": wire.kind, "param": self.param, "code": wire.name});
        if let Value::Object(error) = &mut error {
            error.extend(self.details.iter().map(|(name, value)| (name.to_string(), value.clone())));
        }
        json!({"error": error})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let wire = self.code.on_the_wire();
        if wire.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(code = wire.name, message = %self.message, "request failed");
        } else if wire.status.is_client_error() {
            // Whoever looks for the fault of a client finds here what it was told. A message may quote a long value.
            let status = wire.status.as_u16();
            tracing::info!(target: "request", status, code = wire.name, "refused: {:.400}", self.message);
        }
        let mut response = (wire.status, Json(self.to_json())).into_response();
        if let Some(seconds) = self.retry_after.or(wire.retry_after) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if wire.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        }
        if wire.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // A protocol with another form finds here what it has to say.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused(refusal) => ApiError::refused(refusal, RequestField::name),
            EngineError::StepFailed(_) => ApiError::new(ErrorCode::StepFailed, error.to_string()),
            EngineError::ConstraintFailed(_) => ApiError::new(ErrorCode::InvalidSchema, error.to_string()),
            EngineError::ShutDown => ApiError::new(ErrorCode::ShuttingDown, error.to_string()),
        }
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        ApiError::new(ErrorCode::Internal, format!("a task of this request failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_an_error_status() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.on_the_wire().name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        let statuses = ErrorCode::ALL.iter().map(|code| code.on_the_wire().status);
        assert!(statuses.into_iter().all(|status| status.is_client_error() || status.is_server_error()));
    }

    #[test]
    fn a_request_that_the_scheduler_refuses_is_the_clients_fault_and_names_its_field() {
        let refusal = SubmitError::Invalid { field: RequestField::Choices, problem: "is 3; at most 2".into() };
        let error = ApiError::from(EngineError::Refused(refusal));
        assert_eq!(error.code, ErrorCode::InvalidValue);
        assert_eq!((error.param.as_deref(), error.message.as_str()), (Some("n"), "n is 3; at most 2"));
    }
}
