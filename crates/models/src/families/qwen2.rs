//! Qwen2 and Qwen2.5 (Yang et al., "Qwen2 Technical Report", arXiv:2407.10671): Llama's layers with a bias on q, k and
//! v, which can be large in K.
use super::llama;
use crate::checkpoint::GgufNames;
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::family::Family;
use crate::layers::AttentionOptions;
use crate::model::Model;
use crate::weights::Weights;

pub(crate) const FAMILY: Family =
    Family { gguf: Some(GgufNames::dense("qwen2")), ..Family::dense(&[("Qwen2ForCausalLM", "qwen2")], load) };

fn load(config: &ModelConfig, weights: &Weights) -> LoadResult<Box<dyn Model>> {
    llama::load_with(AttentionOptions { qkv_bias: true, ..Default::default() }, config, weights)
}
