//! Measures the KL of presets while nothing is asked for, a piece between two looks at the messages.
use crate::error::StartError;
use crate::forward::ModelRef;
use crate::kl::{FiguresFile, KL_LIMIT, KlFigures, KlMeasurement, KlSetup};
use std::time::{Duration, Instant};
use turboquant::PRESETS;

/// How long nothing must have been asked for: the pieces of a conversation come closer together.
const QUIET: Duration = Duration::from_secs(3);

/// A measurement that an engine does when it is idle, and where its figures are kept.
pub(crate) struct IdleMeasurement {
    setup: Option<KlSetup>,
    running: Option<KlMeasurement>,
    file: FiguresFile,
    quiet: QuietTime,
}

/// Since when an engine has been idle, and the steps it had done then.
#[derive(Default)]
struct QuietTime(Option<(Instant, u64)>);

impl QuietTime {
    /// Whether an idle engine that has done so many steps has been idle for long enough.
    fn is_over(&mut self, now: Instant, steps: u64) -> bool {
        match self.0 {
            Some((since, then)) if then == steps => now.duration_since(since) >= QUIET,
            _ => {
                self.0 = Some((now, steps));
                false
            }
        }
    }
}

impl IdleMeasurement {
    /// A measurement that takes no memory until it begins.
    pub fn new(setup: KlSetup, file: FiguresFile) -> Self {
        IdleMeasurement { setup: Some(setup), running: None, file, quiet: QuietTime::default() }
    }

    /// Whether an engine that is idle now and has done so many steps has been idle for long enough.
    pub fn is_due(&mut self, now: Instant, steps: u64) -> bool {
        self.quiet.is_over(now, steps)
    }

    /// Whether it has taken its memory.
    pub fn has_begun(&self) -> bool {
        self.running.is_some()
    }

    /// Measures a piece. Gives the figures after the last one.
    ///
    /// Errors: whatever tokenizer, model or backend refuse.
    pub fn piece(&mut self, model: ModelRef<'_>) -> Result<Option<KlFigures>, StartError> {
        if let Some(setup) = self.setup.take() {
            tracing::info!("kv presets: measuring their KL on this model until something is asked for");
            self.running = Some(setup.begin(model)?);
            return Ok(None);
        }
        self.running.as_mut().map_or(Ok(None), |running| running.piece(model))
    }

    /// Keeps the figures for later starts, and logs them.
    pub fn keep(self, figures: &KlFigures) {
        for preset in &PRESETS {
            let Some(kl) = figures.of(preset.pair) else { continue };
            let rule = if kl <= KL_LIMIT { "may take it" } else { "passes it over" };
            tracing::info!(
                "kv preset {}: KL {kl:.4} nats on {} tokens (limit {KL_LIMIT}); from the next start on auto {rule}",
                preset.name,
                figures.tokens
            );
        }
        self.file.write(figures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_due_after_a_quiet_time_and_every_step_begins_it_anew() {
        let begin = Instant::now();
        let mut quiet = QuietTime::default();
        let mut at = |seconds: f64, steps| quiet.is_over(begin + QUIET.mul_f64(seconds), steps);
        assert!(!at(0.0, 7) && !at(0.9, 7) && at(1.0, 7) && at(1.1, 7));
        assert!(!at(1.2, 8) && !at(2.1, 8) && at(2.2, 8));
    }
}
