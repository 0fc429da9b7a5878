//! What a route does, as `/openapi.json` tells it. Fields and answers are described by the types that read and write
//! them.
use crate::http::error::ErrorCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Makes the schema of a type.
pub type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// The media type of server-sent events.
pub const EVENTS: &str = "text/event-stream";

/// What a route does.
pub struct Operation {
    /// The method in lower case.
    pub method: &'static str,
    pub summary: &'static str,
    /// The types that read the body's fields, each a part of them; empty if the route takes no body.
    pub body: Vec<MakeSchema>,
    /// The fields without which a body is refused; null is the same as none.
    pub needed: Vec<&'static str>,
    /// Fields of which a body must have one and no more; empty if there are no such fields.
    pub alternatives: &'static [&'static str],
    /// The types that read the query's parameters.
    pub query: Vec<MakeSchema>,
    /// The forms of an answer with status 200: the media type, and the schema if it is JSON.
    pub answers: Vec<(&'static str, Option<MakeSchema>)>,
    /// What can go wrong, beside what can with every route.
    pub errors: Vec<ErrorCode>,
    /// The form of errors where it is not OpenAI's.
    pub error_form: Option<MakeSchema>,
}

/// What can be wrong with a body, whatever its fields.
const BODY_ERRORS: [ErrorCode; 5] = [
    ErrorCode::InvalidJson,
    ErrorCode::InvalidValue,
    ErrorCode::RequestTimeout,
    ErrorCode::RequestTooLarge,
    ErrorCode::UnsupportedEncoding,
];
/// What can go wrong with a route that asks the engine for an answer.
const ENGINE_ERRORS: [ErrorCode; 6] = [
    ErrorCode::UnsupportedParameter,
    ErrorCode::ContextLengthExceeded,
    ErrorCode::ModelNotFound,
    ErrorCode::QueueFull,
    ErrorCode::MemoryPressure,
    ErrorCode::StepFailed,
];

impl Operation {
    /// A route that is asked by GET, and by HEAD.
    pub fn get(summary: &'static str) -> Self {
        Operation {
            method: "get",
            summary,
            body: Vec::new(),
            needed: Vec::new(),
            alternatives: &[],
            query: Vec::new(),
            answers: Vec::new(),
            errors: Vec::new(),
            error_form: None,
        }
    }

    /// A route that is asked by DELETE.
    pub fn delete(summary: &'static str) -> Self {
        Operation { method: "delete", ..Operation::get(summary) }
    }

    /// A route that is asked by POST, with a body.
    pub fn post(summary: &'static str) -> Self {
        Operation { method: "post", errors: BODY_ERRORS.to_vec(), ..Operation::get(summary) }
    }

    /// The body has the fields of `T`, beside those of other types.
    pub fn fields<T: JsonSchema>(mut self) -> Self {
        self.body.push(T::json_schema);
        self
    }

    /// The body must have this field.
    pub fn needs(mut self, field: &'static str) -> Self {
        self.needed.push(field);
        self
    }

    /// The body must have one of these fields, and no more of them.
    pub fn needs_one_of(self, alternatives: &'static [&'static str]) -> Self {
        Operation { alternatives, ..self }
    }

    /// The query has the parameters of `T`.
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query.push(T::json_schema);
        self
    }

    /// The answer is JSON of the type `T`.
    pub fn answers<T: JsonSchema>(mut self) -> Self {
        self.answers.push(("application/json", Some(SchemaGenerator::subschema_for::<T>)));
        self
    }

    /// The answer can be a stream of events, which each are JSON of the type `T`.
    pub fn streams<T: JsonSchema>(mut self) -> Self {
        self.answers.push((EVENTS, Some(SchemaGenerator::subschema_for::<T>)));
        self
    }

    /// The answer is a text of this media type.
    pub fn answers_text(mut self, media_type: &'static str) -> Self {
        self.answers.push((media_type, None));
        self
    }

    /// The engine is asked for an answer.
    pub fn asks_engine(self) -> Self {
        self.fails(&ENGINE_ERRORS)
    }

    /// These errors are possible too.
    pub fn fails(mut self, errors: &[ErrorCode]) -> Self {
        self.errors.extend(errors);
        self
    }

    /// Errors are JSON of the type `T`.
    pub fn errors_as<T: JsonSchema>(mut self) -> Self {
        self.error_form = Some(SchemaGenerator::subschema_for::<T>);
        self
    }
}
