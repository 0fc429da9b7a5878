//! The limits within which a scheduler works.
use std::time::Duration;
use thiserror::Error;

/// The limits within which sequences run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Tokens of a block.
    pub block_size: usize,
    /// Blocks of the cache.
    pub num_blocks: usize,
    /// Sequences that may run at once; every choice of a request counts.
    pub max_num_seqs: usize,
    /// Snapshots of recurrent states that are kept; 0 for a model without such states, which needs none.
    pub num_snapshots: usize,
    /// Tokens of one step.
    pub max_num_batched_tokens: usize,
    /// How long a step may take that decodes and prefills share, as far as measured steps tell; `None`: as long as its
    /// tokens take.
    pub max_step_time: Option<Duration>,
    /// The most tokens of a draft; 0: nothing is drafted.
    pub max_draft_tokens: usize,
    /// Whether a sequence has recurrent states, which cannot be taken back: a draft then needs a second state slot.
    pub has_states: bool,
}

/// Most `--max-num-seqs`: each sequence has a state slot, whose memory is taken at start.
pub const MAX_NUM_SEQS: usize = 1 << 16;

impl SchedulerConfig {
    /// Rows of a step of which tokens are sampled, at most: one for each sequence that may run, or a draft's.
    pub fn max_sampled_rows(&self) -> usize {
        self.max_num_seqs.max(self.max_draft_tokens.saturating_add(1))
    }

    /// Errors: numbers of sequences and of tokens that are wrong whatever the number of blocks.
    pub fn check(&self) -> Result<(), SchedulerError> {
        let (tokens, seqs) = (self.max_num_batched_tokens, self.max_num_seqs);
        if !(1..=MAX_NUM_SEQS).contains(&seqs) {
            return Err(SchedulerError::NumSeqs { seqs });
        }
        if tokens < seqs {
            return Err(SchedulerError::Budget { tokens, seqs });
        }
        Ok(())
    }
}

/// What a scheduler does without while the machine is short of memory; each includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Restraint {
    /// Nothing.
    #[default]
    None,
    /// No snapshot is kept.
    NoSnapshots,
    /// One sequence runs. What waits is not admitted; what had been admitted goes on, one after the other.
    OneSequence,
}

/// Why there is no scheduler for a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchedulerError {
    /// A step has fewer tokens than there may be sequences.
    #[error(
        "--max-num-batched-tokens is {tokens}; it must be at least --max-num-seqs, {seqs}, or running \
         sequences would starve"
    )]
    Budget {
        /// `--max-num-batched-tokens`.
        tokens: usize,
        /// `--max-num-seqs`.
        seqs: usize,
    },
    /// There are no sequences, or too many.
    #[error("--max-num-seqs is {seqs}; it must lie in [1, {MAX_NUM_SEQS}]")]
    NumSeqs {
        /// `--max-num-seqs`.
        seqs: usize,
    },
}
