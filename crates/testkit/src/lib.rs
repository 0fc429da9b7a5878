//! Tiny models, fixtures and clients for tests.
