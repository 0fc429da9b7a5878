//! When a model whose process failed may be started again.
use std::time::Duration;
use tokio::time::Instant;

/// How long the first pause is, and the longest; each is twice the one before.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// A process that has served for this long is no part of a row of failures.
const STABLE: Duration = Duration::from_secs(60);

/// The failures of a model's processes in a row.
#[derive(Debug, Default)]
pub struct BackOff {
    failures: u32,
    /// When the model may be started again.
    retry_at: Option<Instant>,
    /// Why the last process failed.
    reason: Option<String>,
}

impl BackOff {
    /// A process has ended by itself. `served`: for how long it was loaded; `None` if it never was. The first one that
    /// served is started again at once, because whatever made it end may not come again.
    pub fn failed(&mut self, now: Instant, served: Option<Duration>, reason: String) {
        if served.is_some_and(|served| served >= STABLE) {
            self.failures = 0;
        }
        self.failures += 1;
        let doublings = self.failures - u32::from(served.is_some());
        let pause = match doublings {
            0 => Duration::ZERO,
            n => PAUSE.0.saturating_mul(1 << (n - 1).min(16)).min(PAUSE.1),
        };
        self.retry_at = Some(now + pause);
        self.reason = Some(reason);
    }

    /// A process has ended because it was asked to, so that nothing is wrong with the model.
    pub fn forget(&mut self) {
        *self = BackOff::default();
    }

    /// The model is loaded. Its failures still count until it has served for a while.
    pub fn loaded(&mut self) {
        self.reason = None;
        self.retry_at = None;
    }

    /// The model cannot be loaded as things are; it may be tried again at any time.
    pub fn refused(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    /// Whether a process has failed since the model was last as it should be.
    pub fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Why the last process failed.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// How long the model must not be started.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now)).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_process_that_served_long_begins_anew() {
        let now = Instant::now();
        let mut back_off = BackOff::default();
        let mut pause_after = |served: Option<u64>| {
            back_off.failed(now, served.map(Duration::from_secs), "why".into());
            assert!(back_off.has_failed() && back_off.reason() == Some("why"));
            back_off.pause(now).map_or(0, |pause| pause.as_secs())
        };
        assert_eq!([None; 5].map(&mut pause_after), [1, 2, 4, 8, 16]);
        assert_eq!([Some(61), Some(0), Some(59)].map(&mut pause_after), [0, 1, 2]);
        assert_eq!(pause_after(Some(60)), 0);
        let pauses: Vec<u64> = (0..40).map(|_| pause_after(None)).collect();
        assert_eq!((pauses[0], pauses[38], pauses[39]), (2, 300, 300));
        assert!(pauses.is_sorted());
        assert_eq!(back_off.pause(now + PAUSE.1), None);
        back_off.forget();
        assert!(!back_off.has_failed() && back_off.pause(now).is_none() && back_off.reason().is_none());
    }
}
