//! `POST /v1/chat/completions`.
use super::chat_stream::ChatChunks;
use super::prompt::MessageFields;
use crate::body::{Fields, JsonRequest};
use crate::error::ApiError;
use crate::generation::{Answer, ChoiceAnswer, Generation, finish_reason};
use crate::params::{CommonFields, Delivery, SamplingFields, StopFields, refuse_unsupported};
use crate::sse;
use crate::state::{Loaded, ServerState};
use crate::tokens::TokenNames;
use crate::wire::{Choice, Head, stop_reason};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::{GenerationRequest, RequestField};
use openai_protocol::chat::{ChatChoice, ChatCompletionMessage};
use serde::Deserialize;

const PATH: &str = "/v1/chat/completions";

/// Unsupported here, but not in completions.
const UNSUPPORTED: &[(&str, &[&str])] = &[("echo", &["false"]), ("prompt_logprobs", &[])];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatFields {
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
}

impl ChatFields {
    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs: true")),
        }
    }
}

/// What of a request shapes its answer.
pub(super) struct ChatFormat {
    pub head: Head,
    pub names: TokenNames,
    pub n: usize,
    pub logprobs: bool,
    /// The prompt's ids, if token ids shall be returned.
    pub prompt_ids: Option<Vec<u32>>,
}

pub(super) async fn chat_completions(
    State(state): State<ServerState>,
    request: JsonRequest,
) -> Result<Response, ApiError> {
    let loaded = state.loaded()?;
    refuse_unsupported(&request.object, UNSUPPORTED)?;
    let mut fields = Fields::new(&request.object);
    let common: CommonFields = fields.view()?;
    let sampling: SamplingFields = fields.view()?;
    let stop: StopFields = fields.view()?;
    let chat: ChatFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    state.note_unknown_fields(PATH, fields.unread());

    let head = head(&state, loaded, common.model.as_deref(), "chatcmpl")?;
    let delivery = common.delivery()?;
    let (n, logprobs) = (common.n.unwrap_or(1), chat.logprobs()?);
    let max_tokens_field = stop.max_tokens_field();
    let (sampling, stop) = (sampling.resolve(&loaded.engine.info().default_sampling)?, stop.resolve());
    let prompt = messages.encode(loaded).await?;
    let format = ChatFormat {
        names: TokenNames {
            tokenizer: loaded.engine.tokenizer().clone(),
            as_ids: common.return_tokens_as_token_ids.unwrap_or(false),
        },
        n,
        logprobs: logprobs.is_some(),
        prompt_ids: common.return_token_ids.unwrap_or(false).then(|| prompt.clone()),
        head,
    };
    let generation_request = GenerationRequest {
        id: format.head.id.clone(),
        client: common.user.or(request.peer).unwrap_or_default(),
        prompt,
        n,
        sampling,
        stop,
        logprobs,
        prompt_logprobs: None,
    };
    let name = |field| match field {
        RequestField::Prompt => "messages",
        RequestField::Logprobs => "top_logprobs",
        RequestField::MaxTokens => max_tokens_field,
        other => other.name(),
    };
    let generation = Generation::submit(loaded, vec![generation_request], false, name)?;
    match delivery {
        Delivery::Stream { include_usage } => Ok(sse::respond(generation, ChatChunks::new(format, include_usage))),
        Delivery::Whole => Ok(format.whole(generation.collect(1, n).await?)),
    }
}

/// The frame of a request's answers.
pub(super) fn head(state: &ServerState, loaded: &Loaded, model: Option<&str>, prefix: &str) -> Result<Head, ApiError> {
    let info = loaded.engine.info();
    Ok(Head {
        model: state.check_model(&loaded.engine, model)?,
        id: state.new_id(prefix),
        created: crate::wire::now(),
        // What, beside model and seed, decides the tokens.
        system_fingerprint: format!("tallow-{}-{}-{}", env!("CARGO_PKG_VERSION"), info.k_quant, info.v_quant),
    })
}

impl ChatFormat {
    fn whole(&self, answer: Answer) -> Response {
        let choices =
            answer.choices.into_iter().enumerate().map(|(index, choice)| self.choice(index, choice)).collect();
        let mut envelope = self.head.envelope("chat.completion", choices);
        envelope.usage = Some(Some(answer.tally.usage()));
        envelope.prompt_token_ids = self.prompt_ids.clone();
        Json(envelope).into_response()
    }

    fn choice(&self, index: usize, answer: ChoiceAnswer) -> Choice<ChatChoice> {
        let logprobs = self.logprobs.then(|| self.names.chat(&answer.logprobs));
        let message = ChatCompletionMessage {
            role: "assistant".into(),
            content: Some(answer.text),
            refusal: None,
            annotations: Vec::new(),
            tool_calls: None,
            reasoning_content: None,
        };
        let inner = ChatChoice {
            index: index as u32,
            message,
            logprobs,
            finish_reason: answer.reason.map(finish_reason),
            matched_stop: None,
            hidden_states: None,
        };
        Choice {
            inner,
            stop_reason: answer.matched_stop.as_ref().map(stop_reason),
            token_ids: self.prompt_ids.is_some().then_some(answer.tokens),
        }
    }
}
