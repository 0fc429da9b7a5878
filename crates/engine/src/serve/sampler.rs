//! From logits to a token.
//!
//! Order: logit bias, penalties, tokens that may not come next, temperature, top-k, top-p, min-p, draw.
//! Log-probabilities are the model's own, before all of it.
use super::bans::Bans;
use super::request::{SamplingParams, TokenLogprob};
use compute::MASKED_LOGIT;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// The state on which the sampling of one choice depends beside its logits.
#[derive(Debug, Clone)]
pub struct SamplerState {
    params: SamplingParams,
    /// Picks the stream of random numbers, together with the choice and the number of the token.
    seed: u64,
    choice: u32,
    /// How often the output holds a token; 0 for tokens that only the prompt holds. Empty unless a penalty asks for it.
    seen: HashMap<u32, u32>,
    tokens_drawn: u64,
    bans: Bans,
}

impl SamplerState {
    /// The state before the first token of choice `choice`. `seed` serves where the parameters name none.
    pub fn new(params: SamplingParams, seed: u64, choice: u32, prompt: &[u32]) -> Self {
        let seed = params.seed.unwrap_or(seed);
        let bans = Bans::new(params.banned_sequences.clone());
        let mut state = SamplerState { params, seed, choice, seen: HashMap::new(), tokens_drawn: 0, bans };
        if state.counts() {
            state.seen = prompt.iter().map(|t| (*t, 0)).collect();
        }
        state
    }

    /// Draws none of the tokens `ends` before `min_tokens` others.
    pub fn with_min_tokens(self, min_tokens: usize, ends: Arc<[u32]>) -> Self {
        SamplerState { bans: self.bans.with_ends(ends, min_tokens), ..self }
    }

    /// How many tokens the choice has so far.
    pub fn tokens_drawn(&self) -> u64 {
        self.tokens_drawn
    }

    fn counts(&self) -> bool {
        let p = &self.params;
        p.repetition_penalty != 1.0 || p.presence_penalty != 0.0 || p.frequency_penalty != 0.0
    }

    /// How many of the largest logits [`Self::sample_largest`] needs for what `sample` draws from all of them; `None`:
    /// all.
    pub fn needs(&self) -> Option<usize> {
        let p = &self.params;
        let masks = p.allowed_token_ids.is_some() || self.bans.may_apply(self.tokens_drawn);
        if masks || self.counts() || !p.logit_bias.is_empty() {
            return None;
        }
        if p.temperature == 0.0 { Some(1) } else { Some(p.top_k).filter(|k| *k > 0) }
    }

    /// The next token, or `None` if no logit is a number. `logits` are left changed.
    pub fn sample(&mut self, logits: &mut [f32]) -> Option<u32> {
        self.penalise(logits);
        self.mask(logits);
        let token = match self.params.temperature == 0.0 {
            // Where no allowed token has a number, the largest is one that is masked.
            true => argmax(logits).filter(|token| logits[*token as usize] > f32::NEG_INFINITY)?,
            false => {
                let possible = logits.iter().enumerate().filter(|(_, l)| !l.is_nan() && **l > f32::NEG_INFINITY);
                self.draw(possible.map(|(token, logit)| (token as u32, *logit)).collect())?
            }
        };
        self.accept(token);
        Some(token)
    }

    /// Takes in the next token, wherever it comes from.
    pub fn accept(&mut self, token: u32) {
        self.tokens_drawn += 1;
        self.bans.accept(token);
        if self.counts() {
            *self.seen.entry(token).or_default() += 1;
        }
    }

    /// The next token from the largest logits alone, with their ids, in descending order: at least as many as
    /// [`Self::needs`] says. `None` if no logit is a number.
    pub fn sample_largest(&mut self, largest: &[(u32, f32)]) -> Option<u32> {
        let numbers: Vec<_> = largest.iter().copied().filter(|(_, logit)| *logit > MASKED_LOGIT).collect();
        let token = if self.params.temperature == 0.0 { numbers.first()?.0 } else { self.draw(numbers)? };
        self.accept(token);
        Some(token)
    }

    fn penalise(&self, logits: &mut [f32]) {
        for &(token, bias) in &self.params.logit_bias {
            logits[token as usize] += bias;
        }
        let p = &self.params;
        for (&token, &times) in &self.seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / p.repetition_penalty } else { *logit * p.repetition_penalty };
            if times > 0 {
                *logit -= p.presence_penalty + p.frequency_penalty * times as f32;
            }
        }
    }

    /// Takes their probability from the tokens that may not come next.
    fn mask(&self, logits: &mut [f32]) {
        if let Some(allowed) = &self.params.allowed_token_ids {
            let kept: Vec<f32> = allowed.iter().map(|token| logits[*token as usize]).collect();
            logits.fill(f32::NEG_INFINITY);
            allowed.iter().zip(kept).for_each(|(token, logit)| logits[*token as usize] = logit);
        }
        self.bans.apply(logits, self.tokens_drawn);
    }

    fn draw(&self, mut logits: Vec<(u32, f32)>) -> Option<u32> {
        let p = &self.params;
        if p.top_k > 0 && p.top_k < logits.len() {
            logits.select_nth_unstable_by(p.top_k - 1, likelier);
            logits.truncate(p.top_k);
            // So that sums do not depend on the order that the cut left.
            logits.sort_unstable_by_key(|(token, _)| *token);
        }
        let top = logits.iter().map(|(_, logit)| *logit).reduce(f32::max)?;
        let weight = |logit: f32| f64::from((logit - top) / p.temperature).exp();
        let mut kept: Vec<(u32, f64)> = logits.into_iter().map(|(token, logit)| (token, weight(logit))).collect();
        if p.top_p < 1.0 {
            nucleus(&mut kept, f64::from(p.top_p));
        }
        // The likeliest has weight 1.
        kept.retain(|(_, w)| *w >= f64::from(p.min_p));
        // By id, so that the draw does not depend on how the cuts above left the order.
        kept.sort_unstable_by_key(|(token, _)| *token);
        let total: f64 = kept.iter().map(|(_, w)| w).sum();
        let mut rest = uniform(self.seed, self.choice, self.tokens_drawn) * total;
        for (token, weight) in &kept {
            rest -= weight;
            if rest < 0.0 {
                return Some(*token);
            }
        }
        // Rounding may leave a trace: the last token that has any weight.
        kept.iter().rev().find(|(_, w)| *w > 0.0).map(|(token, _)| *token)
    }
}

/// Largest first, the smaller id among equals.
fn likelier<T: PartialOrd>(a: &(u32, T), b: &(u32, T)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Keeps the smallest set of likeliest tokens whose share reaches `p`.
fn nucleus(kept: &mut Vec<(u32, f64)>, p: f64) {
    let total: f64 = kept.iter().map(|(_, w)| w).sum();
    // All tokens below this together hold less than 1 - p, so none of them is needed: a few are left to sort.
    let floor = total * (1.0 - p) / kept.len() as f64;
    kept.retain(|(_, w)| *w >= floor);
    kept.sort_unstable_by(likelier);
    let mut sum = 0.0;
    let enough = kept.iter().position(|(_, w)| {
        sum += w;
        sum >= p * total
    });
    kept.truncate(enough.map_or(kept.len(), |last| last + 1));
}

/// The largest logit, the smallest id among equals; `None` if there is no number.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    // In lanes, which the compiler vectorises. NaN is larger than nothing.
    const LANES: usize = 16;
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        best.iter_mut().zip(chunk).for_each(|(best, l)| *best = if *l > *best { *l } else { *best });
    }
    let best = best.iter().chain(rest).fold(f32::NEG_INFINITY, |best, l| if *l > best { *l } else { best });
    // Minus infinity is the logit of a token that may not come.
    logits.iter().position(|l| *l == best && *l > f32::NEG_INFINITY).map(|i| i as u32)
}

/// A number in [0, 1) for one token: a hash (SplitMix64's finaliser) of seed, choice and place, so that a draw depends
/// on neither the batch nor on how often a sequence was preempted.
fn uniform(seed: u64, choice: u32, place: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let stream = mix(seed.wrapping_add(GAMMA)).wrapping_add(u64::from(choice).wrapping_mul(GAMMA));
    let bits = mix(mix(stream).wrapping_add(place.wrapping_mul(GAMMA)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Log-probability of `token` with the `top` most likely ones.
pub fn logprob(logits: &[f32], token: u32, top: usize) -> TokenLogprob {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if top > 0 && top < ids.len() {
        ids.select_nth_unstable_by(top - 1, order);
    }
    ids.truncate(top);
    ids.sort_unstable_by(order);
    logprob_with(logits, token, &ids)
}

/// Log-probability of `token` with those of the tokens `others`, in their order.
pub fn logprob_with(logits: &[f32], token: u32, others: &[u32]) -> TokenLogprob {
    let max = logits.iter().copied().filter(|l| !l.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().filter(|l| !l.is_nan()).map(|l| f64::from(l - max).exp()).sum();
    let norm = f64::from(max) + sum.ln();
    let of = |t: u32| (f64::from(logits[t as usize]) - norm) as f32;
    TokenLogprob { token, logprob: of(token), top: others.iter().map(|t| (*t, of(*t))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(params: SamplingParams, logits: &[f32], n: usize) -> Vec<u32> {
        let mut state = SamplerState::new(SamplingParams { seed: Some(7), ..params }, 0, 0, &[]);
        (0..n).map(|_| state.sample(&mut logits.to_vec()).unwrap()).collect()
    }

    /// Shares of a long run lie within four standard deviations of the probabilities.
    fn assert_shares(draws: &[u32], probabilities: &[f64]) {
        let n = draws.len() as f64;
        for (token, p) in probabilities.iter().enumerate() {
            let share = draws.iter().filter(|t| **t == token as u32).count() as f64 / n;
            assert!((share - p).abs() <= 4.0 * (p * (1.0 - p) / n).sqrt(), "token {token}: {share} of {p}");
        }
    }

    #[test]
    fn draws_follow_the_softmax_at_each_temperature() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        for temperature in [0.5, 1.0, 2.0] {
            let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            let p: Vec<f64> = weights.iter().map(|w| w / total).collect();
            let params = SamplingParams { temperature: temperature as f32, ..Default::default() };
            assert_shares(&draws(params, &logits, 20_000), &p);
        }
    }

    #[test]
    fn cuts_leave_the_likeliest_and_renormalise() {
        // Probabilities .4 .3 .2 .1 in another order.
        let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect();
        let with = |f: fn(&mut SamplingParams)| {
            let mut params = SamplingParams::default();
            f(&mut params);
            draws(params, &logits, 20_000)
        };
        assert_shares(&with(|p| p.top_k = 2), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        // .4 + .3 reaches .65, .4 alone does not.
        assert_shares(&with(|p| p.top_p = 0.65), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        assert_shares(&with(|p| p.top_p = 0.3), &[0.0, 1.0, 0.0, 0.0]);
        assert_shares(&with(|p| p.top_p = 0.0), &[0.0, 1.0, 0.0, 0.0]);
        // At least .45 of .4.
        assert_shares(&with(|p| p.min_p = 0.45), &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
    }

    #[test]
    fn greedy_takes_the_smallest_of_equals_and_skips_nan() {
        let greedy = SamplingParams::greedy();
        assert_eq!(draws(greedy.clone(), &[1.0, f32::NAN, 3.0, 3.0], 1), [2]);
        assert_eq!(SamplerState::new(greedy, 0, 0, &[]).sample(&mut [f32::NAN; 3]), None);
        assert_eq!(draws(SamplingParams::default(), &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY], 3), [1, 1, 1]);
    }

    /// From the largest, as many as are needed and more, what is drawn from all, token by token.
    #[test]
    fn the_largest_are_enough_where_they_say_so() {
        let logits: Vec<f32> = (0..500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 25) as f32 / 20.0).collect();
        let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        order.sort_by(likelier);
        let sampling = |temperature, top_k, top_p, min_p| SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            seed: Some(3),
            ..Default::default()
        };
        for params in [
            SamplingParams::greedy(),
            sampling(0.7, 1, 1.0, 0.0),
            sampling(1.0, 20, 0.95, 0.0),
            sampling(1.5, 40, 1.0, 0.05),
            sampling(0.6, 50, 0.8, 0.01),
        ] {
            let new = || SamplerState::new(params.clone(), 0, 0, &[]);
            let needs = new().needs().unwrap();
            for more in [0, 13] {
                let (mut all, mut some) = (new(), new());
                for place in 0..300 {
                    let want = all.sample(&mut logits.clone());
                    assert_eq!(some.sample_largest(&order[..needs + more]), want, "{params:?} place {place}");
                }
            }
        }
        let with = |f: fn(&mut SamplingParams)| {
            let mut params = sampling(1.0, 20, 1.0, 0.0);
            f(&mut params);
            SamplerState::new(params, 0, 0, &[]).needs()
        };
        assert_eq!(with(|p| p.top_k = 0), None);
        assert_eq!(with(|p| p.presence_penalty = 0.1), None);
        assert_eq!(with(|p| p.logit_bias = vec![(1, 1.0)]), None);
        let mut greedy = SamplerState::new(SamplingParams::greedy(), 0, 0, &[]);
        assert_eq!(greedy.sample_largest(&[(7, MASKED_LOGIT)]), None);
    }

    #[test]
    fn penalties_and_bias_move_logits_as_defined() {
        let params = SamplingParams {
            repetition_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(3, 10.0)],
            ..SamplingParams::greedy()
        };
        let mut state = SamplerState::new(params, 0, 0, &[0, 1]);
        state.seen.insert(2, 2);
        let mut logits = [4.0, -4.0, 4.0, 0.0];
        state.penalise(&mut logits);
        // Prompt tokens: repetition alone. Token 2: 4 / 2 - .5 - 2 x .25.
        assert_eq!(logits, [2.0, -8.0, 1.0, 10.0]);
    }

    #[test]
    fn only_allowed_tokens_are_drawn_in_the_shares_they_have_among_themselves() {
        let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.1].iter().map(|p| p.ln()).collect();
        let allowed = |ids: &[u32]| SamplingParams { allowed_token_ids: Some(ids.to_vec()), ..Default::default() };
        // An id that is named twice is no likelier for it.
        assert_shares(&draws(allowed(&[3, 1, 3]), &logits, 20_000), &[0.0, 0.75, 0.0, 0.25]);
        assert_eq!(draws(SamplingParams { temperature: 0.0, ..allowed(&[3, 2]) }, &logits, 1), [2]);
        // No bias brings back what is not allowed.
        let biased = SamplingParams { logit_bias: vec![(0, 100.0)], ..allowed(&[1]) };
        assert_eq!(draws(biased, &logits, 3), [1, 1, 1]);
        let mut state = SamplerState::new(SamplingParams { temperature: 0.0, ..allowed(&[1]) }, 0, 0, &[]);
        assert_eq!((state.sample(&mut [0.0, f32::NAN]), state.needs()), (None, None));
    }

    #[test]
    fn streams_differ_by_seed_choice_and_place() {
        let draw = |seed, choice, place| uniform(seed, choice, place).to_bits();
        let all: std::collections::BTreeSet<_> =
            (0..8).flat_map(|s| (0..8).flat_map(move |c| (0..8).map(move |p| draw(s, c, p)))).collect();
        assert_eq!(all.len(), 512);
    }

    #[test]
    fn logprobs_are_the_log_softmax_with_the_top_in_order() {
        let got = logprob(&[0.0, 2.0, 1.0, 2.0], 2, 3);
        let norm = (1.0 + 2.0 * 2f64.exp() + 1f64.exp()).ln();
        assert_eq!(got.top.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [1, 3, 2]);
        assert!((f64::from(got.logprob) - (1.0 - norm)).abs() < 1e-6);
        assert!((f64::from(got.top[0].1) - (2.0 - norm)).abs() < 1e-6);
        assert!(logprob(&[0.0, 1.0], 0, 0).top.is_empty());
        let named = logprob_with(&[0.0, 2.0, 1.0, 2.0], 2, &[0, 3]);
        assert_eq!(named.top, [(0, -norm as f32), (3, (2.0 - norm) as f32)]);
        assert_eq!(named.logprob, got.logprob);
    }
}
