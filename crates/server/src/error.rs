//! Errors as clients see them: OpenAI's shape, and one table from code to status.
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{EngineError, RequestField, SubmitError};
use serde_json::{Value, json};
use text::TextError;
use thiserror::Error;

/// A row of the table.
struct Row {
    name: &'static str,
    status: StatusCode,
    kind: &'static str,
    /// Seconds after which to try again.
    retry_after: Option<u16>,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal, $status:ident, $kind:literal, $retry_after:expr;)*) => {
        /// What a client can act on. The table in this file gives each its name on the wire, HTTP status and error type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode { $($(#[$doc])* $code,)* }

        impl ErrorCode {
            /// All codes, in the table's order.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$code),*];

            const fn row(self) -> Row {
                match self {
                    $(ErrorCode::$code => Row {
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
    ContextLengthExceeded = "context_length_exceeded", BAD_REQUEST, "invalid_request_error", None;
    InvalidApiKey = "invalid_api_key", UNAUTHORIZED, "authentication_error", None;
    ModelNotFound = "model_not_found", NOT_FOUND, "invalid_request_error", None;
    NotFound = "not_found", NOT_FOUND, "invalid_request_error", None;
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "invalid_request_error", None;
    RequestTooLarge = "request_too_large", PAYLOAD_TOO_LARGE, "invalid_request_error", None;
    /// The model's chat template is missing or fails.
    InvalidTemplate = "invalid_template", UNPROCESSABLE_ENTITY, "invalid_request_error", None;
    QueueFull = "queue_full", TOO_MANY_REQUESTS, "rate_limit_error", Some(1);
    ModelLoading = "model_loading", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(5);
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE, "service_unavailable_error", Some(30);
    /// The engine failed at this request and lives on.
    StepFailed = "step_failed", INTERNAL_SERVER_ERROR, "server_error", None;
    Internal = "internal_error", INTERNAL_SERVER_ERROR, "server_error", None;
}

impl ErrorCode {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    pub fn status(self) -> StatusCode {
        self.row().status
    }
}

#[derive(Debug, Clone, Error)]
#[error("{}: {message}", code.name())]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    param: Option<String>,
    /// Fields beside OpenAI's.
    details: Vec<(&'static str, Value)>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), param: None, details: Vec::new() }
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

    /// The engine refused a request. `name` gives the name that a field of it has for the client.
    pub(crate) fn refused(error: SubmitError, name: impl Fn(RequestField) -> &'static str) -> Self {
        match error {
            SubmitError::ContextLengthExceeded { n_prompt_tokens, n_ctx } => ApiError {
                details: vec![("n_prompt_tokens", n_prompt_tokens.into()), ("n_ctx", n_ctx.into())],
                ..ApiError::new(ErrorCode::ContextLengthExceeded, error.to_string()).at(name(RequestField::Prompt))
            },
            SubmitError::Invalid { field, problem } => {
                ApiError::invalid(name(field), format!("{} {problem}", name(field)))
            }
            SubmitError::QueueFull { .. } => ApiError::new(ErrorCode::QueueFull, error.to_string()),
            SubmitError::ShuttingDown => ApiError::new(ErrorCode::ShuttingDown, error.to_string()),
        }
    }

    pub fn to_json(&self) -> Value {
        let row = self.code.row();
        let mut error = json!({"message": self.message, "type": row.kind, "param": self.param, "code": row.name});
        if let Value::Object(error) = &mut error {
            error.extend(self.details.iter().map(|(name, value)| (name.to_string(), value.clone())));
        }
        json!({"error": error})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let row = self.code.row();
        if row.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(code = row.name, message = %self.message, "request failed");
        }
        let mut response = (row.status, Json(self.to_json())).into_response();
        if let Some(seconds) = row.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if row.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused(refusal) => ApiError::refused(refusal, RequestField::name),
            EngineError::StepFailed(_) => ApiError::new(ErrorCode::StepFailed, error.to_string()),
            EngineError::ShutDown => ApiError::new(ErrorCode::ShuttingDown, error.to_string()),
        }
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        let message = error.to_string();
        match error {
            TextError::Message { field, .. } => ApiError::invalid(field, message),
            // The template judged the messages, as by a schema.
            TextError::Raised(_) => ApiError::invalid("messages", message),
            TextError::Encode(_) => ApiError::invalid("prompt", message),
            TextError::Render(_) | TextError::Template { .. } => ApiError::new(ErrorCode::InvalidTemplate, message),
            TextError::Read { .. } | TextError::Parse { .. } | TextError::Field { .. } => {
                ApiError::new(ErrorCode::Internal, message)
            }
        }
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        ApiError::new(ErrorCode::Internal, format!("a task of this request failed: {error}"))
    }
}
