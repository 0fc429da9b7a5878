//! The parameters of a request, in validated form.
use crate::error::EngineError;
use scheduler::PrefixReport;
use std::sync::Arc;
use text::{AnswerConstraint, AnswerOptions, AnswerPart, AnswerReading};

/// How the next token is drawn from the logits. `Default` is plain sampling at temperature 1.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy: the largest logit, the smallest id among equals.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probability reaches p; 0 keeps the likeliest alone.
    pub top_p: f32,
    /// Keep tokens at least this share as likely as the most likely one.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output (CTRL, arXiv:1909.05858).
    pub repetition_penalty: f32,
    /// Subtracted from the logit of each token that the output already holds.
    pub presence_penalty: f32,
    /// Subtracted once for each time the output already holds the token.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// The only tokens that may be drawn; `None` allows all.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// Token sequences that an answer must not have: the last token of each is not drawn after the others.
    pub banned_sequences: Arc<[Vec<u32>]>,
    /// Picks the random numbers: equal requests with equal seeds get equal text, whatever else is in the batch. `None`:
    /// each request gets another one.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            allowed_token_ids: None,
            banned_sequences: Arc::default(),
            seed: None,
        }
    }
}

impl SamplingParams {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        SamplingParams { temperature: 0.0, ..Default::default() }
    }
}

/// When generation ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StopParams {
    /// Tokens to generate at most; `None`: up to the model's context.
    pub max_tokens: Option<usize>,
    /// Tokens to generate at least: before that no token that ends the text is drawn, and no stop string is looked for.
    pub min_tokens: usize,
    /// Strings that end the text; they are found across token boundaries.
    pub stop: Vec<String>,
    /// Token ids that end the text, beside the model's EOS ids.
    pub stop_token_ids: Vec<u32>,
    /// Run on past the model's EOS ids.
    pub ignore_eos: bool,
    /// Leave the matched stop string in the text.
    pub include_stop_str_in_output: bool,
    /// Leave special tokens in the text.
    pub keep_special_tokens: bool,
}

impl StopParams {
    /// The ids of the tokens that end the text: those of the request, and of the model's `turn_ends` if they count.
    pub(crate) fn ends<'a>(&'a self, turn_ends: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let own = if self.ignore_eos { &[] } else { turn_ends };
        self.stop_token_ids.iter().chain(own).copied()
    }
}

/// The form in which the vector of a prompt is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbeddingParams {
    /// The first elements of the vector that are kept, for models that were trained so (Matryoshka, arXiv:2205.13147);
    /// `None` keeps all.
    pub dimensions: Option<usize>,
}

/// One request: `n` choices of one prompt, which share the blocks of the prompt; or the prompt's vector alone.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// Shown in logs where the request fails.
    pub id: String,
    /// Whose turn it is: waiting requests are served fairly between clients. Empty: the anonymous client.
    pub client: String,
    /// The token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Whether the answer is a text of its own, as in a chat, and does not continue the prompt's text. SentencePiece's
    /// space before the first word of a text is then left out.
    pub begins_text: bool,
    /// How many choices are asked for.
    pub n: usize,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// When a choice ends.
    pub stop: StopParams,
    /// How thoughts and tool calls are told from text; `None` leaves them in it.
    pub reading: Option<AnswerReading>,
    /// The constraint that each choice is held to.
    pub constraint: Option<AnswerConstraint>,
    /// Report the log-probability of each token, with this many alternatives (0 to 20).
    pub logprobs: Option<usize>,
    /// Tokens whose log-probabilities come with each token, in this order, in place of the most likely ones. Empty: the
    /// most likely ones.
    pub logprob_token_ids: Vec<u32>,
    /// Report the log-probability of each token of the prompt, with this many alternatives (0 to 20).
    pub prompt_logprobs: Option<usize>,
    /// Set if the prompt's vector is asked for in the place of answers. How tokens are drawn then has no meaning.
    pub embedding: Option<EmbeddingParams>,
    /// Only requests with the same salt share what is cached of their prompts.
    pub cache_salt: Option<String>,
}

impl GenerationRequest {
    /// One greedy choice of at most `max_tokens` tokens.
    pub fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Self {
        GenerationRequest {
            id: String::new(),
            client: String::new(),
            prompt,
            begins_text: false,
            n: 1,
            sampling: SamplingParams::greedy(),
            stop: StopParams { max_tokens: Some(max_tokens), ..Default::default() },
            reading: None,
            constraint: None,
            logprobs: None,
            logprob_token_ids: Vec::new(),
            prompt_logprobs: None,
            cache_salt: None,
            embedding: None,
        }
    }

    /// The vector of a prompt.
    pub fn embed(prompt: Vec<u32>, params: EmbeddingParams) -> Self {
        GenerationRequest {
            stop: StopParams::default(),
            embedding: Some(params),
            ..GenerationRequest::greedy(prompt, 0)
        }
    }

    /// Returns the options of each choice's pipeline.
    pub fn answer_options(&self) -> AnswerOptions {
        AnswerOptions {
            begins_text: self.begins_text,
            keep_special_tokens: self.stop.keep_special_tokens,
            stop: self.stop.stop.clone(),
            include_stop_str_in_output: self.stop.include_stop_str_in_output,
            min_tokens: self.stop.min_tokens,
            reading: self.reading.clone(),
            constraint: self.constraint.clone(),
        }
    }

    /// Tokens that a choice may reach, its prompt included, where the context has `max_model_len`.
    pub(crate) fn max_len(&self, max_model_len: usize) -> usize {
        let limit = if self.embedding.is_some() { 0 } else { self.stop.max_tokens.unwrap_or(usize::MAX) };
        self.prompt.len().saturating_add(limit).min(max_model_len)
    }
}

/// Natural-log probability of one token under the model's own distribution (before temperature and penalties).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token id.
    pub token: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens at its position with theirs, most likely first, or those of
    /// [`GenerationRequest::logprob_token_ids`].
    pub top: Vec<(u32, f32)>,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An EOS id, a stop token or a stop string.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// The model has ended its answer, and calls tools in it.
    ToolCalls,
}

/// An event of a request's stream. Every choice ends with `Finished`, a prompt that is embedded with `Embedded`, or
/// the whole request with `Failed`.
#[derive(Debug, Clone)]
pub enum Event {
    /// The request runs: what was known of its prompt.
    Admitted(PrefixReport),
    /// The prompt is in the cache.
    Prompt {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the prompt that were not computed for this request.
        cached_tokens: usize,
        /// One entry a prompt token if asked for, `None` for the first.
        logprobs: Option<Vec<Option<TokenLogprob>>>,
    },
    /// One token of one choice.
    Delta {
        /// The number of the choice, from 0.
        choice: usize,
        /// The parts that the token completes: none while a part of a character, of a stop string or of a tag is held
        /// back.
        parts: Vec<AnswerPart>,
        /// Whether the token belongs to a thought.
        in_thought: bool,
        /// The token id.
        token: u32,
        /// Its log-probability, if asked for.
        logprob: Option<TokenLogprob>,
    },
    /// A choice has ended.
    Finished {
        /// The number of the choice, from 0.
        choice: usize,
        /// The parts that were held back until now.
        parts: Vec<AnswerPart>,
        /// Why the choice ended.
        reason: FinishReason,
        /// The stop string or token id that ended it, if it was not an EOS id.
        matched_stop: Option<MatchedStop>,
        /// The counts of the tokens that were drafted for it.
        drafts: DraftTokens,
    },
    /// The prompt's vector, whose length is 1; the request has ended.
    Embedded {
        /// Its elements.
        vector: Vec<f32>,
    },
    /// The request has ended with an error.
    Failed(EngineError),
}

/// How many tokens of a choice's drafts were accepted, and how many were rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DraftTokens {
    /// Tokens that were drawn as they had been drafted.
    pub accepted: usize,
    /// Tokens that were computed in vain.
    pub rejected: usize,
}

/// The stop that ended a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchedStop {
    /// A stop string.
    Text(String),
    /// A stop token.
    Token(u32),
}
