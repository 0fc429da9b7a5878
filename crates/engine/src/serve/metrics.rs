//! The times that only the engine knows, under the names that vLLM gives them. The server exports them with its own
//! metrics.
use metrics::{Histogram, histogram};
use std::time::Duration;

pub(crate) struct Metrics {
    queue_time: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    inference_time: Histogram,
    iteration_tokens: Histogram,
}

impl Metrics {
    /// The metrics of the model of this name.
    pub fn new(model: &str) -> Self {
        let named = |name: &'static str| histogram!(name, "model_name" => model.to_owned(), "engine" => "0");
        Metrics {
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

    /// Records the tokens of a step.
    pub fn step(&self, tokens: usize) {
        self.iteration_tokens.record(tokens as f64);
    }
}
