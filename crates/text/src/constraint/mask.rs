//! The set of tokens that may come next.
use llguidance::toktrie::SimpleVob;

/// The tokens that may come next in an answer.
#[derive(Clone)]
pub struct TokenMask(SimpleVob);

impl std::fmt::Debug for TokenMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMask").field("allowed", &self.0.num_set()).finish_non_exhaustive()
    }
}

impl TokenMask {
    pub(super) fn new(set: SimpleVob) -> Self {
        TokenMask(set)
    }

    /// Whether `token` may come next.
    pub fn allows(&self, token: u32) -> bool {
        (token as usize) < self.0.len() && self.0.is_allowed(token)
    }

    /// Sets the logits of all tokens that may not come next to minus infinity. `logits` has one for each token.
    pub fn apply(&self, logits: &mut [f32]) {
        let words = self.0.as_slice();
        for (at, chunk) in logits.chunks_mut(u32::BITS as usize).enumerate() {
            // Most words are all zeros or all ones.
            match words.get(at).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => chunk.fill(f32::NEG_INFINITY),
                word => {
                    let refused = chunk.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    refused.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
    }
}
