//! Ids of answers.
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Makes ids that no other answer of this process has, nor, but for chance, one of another process.
pub struct AnswerIds {
    process: u64,
    next: AtomicU64,
}

impl AnswerIds {
    pub fn new() -> Self {
        AnswerIds { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(0) }
    }

    /// The next id, such as `chatcmpl-..` for the prefix `chatcmpl`.
    pub fn next(&self, prefix: &str) -> String {
        format!("{prefix}-{:016x}{:08x}", self.process, self.next.fetch_add(1, Relaxed))
    }
}
