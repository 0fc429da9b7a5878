//! How much work a GPU is given before it is waited for. A Mac's GPU draws the screen too, and finishes a command
//! buffer before it does.
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The time that one command buffer should take: a twentieth of a second, which leaves as much again for what the count
/// of operations leaves out before the display waits a tenth.
const TURN: Duration = Duration::from_millis(50);

/// Lane operations that an M1, the slowest GPU, does in 50 ms: 1.3e12 a second.
pub const WORK_OF_TURN: u64 = 65_000_000_000;

/// Counts lane operations since the last wait. It learns from the time of each full command buffer how much a GPU
/// faster than an M1 does, so that such a GPU is waited for less often.
#[derive(Debug)]
pub struct Pace(Mutex<Started>);

#[derive(Debug)]
struct Started {
    work: u64,
    /// When the first work since the last wait was started.
    since: Option<Instant>,
    /// Lane operations of a [`TURN`].
    most: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace(Mutex::new(Started { work: 0, since: None, most: WORK_OF_TURN }))
    }
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, Started> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Counts `work` that is about to be launched at `now` and returns true. Returns false if the GPU must be waited
    /// for first; the caller then waits, calls [`Pace::finished`], and calls this again.
    pub fn start(&self, work: u64, now: Instant) -> bool {
        let mut state = self.state();
        if state.work > 0 && state.work.saturating_add(work) > state.most {
            return false;
        }
        state.work += work;
        state.since.get_or_insert(now);
        true
    }

    /// Tells that the GPU has done at `now` all that was started. `full` means that it was waited for because `start`
    /// said so: then the time since the first start, which is no less than the GPU took, tells how much it does in a
    /// `TURN`.
    pub fn finished(&self, now: Instant, full: bool) {
        let mut state = self.state();
        if let (true, Some(since)) = (full, state.since) {
            let took = now.saturating_duration_since(since).as_secs_f64();
            state.most = ((state.work as f64 * TURN.as_secs_f64() / took) as u64).max(WORK_OF_TURN);
        }
        *state = Started { work: 0, since: None, most: state.most };
    }
}

/// How many of a product's `rows` rows, of `row` lane operations each, to launch at once: all, or even shares of at
/// most `most` operations.
pub(crate) fn rows_at_once(rows: usize, row: u64, most: u64) -> usize {
    let some = usize::try_from(most / row.max(1)).unwrap_or(usize::MAX).max(1);
    rows.div_ceil(rows.div_ceil(some).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_waited_for_once_a_turn_is_full() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let half = WORK_OF_TURN / 2;
        assert!(pace.start(half, start) && pace.start(half, at(1)));
        assert!(!pace.start(half, at(2)), "a third half");
        // It took as long as an M1.
        pace.finished(at(50), true);
        assert!(pace.start(half, at(50)) && pace.start(half, at(50)) && !pace.start(half, at(50)));
        // Four times as fast; a wait for a result in between tells nothing.
        pace.finished(at(50) + TURN / 4, true);
        assert!(pace.start(1, at(70)));
        pace.finished(at(100), false);
        for i in 0..7 {
            assert!(pace.start(half, at(100)), "half {i} of 8 (less what counting in floats loses)");
        }
        assert!(!pace.start(2 * half, at(100)));
        // Never slower than an M1.
        pace.finished(at(5000), true);
        assert!(pace.start(2 * half, at(5000)) && !pace.start(half, at(5000)));
    }

    #[test]
    fn work_that_is_too_much_alone_starts_alone() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert!(pace.start(3 * WORK_OF_TURN, now) && !pace.start(1, now));
    }

    #[test]
    fn products_are_cut_evenly() {
        for (rows, row, most, want) in [
            (512, 10, 5120, 512),
            (512, 10, 5119, 256),
            (513, 10, 1000, 86),
            (5, 100, 1, 1),
            (0, 7, 100, 0),
            (1, 0, 1, 1),
        ] {
            let some = rows_at_once(rows, row, most);
            assert_eq!(some, want, "{rows} rows of {row}");
            assert!(some <= 1 || some as u64 * row <= most);
        }
    }
}
