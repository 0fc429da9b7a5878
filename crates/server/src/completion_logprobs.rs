//! Log-probabilities in the form of the completions endpoint: parallel lists, with each token's place in the text.
use crate::tokens::TokenNames;
use engine::TokenLogprob;
use serde::Serialize;
use serde_json::{Map, Value, json};
use text::Detokenizer;

/// As `openai_protocol::common::LogProbs`, but alternatives stay in order, the most likely first.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Characters before each token.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// `most`: alternatives that were asked for.
    fn push(&mut self, names: &TokenNames, token: u32, logprob: Option<&TokenLogprob>, most: usize, offset: usize) {
        let top = logprob.map(|entry| {
            let top = entry.top.iter().take(most);
            let mut top: Map<String, Value> = top.map(|&(id, logprob)| (names.name(id), json!(logprob))).collect();
            // The chosen token is always among them.
            top.entry(names.name(token)).or_insert_with(|| json!(entry.logprob));
            top
        });
        self.tokens.push(names.name(token));
        self.token_logprobs.push(logprob.map(|entry| entry.logprob));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }
}

/// Follows one choice's text, so that each token's place in it is known.
pub(crate) struct Placer {
    names: TokenNames,
    /// Alternatives of each token.
    most: usize,
    detokenizer: Detokenizer,
    offset: usize,
}

impl Placer {
    pub fn new(names: TokenNames, most: usize, skip_special: bool) -> Self {
        Placer { names, most, detokenizer: Detokenizer::after_prompt(skip_special), offset: 0 }
    }

    /// The echoed prompt's tokens. `hidden`: leading tokens that are no part of the echoed text (an added BOS).
    pub fn prompt(&mut self, ids: &[u32], hidden: usize, logprobs: &[Option<TokenLogprob>]) -> CompletionLogprobs {
        let mut out = CompletionLogprobs::default();
        let mut detokenizer = Detokenizer::new(false);
        for (i, &id) in ids.iter().enumerate() {
            out.push(&self.names, id, logprobs.get(i).and_then(Option::as_ref), self.most, self.offset);
            if i >= hidden {
                self.offset += detokenizer.push(&self.names.tokenizer, id).chars().count();
            }
        }
        self.offset += detokenizer.flush().chars().count();
        out
    }

    /// Adds a generated token to `out`.
    pub fn token(&mut self, out: &mut CompletionLogprobs, entry: &TokenLogprob) {
        out.push(&self.names, entry.token, Some(entry), self.most, self.offset);
        self.offset += self.detokenizer.push(&self.names.tokenizer, entry.token).chars().count();
    }
}

/// vLLM's `prompt_logprobs`: for each prompt token null, or a map from token ids, with `most` alternatives.
pub(crate) fn prompt_logprobs(names: &TokenNames, entries: &[Option<TokenLogprob>], most: usize) -> Value {
    let entry = |token: u32, logprob: f32, rank: Option<usize>| json!({"logprob": logprob, "rank": rank, "decoded_token": names.tokenizer.token_text(token)});
    let place = |place: &TokenLogprob| {
        let mut map = Map::new();
        for (rank, &(token, logprob)) in place.top.iter().take(most).enumerate() {
            map.insert(token.to_string(), entry(token, logprob, Some(rank + 1)));
        }
        // A token outside of the most likely has no known rank.
        map.entry(place.token.to_string()).or_insert_with(|| entry(place.token, place.logprob, None));
        Value::Object(map)
    };
    entries.iter().map(|e| e.as_ref().map_or(Value::Null, place)).collect()
}
