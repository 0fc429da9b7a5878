//! Qwen3's dense models (Yang et al., "Qwen3 Technical Report", arXiv:2505.09388): Llama's layers with a norm over each
//! head of q and k.
use super::llama;
use crate::checkpoint::GgufNames;
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::family::Family;
use crate::layers::AttentionOptions;
use crate::model::Model;
use crate::weights::Weights;

pub(crate) const FAMILY: Family =
    Family { gguf: Some(GgufNames::dense("qwen3")), ..Family::dense(&[("Qwen3ForCausalLM", "qwen3")], load) };

/// The attention of all families of the third generation.
pub(super) fn attention(config: &ModelConfig) -> AttentionOptions {
    let bias = config.attention_bias;
    AttentionOptions { qkv_bias: bias, output_bias: bias, head_norms: true, output_gate: false }
}

fn load(config: &ModelConfig, weights: &Weights) -> LoadResult<Box<dyn Model>> {
    llama::load_with(attention(config), config, weights)
}
