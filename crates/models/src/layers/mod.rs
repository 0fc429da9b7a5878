//! What the families are built of.
mod decoder;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod rope;

pub(crate) use decoder::{Decoder, DecoderLayer};
pub(crate) use embedding::Embedding;
pub(crate) use linear::Linear;
pub(crate) use mlp::Mlp;
pub(crate) use norm::RmsNorm;
pub(crate) use rope::RopeTables;
