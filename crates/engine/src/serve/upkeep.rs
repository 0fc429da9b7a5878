//! The upkeep of the engine's loop between two steps, beside requests.
use super::engine_loop::{Engine, panic_message};
use super::handle::EngineStats;
use super::idle_measurement::IdleMeasurement;
use super::pressure::PressureLevel;
use scheduler::Restraint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The log's message for a measurement that ends before its figures are whole.
const NOT_MEASURED: &str = "kv presets: their KL is not measured until the next start";

impl Engine {
    /// Does without something where the machine is short of memory, and with it again when it is not.
    pub(super) fn look_at_memory(&mut self) {
        if !self.memory.look(Instant::now()) {
            return;
        }
        self.scheduler.restrain(match self.memory.level() {
            PressureLevel::Normal => Restraint::None,
            PressureLevel::Warn => Restraint::NoSnapshots,
            PressureLevel::Critical => Restraint::OneSequence,
        });
        if let Some(archive) = &mut self.prefix_cache.archive {
            archive.pause(self.memory.level() > PressureLevel::Normal);
        }
        // Its caches are given back.
        if self.memory.level() > PressureLevel::Normal
            && self.idle_measurement.take_if(|measurement| measurement.has_begun()).is_some()
        {
            tracing::warn!("{NOT_MEASURED}: the machine is short of memory");
        }
        // From now on requests are refused, or taken again.
        self.publish();
    }

    /// Does a piece of what waits for an idle engine. True if there is more to do at once.
    pub(super) fn use_idle_time(&mut self) -> bool {
        self.prefix_cache.save_some(&self.scheduler, &self.runner) || self.measure_some()
    }

    /// The engine with what it shall measure when it is idle.
    pub fn with_idle_measurement(mut self, measurement: Option<IdleMeasurement>) -> Self {
        self.idle_measurement = measurement;
        self
    }

    /// Measures a piece, if the engine has been idle for a while. True if there is more to measure at once. Whatever
    /// goes wrong ends the measurement alone; the next start of the program tries it again.
    pub(super) fn measure_some(&mut self) -> bool {
        let Some(mut measurement) = self.idle_measurement.take() else { return false };
        if !measurement.is_due(Instant::now(), self.steps) || self.memory.level() > PressureLevel::Normal {
            self.idle_measurement = Some(measurement);
            return false;
        }
        let model = self.runner.model_ref();
        let measured = catch_unwind(AssertUnwindSafe(|| measurement.piece(model).map_err(|e| e.to_string())))
            .unwrap_or_else(|panic| Err(panic_message(&*panic)));
        // Figures of other weights must not be kept under these weights' name.
        match measured.and_then(|figures| self.files.check().map(|()| figures).map_err(|e| e.to_string())) {
            Ok(None) => {
                self.idle_measurement = Some(measurement);
                return true;
            }
            Ok(Some(figures)) => {
                measurement.keep(&figures);
                self.inbox.set_kl_figures(figures);
            }
            Err(problem) => tracing::warn!("{NOT_MEASURED}: {problem}"),
        }
        false
    }

    /// Tells the handles how many requests, blocks and steps there are.
    pub(super) fn publish(&self) {
        let pool = self.scheduler.pool();
        self.inbox.set_stats(EngineStats {
            running: self.scheduler.num_running(),
            waiting: self.scheduler.num_waiting(),
            blocks_held: pool.num_held(),
            blocks_cached: pool.num_cached(),
            blocks_free: pool.num_free(),
            snapshots: self.scheduler.num_snapshots(),
            preemptions: self.scheduler.num_preemptions(),
            steps: self.steps,
            pressure: self.memory.level(),
        });
    }

    /// Logs an error if a block is held although nothing runs. It looks once after the last step.
    pub(super) fn check_conservation(&mut self) {
        if self.checked_step.replace(self.steps) == Some(self.steps) {
            return;
        }
        let held = self.scheduler.pool().num_held();
        match self.scheduler.check() {
            Ok(()) if held == 0 => {}
            Ok(()) => tracing::error!(held, "blocks are held while nothing runs"),
            Err(error) => tracing::error!(%error, "block conservation is violated"),
        }
    }
}
