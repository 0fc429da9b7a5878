//! What a scheduler does without while the machine is short of memory.
use crate::config::Restraint;
use crate::scheduler::Scheduler;
use crate::step::Step;

impl Scheduler {
    /// Does without something from the next step on, or does with it again. Blocks of the cache and the slots of
    /// snapshots are not the system's again by that: their memory was taken at start. But a page that has never been
    /// written is none of the system's memory yet, and one that is not touched any more can be compressed or swapped.
    pub fn restrain(&mut self, restraint: Restraint) {
        self.restraint = restraint;
        if restraint >= Restraint::NoSnapshots {
            self.snapshots.clear();
        }
    }

    /// Whether all that is left are requests that wait and may not be admitted, so that a step would be empty.
    pub fn waits_for_memory(&self) -> bool {
        self.runs_one() && self.running.is_empty() && self.preempted.is_empty() && !self.waiting.is_empty()
    }

    /// Whether one sequence may run, and no more.
    pub(crate) fn runs_one(&self) -> bool {
        self.restraint == Restraint::OneSequence
    }

    /// Preempts all but the oldest sequence where no more may run.
    pub(crate) fn preempt_to_restraint(&mut self, step: &mut Step) {
        while self.runs_one() && self.running.len() > 1 {
            self.preempt(self.running.len() - 1, step);
        }
    }
}
