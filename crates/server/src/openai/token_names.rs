//! How log-probabilities name tokens.
use engine::TokenLogprob;
use openai_protocol::common::{ChatLogProbsContent, TopLogProb};
use std::fmt::Write;
use std::sync::Arc;
use text::Tokenizer;

/// Names tokens by their text or by their ids.
#[derive(Clone)]
pub struct TokenNames {
    pub tokenizer: Arc<Tokenizer>,
    /// vLLM's `return_tokens_as_token_ids`: names such as `token_id:42`, which no two tokens share.
    pub as_ids: bool,
}

impl TokenNames {
    /// The name of the token `id`. A token that is a part of a character is named by its bytes, as by OpenAI:
    /// `bytes:\xe2\x80`.
    pub fn name(&self, id: u32) -> String {
        if self.as_ids {
            return format!("token_id:{id}");
        }
        String::from_utf8(self.tokenizer.token_bytes(id)).unwrap_or_else(|broken| {
            let mut name = String::from("bytes:");
            for byte in broken.as_bytes() {
                // Writing to a string does not fail.
                let _ = write!(name, "\\x{byte:02x}");
            }
            name
        })
    }

    /// A token's log-probability with those of its alternatives.
    pub fn logprob(&self, entry: &TokenLogprob) -> ChatLogProbsContent {
        let bytes = |id| Some(self.tokenizer.token_bytes(id));
        let alternative = |&(id, logprob): &(u32, f32)| TopLogProb { token: self.name(id), logprob, bytes: bytes(id) };
        ChatLogProbsContent {
            token: self.name(entry.token),
            logprob: entry.logprob,
            bytes: bytes(entry.token),
            top_logprobs: entry.top.iter().map(alternative).collect(),
        }
    }
}
