//! The text part of Qwen3.5 (the layers of Qwen3-Next: model card of Qwen/Qwen3-Next-80B-A3B-Instruct). In every four
//! layers, three mix tokens by a gated delta net, whose state has a fixed size, and one by attention with a gate on its
//! output and RoPE on a part of each head. Only the latter own a KV cache.
use super::qwen3;
use crate::checkpoint::GgufNames;
use crate::config::{ConfigJson, GgufKeys, LayerKind, ModelConfig};
use crate::error::LoadResult;
use crate::family::Family;
use crate::layers::{
    Attention, AttentionOptions, Decoder, DecoderLayer, FeedForward, GatedDeltaNet, Residual, RmsNorm,
};
use crate::model::Model;
use crate::weights::Weights;
use attention::{ForwardContext, StateId};
use compute::{DeltaNetSizes, HeadOrder};

pub(crate) const FAMILY: Family = Family {
    gguf: Some(GgufNames { layer: &[&LAYER], ..GgufNames::dense("qwen35") }),
    extend_json,
    extend_gguf,
    ..Family::dense(&[("Qwen3_5ForCausalLM", "qwen3_5_text")], load)
};

/// llama.cpp's names of the tensors of a layer beyond those of Qwen3, and Hugging Face's.
pub(super) const LAYER: [(&str, &str); 10] = [
    ("post_attention_norm", "post_attention_layernorm"),
    ("attn_qkv", "linear_attn.in_proj_qkv"),
    ("attn_gate", "linear_attn.in_proj_z"),
    ("ssm_conv1d", "linear_attn.conv1d"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    ("ssm_a", "linear_attn.A"),
    ("ssm_beta", "linear_attn.in_proj_b"),
    ("ssm_alpha", "linear_attn.in_proj_a"),
    ("ssm_norm", "linear_attn.norm"),
    ("ssm_out", "linear_attn.out_proj"),
];

pub(super) fn extend_json(json: &ConfigJson, config: &mut ModelConfig) -> LoadResult<()> {
    config.one_plus_norm = true;
    if json.get::<Vec<&str>>("layer_types")?.is_none() {
        config.recur_between(json.size_or("full_attention_interval", 4)?);
    }
    if config.layers.contains(&LayerKind::Linear) {
        let sizes = DeltaNetSizes {
            key_heads: json.size("linear_num_key_heads")?,
            value_heads: json.size("linear_num_value_heads")?,
            key_dim: json.size("linear_key_head_dim")?,
            value_dim: json.size("linear_value_head_dim")?,
            conv_kernel: json.size("linear_conv_kernel_dim")?,
            order: HeadOrder::Grouped,
        };
        let check = divides(sizes.key_heads, "linear_num_value_heads", sizes.value_heads);
        check.map_err(|message| json.error("linear_num_key_heads", message))?;
        config.delta_net = Some(sizes);
    }
    Ok(())
}

pub(super) fn extend_gguf(keys: &GgufKeys<'_>, config: &mut ModelConfig) -> LoadResult<()> {
    config.recur_between(keys.optional_size("full_attention_interval")?.unwrap_or(4));
    let (values, value_heads) = (keys.size("ssm.inner_size")?, keys.size("ssm.time_step_rank")?);
    let sizes = DeltaNetSizes {
        key_heads: keys.size("ssm.group_count")?,
        value_heads,
        key_dim: keys.size("ssm.state_size")?,
        value_dim: values / value_heads,
        conv_kernel: keys.size("ssm.conv_kernel")?,
        order: HeadOrder::Tiled,
    };
    let check = divides(sizes.key_heads, "ssm.time_step_rank", value_heads);
    check.map_err(|message| keys.error("ssm.group_count", message))?;
    let check = divides(value_heads, "ssm.inner_size", values);
    check.map_err(|message| keys.error("ssm.time_step_rank", message))?;
    config.delta_net = Some(sizes);
    Ok(())
}

/// Errors: a value that does not divide that of another field, as the rest of a sentence that begins with its own.
fn divides(value: usize, other: &str, of: usize) -> Result<(), String> {
    match of.is_multiple_of(value) {
        true => Ok(()),
        false => Err(format!("is {value}; it must divide {other}, {of}")),
    }
}

struct Layer {
    input_norm: RmsNorm,
    mixer: Mixer,
    post_norm: RmsNorm,
    mlp: FeedForward,
}

/// What mixes the tokens of a sequence.
enum Mixer {
    Attention(Attention),
    DeltaNet(GatedDeltaNet),
}

pub(super) fn load(config: &ModelConfig, weights: &Weights) -> LoadResult<Box<dyn Model>> {
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
            mlp: FeedForward::load(&w.at("mlp"), i, config)?,
        })
    })
}

impl DecoderLayer for Layer {
    fn forward(&self, x: &mut Residual, ctx: &ForwardContext<'_>) -> candle_core::Result<()> {
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

        self.mlp.add_to(x, &self.post_norm)
    }

    fn attention(&self) -> Option<&Attention> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::DeltaNet(_) => None,
        }
    }

    fn delta_net(&self) -> Option<&GatedDeltaNet> {
        match &self.mixer {
            Mixer::Attention(_) => None,
            Mixer::DeltaNet(net) => Some(net),
        }
    }
}
