//! What the families are built of. Each layer loads itself from its weights.
mod attention;
mod decoder;
mod delta_net;
mod embedding;
mod experts;
mod feed_forward;
mod linear;
mod mlp;
mod norm;
mod residual;

pub(crate) use attention::{Attention, AttentionOptions};
pub(crate) use decoder::{Decoder, DecoderLayer, is_asked_for};
pub(crate) use delta_net::GatedDeltaNet;
pub(crate) use embedding::Embedding;
pub(crate) use experts::ExpertMlp;
pub(crate) use feed_forward::FeedForward;
pub(crate) use linear::Linear;
pub(crate) use mlp::Mlp;
pub(crate) use norm::RmsNorm;
pub(crate) use residual::Residual;
