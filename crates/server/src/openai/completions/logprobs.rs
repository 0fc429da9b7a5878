//! Log-probabilities of completions: parallel lists, with each token's offset in the text.
use crate::openai::token_names::TokenNames;
use engine::TokenLogprob;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use text::Detokenizer;

/// OpenAI's object of log-probabilities, with the alternatives of a token in order, the most likely first.
#[derive(Debug, Default, Clone, Serialize, JsonSchema)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Characters of the text before each token.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds a token that begins at the character `offset`, with at most `most` alternatives.
    fn push(&mut self, names: &TokenNames, token: u32, logprob: Option<&TokenLogprob>, most: usize, offset: usize) {
        let top = logprob.map(|entry| {
            let top = entry.top.iter().take(most);
            let mut top: Map<String, Value> = top.map(|&(id, logprob)| (names.name(id), json!(logprob))).collect();
            // The chosen token is always among the alternatives.
            top.entry(names.name(token)).or_insert_with(|| json!(entry.logprob));
            top
        });
        self.tokens.push(names.name(token));
        self.token_logprobs.push(logprob.map(|entry| entry.logprob));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }
}

/// Writes the log-probabilities of one choice. It detokenizes the choice's text, so that it knows each token's offset.
pub struct LogprobsWriter {
    names: TokenNames,
    /// Alternatives to each token of the prompt at most.
    most: usize,
    detokenizer: Detokenizer,
    /// Characters of the text so far.
    offset: usize,
}

impl LogprobsWriter {
    pub fn new(names: TokenNames, most: usize, skip_special: bool) -> Self {
        LogprobsWriter { names, most, detokenizer: Detokenizer::after_prompt(skip_special), offset: 0 }
    }

    /// The echoed prompt's tokens, of which the first `num_added` are no part of the echoed text (an added BOS).
    pub fn prompt(&mut self, ids: &[u32], num_added: usize, logprobs: &[Option<TokenLogprob>]) -> CompletionLogprobs {
        let mut out = CompletionLogprobs::default();
        let mut detokenizer = Detokenizer::new(false);
        for (i, &id) in ids.iter().enumerate() {
            out.push(&self.names, id, logprobs.get(i).and_then(Option::as_ref), self.most, self.offset);
            if i >= num_added {
                self.offset += detokenizer.push(&self.names.tokenizer, id).chars().count();
            }
        }
        self.offset += detokenizer.flush().chars().count();
        out
    }

    /// Adds a generated token to `out`.
    pub fn token(&mut self, out: &mut CompletionLogprobs, entry: &TokenLogprob) {
        // It has as many alternatives as were asked for; the prompt's may have more.
        out.push(&self.names, entry.token, Some(entry), usize::MAX, self.offset);
        self.offset += self.detokenizer.push(&self.names.tokenizer, entry.token).chars().count();
    }
}
