//! What a model's files say about generation, completed by what its tokenizer and its chat template tell, and checked.
use crate::serve::SamplingParams;
use models::GenerationDefaults;
use text::{ChatTemplate, Tokenizer};

/// The ids of the tokens that end an answer: those that the files name, special tokens whose text says so, and the one
/// with which the chat template closes an assistant's message. A model that is made from another often names the
/// other's alone. Logs if there is none.
pub(super) fn turn_ends(
    generation: &GenerationDefaults,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Vec<u32> {
    let mut ids = generation.eos_token_ids.clone();
    ids.extend(tokenizer.eos_id());
    ids.extend(tokenizer.turn_ends());
    ids.extend(template.and_then(|template| template.turn_end(tokenizer)));
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        tracing::warn!(
            "no token is known that ends an answer: the model's files name none, and neither the vocabulary nor the \
             chat template shows one; answers end at max_tokens, a stop string or stop_token_ids alone"
        );
    } else {
        tracing::debug!("tokens that end an answer: {ids:?}");
    }
    ids
}

/// How to sample where a request does not say: what the model's files say, but for values that a request would be
/// refused for. No request must be refused for a value that it did not send.
pub(super) fn default_sampling(generation: &GenerationDefaults) -> SamplingParams {
    let mut sampling = SamplingParams::default();
    let mut take = |set: &dyn Fn(&mut SamplingParams)| {
        let mut alone = SamplingParams::default();
        set(&mut alone);
        match alone.check_values() {
            Ok(()) => set(&mut sampling),
            Err(e) => tracing::warn!("the model's defaults for generation: {e}; it is left out"),
        }
    };
    if let Some(temperature) = generation.temperature {
        take(&|sampling| sampling.temperature = temperature);
    }
    if let Some(top_k) = generation.top_k {
        take(&|sampling| sampling.top_k = top_k);
    }
    if let Some(top_p) = generation.top_p {
        take(&|sampling| sampling.top_p = top_p);
    }
    if let Some(min_p) = generation.min_p {
        take(&|sampling| sampling.min_p = min_p);
    }
    if let Some(penalty) = generation.repetition_penalty {
        take(&|sampling| sampling.repetition_penalty = penalty);
    }
    sampling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_a_request_would_be_refused_for_are_left_out() {
        let plain = SamplingParams::default();
        let wrong = GenerationDefaults {
            temperature: Some(f32::NAN),
            top_p: Some(1.5),
            min_p: Some(-0.1),
            repetition_penalty: Some(0.0),
            top_k: Some(50),
            ..GenerationDefaults::default()
        };
        assert_eq!(default_sampling(&wrong), SamplingParams { top_k: 50, ..plain.clone() });
        let right = GenerationDefaults { temperature: Some(0.6), min_p: Some(0.05), ..GenerationDefaults::default() };
        assert_eq!(default_sampling(&right), SamplingParams { temperature: 0.6, min_p: 0.05, ..plain });
    }
}
