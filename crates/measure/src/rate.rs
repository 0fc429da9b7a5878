//! Rates with what the rounds of a run leave open.
use serde::{Deserialize, Serialize};
use std::fmt;

/// A rate that was measured in several rounds of one run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// That of the median round.
    pub median: f64,
    /// That of the slowest round.
    pub least: f64,
    /// That of the fastest round.
    pub most: f64,
}

impl Rate {
    /// The rate of these rounds; 0 if there is none.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(0.0);
        Rate { median: at(rounds.len() / 2), least: at(0), most: at(rounds.len().saturating_sub(1)) }
    }

    /// How many times `earlier` this is. The ratio of the medians, and the least and the largest ratio that a round of
    /// this has to a round of `earlier`.
    pub fn over(self, earlier: Rate) -> Rate {
        Rate { median: self.median / earlier.median, least: self.least / earlier.most, most: self.most / earlier.least }
    }
}

/// The median, and in brackets the rest, with as many decimals as are asked for, by default one.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { median, least, most } = self;
        let decimals = f.precision().unwrap_or(1);
        write!(f, "{median:.decimals$} ({least:.decimals$} to {most:.decimals$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_has_the_spread_of_both_runs() {
        let now = Rate::of(vec![30.0, 10.0, 20.0]);
        assert_eq!(now, Rate { median: 20.0, least: 10.0, most: 30.0 });
        let earlier = Rate::of(vec![5.0, 4.0]);
        assert_eq!(earlier, Rate { median: 5.0, least: 4.0, most: 5.0 });
        let ratio = now.over(earlier);
        assert_eq!(ratio, Rate { median: 4.0, least: 2.0, most: 7.5 });
        assert_eq!(format!("{ratio:.2}"), "4.00 (2.00 to 7.50)");
        assert_eq!(Rate::of(Vec::new()).median, 0.0);
    }
}
