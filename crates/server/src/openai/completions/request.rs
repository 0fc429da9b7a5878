//! `POST /v1/completions`: a text that continues each prompt.
use super::answer::{CompletionChoice, CompletionFormat, CompletionOptions};
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::{ServedModel, ServerState};
use crate::openai::answer::Envelope;
use crate::openai::delivery::respond;
use crate::openai::infill::{Gap, encode_gaps, form};
use crate::openai::prompt::{Prompt, PromptSource, encode, parse_sources, sources_schema};
use crate::openai::request::{AnswerRequest, Endpoint, PromptOptions, SharedFields};
use crate::openai::structure::StructureFields;
use crate::turn::{HeldTo, PreparedTurn};
use axum::extract::State;
use axum::response::Response;
use engine::EngineHandle;
use schemars::JsonSchema;
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
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct CompletionFields {
    /// A text, texts, token ids or lists of token ids, each of which is continued.
    #[schemars(schema_with = "sources_schema")]
    prompt: Value,
    /// What follows after the answer, for models that were trained to fill in the middle.
    suffix: Option<String>,
    /// The text begins with the prompt.
    echo: Option<bool>,
    /// The log-probability of each token comes with the answer, with as many of the most likely ones.
    logprobs: Option<usize>,
    /// The log-probabilities of the prompt's tokens come with the answer, each with as many of the most likely ones. It
    /// does not go with streams.
    prompt_logprobs: Option<usize>,
    /// The tokenizer's own special tokens are put around a text, as they are by default.
    add_special_tokens: Option<bool>,
}

pub fn operation() -> Operation {
    let answer = Operation::post("Continues one prompt or several").fields::<CompletionFields>().needs("prompt");
    SharedFields::describe(answer)
        .fields::<StructureFields>()
        .answers::<Envelope<'static, CompletionChoice>>()
        .streams::<Envelope<'static, CompletionChoice>>()
        .fails(&[ErrorCode::InvalidSchema])
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
    let sources = parse_sources(ENDPOINT.prompt_field, &own.prompt)?;
    let prompts = match own.suffix.filter(|suffix| !suffix.is_empty()) {
        Some(_) if echo => return Err(ApiError::invalid("suffix", "suffix does not go with echo: true")),
        Some(suffix) => with_suffix(&served.engine, sources, &suffix, &mut request).await?,
        None => {
            let mut prompts =
                encode(&served.engine, ENDPOINT.prompt_field, sources, own.add_special_tokens.unwrap_or(true)).await?;
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

/// Prompts whose answers lie between each of `sources` and `suffix`. What the model begins after them ends the answer.
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
