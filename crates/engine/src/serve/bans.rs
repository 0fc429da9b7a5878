//! Tokens that may not come next in an answer: ends before its least length, and the last token of a sequence that it
//! must not have.
use std::sync::Arc;

/// The tokens that an answer's next token may not be, beside those that its constraint forbids.
#[derive(Debug, Clone, Default)]
pub(super) struct Bans {
    /// Tokens that are not drawn before `min_tokens` others.
    ends: Arc<[u32]>,
    min_tokens: u64,
    /// Sequences of which the last token is not drawn after the others.
    sequences: Arc<[Vec<u32>]>,
    /// The answer's last tokens: as many as a sequence has before its last.
    recent: Vec<u32>,
}

impl Bans {
    pub fn new(sequences: Arc<[Vec<u32>]>) -> Self {
        Bans { sequences, ..Bans::default() }
    }

    /// Bans the tokens `ends` before `min_tokens` others.
    pub fn with_ends(self, ends: Arc<[u32]>, min_tokens: usize) -> Self {
        Bans { ends, min_tokens: min_tokens as u64, ..self }
    }

    /// Whether a token may be banned after `num_tokens` others.
    pub fn may_apply(&self, num_tokens: u64) -> bool {
        !self.sequences.is_empty() || self.holds_back_ends(num_tokens)
    }

    fn holds_back_ends(&self, num_tokens: u64) -> bool {
        num_tokens < self.min_tokens && !self.ends.is_empty()
    }

    /// Takes in the answer's next token.
    pub fn accept(&mut self, token: u32) {
        let most = self.sequences.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
        self.recent.push(token);
        self.recent.drain(..self.recent.len().saturating_sub(most));
    }

    /// Takes their probability from the tokens that may not come next after `num_tokens` others.
    pub fn apply(&self, logits: &mut [f32], num_tokens: u64) {
        let lasts = self.sequences.iter().filter_map(|sequence| {
            let (last, before) = sequence.split_last()?;
            self.recent.ends_with(before).then_some(*last)
        });
        take_away(logits, lasts);
        if self.holds_back_ends(num_tokens) {
            take_away(logits, self.ends.iter().copied());
        }
    }
}

/// Takes their probability from `tokens`, unless nothing would be left: a constraint may let nothing else come next.
fn take_away(logits: &mut [f32], tokens: impl Iterator<Item = u32>) {
    // A model's files may name ids that its vocabulary does not have.
    let taken: Vec<(usize, f32)> = tokens.filter_map(|id| Some((id as usize, *logits.get(id as usize)?))).collect();
    taken.iter().for_each(|(id, _)| logits[*id] = f32::NEG_INFINITY);
    if !taken.is_empty() && !logits.iter().any(|logit| *logit > f32::NEG_INFINITY) {
        taken.into_iter().for_each(|(id, logit)| logits[id] = logit);
    }
}

#[cfg(test)]
mod tests {
    use crate::serve::request::SamplingParams;
    use crate::serve::sampler::SamplerState;

    #[test]
    fn ends_are_not_drawn_before_the_least_length() {
        let mut state = SamplerState::new(SamplingParams::greedy(), 0, 0, &[]).with_min_tokens(2, [2, 9].into());
        let drawn = [0, 1, 2].map(|_| {
            // All logits are needed as long as one of them may not be drawn.
            let needs = state.needs();
            (needs, state.sample(&mut [0.0, 1.0, 2.0]).unwrap())
        });
        assert_eq!(drawn, [(None, 1), (None, 1), (Some(1), 2)]);
        // A constraint that lets nothing else come next wins.
        let mut state = SamplerState::new(SamplingParams::greedy(), 0, 0, &[]).with_min_tokens(2, [2, 2].into());
        assert_eq!(state.sample(&mut [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.5]), Some(2));
    }

    #[test]
    fn a_banned_sequence_is_not_completed() {
        let banned = |sequences: &[&[u32]]| SamplingParams {
            banned_sequences: sequences.iter().map(|sequence| sequence.to_vec()).collect(),
            ..SamplingParams::greedy()
        };
        let draws = |sequences: &[&[u32]], rows: &[[f32; 4]]| -> Vec<u32> {
            let mut state = SamplerState::new(banned(sequences), 0, 0, &[3, 3]);
            assert_eq!(state.needs(), None);
            rows.iter().map(|row| state.sample(&mut row.clone()).unwrap()).collect()
        };
        let ascending = [[0.0, 1.0, 2.0, 3.0]; 4];
        assert_eq!(draws(&[&[3]], &ascending), [2, 2, 2, 2]);
        // What the prompt ends with is no part of the answer.
        assert_eq!(draws(&[&[3, 3]], &ascending), [3, 2, 3, 2]);
        assert_eq!(draws(&[&[3, 3, 3], &[3, 3, 2]], &ascending), [3, 3, 1, 3]);
        assert_eq!(draws(&[&[9]], &ascending), [3, 3, 3, 3]);
        let only = [[f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 1.0]];
        assert_eq!(draws(&[&[3]], &only), [3], "nothing else may come next");
    }
}
