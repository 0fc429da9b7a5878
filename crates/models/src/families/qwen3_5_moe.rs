//! The text part of Qwen3.5's mixtures of experts: Qwen3.5's layers with a sparse mixture and an expert that all tokens
//! share as feed-forward block (model card of Qwen/Qwen3.5-35B-A3B).
use super::{qwen3_5, qwen3_moe};
use crate::checkpoint::GgufNames;
use crate::config::{ConfigJson, GgufKeys, ModelConfig};
use crate::error::LoadResult;
use crate::family::Family;

pub(crate) const FAMILY: Family = Family {
    gguf: Some(GgufNames {
        layer: &[&qwen3_5::LAYER, &MIXTURE],
        experts: &qwen3_moe::EXPERTS,
        ..GgufNames::dense("qwen35moe")
    }),
    extend_json,
    extend_gguf,
    ..Family::dense(&[("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text")], qwen3_5::load)
};

/// llama.cpp's names of the tensors of a layer's mixture beside its experts, and Hugging Face's.
const MIXTURE: [(&str, &str); 5] = [
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
];

fn extend_json(json: &ConfigJson, config: &mut ModelConfig) -> LoadResult<()> {
    qwen3_5::extend_json(json, config)?;
    qwen3_moe::extend_json(json, config)?;
    let shared_size = json.size("shared_expert_intermediate_size")?;
    if let Some(experts) = &mut config.experts {
        // The weights of a token's experts are scaled to a sum of 1, whatever the configuration says.
        experts.normalized = true;
        experts.shared_size = Some(shared_size);
    }
    Ok(())
}

fn extend_gguf(keys: &GgufKeys<'_>, config: &mut ModelConfig) -> LoadResult<()> {
    qwen3_5::extend_gguf(keys, config)?;
    qwen3_moe::extend_gguf(keys, config)?;
    let shared_size = keys.size("expert_shared_feed_forward_length")?;
    if let Some(experts) = &mut config.experts {
        experts.shared_size = Some(shared_size);
    }
    Ok(())
}
