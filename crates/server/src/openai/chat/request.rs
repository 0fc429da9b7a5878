//! `POST /v1/chat/completions`: an answer to a list of messages.
use super::answer::{ChatChoice, ChatChunkChoice, ChatFormat, ChatOptions};
use super::tools::ToolFields;
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::ServerState;
use crate::openai::answer::Envelope;
use crate::openai::delivery::respond;
use crate::openai::prompt::MessageFields;
use crate::openai::request::{Endpoint, PromptOptions, SharedFields};
use crate::openai::structure::StructureFields;
use crate::turn::{Thinking, Turn};
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

pub static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    id_prefix: "chatcmpl",
    prompt_field: MessageFields::FIELD,
    logprobs_field: "top_logprobs",
    unsupported: &[],
};

/// The fields that only this endpoint has, beside those of the messages.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct ChatFields {
    /// The log-probability of each token comes with the answer.
    logprobs: Option<bool>,
    /// As many of the most likely tokens come with each log-probability.
    top_logprobs: Option<usize>,
    /// The log-probabilities of the prompt's tokens come with the answer, each with as many of the most likely ones. It
    /// does not go with streams.
    prompt_logprobs: Option<usize>,
    /// The answer begins with the text of the last message, where the answer continues that.
    echo: Option<bool>,
    /// How much the model shall think, where its template knows that.
    reasoning_effort: Option<String>,
    /// The most tokens of a thought (Alibaba's name).
    thinking_budget: Option<usize>,
    /// The most tokens of a thought (vLLM's name).
    thinking_token_budget: Option<usize>,
    /// Whether the model thinks, where its template knows that (Alibaba's and SGLang's short form of the template's
    /// variable).
    enable_thinking: Option<bool>,
}

impl ChatFields {
    /// Alternatives to each token; `None` asks for no log-probabilities.
    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs: true")),
        }
    }
}

impl ChatFields {
    fn thinking(&self) -> Thinking {
        Thinking {
            effort: self.reasoning_effort.clone(),
            enabled: self.enable_thinking,
            budget: self.thinking_budget.or(self.thinking_token_budget),
        }
    }
}

pub fn operation() -> Operation {
    let own = Operation::post("Answers a conversation").fields::<MessageFields>().needs(MessageFields::FIELD);
    SharedFields::describe(own.fields::<ChatFields>())
        .fields::<ToolFields>()
        .fields::<StructureFields>()
        .answers::<Envelope<'static, ChatChoice>>()
        .streams::<Envelope<'static, ChatChunkChoice>>()
        .fails(&[ErrorCode::InvalidTemplate, ErrorCode::InvalidSchema])
}

pub async fn chat_completions(State(state): State<ServerState>, request: JsonRequest) -> Result<Response, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let shared = ENDPOINT.read_shared(&mut fields)?;
    let own: ChatFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    let tools: ToolFields = fields.view()?;
    let structure: StructureFields = fields.view()?;
    fields.log_unread(&state, ENDPOINT.path);

    let request = shared.resolve(&ENDPOINT, &state, served, request.peer)?;
    request.delivery.check_prompt_logprobs(own.prompt_logprobs)?;
    let form = ChatOptions {
        logprobs: own.logprobs()?.is_some(),
        prompt_logprobs: own.prompt_logprobs,
        echo: if own.echo.unwrap_or(false) { messages.begun_answer()? } else { String::new() },
    };
    let thinking = own.thinking();
    let turn = Turn { tools: tools.resolve()?, held_to: structure.resolve()?, thinking, ..messages.turn()? };
    let mut turn = turn.prepare(served, MessageFields::FIELD).await?;
    request.truncation.cut(&mut turn.prompt);
    let prompt = turn.prompt.clone();
    let options = PromptOptions {
        logprobs: own.logprobs()?,
        prompt_logprobs: own.prompt_logprobs,
        turn,
        ..PromptOptions::default()
    };
    let generation = request.submit(served, [prompt.clone()], &options)?;
    let delivery = request.delivery;
    respond(ChatFormat::new(request, prompt, form), generation, delivery).await
}
