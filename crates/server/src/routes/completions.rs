//! `POST /v1/completions`.
use super::chat::head;
use super::completion_stream::CompletionChunks;
use super::prompt::{Prompt, encode, parse_sources};
use crate::body::{Fields, JsonRequest};
use crate::completion_logprobs::{CompletionLogprobs, Placer, prompt_logprobs};
use crate::error::ApiError;
use crate::generation::{Answer, ChoiceAnswer, Generation, PromptLogprobs, finish_reason};
use crate::params::{CommonFields, Delivery, SamplingFields, StopFields, refuse_unsupported};
use crate::sse;
use crate::state::ServerState;
use crate::tokens::TokenNames;
use crate::wire::{Choice, Head, stop_reason};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::{GenerationRequest, RequestField};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const PATH: &str = "/v1/completions";

/// Unsupported here; in chat the word means nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[("suffix", &[r#""""#])];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionFields {
    prompt: Value,
    echo: Option<bool>,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    add_special_tokens: Option<bool>,
}

/// What of a request shapes its answer.
pub(super) struct CompletionFormat {
    pub head: Head,
    pub names: TokenNames,
    pub prompts: Vec<Prompt>,
    pub n: usize,
    pub echo: bool,
    pub logprobs: Option<usize>,
    pub prompt_logprobs: Option<usize>,
    pub token_ids: bool,
    pub skip_special: bool,
}

/// OpenAI's form, with the ordered log-probabilities.
#[derive(Debug, Serialize)]
pub(super) struct CompletionChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<CompletionLogprobs>,
    pub finish_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

#[expect(clippy::too_many_lines, reason = "to be split")]
pub(super) async fn completions(State(state): State<ServerState>, request: JsonRequest) -> Result<Response, ApiError> {
    let loaded = state.loaded()?;
    refuse_unsupported(&request.object, UNSUPPORTED)?;
    let mut fields = Fields::new(&request.object);
    let common: CommonFields = fields.view()?;
    let sampling: SamplingFields = fields.view()?;
    let mut stop: StopFields = fields.view()?;
    let own: CompletionFields = fields.view()?;
    state.note_unknown_fields(PATH, fields.unread());

    let head = head(&state, loaded, common.model.as_deref(), "cmpl")?;
    let delivery = common.delivery()?;
    let (n, echo) = (common.n.unwrap_or(1), own.echo.unwrap_or(false));
    if own.prompt_logprobs.is_some() && delivery != Delivery::Whole {
        return Err(ApiError::invalid(
            "prompt_logprobs",
            "prompt_logprobs does not go with stream: true; use echo and logprobs",
        ));
    }
    // With `max_tokens: 0` an echo asks for the prompt's log-probabilities alone.
    let prompt_only = echo && stop.take_zero_max_tokens();
    let max_tokens_field = stop.max_tokens_field();
    let (sampling, stop) = (sampling.resolve(&loaded.engine.info().default_sampling)?, stop.resolve());
    if own.prompt.is_null() {
        return Err(ApiError::invalid("prompt", "prompt is missing; it must be a string or a list"));
    }
    let prompts = encode(&loaded.engine, parse_sources(&own.prompt)?, own.add_special_tokens.unwrap_or(true)).await?;
    let client = common.user.or(request.peer).unwrap_or_default();
    let for_echo = own.logprobs.filter(|_| echo);
    let generation_request = |prompt: &Prompt| GenerationRequest {
        id: head.id.clone(),
        client: client.clone(),
        prompt: prompt.ids.clone(),
        n,
        sampling: sampling.clone(),
        stop: stop.clone(),
        logprobs: own.logprobs,
        prompt_logprobs: own.prompt_logprobs.max(for_echo),
    };
    let requests = prompts.iter().map(generation_request).collect();
    let name = |field| match field {
        RequestField::MaxTokens => max_tokens_field,
        other => other.name(),
    };
    let generation = Generation::submit(loaded, requests, prompt_only, name)?;
    let format = CompletionFormat {
        names: TokenNames {
            tokenizer: loaded.engine.tokenizer().clone(),
            as_ids: common.return_tokens_as_token_ids.unwrap_or(false),
        },
        head,
        prompts,
        n,
        echo,
        logprobs: own.logprobs,
        prompt_logprobs: own.prompt_logprobs,
        token_ids: common.return_token_ids.unwrap_or(false),
        skip_special: !stop.keep_special_tokens,
    };
    match delivery {
        Delivery::Stream { include_usage } => {
            Ok(sse::respond(generation, CompletionChunks::new(format, include_usage)))
        }
        Delivery::Whole => Ok(format.whole(generation.collect(format.prompts.len(), n).await?)),
    }
}

impl CompletionFormat {
    fn whole(&self, answer: Answer) -> Response {
        let choices = answer.choices.into_iter().enumerate().map(|(index, choice)| {
            self.choice(index, choice, &self.prompts[index / self.n], &answer.prompts[index / self.n])
        });
        let mut envelope = self.head.envelope("text_completion", choices.collect());
        envelope.usage = Some(Some(answer.tally.usage()));
        Json(envelope).into_response()
    }

    fn choice(
        &self,
        index: usize,
        answer: ChoiceAnswer,
        prompt: &Prompt,
        entries: &PromptLogprobs,
    ) -> Choice<CompletionChoice> {
        let logprobs = self.logprobs.map(|_| {
            let mut placer = self.placer();
            let mut logprobs = if self.echo {
                placer.prompt(&prompt.ids, prompt.hidden, entries)
            } else {
                CompletionLogprobs::default()
            };
            answer.logprobs.iter().for_each(|entry| placer.token(&mut logprobs, entry));
            logprobs
        });
        let text = if self.echo { prompt.text.clone() + &answer.text } else { answer.text };
        let inner = CompletionChoice {
            index,
            text,
            logprobs,
            finish_reason: answer.reason.map(finish_reason),
            prompt_logprobs: self.prompt_logprobs.map(|most| prompt_logprobs(&self.names, entries, most)),
            prompt_token_ids: self.token_ids.then(|| prompt.ids.clone()),
        };
        Choice {
            inner,
            stop_reason: answer.matched_stop.as_ref().map(stop_reason),
            token_ids: self.token_ids.then_some(answer.tokens),
        }
    }

    pub fn placer(&self) -> Placer {
        Placer::new(self.names.clone(), self.logprobs.unwrap_or(0), self.skip_special)
    }
}
