//! Continuous batching: admission, token budget, preemption. Synchronous and deterministic, without clock or tensor.
//!
//! A step is [`Scheduler::schedule`], the model's work on the [`Step`] it returns, and [`Scheduler::update`] with the
//! sampled tokens. The rules:
//! - Running decodes come first, one token each, so a prefill never starves them.
//! - What is left of the token budget goes to prefills: half of it to the oldest, so that every prompt gets on, the
//!   rest to the shortest, so that a short prompt does not wait behind a long one.
//! - A step that prefills share with decodes is kept short enough for those who read along: it computes no more tokens
//!   of prompts than take `max_step_time`, judged by the durations that [`Scheduler::measured`] was told.
//! - A request is admitted when the blocks for its whole prompt are available, beside those that admitted prefills
//!   still need. What the pool or the archive has of the prompt is not computed ([`PrefixUse`]).
//! - A prompt waits while an older one is about to compute what both have in common.
//! - When a running sequence finds no block, the newest one is preempted: it loses its blocks and begins again
//!   later, before anything new is admitted.
//! - A decode may be given a draft: tokens that followed where its last ones stood before, in its own prompt or answer.
//!   They are computed along and count against the budget; what the model draws otherwise is given back.
//! - The client that has had the least service, of those whose requests wait, is served next ([`fair`]).
#![warn(missing_docs)]
mod admission;
mod config;
mod display;
mod drafts;
pub mod fair;
mod known_prefix;
mod limits;
mod lookup;
mod prefix;
mod restraint;
mod row_times;
mod scheduler;
mod sequence;
mod snapshots;
mod speculation;
mod step;
mod step_time;

pub use config::{MAX_NUM_SEQS, Restraint, SchedulerConfig, SchedulerError};
pub use limits::{RequestError, RequestLimits};
pub use prefix::{BlockArchive, Miss, PrefixReport, PrefixUse};
pub use scheduler::Scheduler;
pub use sequence::{NewRequest, RequestKey, SeqId, Sequence};
pub use step::{BlockLoad, Chunk, Eviction, Step};
