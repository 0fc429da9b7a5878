//! Log-probabilities of a prompt's tokens in vLLM's form.
use crate::openai::token_names::TokenNames;
use engine::TokenLogprob;
use serde_json::{Map, Value, json};

/// vLLM's `prompt_logprobs`: for each token of the prompt null, or a map from token ids to log-probabilities, which
/// holds the token itself and at most `most` alternatives.
pub fn prompt_logprobs(names: &TokenNames, entries: &[Option<TokenLogprob>], most: usize) -> Value {
    let entry = |token: u32, logprob: f32, rank: Option<usize>| {
        let text = names.tokenizer.token_text(token);
        json!({"logprob": logprob, "rank": rank, "decoded_token": text})
    };
    let token_map = |own: &TokenLogprob| {
        let mut map = Map::new();
        for (rank, &(token, logprob)) in own.top.iter().take(most).enumerate() {
            map.insert(token.to_string(), entry(token, logprob, Some(rank + 1)));
        }
        // The rank of a token that is not among the most likely is not known.
        map.entry(own.token.to_string()).or_insert_with(|| entry(own.token, own.logprob, None));
        Value::Object(map)
    };
    entries.iter().map(|e| e.as_ref().map_or(Value::Null, token_map)).collect()
}
