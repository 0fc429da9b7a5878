//! The tokens of log-probabilities, and how they are named.
use engine::TokenLogprob;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;
use text::Tokenizer;

/// A drawn token with its log-probability and those of the likeliest tokens of its place, in the form of chat and
/// responses.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DrawnToken {
    #[serde(flatten)]
    own: TokenChoice,
    top_logprobs: Vec<TokenChoice>,
}

/// A token that could be drawn.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct TokenChoice {
    token: String,
    /// The natural logarithm of its probability.
    logprob: f32,
    /// The UTF-8 that the token stands for, which may be a part of a character.
    bytes: Vec<u8>,
}

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
    pub fn logprob(&self, entry: &TokenLogprob) -> DrawnToken {
        let choice = |id, logprob| TokenChoice { token: self.name(id), logprob, bytes: self.tokenizer.token_bytes(id) };
        DrawnToken {
            own: choice(entry.token, entry.logprob),
            top_logprobs: entry.top.iter().map(|(id, logprob)| choice(*id, *logprob)).collect(),
        }
    }
}
