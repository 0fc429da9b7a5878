//! The tokens of an answer, as OpenAI's protocol reports them.
use crate::generation::Tally;
use schemars::JsonSchema;
use serde::Serialize;

/// The `usage` of chat completions and completions.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: CachedTokens,
    /// Left out where there was nothing to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokensDetails>,
}

/// How many tokens of the input were in the cache.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CachedTokens {
    cached_tokens: usize,
}

/// What a completion's tokens are made of. Numbers are left out where there was nothing to count.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct CompletionTokensDetails {
    /// Tokens of thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_tokens: Option<usize>,
    /// Drafted tokens that became tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_prediction_tokens: Option<usize>,
    /// Drafted tokens that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_prediction_tokens: Option<usize>,
}

impl From<&Tally> for Usage {
    fn from(tally: &Tally) -> Self {
        let drafts = Some(tally.drafts).filter(|drafts| drafts.accepted + drafts.rejected > 0);
        let details = CompletionTokensDetails {
            reasoning_tokens: Some(tally.thought).filter(|tokens| *tokens > 0),
            accepted_prediction_tokens: drafts.map(|drafts| drafts.accepted),
            rejected_prediction_tokens: drafts.map(|drafts| drafts.rejected),
        };
        let has_details = tally.thought > 0 || drafts.is_some();
        Usage {
            prompt_tokens: tally.prompt,
            completion_tokens: tally.completion,
            total_tokens: tally.prompt + tally.completion,
            prompt_tokens_details: CachedTokens { cached_tokens: tally.cached },
            completion_tokens_details: Some(details).filter(|_| has_details),
        }
    }
}

/// The `usage` of responses, all of whose numbers are always there.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ResponseUsage {
    input_tokens: usize,
    output_tokens: usize,
    total_tokens: usize,
    input_tokens_details: CachedTokens,
    output_tokens_details: ThoughtTokens,
}

/// How many tokens of the output belong to thoughts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct ThoughtTokens {
    reasoning_tokens: usize,
}

impl From<&Tally> for ResponseUsage {
    fn from(tally: &Tally) -> Self {
        ResponseUsage {
            input_tokens: tally.prompt,
            output_tokens: tally.completion,
            total_tokens: tally.prompt + tally.completion,
            input_tokens_details: CachedTokens { cached_tokens: tally.cached },
            output_tokens_details: ThoughtTokens { reasoning_tokens: tally.thought },
        }
    }
}
