//! What further rows add to the time of a step of decodes, learnt from the steps that have been computed.

/// The share of what was learnt that each further step leaves of it.
const KEPT: f64 = 0.95;

/// What a row adds, as a share of what a step takes beside its rows, before it has been measured. On two cores of an
/// Intel Xeon a row of Q4_K weights adds 0.1 (`crates/matmul/README.md`).
const PRIOR_SHARE: f64 = 0.1;

/// How much that counts: as much as two steps whose rows differ by 2 from the mean.
const PRIOR_WEIGHT: f64 = 2.0 * 4.0;

/// A step counts as this many times its expected time at most, so that one that the system has held up changes little.
const MAX_SURPRISE: f64 = 2.0;

/// The seconds of a step of decodes as a linear function of its rows: least squares over the last steps. What is not
/// measured any more is forgotten, so that drafts that did not pay are tried again.
#[derive(Debug, Default, Clone)]
pub(crate) struct RowTimes {
    /// The sums over steps: of 1, rows, rows², seconds, rows x seconds.
    steps: f64,
    rows: f64,
    squares: f64,
    seconds: f64,
    products: f64,
}

impl RowTimes {
    /// Takes in a step of decodes alone.
    pub fn learn(&mut self, rows: usize, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let rows = rows as f64;
        let (fixed, per_row) = self.fit();
        // Before anything is known, the fit is a ratio and no time.
        let most = if self.steps > 0.0 { MAX_SURPRISE * (fixed + per_row * rows) } else { f64::INFINITY };
        let seconds = seconds.min(most);
        let sums = [&mut self.steps, &mut self.rows, &mut self.squares, &mut self.seconds, &mut self.products];
        for (sum, value) in sums.into_iter().zip([1.0, rows, rows * rows, seconds, rows * seconds]) {
            *sum = *sum * KEPT + value;
        }
    }

    /// How many times as long a step takes with `more` rows than with `rows`.
    pub fn ratio(&self, rows: usize, more: usize) -> f64 {
        let (fixed, per_row) = self.fit();
        let time = |rows: usize| fixed + per_row * rows as f64;
        time(more) / time(rows)
    }

    /// What a step takes beside its rows and what each row adds: the sums' least squares, with a further term of
    /// [`PRIOR_WEIGHT`] x (per_row - [`PRIOR_SHARE`] x fixed)². Without steps, as shares of the former.
    fn fit(&self) -> (f64, f64) {
        let cross = self.rows - PRIOR_WEIGHT * PRIOR_SHARE;
        let (of_fixed, of_row) = (self.steps + PRIOR_WEIGHT * PRIOR_SHARE * PRIOR_SHARE, self.squares + PRIOR_WEIGHT);
        let determinant = of_fixed * of_row - cross * cross;
        let fixed = (self.seconds * of_row - self.products * cross) / determinant;
        let per_row = (self.products * of_fixed - self.seconds * cross) / determinant;
        // No step is as long as its rows alone would make it, and none is shorter for having more rows.
        if self.steps > 0.0 && fixed > 0.0 && per_row >= 0.0 {
            return (fixed, per_row);
        }
        let mean = self.seconds / self.rows.max(f64::MIN_POSITIVE);
        match self.steps > 0.0 {
            true if per_row < 0.0 => (self.seconds / self.steps, 0.0),
            true => (f64::MIN_POSITIVE, mean),
            false => (1.0, PRIOR_SHARE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(steps: impl IntoIterator<Item = (usize, f64)>) -> RowTimes {
        let mut times = RowTimes::default();
        steps.into_iter().for_each(|(rows, seconds)| times.learn(rows, seconds));
        times
    }

    /// `share`: by how much of `want` it may differ.
    fn assert_near(got: f64, want: f64, share: f64) {
        assert!((got / want - 1.0).abs() < share, "{got} is not {want}");
    }

    #[test]
    fn what_is_not_measured_is_as_expected() {
        assert_near(RowTimes::default().ratio(1, 9), 1.9 / 1.1, 0.05);
        assert_near(learnt((0..50).map(|_| (1, 0.02))).ratio(1, 9), 1.9 / 1.1, 0.05);
    }

    #[test]
    fn a_straight_line_is_learnt_from_its_points() {
        // The fit forgets, so that 1 / (1 - KEPT) = 20 steps count. Each differs by 4 rows from the mean, which makes a
        // sum of squares of 20 * 16 = 320. The prior counts PRIOR_WEIGHT = 8 beside it, a fortieth, and moves the fit
        // most where a step is hardly anything but its rows.
        for (fixed, per_row, share) in [(10.0, 0.0, 0.05), (10.0, 0.3, 0.05), (10.0, 5.0, 0.06), (0.5, 5.0, 0.16)] {
            let steps = (0..100).map(|i| if i % 2 == 0 { (1, fixed + per_row) } else { (9, fixed + 9.0 * per_row) });
            assert_near(learnt(steps).ratio(1, 9), (fixed + 9.0 * per_row) / (fixed + per_row), share);
        }
    }

    #[test]
    fn a_step_that_was_held_up_is_forgotten() {
        let steady = |count: usize| (0..count).map(|_| (1, 0.02));
        let held_up = learnt(steady(40).chain([(9, 5.0)]));
        assert!(held_up.ratio(1, 9) < MAX_SURPRISE * 1.9 / 1.1, "{}", held_up.ratio(1, 9));
        assert_near(learnt(steady(40).chain([(9, 5.0)]).chain(steady(100))).ratio(1, 9), 1.9 / 1.1, 0.05);
    }
}
