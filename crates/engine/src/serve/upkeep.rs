//! What the engine's loop looks after between two steps, beside requests.
use super::engine_loop::Engine;
use super::handle::EngineStats;
use super::pressure::PressureLevel;
use scheduler::Restraint;
use std::time::Instant;

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
        // From now on requests are refused, or taken again.
        self.publish();
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
