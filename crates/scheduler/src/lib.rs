//! Continuous batching: admission, token budget, preemption. Synchronous and deterministic.
