//! `POST /v1/chat/completions`: an answer to a list of messages.
use super::answer::{ChatFormat, ChatOptions};
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::ApiError;
use crate::http::state::ServerState;
use crate::openai::delivery::respond;
use crate::openai::prompt::MessageFields;
use crate::openai::request::{Endpoint, PromptOptions};
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use text::PromptEnd;

pub static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    id_prefix: "chatcmpl",
    prompt_field: MessageFields::FIELD,
    logprobs_field: "top_logprobs",
    unsupported: &[],
};

/// The fields that only this endpoint has, beside those of the messages.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatFields {
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    echo: Option<bool>,
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

pub async fn chat_completions(State(state): State<ServerState>, request: JsonRequest) -> Result<Response, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let shared = ENDPOINT.read_shared(&mut fields)?;
    let own: ChatFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    fields.log_unread(&state, ENDPOINT.path);

    let request = shared.resolve(&ENDPOINT, &state, served, request.peer)?;
    let begins_text = messages.end()? != PromptEnd::OpenMessage;
    request.delivery.check_prompt_logprobs(own.prompt_logprobs)?;
    let options = PromptOptions {
        logprobs: own.logprobs()?,
        prompt_logprobs: own.prompt_logprobs,
        begins_text,
        ..PromptOptions::default()
    };
    let form = ChatOptions {
        logprobs: options.logprobs.is_some(),
        prompt_logprobs: own.prompt_logprobs,
        echo: if own.echo.unwrap_or(false) { messages.begun_answer()? } else { String::new() },
    };
    let mut prompt = messages.encode(served).await?;
    request.truncation.cut(&mut prompt);
    let generation = request.submit(served, [prompt.clone()], &options)?;
    let delivery = request.delivery;
    respond(ChatFormat::new(request, prompt, form), generation, delivery).await
}
