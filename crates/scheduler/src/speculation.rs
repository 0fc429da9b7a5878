//! Speculation: what a sequence's drafts are and how long one of them may be.
use crate::lookup::{LookupIndex, MIN_MATCH, continuation};
use crate::row_times::RowTimes;

/// Matches are told apart by their length, since a long one is right more often: those of less than 5 tokens, less than
/// 9, and longer ones. A class of their own are places at which a draft goes on after its rejected token.
const MATCH_LENGTHS: [usize; 2] = [MIN_MATCH + 2, MIN_MATCH + 6];

/// The number of classes.
const CLASSES: usize = MATCH_LENGTHS.len() + 2;

/// The class of places that no match leads to.
const RESUMED: usize = CLASSES - 1;

/// The share of draft tokens that is expected to be accepted before any has been tried, for each class.
const PRIOR_RATES: [f64; CLASSES] = [0.4, 0.6, 0.8, 0.4];

/// The share of what was learnt of drafts that each further token leaves of it that the model was asked about.
const KEPT_A_TOKEN: f64 = 0.9;

/// The share of it that each step without a draft leaves. It decides how soon drafts are tried again that were not
/// accepted.
const KEPT_A_STEP: f64 = 0.995;

/// The largest share of accepted tokens that is believed in: a draft of any length would be worth its rows with 1.
const MAX_RATE: f64 = 0.98;

/// A draft must be expected to gain this much, as a logarithm, since what is expected is not exact.
const LEAST_GAIN: f64 = 0.02;

/// How many draft tokens were accepted of those that the model was asked about.
#[derive(Debug, Clone, Copy, Default)]
struct Acceptance {
    accepted: f64,
    tried: f64,
}

impl Acceptance {
    /// The share to expect, with one token at the prior rate beside what was learnt.
    fn rate(&self, prior: f64) -> f64 {
        ((self.accepted + prior) / (self.tried + 1.0)).min(MAX_RATE)
    }

    fn keep(&mut self, share: f64) {
        self.accepted *= share;
        self.tried *= share;
    }
}

/// The class of a match of this length.
fn class(match_len: usize) -> usize {
    MATCH_LENGTHS.iter().filter(|len| match_len >= **len).count()
}

/// What else a step computes, by which a draft's worth is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// What rows cost.
    pub times: &'a RowTimes,
    /// Rows of the step without the draft.
    pub rows: usize,
    /// Sequences that wait for the step, the draft's own included.
    pub waiting: usize,
    /// The most tokens that the draft may have.
    pub most: usize,
}

impl Surroundings<'_> {
    /// The length of a draft that serves best where each of its tokens is accepted with probability `rate`. A step of
    /// k draft tokens yields 1 + rate + ... + rate^k tokens (Leviathan et al., arXiv:2211.17192) and makes everybody
    /// wait longer. The best k has the largest product of all sequences' tokens a second, so that a sequence never
    /// gains by a draft less than the others lose together (proportional fairness).
    fn best_len(&self, rate: f64) -> usize {
        let (mut best, mut best_gain) = (0, LEAST_GAIN);
        let (mut expected, mut power) = (1.0, 1.0);
        for len in 1..=self.most {
            power *= rate;
            expected += power;
            let slower = self.times.ratio(self.rows, self.rows + len);
            let gain = f64::ln(expected) - self.waiting as f64 * slower.ln();
            if gain > best_gain {
                (best, best_gain) = (len, gain);
            }
        }
        best
    }
}

/// The drafts of one sequence: where they come from, and how many of them were accepted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Speculation {
    index: LookupIndex,
    /// For each class of matches.
    acceptance: [Acceptance; CLASSES],
    /// The class of the draft under way.
    class: usize,
    /// The position of the tokens that the draft under way repeats.
    source: usize,
    /// The position after a token that was rejected in the last step: where one token takes the place of another, what
    /// follows is often the same.
    resume: Option<usize>,
}

impl Speculation {
    /// A draft for what follows `tokens`, all of the sequence; none where none is worth its rows.
    pub fn draft(&mut self, tokens: &[u32], around: Surroundings<'_>) -> Vec<u32> {
        self.acceptance.iter_mut().for_each(|class| class.keep(KEPT_A_STEP));
        let resume = self.resume.take().filter(|position| *position < tokens.len());
        if around.best_len(MAX_RATE) == 0 {
            return Vec::new();
        }
        self.index.extend(tokens);
        let found = self.index.find(tokens).map(|found| (found.position, class(found.len)));
        let Some((source, class)) = found.or(resume.map(|position| (position, RESUMED))) else { return Vec::new() };
        (self.source, self.class) = (source, class);
        let rate = self.acceptance[class].rate(PRIOR_RATES[class]);
        continuation(tokens, source, around.best_len(rate))
    }

    /// Takes in how many tokens of the last draft, from its first one on, were accepted.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        let class = &mut self.acceptance[self.class];
        let tried = (accepted + 1).min(drafted);
        class.keep(KEPT_A_TOKEN.powi(tried as i32));
        class.accepted += accepted as f64;
        class.tried += tried as f64;
        self.resume = Some(self.source + accepted + 1).filter(|_| accepted < drafted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps in which a row adds this share of what a step takes beside its rows.
    fn times(share: f64) -> RowTimes {
        let mut times = RowTimes::default();
        for _ in 0..200 {
            [1, 5, 9, 17].into_iter().for_each(|rows| times.learn(rows, 1.0 + share * rows as f64));
        }
        times
    }

    fn around(times: &RowTimes, waiting: usize) -> Surroundings<'_> {
        Surroundings { times, rows: waiting, waiting, most: 16 }
    }

    #[test]
    fn a_draft_is_as_long_as_it_is_worth() {
        let (cheap, dear) = (times(0.05), times(1.0));
        let len = |times, waiting, rate| around(times, waiting).best_len(rate);
        assert_eq!(len(&cheap, 1, MAX_RATE), 16);
        assert_eq!(len(&cheap, 1, 0.02), 0);
        // 1 + 0.5 + 0.25 + 0.125 tokens in 1.2 / 1.05 of the time; the next token adds less than it costs.
        let middle = len(&cheap, 1, 0.5);
        assert!((2..=4).contains(&middle), "{middle}");
        assert!(len(&dear, 1, 0.5) < middle);
        // A token of eight sequences' steps costs all of them its time.
        assert!(len(&cheap, 8, MAX_RATE) < 16);
        assert_eq!(len(&dear, 8, 0.9), 0);
        assert_eq!(Surroundings { most: 0, ..around(&cheap, 1) }.best_len(MAX_RATE), 0);
    }

    /// A text comes again with other tokens in the places of some.
    #[test]
    fn a_draft_goes_on_behind_a_token_that_was_replaced() {
        let times = times(0.1);
        let text: Vec<u32> = (0..20).collect();
        let mut drafts = Speculation::default();
        let mut tokens = [&text[..], &text[..3]].concat();
        let draft = drafts.draft(&tokens, around(&times, 1));
        assert_eq!(draft[..2], [3, 4]);
        // Another token comes in the place of 4, and then of 5.
        drafts.learn(draft.len(), 1);
        tokens.extend([3, 100]);
        let draft = drafts.draft(&tokens, around(&times, 1));
        assert_eq!(draft[..1], [5]);
        drafts.learn(draft.len(), 0);
        tokens.push(101);
        let draft = drafts.draft(&tokens, around(&times, 1));
        assert_eq!(draft[..1], [6]);
        // Once all of it was right, only matches lead on.
        drafts.learn(draft.len(), draft.len());
        assert_eq!(drafts.draft(&[&tokens[..], &[200, 201, 202]].concat(), around(&times, 1)), []);
    }

    #[test]
    fn drafts_shrink_after_misses_grow_after_hits_and_are_tried_again() {
        let times = times(0.1);
        let tokens: Vec<u32> = (0..40).chain(0..4).collect();
        let mut drafts = Speculation::default();
        let mut next = |accepted: usize| {
            let draft = drafts.draft(&tokens, around(&times, 1));
            assert_eq!(draft, (4..4 + draft.len() as u32).collect::<Vec<_>>());
            if !draft.is_empty() {
                drafts.learn(draft.len(), accepted.min(draft.len()));
            }
            draft.len()
        };
        let first = next(usize::MAX);
        assert!(first > 0);
        let grown = (0..20).map(|_| next(usize::MAX)).last().unwrap();
        assert!(grown > first, "{first}, then {grown}");
        // What is never accepted costs few rows.
        let wasted: usize = (0..200).map(|_| next(0)).sum();
        assert!((1..100).contains(&wasted), "{wasted} rows");
        let later: usize = (0..200).map(|_| next(0)).sum();
        assert!((1..=6).contains(&later), "{later} rows");
    }
}
