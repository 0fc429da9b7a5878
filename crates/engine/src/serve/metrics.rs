//! The times and counts that only the engine knows, under the names that vLLM gives them. The server exports them with
//! its own metrics.
use metrics::{Counter, Histogram, counter, histogram};
use std::time::Duration;

pub(crate) struct Metrics {
    queue_time: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    inference_time: Histogram,
    iteration_tokens: Histogram,
    /// Drafts, their tokens, and those that were accepted.
    drafts: [Counter; 3],
    /// Accepted tokens by their place in the draft.
    accepted_at: Vec<Counter>,
}

impl Metrics {
    /// The metrics of the model of this name, whose drafts have `max_draft_tokens` tokens at most.
    pub fn new(model: &str, max_draft_tokens: usize) -> Self {
        let named = |name: &'static str| histogram!(name, "model_name" => model.to_owned(), "engine" => "0");
        let counted = |name: &'static str| counter!(name, "model_name" => model.to_owned(), "engine" => "0");
        let accepted_at = |position: usize| {
            let labels =
                [("model_name", model.to_owned()), ("engine", "0".to_owned()), ("position", position.to_string())];
            counter!("vllm:spec_decode_num_accepted_tokens_per_pos_total", &labels)
        };
        let drafts = [
            "vllm:spec_decode_num_drafts_total",
            "vllm:spec_decode_num_draft_tokens_total",
            "vllm:spec_decode_num_accepted_tokens_total",
        ];
        Metrics {
            drafts: drafts.map(counted),
            accepted_at: (0..max_draft_tokens).map(accepted_at).collect(),
            queue_time: named("vllm:request_queue_time_seconds"),
            prefill_time: named("vllm:request_prefill_time_seconds"),
            decode_time: named("vllm:request_decode_time_seconds"),
            inference_time: named("vllm:request_inference_time_seconds"),
            iteration_tokens: named("vllm:iteration_tokens_total"),
        }
    }

    /// Records the time from submission to the first step.
    pub fn queue_time(&self, time: Duration) {
        self.queue_time.record(time);
    }

    /// Records the time from the first step to the first token.
    pub fn prefill_time(&self, time: Duration) {
        self.prefill_time.record(time);
    }

    /// Records the time from the first token to the last.
    pub fn decode_time(&self, time: Duration) {
        self.decode_time.record(time);
    }

    /// Records the time from the first step to the last token.
    pub fn inference_time(&self, time: Duration) {
        self.inference_time.record(time);
    }

    /// Counts a draft of so many tokens, of which the first `accepted` were accepted.
    pub fn draft(&self, tokens: usize, accepted: usize) {
        for (counter, count) in self.drafts.iter().zip([1, tokens, accepted]) {
            counter.increment(count as u64);
        }
        self.accepted_at.iter().take(accepted).for_each(|counter| counter.increment(1));
    }

    /// Records the tokens of a step.
    pub fn step(&self, tokens: usize) {
        self.iteration_tokens.record(tokens as f64);
    }
}
