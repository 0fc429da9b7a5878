//! What is done with every request for an answer, whatever its endpoint.
use crate::generation::Generation;
use crate::http::body::{FieldReader, Peer};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::{ServedModel, ServerState, unix_seconds};
use crate::openai::answer::AnswerHeader;
use crate::openai::delivery::Delivery;
use crate::openai::fields::{CommonFields, SamplingFields, StopFields};
use crate::openai::token_names::TokenNames;
use crate::openai::truncation::{Truncation, TruncationFields};
use crate::turn::PreparedTurn;
use engine::{GenerationRequest, RequestField, SamplingParams, StopParams};

/// What tells one generating endpoint from another.
pub struct Endpoint {
    /// The route's path.
    pub path: &'static str,
    /// Ids of its answers begin with it.
    pub id_prefix: &'static str,
    /// The field that the prompt is made of.
    pub prompt_field: &'static str,
    /// The field that asks for the number of alternatives to each token.
    pub logprobs_field: &'static str,
    /// Fields that are not supported here, beside those that no endpoint supports.
    pub unsupported: &'static [UnsupportedField],
}

/// A field's name, and the values, as JSON, that ask for nothing and are therefore harmless.
pub type UnsupportedField = (&'static str, &'static [&'static str]);

/// Fields that would change the answer and that no endpoint does yet. They are refused, since an answer that silently
/// leaves them out would be wrong.
const UNSUPPORTED: &[UnsupportedField] = &[
    ("functions", &["[]"]),
    ("function_call", &[r#""none""#]),
    ("audio", &[]),
    ("modalities", &[r#"["text"]"#]),
    ("web_search_options", &[]),
    ("best_of", &["1"]),
    ("use_beam_search", &["false"]),
    ("logits_processors", &["[]"]),
    ("prompt_embeds", &[]),
    ("chat_template", &[]),
    ("lora_path", &[]),
];

/// Errors: a field that asks for something unsupported.
pub fn refuse_unsupported(fields: &FieldReader<'_>, unsupported: &[UnsupportedField]) -> Result<(), ApiError> {
    for (field, harmless) in unsupported {
        let asks = fields.get(field).is_some_and(|value| !harmless.contains(&value.to_string().as_str()));
        if asks {
            let message = format!("{field} is not supported yet; leave it out");
            return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at(*field));
        }
    }
    Ok(())
}

/// The shared fields of a request, their types checked.
pub struct SharedFields {
    common: CommonFields,
    sampling: SamplingFields,
    stop: StopFields,
    truncation: TruncationFields,
}

/// A request for an answer, but for the fields that its endpoint alone has.
pub struct AnswerRequest {
    pub header: AnswerHeader,
    pub delivery: Delivery,
    /// Choices of each prompt.
    pub n: usize,
    pub sampling: SamplingParams,
    pub stop: StopParams,
    pub token_names: TokenNames,
    /// vLLM's `return_token_ids`.
    pub return_token_ids: bool,
    /// How long prompts are cut.
    pub truncation: Truncation,
    /// vLLM's `logprob_token_ids`.
    logprob_token_ids: Vec<u32>,
    /// vLLM's `cache_salt`.
    cache_salt: Option<String>,
    /// Who waits for the answer: requests are served fairly between clients.
    client: String,
    /// The id by which logs name the request.
    request_id: String,
    endpoint: &'static Endpoint,
    max_tokens_field: &'static str,
}

/// What an endpoint's own fields ask of the engine.
#[derive(Default)]
pub struct PromptOptions {
    /// Alternatives to each token of the answer; `None` asks for no log-probabilities.
    pub logprobs: Option<usize>,
    /// Alternatives to each token of the prompt; `None` asks for no log-probabilities.
    pub prompt_logprobs: Option<usize>,
    /// How the answer is read and what it is held to.
    pub turn: PreparedTurn,
    /// Only the prompt is asked for, and no answer.
    pub prompt_only: bool,
}

impl Endpoint {
    /// Reads the fields that all endpoints share.
    ///
    /// Errors: a field that asks for something unsupported, a field of a wrong type.
    pub fn read_shared(&self, fields: &mut FieldReader<'_>) -> Result<SharedFields, ApiError> {
        refuse_unsupported(fields, UNSUPPORTED)?;
        refuse_unsupported(fields, self.unsupported)?;
        Ok(SharedFields {
            common: fields.view()?,
            sampling: fields.view()?,
            stop: fields.view()?,
            truncation: fields.view()?,
        })
    }
}

impl SharedFields {
    /// Adds these fields, and what can go wrong with an answer, to what an endpoint does.
    pub fn describe(operation: Operation) -> Operation {
        let operation = operation.fields::<CommonFields>().fields::<SamplingFields>().fields::<StopFields>();
        operation.fields::<TruncationFields>().asks_engine()
    }

    /// Completes the request by the model's defaults. The address of `peer` stands for the client where the request
    /// names none.
    ///
    /// Errors: an unknown model, a value that the engine could not be told.
    pub fn resolve(
        self,
        endpoint: &'static Endpoint,
        state: &ServerState,
        served: &ServedModel,
        peer: Peer,
    ) -> Result<AnswerRequest, ApiError> {
        let SharedFields { common, sampling, stop, truncation } = self;
        let (info, client) = (served.engine.info(), common.client());
        let max_tokens_field = stop.max_tokens_field();
        let stop = stop.resolve(state.config().max_tokens_default);
        Ok(AnswerRequest {
            header: AnswerHeader {
                model: served.name(common.model.as_deref())?.to_owned(),
                id: peer.request_id.answer_id(endpoint.id_prefix),
                created: unix_seconds(),
                // Beside the model and the seed, the program and the cache's formats decide the tokens.
                system_fingerprint: format!("tallow-{}-{}-{}", env!("CARGO_PKG_VERSION"), info.k_quant, info.v_quant),
            },
            delivery: common.delivery()?,
            n: common.n.unwrap_or(1),
            sampling: sampling.resolve(&info.default_sampling, served.engine.tokenizer())?,
            truncation: truncation.resolve(info.max_model_len, stop.max_tokens)?,
            max_tokens_field,
            stop,
            token_names: TokenNames {
                tokenizer: served.engine.tokenizer().clone(),
                as_ids: common.return_tokens_as_token_ids.unwrap_or(false),
            },
            return_token_ids: common.return_token_ids.unwrap_or(false),
            logprob_token_ids: common.logprob_token_ids.unwrap_or_default(),
            cache_salt: common.cache_salt,
            client: client.or(peer.address).unwrap_or_default(),
            request_id: peer.request_id.shown().to_owned(),
            endpoint,
        })
    }
}

impl AnswerRequest {
    /// Limits the answer's tokens by a field that only its endpoint has.
    pub fn limit(&mut self, max_tokens: usize, field: &'static str) {
        self.stop.max_tokens = Some(max_tokens);
        self.max_tokens_field = field;
    }

    /// Submits one request to the engine for each of `prompts`, which are token ids.
    ///
    /// Errors: the engine refuses one of them; then none of them runs.
    pub fn submit(
        &self,
        served: &ServedModel,
        prompts: impl IntoIterator<Item = Vec<u32>>,
        options: &PromptOptions,
    ) -> Result<Generation, ApiError> {
        let request = |prompt| {
            let mut request = GenerationRequest {
                id: self.request_id.clone(),
                client: self.client.clone(),
                prompt,
                begins_text: false,
                n: self.n,
                sampling: self.sampling.clone(),
                stop: self.stop.clone(),
                reading: None,
                constraint: None,
                logprobs: options.logprobs,
                logprob_token_ids: self.logprob_token_ids.clone(),
                prompt_logprobs: options.prompt_logprobs,
                cache_salt: self.cache_salt.clone(),
                embedding: None,
            };
            options.turn.apply(&mut request);
            request
        };
        let requests = prompts.into_iter().map(request).collect();
        Generation::submit(served, requests, options.prompt_only, |field| self.field_name(field))
    }

    /// The name that a field of the engine's request has for the client.
    fn field_name(&self, field: RequestField) -> &'static str {
        match field {
            RequestField::Prompt => self.endpoint.prompt_field,
            RequestField::Logprobs => self.endpoint.logprobs_field,
            RequestField::MaxTokens => self.max_tokens_field,
            other => other.name(),
        }
    }
}
