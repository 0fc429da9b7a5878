//! Block pool, block tables and the byte layout of the paged KV cache.
