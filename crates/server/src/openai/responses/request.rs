//! `POST /v1/responses`: an answer in OpenAI's newer protocol, whose input and output are lists of items.
use super::answer::{Keeping, ResponseWriter, send_stream, send_whole};
use super::events::ResponseEvent;
use super::input::{InputFold, items_of, type_of};
use super::object::{ResponseObject, ResponseState};
use super::store::ResponseStore;
use super::stored::not_stored;
use super::tools::{OfferedTools, ResponseToolFields};
use super::writer::ItemWriter;
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::ServerState;
use crate::openai::delivery::Delivery;
use crate::openai::request::{AnswerRequest, Endpoint, PromptOptions, SharedFields};
use crate::turn::{HeldTo, Thinking, Turn};
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use text::Grammar;

pub static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/responses",
    id_prefix: "resp",
    prompt_field: INPUT,
    logprobs_field: "top_logprobs",
    unsupported: &[
        ("background", &["false"]),
        ("conversation", &[]),
        ("prompt", &[]),
        ("truncation", &[r#""disabled""#]),
        ("context_management", &["[]"]),
        ("n", &["1"]),
    ],
};

/// The field that errors of the input are about.
const INPUT: &str = "input";
/// The value of `include` that asks for log-probabilities.
const INCLUDE_LOGPROBS: &str = "message.output_text.logprobs";

/// The fields that only this endpoint has, beside those of tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct ResponseFields {
    /// A text, or a list of items.
    input: Option<Value>,
    /// The system's message before all others.
    instructions: Option<String>,
    /// The response that this one goes on from.
    previous_response_id: Option<String>,
    /// False keeps nothing for later requests.
    store: Option<bool>,
    /// Tokens of the answer at most, its thoughts included.
    max_output_tokens: Option<usize>,
    /// It has no effect, since tools are run by clients alone.
    max_tool_calls: Option<usize>,
    /// The form of the text.
    text: Option<TextFields>,
    /// How the model thinks, and how its thoughts are sent.
    reasoning: Option<ReasoningFields>,
    /// `message.output_text.logprobs` asks for log-probabilities; other values have no effect.
    include: Option<Vec<String>>,
    /// Alternatives to each token of the text, with log-probabilities.
    top_logprobs: Option<usize>,
    /// The response repeats it.
    metadata: Option<Map<String, Value>>,
    /// The response repeats it.
    service_tier: Option<String>,
    /// The client, where neither `user` nor `safety_identifier` names it.
    prompt_cache_key: Option<String>,
    /// The client, where `user` does not name it.
    safety_identifier: Option<String>,
    /// The client whose request it is: the queue is fair between clients.
    user: Option<String>,
    /// The chat template's own variables.
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// The form of the text.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, expecting = "an object")]
struct TextFields {
    /// `text`, `json_object`, or `json_schema` with a schema.
    format: Option<Value>,
    /// It has no effect.
    verbosity: Option<String>,
}

/// Whether and how the model thinks, and how its thoughts are sent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, expecting = "an object")]
struct ReasoningFields {
    /// How hard the model is to think; `none` turns thoughts off.
    effort: Option<String>,
    /// Any way but `none` sends thoughts as summaries.
    summary: Option<String>,
    /// The older name of it.
    generate_summary: Option<String>,
}

impl TextFields {
    /// What the text is held to; `None` leaves it free.
    ///
    /// Errors: a form that is not known, a schema that is none.
    fn held_to(&self) -> Result<Option<HeldTo>, ApiError> {
        const FIELD: &str = "text.format";
        let held = |grammar| Ok(Some(HeldTo { grammar, field: FIELD }));
        let Some(format) = self.format.as_ref().filter(|format| !format.is_null()) else { return Ok(None) };
        match format.get("type").and_then(Value::as_str) {
            Some("text") => Ok(None),
            Some("json_object") => held(Grammar::json_object()),
            Some("json_schema") => match format.get("schema") {
                Some(schema @ (Value::Object(_) | Value::Bool(_))) => held(Grammar::Json(schema.clone())),
                other => {
                    let path = format!("{FIELD}.schema");
                    let message = format!("{path} is {}; it must be a JSON schema", other.unwrap_or(&Value::Null));
                    Err(ApiError::invalid(path, message))
                }
            },
            _ => {
                let path = format!("{FIELD}.type");
                let kind = format.get("type").unwrap_or(&Value::Null);
                let message = format!("{path} is {kind}; it must be text, json_object or json_schema");
                Err(ApiError::invalid(path, message))
            }
        }
    }
}

impl ResponseFields {
    /// Alternatives to each token; `None` asks for no log-probabilities.
    fn logprobs(&self) -> Option<usize> {
        let asked = self.include.iter().flatten().any(|value| value == INCLUDE_LOGPROBS);
        (asked || self.top_logprobs.is_some_and(|top| top > 0)).then(|| self.top_logprobs.unwrap_or(0))
    }

    /// The way in which summaries are asked for, if they are.
    fn summary(&self) -> Option<&str> {
        let reasoning = self.reasoning.as_ref()?;
        reasoning.summary.as_deref().or(reasoning.generate_summary.as_deref()).filter(|way| *way != "none")
    }

    fn effort(&self) -> Option<String> {
        self.reasoning.as_ref()?.effort.clone()
    }

    /// Reads the input: its items, references resolved and each with an id, and the messages of the conversation, the
    /// responses included that it goes on from.
    ///
    /// Errors: a response or item that is not stored, an item that is wrong, with its path.
    fn read_input(&self, store: &ResponseStore, unique: &str) -> Result<(Vec<Value>, InputFold), ApiError> {
        let mut messages = InputFold::default();
        if let Some(instructions) = self.instructions.as_deref().filter(|text| !text.is_empty()) {
            messages.instruct(instructions);
        }
        if let Some(previous) = self.previous_response_id.as_deref() {
            let missing =
                |id: String| not_stored("previous_response_id needs the response", &id).at("previous_response_id");
            for stored in store.chain(previous).map_err(missing)? {
                for item in stored.items() {
                    messages.take(item, "previous_response_id")?;
                }
            }
        } else if self.input.is_none() {
            return Err(ApiError::invalid(INPUT, "input is missing; it must be a text or a list of items"));
        }
        let mut items = items_of(self.input.as_ref())?;
        for (i, item) in items.iter_mut().enumerate() {
            let path = format!("{INPUT}[{i}]");
            if type_of(item, &path)? == "item_reference" {
                *item = referred(item, store, &path)?;
            }
            messages.take(item, &path)?;
            if let Value::Object(fields) = item {
                fields.entry("type").or_insert_with(|| "message".into());
                if fields.get("id").is_none_or(|id| !id.is_string()) {
                    fields.insert("id".into(), format!("item_{unique}{i:02x}").into());
                }
            }
        }
        Ok((items, messages))
    }
}

/// The item that another one refers to.
fn referred(item: &Value, store: &ResponseStore, path: &str) -> Result<Value, ApiError> {
    let path = format!("{path}.id");
    let id = item.get("id").and_then(Value::as_str);
    let id = id.ok_or_else(|| ApiError::invalid(path.clone(), format!("{path} must be the id of an item")))?;
    let missing = || {
        let message = format!("{path} is {id:?}; no stored response has an item with this id, so send the item itself");
        ApiError::new(ErrorCode::ResponseNotFound, message).at(path.clone())
    };
    store.item(id).ok_or_else(missing)
}

pub fn operation() -> Operation {
    let own = Operation::post("Answers items by items").fields::<ResponseFields>().fields::<ResponseToolFields>();
    SharedFields::describe(own).answers::<ResponseObject>().streams::<ResponseEvent>().fails(&[
        ErrorCode::ResponseNotFound,
        ErrorCode::InvalidTemplate,
        ErrorCode::InvalidSchema,
    ])
}

/// `POST /v1/responses`.
pub async fn responses(
    State(state): State<ServerState>,
    Extension(store): Extension<Arc<ResponseStore>>,
    request: JsonRequest,
) -> Result<Response, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let shared = ENDPOINT.read_shared(&mut fields)?;
    let own: ResponseFields = fields.view()?;
    let tools: ResponseToolFields = fields.view()?;
    fields.log_unread(&state, ENDPOINT.path);

    let unique = request.peer.request_id.unique().to_owned();
    let mut answer = shared.resolve(&ENDPOINT, &state, served, request.peer)?;
    answer.header.id = format!("resp_{unique}");
    if let Some(max_tokens) = own.max_output_tokens {
        answer.limit(max_tokens, "max_output_tokens");
    }
    let held_to = own.text.as_ref().map(TextFields::held_to).transpose()?.flatten();
    let OfferedTools { tools: tool_use, called, passed_over } = tools.resolve()?;
    let (input, messages) = own.read_input(&store, &unique)?;
    let passed_over = passed_over.into_iter().chain(messages.passed_over.iter().cloned());
    state.unknown_fields().log(ENDPOINT.path, passed_over.map(|kind| format!("type: {kind}")));

    let turn = Turn {
        messages: messages.finish(),
        tools: tool_use,
        kwargs: own.chat_template_kwargs.clone().unwrap_or_default(),
        held_to,
        thinking: Thinking { effort: own.effort(), ..Thinking::default() },
        ..Turn::default()
    };
    let turn = turn.prepare(served, INPUT).await?;
    let (logprobs, streams) = (own.logprobs(), answer.delivery != Delivery::Whole);
    let options = PromptOptions { logprobs, turn, ..PromptOptions::default() };
    let generation = answer.submit(served, [options.turn.prompt.clone()], &options);

    let keeping = own.store.unwrap_or(true).then_some(Keeping { store, input });
    let items = ItemWriter::new(unique, called, own.summary().is_some());
    let token_names = logprobs.map(|_| answer.token_names.clone());
    let writer = ResponseWriter::new(own.object(&tools, &answer), items, token_names, keeping);
    match generation {
        Ok(generation) if !streams => send_whole(writer, generation).await,
        // Agents look for a conversation that is too long in the stream alone.
        Err(error) if !streams || error.code() != ErrorCode::ContextLengthExceeded => Err(error),
        generation => Ok(send_stream(writer, generation).await),
    }
}

impl ResponseFields {
    /// The response before its answer.
    fn object(self, tools: &ResponseToolFields, answer: &AnswerRequest) -> ResponseObject {
        let reasoning = json!({"effort": self.effort(), "summary": self.summary()});
        let TextFields { format, verbosity } = self.text.unwrap_or_default();
        let format = format.filter(|format| !format.is_null()).unwrap_or_else(|| json!({"type": "text"}));
        let mut text = json!({"format": format});
        if let Some(verbosity) = verbosity {
            text["verbosity"] = verbosity.into();
        }
        ResponseObject {
            id: answer.header.id.clone(),
            object: "response",
            created_at: answer.header.created,
            completed_at: None,
            status: ResponseState::InProgress,
            background: false,
            error: None,
            incomplete_details: None,
            instructions: self.instructions,
            max_output_tokens: self.max_output_tokens,
            max_tool_calls: self.max_tool_calls,
            metadata: Value::Object(self.metadata.unwrap_or_default()),
            model: answer.header.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: tools.parallel_tool_calls.unwrap_or(true),
            previous_response_id: self.previous_response_id,
            prompt_cache_key: self.prompt_cache_key,
            reasoning,
            safety_identifier: self.safety_identifier,
            service_tier: self.service_tier,
            store: self.store.unwrap_or(true),
            temperature: answer.sampling.temperature,
            text,
            tool_choice: tools.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            tools: tools.tools.clone().unwrap_or_default(),
            top_logprobs: self.top_logprobs.unwrap_or(0),
            top_p: answer.sampling.top_p,
            truncation: "disabled",
            usage: None,
            user: self.user,
        }
    }
}
