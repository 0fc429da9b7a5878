//! The fields of requests that all generating endpoints share, as clients send them.
use crate::http::error::ApiError;
use crate::openai::bad_words::token_sequences;
use crate::openai::delivery::{Delivery, StreamedUsage};
use engine::{SamplingParams, StopParams};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use text::Tokenizer;

/// The fields that are not for the engine.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommonFields {
    /// The model's name. A server has one model, so that it may be left out.
    pub model: Option<String>,
    /// How many choices each prompt gets.
    pub n: Option<usize>,
    /// The answer comes as server-sent events.
    stream: Option<bool>,
    /// What a stream tells beside the answer.
    stream_options: Option<StreamOptions>,
    /// The client whose request it is: the queue is fair between clients. Its address stands for one that is not named.
    user: Option<String>,
    /// The client, where `user` does not name it.
    safety_identifier: Option<String>,
    /// The client, where neither `user` nor `safety_identifier` names it.
    prompt_cache_key: Option<String>,
    /// Log-probabilities name tokens by their ids, such as `token_id:42`.
    pub return_tokens_as_token_ids: Option<bool>,
    /// The token ids come beside the text.
    pub return_token_ids: Option<bool>,
    /// Only requests with the same salt share what the server keeps of their prompts.
    pub cache_salt: Option<String>,
    /// The tokens whose log-probabilities come with each token in place of the most likely ones. They need `logprobs`.
    pub logprob_token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, expecting = "an object")]
struct StreamOptions {
    /// The last event tells the usage.
    include_usage: Option<bool>,
    /// Every event tells the usage so far of the choice that it is about.
    continuous_usage_stats: Option<bool>,
}

impl CommonFields {
    /// Whose request it is; `None` if no field tells.
    pub fn client(&self) -> Option<String> {
        let names = [&self.user, &self.safety_identifier, &self.prompt_cache_key];
        names.into_iter().flatten().find(|name| !name.is_empty()).cloned()
    }

    /// How the answer is to be sent.
    ///
    /// Errors: options of a stream without a stream.
    pub fn delivery(&self) -> Result<Delivery, ApiError> {
        match (self.stream.unwrap_or(false), &self.stream_options) {
            (false, None) => Ok(Delivery::Whole),
            (false, Some(_)) => Err(ApiError::invalid("stream_options", "stream_options needs stream: true")),
            (true, options) => {
                let options = options.as_ref();
                let continuous = options.and_then(|o| o.continuous_usage_stats).unwrap_or(false);
                let usage = match options.and_then(|o| o.include_usage).unwrap_or(continuous) {
                    false => StreamedUsage::Nowhere,
                    true if continuous => StreamedUsage::Everywhere,
                    true => StreamedUsage::AtTheEnd,
                };
                Ok(Delivery::Streamed { usage })
            }
        }
    }
}

/// The fields that decide how tokens are drawn.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SamplingFields {
    /// The logits are divided by it; 0 takes the most likely token always.
    temperature: Option<f32>,
    /// The smallest set of tokens is kept whose probability reaches it; 0 keeps the likeliest alone.
    top_p: Option<f32>,
    /// As many of the likeliest tokens are kept; -1 or 0 keeps all.
    top_k: Option<i64>,
    /// Tokens are kept that are at least this share as likely as the likeliest.
    min_p: Option<f32>,
    /// Tokens of the prompt or of the answer so far become less likely by this factor.
    repetition_penalty: Option<f32>,
    /// It is subtracted from the logit of each token that the answer has.
    presence_penalty: Option<f32>,
    /// It is subtracted for each time that the answer has the token.
    frequency_penalty: Option<f32>,
    /// Numbers that are added to the logits of tokens, by token id.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// The only tokens that may be drawn.
    allowed_token_ids: Option<Vec<u32>>,
    /// Words that the answer must not have, written as their tokens at the beginning of a text or after a space.
    bad_words: Option<Vec<String>>,
    /// Equal requests with equal seeds get equal answers, whatever else is served.
    seed: Option<i64>,
}

impl SamplingFields {
    /// The engine's parameters, with the model's `defaults` where the request leaves a field open. The engine checks
    /// the ranges.
    ///
    /// Errors: a negative `top_k` other than -1, a key of `logit_bias` that is no token id, those of
    /// [`token_sequences`].
    pub fn resolve(self, defaults: &SamplingParams, tokenizer: &Tokenizer) -> Result<SamplingParams, ApiError> {
        let top_k = match self.top_k {
            None => defaults.top_k,
            // vLLM asks for all tokens by -1, others do by 0.
            Some(-1 | 0) => 0,
            Some(k) => usize::try_from(k).map_err(|_| {
                ApiError::invalid("top_k", format!("top_k is {k}; it must be at least 1, or -1 for all"))
            })?,
        };
        let logit_bias = match self.logit_bias {
            None => defaults.logit_bias.clone(),
            Some(bias) => bias.into_iter().map(biased_token).collect::<Result<_, _>>()?,
        };
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k,
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            logit_bias,
            allowed_token_ids: self.allowed_token_ids,
            banned_sequences: token_sequences(self.bad_words.as_deref().unwrap_or_default(), tokenizer)?,
            seed: self.seed.map(|seed| seed as u64).or(defaults.seed),
        })
    }
}

fn biased_token((key, bias): (String, f32)) -> Result<(u32, f32), ApiError> {
    let token = key.parse().map_err(|_| {
        ApiError::invalid("logit_bias", format!("logit_bias has the key {key:?}; keys must be token ids"))
    })?;
    Ok((token, bias))
}

/// The fields that decide when an answer ends, and what its text holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StopFields {
    /// The most tokens of a choice.
    max_tokens: Option<usize>,
    /// The newer name of `max_tokens`, which wins.
    max_completion_tokens: Option<usize>,
    /// Until a choice has as many tokens, no token that ends it is drawn, and no stop string counts.
    min_tokens: Option<usize>,
    /// A string, or strings, that end the text of a choice.
    #[serde(deserialize_with = "string_or_list")]
    #[schemars(schema_with = "string_or_list_schema")]
    stop: Option<Vec<String>>,
    /// The ids of tokens that end a choice, beside the model's own.
    stop_token_ids: Option<Vec<u32>>,
    /// The model's own ends do not end a choice.
    ignore_eos: Option<bool>,
    /// The stop string that ended the text is left in it.
    include_stop_str_in_output: Option<bool>,
    /// Special tokens are left out of the text, as they are by default.
    skip_special_tokens: Option<bool>,
}

impl StopFields {
    /// The engine's parameters, with `max_tokens` where the request names no limit. The engine checks the values.
    pub fn resolve(self, max_tokens: Option<usize>) -> StopParams {
        StopParams {
            max_tokens: self.max_completion_tokens.or(self.max_tokens).or(max_tokens),
            min_tokens: self.min_tokens.unwrap_or(0),
            stop: self.stop.unwrap_or_default(),
            stop_token_ids: self.stop_token_ids.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            include_stop_str_in_output: self.include_stop_str_in_output.unwrap_or(false),
            keep_special_tokens: !self.skip_special_tokens.unwrap_or(true),
        }
    }

    /// The name of the field that limits the answer's length. OpenAI's newer name wins over the deprecated one.
    pub fn max_tokens_field(&self) -> &'static str {
        if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" }
    }
}

fn string_or_list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
}

/// A string, a list of strings, or null.
fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Strings;

    impl<'de> Visitor<'de> for Strings {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut strings = Vec::new();
            while let Some(text) = seq.next_element()? {
                strings.push(text);
            }
            Ok(Some(strings))
        }
    }

    deserializer.deserialize_any(Strings)
}
