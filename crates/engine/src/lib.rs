//! The engine loop: drives scheduler, model and sampler on a thread of its own.
