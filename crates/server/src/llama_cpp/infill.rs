//! `POST /infill`: fills the gap between a prefix and a suffix.
use super::infill_answer::InfillAnswer;
use crate::generation::Generation;
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::ApiError;
use crate::http::operation::Operation;
use crate::http::sse;
use crate::http::state::ServerState;
use crate::openai::fields::{SamplingFields, StopFields};
use crate::openai::infill::{Gap, encode_gaps, form};
use crate::openai::request::{UnsupportedField, refuse_unsupported};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::{EngineHandle, GenerationRequest, RequestField, SamplingParams};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

pub const PATH: &str = "/infill";

/// Fields that would change the answer and that are not done, with the values that ask for nothing.
const UNSUPPORTED: &[UnsupportedField] = &[
    ("dry_multiplier", &["0", "0.0"]),
    ("dynatemp_range", &["0", "0.0"]),
    ("grammar", &[r#""""#]),
    ("json_schema", &[]),
    ("lora", &["[]"]),
    ("min_keep", &["0"]),
    ("mirostat", &["0"]),
    ("n_cmpl", &["1"]),
    ("n_probs", &["0"]),
    ("repeat_last_n", &["-1"]),
    ("top_n_sigma", &["-1", "-1.0"]),
    ("typical_p", &["1", "1.0"]),
    ("xtc_probability", &["0", "0.0"]),
];
/// What llama.cpp's clients send for a seed that they leave open, beside -1.
const ANY_SEED: i64 = u32::MAX as i64;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct InfillFields {
    /// The model's name. A server has one model, so that it may be left out.
    model: Option<String>,
    /// What lies before the gap.
    input_prefix: Option<String>,
    /// What lies after it.
    input_suffix: Option<String>,
    /// Other files, which the model sees first.
    input_extra: Option<Vec<ExtraFile>>,
    /// How what fills the gap begins.
    prompt: Option<String>,
    /// The most tokens of the answer; -1 is the server's limit, and 0 computes the prompt alone.
    n_predict: Option<i64>,
    /// Tokens of the prompt or of the answer so far become less likely by this factor.
    repeat_penalty: Option<f32>,
    /// The answer comes as server-sent events.
    stream: Option<bool>,
    /// The token ids come with a whole answer.
    return_tokens: Option<bool>,
    /// The fields of the answer that are wanted, by path.
    response_fields: Option<Vec<String>>,
    /// Only requests with the same salt share what the server keeps of their prompts.
    cache_salt: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
struct ExtraFile {
    /// The file's name.
    filename: Option<String>,
    /// What the file holds.
    text: String,
}

impl InfillFields {
    fn gap(&mut self) -> Gap {
        let file = |file: ExtraFile| (file.filename.unwrap_or_else(|| "tmp".into()), file.text);
        Gap {
            prefix: self.input_prefix.take().unwrap_or_default(),
            suffix: self.input_suffix.take().unwrap_or_default(),
            begun: self.prompt.take().unwrap_or_default(),
            files: self.input_extra.take().unwrap_or_default().into_iter().map(file).collect(),
        }
    }

    /// The limit of the answer: `named` is what `max_tokens` says, `default` the server's.
    ///
    /// Errors: a number below -1, which is no limit.
    fn max_tokens(&self, named: Option<usize>, default: Option<usize>) -> Result<Option<usize>, ApiError> {
        match self.n_predict {
            None => Ok(named.or(default)),
            Some(-1) => Ok(default),
            Some(n) => usize::try_from(n).map(Some).map_err(|_| {
                ApiError::invalid("n_predict", format!("n_predict is {n}; it must be at least 0, or -1 for no limit"))
            }),
        }
    }
}

/// The parameters of sampling under llama.cpp's names.
fn sampling(fields: SamplingFields, own: &InfillFields, engine: &EngineHandle) -> Result<SamplingParams, ApiError> {
    let sampling = fields.resolve(&engine.info().default_sampling, engine.tokenizer())?;
    let any = |seed: &u64| [-1, ANY_SEED].contains(&(*seed as i64));
    Ok(SamplingParams {
        repetition_penalty: own.repeat_penalty.unwrap_or(sampling.repetition_penalty),
        seed: sampling.seed.filter(|seed| !any(seed)),
        ..sampling
    })
}

pub fn operation() -> Operation {
    Operation::post("Fills the gap between a prefix and a suffix")
        .fields::<SamplingFields>()
        .fields::<StopFields>()
        .fields::<InfillFields>()
        .answers::<Map<String, Value>>()
        .streams::<Map<String, Value>>()
        .asks_engine()
}

pub async fn infill(State(state): State<ServerState>, request: JsonRequest) -> Result<Response, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    refuse_unsupported(&fields, UNSUPPORTED)?;
    let mut own: InfillFields = fields.view()?;
    let (sampling_fields, stop): (SamplingFields, StopFields) = (fields.view()?, fields.view()?);
    fields.log_unread(&state, PATH);

    let model = served.name(own.model.as_deref())?.to_owned();
    let form = form(&served.engine, "input_suffix")?;
    let mut stop = stop.resolve(None);
    let max_tokens = own.max_tokens(stop.max_tokens, state.config().max_tokens_default)?;
    // Without tokens the prompt alone is asked for; the engine generates at least one.
    let prompt_only = max_tokens == Some(0);
    stop.max_tokens = max_tokens.map(|n| n.max(1));
    stop.stop_token_ids.extend(form.ends());
    let sampling = sampling(sampling_fields, &own, &served.engine)?;
    let prompts = encode_gaps(&served.engine, vec![own.gap()], "input_prefix").await?;
    let request = GenerationRequest {
        id: request.peer.request_id.shown().to_owned(),
        client: request.peer.address.unwrap_or_default(),
        sampling,
        stop,
        cache_salt: own.cache_salt,
        ..GenerationRequest::greedy(prompts.concat(), 1)
    };
    let mut generation = Generation::submit(served, vec![request], prompt_only, field_name)?;
    let answer = InfillAnswer::new(model, own.return_tokens.unwrap_or(false), own.response_fields);
    match own.stream.unwrap_or(false) {
        true => {
            generation.admitted().await;
            Ok(sse::respond(answer.events(generation)))
        }
        false => Ok(Json(answer.collect(generation).await?).into_response()),
    }
}

/// llama.cpp's name of a field.
fn field_name(field: RequestField) -> &'static str {
    match field {
        RequestField::Prompt => "input_prefix",
        RequestField::MaxTokens => "n_predict",
        RequestField::RepetitionPenalty => "repeat_penalty",
        other => other.name(),
    }
}
