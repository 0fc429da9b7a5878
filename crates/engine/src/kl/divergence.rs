//! The Kullback-Leibler divergence of two distributions of the next token.
use rayon::prelude::*;

/// Makes log-probabilities of logits, row by row: `[rows][vocab]`.
pub fn log_softmax(logits: &mut [f32], vocab: usize) {
    logits.par_chunks_exact_mut(vocab).for_each(|row| {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from((x - max).exp())).sum();
        let norm = max + sum.ln() as f32;
        row.iter_mut().for_each(|x| *x -= norm);
    });
}

/// The divergence of `got` from `want`, nats: both are log-probabilities of the same tokens.
pub fn divergence(want: &[f32], got: &[f32]) -> f32 {
    want.iter().zip(got).map(|(w, g)| f64::from(w.exp() * (w - g))).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two distributions are (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2), whose divergence is (ln 2) / 4.
    #[test]
    fn the_divergence_is_that_of_its_definition() {
        let ln2 = std::f32::consts::LN_2;
        let mut rows = [ln2 + 7.0, 7.0, 7.0, -3.0, -3.0, ln2 - 3.0];
        log_softmax(&mut rows, 3);
        let (want, got) = rows.split_at(3);
        // Each log-probability is rounded to 24 bits of numbers below 10, and there are three of each.
        let rounding = 6.0 * 10.0 * 6e-8;
        assert!((divergence(want, got) - ln2 / 4.0).abs() < rounding);
        assert_eq!(divergence(want, want), 0.0);
    }
}
