//! How long a step takes, learnt from the steps that have been computed.
use std::time::Duration;

/// The fewest tokens of prompts that a step computes beside decodes, however long they take: with fewer, a prompt would
/// hardly get on, because every step reads all weights once.
pub(crate) const MIN_PREFILL_TOKENS: usize = 32;

/// The octaves of an [`Octaves`]; the last one is open-ended.
const OCTAVES: usize = 24;

/// Positions below this lie in one octave: attention's share of a token's time is small there.
const FIRST_OCTAVE: usize = 512;

/// Seconds as a function of a size that is known at some sizes alone, by octaves of that size.
#[derive(Debug, Default, Clone)]
struct Octaves([Option<f64>; OCTAVES]);

impl Octaves {
    /// The seconds in an octave. Where none are known, those of the next lower octave that has some, doubled for each
    /// octave between, since no cost here grows faster than its size; without one, those of the next higher octave.
    fn get(&self, octave: usize) -> Option<f64> {
        let lower = (0..=octave).rev().find_map(|at| self.0[at].map(|s| s * (1u64 << (octave - at)) as f64));
        lower.or_else(|| self.0[octave..].iter().flatten().next().copied())
    }
}

/// The octave of a size, those up to `first` being in octave 0.
fn octave(size: usize, first: usize) -> usize {
    ((size / first).max(1).ilog2() as usize).min(OCTAVES - 1)
}

/// What decodes and prompts have cost so far. A step takes the time of its decodes, most of which is that of reading
/// all weights, and for each token of a prompt a time that grows with the token's position.
#[derive(Debug, Default, Clone)]
pub(crate) struct StepTimes {
    /// Seconds of a step of decodes alone, by its rows.
    decodes: Octaves,
    /// Seconds that a token of a prompt adds, by its position.
    per_token: Octaves,
}

impl StepTimes {
    /// Seconds that decodes with this many rows take; 0 where nothing is known.
    pub fn decodes(&self, rows: usize) -> f64 {
        self.decodes.get(octave(rows, 1)).filter(|_| rows > 0).unwrap_or(0.0)
    }

    /// Seconds that one token of a prompt adds to a step, in a chunk that starts at this position; `None` until a
    /// prompt has been computed.
    pub fn per_token(&self, start: usize) -> Option<f64> {
        self.per_token.get(octave(start, FIRST_OCTAVE))
    }

    /// Learns from a step whose decodes have `decodes` rows, and of prompts' chunks, `(start, len)` each. Times rise to
    /// what was measured at once and fall half of the way (of their logarithms), so that one slow step makes the next
    /// ones short, and one fast step does not make the next too long.
    pub fn learn(&mut self, decodes: usize, prefills: &[(usize, usize)], elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        if prefills.is_empty() {
            let known = &mut self.decodes.0[octave(decodes, 1)];
            *known = Some(known.map_or(seconds, |before| (before + seconds) / 2.0));
            return;
        }
        // Decodes that share a step with prompts may be nearly free, so their time is never believed to be all.
        let added = (seconds - self.decodes(decodes)).max(seconds / 8.0);
        let tokens: usize = prefills.iter().map(|(_, len)| len).sum();
        let even = added / tokens as f64;
        let expected: f64 = prefills.iter().map(|&(at, len)| self.per_token(at).unwrap_or(even) * len as f64).sum();
        let ratio = added / expected;
        let factor = if ratio > 1.0 { ratio } else { ratio.sqrt() };
        let mut learnt = self.per_token.clone();
        for &(at, _) in prefills {
            learnt.0[octave(at, FIRST_OCTAVE)] = Some(self.per_token(at).map_or(even, |before| before * factor));
        }
        self.per_token = learnt;
    }
}

/// What is left of a step for prompts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefillBudget {
    /// Tokens.
    pub tokens: usize,
    /// Seconds; infinite where time does not matter.
    pub seconds: f64,
}

impl PrefillBudget {
    /// Takes up to `wanted` tokens of `per_token` seconds each; returns how many.
    pub fn take(&mut self, wanted: usize, per_token: f64) -> usize {
        let in_time = if self.seconds.is_finite() { (self.seconds / per_token) as usize } else { usize::MAX };
        let tokens = wanted.min(self.tokens).min(in_time);
        self.tokens -= tokens;
        self.seconds -= tokens as f64 * per_token;
        tokens
    }

    /// Takes half of the budget off.
    pub fn split_half(&mut self) -> Self {
        let half = PrefillBudget { tokens: self.tokens.div_ceil(2), seconds: self.seconds / 2.0 };
        self.tokens -= half.tokens;
        self.seconds -= if half.seconds.is_finite() { half.seconds } else { 0.0 };
        half
    }

    /// Gives back what is left of another budget.
    pub fn give_back(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.seconds += other.seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_taken_from_smaller_sizes_doubled_or_from_larger_ones() {
        let mut octaves = Octaves::default();
        assert_eq!(octaves.get(3), None);
        octaves.0[2] = Some(1.0);
        assert_eq!([0, 1, 2, 3, 5].map(|at| octaves.get(at)), [1.0, 1.0, 1.0, 2.0, 8.0].map(Some));
    }

    #[test]
    fn sizes_lie_in_octaves() {
        assert_eq!([0, 511, 512, 1023, 1024, 2048, usize::MAX].map(|n| octave(n, 512)), [0, 0, 0, 0, 1, 2, 23]);
    }

    #[test]
    fn a_slow_step_counts_at_once_and_a_fast_one_by_half() {
        let mut times = StepTimes::default();
        times.learn(1, &[], Duration::from_millis(10));
        assert_eq!((times.decodes(1), times.decodes(0), times.per_token(0)), (0.01, 0.0, None));
        let step = |times: &mut StepTimes, milliseconds| {
            times.learn(1, &[(0, 100)], Duration::from_millis(milliseconds));
            (times.per_token(0).unwrap() * 1e6).round()
        };
        assert_eq!(step(&mut times, 110), 1000.0);
        assert_eq!(step(&mut times, 410), 4000.0);
        assert_eq!(step(&mut times, 110), 2000.0);
    }
}
