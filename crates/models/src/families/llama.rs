//! Llama 2, 3, 3.1 and 3.2 (Grattafiori et al., "The Llama 3 Herd of Models", arXiv:2407.21783), and Mistral, which is
//! a Llama with a sliding window (Jiang et al., arXiv:2310.06825).
use crate::checkpoint::GgufNames;
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::family::Family;
use crate::layers::{Attention, AttentionOptions, Decoder, DecoderLayer, Mlp, Residual, RmsNorm};
use crate::model::Model;
use crate::weights::Weights;
use attention::ForwardContext;
use candle_core::Result;

pub(crate) const FAMILY: Family = Family {
    gguf: Some(GgufNames { interleaved_rope: true, ..GgufNames::dense("llama") }),
    ..Family::dense(&[("LlamaForCausalLM", "llama"), ("MistralForCausalLM", "mistral")], load)
};

/// The layer of Llama and of the dense families that differ from it by options of their attention alone.
struct Layer {
    input_norm: RmsNorm,
    attention: Attention,
    post_norm: RmsNorm,
    mlp: Mlp,
}

pub(super) fn load(config: &ModelConfig, weights: &Weights) -> LoadResult<Box<dyn Model>> {
    let bias = config.attention_bias;
    load_with(AttentionOptions { qkv_bias: bias, output_bias: bias, ..Default::default() }, config, weights)
}

/// Loads a model of Llama's layers with another attention.
pub(super) fn load_with(
    options: AttentionOptions,
    config: &ModelConfig,
    weights: &Weights,
) -> LoadResult<Box<dyn Model>> {
    Decoder::load(config, weights, |i, w| {
        Ok(Layer {
            input_norm: RmsNorm::load(w, "input_layernorm", config.hidden_size, config)?,
            attention: Attention::load(&w.at("self_attn"), i, options, config)?,
            post_norm: RmsNorm::load(w, "post_attention_layernorm", config.hidden_size, config)?,
            mlp: Mlp::load(&w.at("mlp"), config.hidden_size, config.dense_size()?, config.mlp_bias)?,
        })
    })
}

impl DecoderLayer for Layer {
    fn forward(&self, x: &mut Residual, ctx: &ForwardContext<'_>) -> Result<()> {
        let h = x.norm(&self.input_norm)?;
        let qkv = self.attention.qkv(&h)?;
        let y = ctx.attend(self.attention.layer, &qkv.q, &qkv.k, &qkv.v)?;
        self.attention.add_output(x, &y, &qkv)?;

        let h = x.norm(&self.post_norm)?;
        self.mlp.add_to(x, &h)
    }

    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }
}
