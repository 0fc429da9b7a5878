//! Tokens in log-probabilities.
use engine::TokenLogprob;
use openai_protocol::common::{ChatLogProbs, ChatLogProbsContent, TopLogProb};
use std::fmt::Write;
use std::sync::Arc;
use text::Tokenizer;

/// How tokens are written in answers.
#[derive(Clone)]
pub(crate) struct TokenNames {
    pub tokenizer: Arc<Tokenizer>,
    /// vLLM's `return_tokens_as_token_ids`: `token_id:42`, which no two tokens share.
    pub as_ids: bool,
}

impl TokenNames {
    /// A token's text; a part of a character is written `bytes:\xe2\x80`, as OpenAI does.
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

    /// OpenAI's form for chat.
    pub fn chat<'a>(&self, logprobs: impl IntoIterator<Item = &'a TokenLogprob>) -> ChatLogProbs {
        let content = logprobs.into_iter().map(|entry| ChatLogProbsContent {
            token: self.name(entry.token),
            logprob: entry.logprob,
            bytes: Some(self.tokenizer.token_bytes(entry.token)),
            top_logprobs: entry.top.iter().map(|&(id, logprob)| self.top(id, logprob)).collect(),
        });
        ChatLogProbs::Detailed { content: Some(content.collect()), refusal: None }
    }

    fn top(&self, id: u32, logprob: f32) -> TopLogProb {
        TopLogProb { token: self.name(id), logprob, bytes: Some(self.tokenizer.token_bytes(id)) }
    }
}
