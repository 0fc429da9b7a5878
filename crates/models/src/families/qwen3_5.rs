//! The text part of Qwen3.5 (the layers of Qwen3-Next: model card of Qwen/Qwen3-Next-80B-A3B-Instruct). In every four
//! layers, three mix tokens by a gated delta net, whose state has a fixed size, and one by attention with a gate on its
//! output and RoPE on a part of each head. Only the latter own a KV cache.
use super::qwen3;
use crate::config::{ConfigJson, LayerKind, ModelConfig};
use crate::error::LoadResult;
use crate::family::Family;
use crate::layers::{Attention, AttentionOptions, Decoder, DecoderLayer, GatedDeltaNet, Mlp, Residual, RmsNorm};
use crate::model::Model;
use crate::weights::Weights;
use attention::{ForwardContext, StateId};
use candle_core::Result;
use compute::DeltaNetSizes;

pub(crate) const FAMILY: Family =
    Family { extend_json, ..Family::dense(&[("Qwen3_5ForCausalLM", "qwen3_5_text")], load) };

fn extend_json(json: &ConfigJson, config: &mut ModelConfig) -> LoadResult<()> {
    config.one_plus_norm = true;
    if json.get::<Vec<&str>>("layer_types")?.is_none() {
        let interval = json.size_or("full_attention_interval", 4)?;
        let linear = |layer: &usize| !(layer + 1).is_multiple_of(interval);
        (0..config.layers.len()).filter(linear).for_each(|layer| config.layers[layer] = LayerKind::Linear);
    }
    if config.layers.contains(&LayerKind::Linear) {
        config.delta_net = Some(delta_net(json)?);
    }
    Ok(())
}

fn delta_net(json: &ConfigJson) -> LoadResult<DeltaNetSizes> {
    let sizes = DeltaNetSizes {
        key_heads: json.size("linear_num_key_heads")?,
        value_heads: json.size("linear_num_value_heads")?,
        key_dim: json.size("linear_key_head_dim")?,
        value_dim: json.size("linear_value_head_dim")?,
        conv_kernel: json.size("linear_conv_kernel_dim")?,
    };
    if !sizes.value_heads.is_multiple_of(sizes.key_heads) {
        let message = format!("is {}; it must divide linear_num_value_heads, {}", sizes.key_heads, sizes.value_heads);
        return Err(json.error("linear_num_key_heads", message));
    }
    Ok(sizes)
}

struct Layer {
    input_norm: RmsNorm,
    mixer: Mixer,
    post_norm: RmsNorm,
    mlp: Mlp,
}

/// What mixes the tokens of a sequence.
enum Mixer {
    Attention(Attention),
    DeltaNet(GatedDeltaNet),
}

fn load(config: &ModelConfig, weights: &Weights) -> LoadResult<Box<dyn Model>> {
    let hidden = config.hidden_size;
    let options = AttentionOptions { output_gate: true, ..qwen3::attention(config) };
    Decoder::load(config, weights, |i, w| {
        Ok(Layer {
            input_norm: RmsNorm::load(w, "input_layernorm", hidden, config)?,
            mixer: match (config.layers[i], config.delta_net) {
                (LayerKind::Linear, Some(sizes)) => {
                    let state = StateId(config.index_of_kind(i));
                    Mixer::DeltaNet(GatedDeltaNet::load(&w.at("linear_attn"), state, sizes, config)?)
                }
                _ => Mixer::Attention(Attention::load(&w.at("self_attn"), i, options, config)?),
            },
            post_norm: RmsNorm::load(w, "post_attention_layernorm", hidden, config)?,
            mlp: Mlp::load(&w.at("mlp"), hidden, config.dense_size()?, false)?,
        })
    })
}

impl DecoderLayer for Layer {
    fn forward(&self, x: &mut Residual, ctx: &ForwardContext<'_>) -> Result<()> {
        match &self.mixer {
            Mixer::Attention(attention) => {
                let h = x.norm(&self.input_norm)?;
                let qkv = attention.qkv(&h)?;
                let y = ctx.attend(attention.layer, &qkv.q, &qkv.k, &qkv.v)?;
                attention.add_output(x, &y, &qkv)?;
            }
            Mixer::DeltaNet(net) => {
                let h = x.norm_tensor(&self.input_norm)?;
                net.add_to(x, &h, ctx)?;
            }
        }

        let h = x.norm(&self.post_norm)?;
        self.mlp.add_to(x, &h)
    }

    fn attention(&self) -> Option<&Attention> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::DeltaNet(_) => None,
        }
    }

    fn state_len(&self) -> Option<usize> {
        match &self.mixer {
            Mixer::Attention(_) => None,
            Mixer::DeltaNet(net) => Some(net.state_len()),
        }
    }
}
