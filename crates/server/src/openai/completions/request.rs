//! `POST /v1/completions`: a text that continues each prompt.
use super::answer::{CompletionFormat, CompletionOptions};
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::ApiError;
use crate::http::state::{ServedModel, ServerState};
use crate::openai::delivery::respond;
use crate::openai::infill::{Gap, encode_gaps, form};
use crate::openai::prompt::{Prompt, PromptSource, encode, parse_sources};
use crate::openai::request::{AnswerRequest, Endpoint, PromptOptions};
use crate::openai::structure::StructureFields;
use crate::turn::{HeldTo, PreparedTurn};
use axum::extract::State;
use axum::response::Response;
use engine::EngineHandle;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use text::AnswerConstraint;

pub static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/completions",
    id_prefix: "cmpl",
    prompt_field: "prompt",
    logprobs_field: "logprobs",
    unsupported: &[("continue_final_message", &["false"]), ("tools", &["[]"])],
};

/// The fields that only this endpoint has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionFields {
    prompt: Value,
    suffix: Option<String>,
    echo: Option<bool>,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    add_special_tokens: Option<bool>,
}

pub async fn completions(State(state): State<ServerState>, request: JsonRequest) -> Result<Response, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let shared = ENDPOINT.read_shared(&mut fields)?;
    let own: CompletionFields = fields.view()?;
    let structure: StructureFields = fields.view()?;
    fields.log_unread(&state, ENDPOINT.path);

    let mut request = shared.resolve(&ENDPOINT, &state, served, request.peer)?;
    request.delivery.check_prompt_logprobs(own.prompt_logprobs)?;
    if own.prompt.is_null() {
        return Err(ApiError::invalid("prompt", "prompt is missing; it must be a string or a list"));
    }
    let echo = own.echo.unwrap_or(false);
    // With `max_tokens: 0` an echo asks for the prompt's log-probabilities alone; the engine generates at least one
    // token.
    let prompt_only = echo && request.stop.max_tokens == Some(0);
    if prompt_only {
        request.stop.max_tokens = Some(1);
    }
    let sources = parse_sources(&own.prompt)?;
    let prompts = match own.suffix.filter(|suffix| !suffix.is_empty()) {
        Some(_) if echo => return Err(ApiError::invalid("suffix", "suffix does not go with echo: true")),
        Some(suffix) => with_suffix(&served.engine, sources, &suffix, &mut request).await?,
        None => {
            let mut prompts = encode(&served.engine, sources, own.add_special_tokens.unwrap_or(true)).await?;
            prompts.iter_mut().for_each(|prompt| request.truncation.cut_prompt(prompt, served.engine.tokenizer()));
            prompts
        }
    };
    let options = PromptOptions {
        logprobs: own.logprobs,
        prompt_logprobs: own.prompt_logprobs.max(own.logprobs.filter(|_| echo)),
        prompt_only,
        turn: PreparedTurn::of_text(held_to(served, structure.resolve()?).await?),
    };
    let generation = request.submit(served, prompts.iter().map(|prompt| prompt.ids.clone()), &options)?;
    let delivery = request.delivery;
    let options = CompletionOptions { echo, logprobs: own.logprobs, prompt_logprobs: own.prompt_logprobs };
    respond(CompletionFormat::new(request, prompts, options), generation, delivery).await
}

/// Makes the constraint off the threads that serve connections, which a large schema would hold up.
async fn held_to(served: &Arc<ServedModel>, held_to: Option<HeldTo>) -> Result<Option<AnswerConstraint>, ApiError> {
    let Some(held_to) = held_to else { return Ok(None) };
    let served = served.clone();
    tokio::task::spawn_blocking(move || held_to.constraint(&served)).await?.map(Some)
}

/// Prompts whose answers lie between each of `sources` and `suffix`. What the model begins behind them ends the answer.
///
/// Errors: a model that was not trained for it, a prompt of token ids, a prompt that is to be cut.
async fn with_suffix(
    engine: &EngineHandle,
    sources: Vec<PromptSource>,
    suffix: &str,
    request: &mut AnswerRequest,
) -> Result<Vec<Prompt>, ApiError> {
    const FIELD: &str = "suffix";
    request.stop.stop_token_ids.extend(form(engine, FIELD)?.ends());
    if request.truncation.is_asked_for() {
        return Err(ApiError::invalid(FIELD, "suffix does not go with truncate_prompt_tokens"));
    }
    let gap = |source| match source {
        PromptSource::Text(prefix) => Ok(Gap { prefix, suffix: suffix.to_owned(), ..Gap::default() }),
        PromptSource::Ids(_) => Err(ApiError::invalid(FIELD, "suffix needs prompts of text, not of token ids")),
    };
    let gaps = sources.into_iter().map(gap).collect::<Result<_, _>>()?;
    let prompts = encode_gaps(engine, gaps, FIELD).await?;
    Ok(prompts.into_iter().map(|ids| Prompt { ids, text: String::new(), num_added: 0 }).collect())
}
