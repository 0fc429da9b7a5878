//! The prefixes of prompts that requests find in the cache: how they are looked for, and how they are reported.
use super::archive::Archive;
use super::request::GenerationRequest;
use super::runner::ModelRunner;
use kv::{BlockKey, CacheIdentity};
use scheduler::{Miss, PrefixReport, PrefixUse, Scheduler};
use std::collections::VecDeque;
use std::time::Duration;
use text::Tokenizer;

/// Tokens that are read again although a longer prefix had been known, from which on a line is logged.
const LOSS_TO_LOG: usize = 1024;
/// How many requests are remembered.
const HISTORY: usize = 100;
/// Tokens on each side of a place where prompts part that are logged.
const CONTEXT: usize = 12;

/// The engine's means for prompts that begin alike.
#[derive(Default)]
pub(crate) struct PrefixCache {
    /// The identity of stored blocks; `None`: prompts are not looked for.
    pub identity: Option<CacheIdentity>,
    /// Where blocks are kept that leave memory; `None`: nowhere.
    pub archive: Option<Archive>,
}

impl PrefixCache {
    /// Learns from a step of `tokens` tokens how fast prompts are computed.
    pub fn measured(&self, tokens: usize, elapsed: Duration) {
        if let Some(archive) = &self.archive {
            archive.measured(tokens, elapsed);
        }
    }

    /// Takes in what has been read from disk; waits for it for `patience` where loads are open.
    pub fn finish_loads(&mut self, scheduler: &mut Scheduler, runner: &ModelRunner, patience: Duration) {
        if let Some(archive) = &mut self.archive {
            archive.finish_loads(scheduler, runner, patience);
        }
    }

    /// Writes some of what is in memory to disk. True if there is more to write.
    pub fn save_some(&mut self, scheduler: &Scheduler, runner: &ModelRunner) -> bool {
        self.archive.as_mut().is_some_and(|archive| archive.save_some(scheduler, runner))
    }
}

/// The report of how much of its prompt a request found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixEvent {
    /// The request's id, as in logs.
    pub id: String,
    /// Tokens asked for, found and computed, and why.
    pub report: PrefixReport,
}

/// The reports of how much of their prompts requests have found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixHistory {
    /// Tokens of prompts that were looked for.
    pub queried: u64,
    /// Tokens that were in memory.
    pub from_memory: u64,
    /// Tokens that came from disk.
    pub from_archive: u64,
    /// The last hundred requests, the newest last.
    pub last: VecDeque<PrefixEvent>,
}

impl PrefixHistory {
    /// Adds what a request found.
    pub(super) fn push(&mut self, event: PrefixEvent) {
        if event.report.miss != Some(Miss::Off) {
            self.queried += event.report.prompt as u64;
        }
        self.from_memory += event.report.from_memory as u64;
        self.from_archive += event.report.from_archive as u64;
        if self.last.len() == HISTORY {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }
}

impl GenerationRequest {
    /// How the request takes part in the prefix cache of this identity. Texts that are embedded do not: their vectors
    /// may need the hidden states of all tokens, and seldom does another text go on where they end.
    pub(super) fn prefix_use(&self, identity: &CacheIdentity) -> Option<PrefixUse> {
        let salt = self.cache_salt.as_deref().unwrap_or_default();
        let usage = PrefixUse {
            root: BlockKey::root(identity, salt),
            salted: !salt.is_empty(),
            // Logits of the whole prompt are not kept.
            reuse: self.prompt_logprobs.is_none(),
        };
        self.embedding.is_none().then_some(usage)
    }

    /// Logs that much of the prompt was read again although a longer prefix had been known, and for debugging where the
    /// prompt left it.
    pub(super) fn log_loss(&self, report: &PrefixReport, tokenizer: &Tokenizer) {
        let Some(miss) = report.miss.as_ref().filter(|miss| miss.is_loss()) else { return };
        if report.computed() <= LOSS_TO_LOG {
            return;
        }
        tracing::info!(id = self.id, "{} of {} prompt tokens are read again: {miss}", report.computed(), report.prompt);
        if let Miss::Diverged { at, from, known } = miss {
            let text = |tokens: &[u32]| tokenizer.decode(tokens, false);
            let before = text(&self.prompt[at.saturating_sub(CONTEXT)..*at]);
            let own = text(&self.prompt[*at..self.prompt.len().min(at + CONTEXT)]);
            let other = text(&known[at - from..known.len().min(at - from + CONTEXT)]);
            tracing::debug!(id = self.id, before, own, other, "where the prompt left what was known");
        }
    }
}
