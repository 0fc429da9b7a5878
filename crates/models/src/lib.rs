//! Model families on Candle, one readable file each, and what loads them.
//!
//! A family file shows one decoder layer in the textbook order: norm, q k v, RoPE, attention, output projection, norm,
//! MLP. Attention is injected: a model calls `ForwardContext::attend` and knows nothing of how K and V are stored.
#![warn(missing_docs)]
mod checkpoint;
mod config;
mod error;
mod families;
mod family;
mod foreign_quant;
mod layers;
mod load;
mod model;
mod registry;
mod weights;

pub use checkpoint::{Checkpoint, GgufFiles, Reading, WeightFiles};
pub use config::{GenerationDefaults, ModelConfig, Pooling};
pub use error::ModelError;
pub use load::{LoadOptions, LoadedModel, OpenModel, open};
pub use model::Model;
pub use weights::{OnProgress, WeightBytes, WeightQuant};
