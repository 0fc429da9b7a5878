//! KV cache codecs: rotation, codebooks, packing, and attention on the packed bytes.
