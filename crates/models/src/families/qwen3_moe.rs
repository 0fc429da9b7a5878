//! Qwen3's mixtures of experts (Yang et al., "Qwen3 Technical Report", arXiv:2505.09388): Qwen3 with a sparse mixture
//! of feed-forward blocks in most layers.
use super::qwen3;
use crate::checkpoint::GgufNames;
use crate::config::{ConfigJson, Experts, GgufKeys, ModelConfig};
use crate::error::LoadResult;
use crate::family::Family;
use crate::layers::{Attention, Decoder, DecoderLayer, FeedForward, Residual, RmsNorm};
use crate::model::Model;
use crate::weights::Weights;
use attention::ForwardContext;
use candle_core::Result;

pub(crate) const FAMILY: Family = Family {
    gguf: Some(GgufNames {
        layer: &[&[("ffn_gate_inp", "mlp.gate")]],
        experts: &EXPERTS,
        ..GgufNames::dense("qwen3moe")
    }),
    extend_json,
    extend_gguf,
    ..Family::dense(&[("Qwen3MoeForCausalLM", "qwen3_moe")], load)
};

/// llama.cpp's names of the tensors that hold all experts of a layer, and the names of an expert's projections.
pub(super) const EXPERTS: [(&str, &str); 4] = [
    ("ffn_gate_exps", "gate_proj"),
    ("ffn_up_exps", "up_proj"),
    ("ffn_down_exps", "down_proj"),
    ("ffn_gate_up_exps", "gate_up_proj"),
];

pub(super) fn extend_json(json: &ConfigJson, config: &mut ModelConfig) -> LoadResult<()> {
    // transformers 5 calls the number of experts `num_local_experts`.
    let num = json.get("num_experts")?.or(json.get("num_local_experts")?);
    let num = json.check_size("num_experts", num, 1 << 28)?;
    let per_token = json.size("num_experts_per_tok")?;
    if per_token > num {
        return Err(json.error("num_experts_per_tok", format!("is {per_token}; there are {num} experts")));
    }
    let step = json.size_or("decoder_sparse_step", 1)?;
    let named = json.get::<Vec<usize>>("mlp_only_layers")?.unwrap_or_default();
    let dense = |layer: &usize| named.contains(layer) || !(layer + 1).is_multiple_of(step);
    config.experts = Some(Experts {
        num,
        per_token,
        intermediate_size: json.size("moe_intermediate_size")?,
        normalized: json.flag("norm_topk_prob")?,
        dense_layers: (0..config.layers.len()).filter(dense).collect(),
        shared_size: None,
    });
    Ok(())
}

pub(super) fn extend_gguf(keys: &GgufKeys<'_>, config: &mut ModelConfig) -> LoadResult<()> {
    let (num, per_token) = (keys.size("expert_count")?, keys.size("expert_used_count")?);
    if per_token > num {
        return Err(keys.error("expert_used_count", format!("is {per_token}; there are {num} experts")));
    }
    config.experts = Some(Experts {
        num,
        per_token,
        intermediate_size: keys.size("expert_feed_forward_length")?,
        // llama.cpp normalises the weights of every file of this architecture.
        normalized: true,
        dense_layers: Vec::new(),
        shared_size: None,
    });
    Ok(())
}

struct Layer {
    input_norm: RmsNorm,
    attention: Attention,
    post_norm: RmsNorm,
    mlp: FeedForward,
}

fn load(config: &ModelConfig, weights: &Weights) -> LoadResult<Box<dyn Model>> {
    let hidden = config.hidden_size;
    Decoder::load(config, weights, |i, w| {
        Ok(Layer {
            input_norm: RmsNorm::load(w, "input_layernorm", hidden, config)?,
            attention: Attention::load(&w.at("self_attn"), i, qwen3::attention(config), config)?,
            post_norm: RmsNorm::load(w, "post_attention_layernorm", hidden, config)?,
            mlp: FeedForward::load(&w.at("mlp"), i, config)?,
        })
    })
}

impl DecoderLayer for Layer {
    fn forward(&self, x: &mut Residual, ctx: &ForwardContext<'_>) -> Result<()> {
        let h = x.norm(&self.input_norm)?;
        let qkv = self.attention.qkv(&h)?;
        let y = ctx.attend(self.attention.layer, &qkv.q, &qkv.k, &qkv.v)?;
        self.attention.add_output(x, &y, &qkv)?;

        self.mlp.add_to(x, &self.post_norm)
    }

    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }
}
