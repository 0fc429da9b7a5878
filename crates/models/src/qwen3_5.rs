//! Qwen3.5, its text part (`Qwen3_5ForCausalLM`): of every four layers three mix tokens by a gated delta net, whose state has a fixed
//! size, and one by attention with a gate on its output and RoPE on a part of each head. Only the latter own a KV cache.
use crate::Model;
use crate::config::{LayerKind, ModelConfig};
use crate::error::ModelError;
use crate::layers::{DecoderLayer, GatedDeltaNet, Linear, Mlp, Residual, RmsNorm, RopeTables, row_ops};
use crate::loader::Weights;
use attention::{ForwardContext, LayerId, StateId, StateLayout};
use candle_core::{Result, Tensor};

struct Layer {
    input_norm: RmsNorm,
    mixer: Mixer,
    post_norm: RmsNorm,
    mlp: Mlp,
}

enum Mixer {
    Attention(Attention),
    Linear(GatedDeltaNet),
}

struct Attention {
    id: LayerId,
    head_dim: usize,
    /// Query and gate of each head, one after the other.
    q_and_gate: Linear,
    k: Linear,
    v: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    o: Linear,
}

pub(crate) fn load(config: &ModelConfig, weights: &Weights) -> std::result::Result<Box<dyn Model>, ModelError> {
    let mut states = Vec::new();
    let layers = (0..config.layers.len()).map(|i| {
        let w = weights.layer(i);
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let mixer = match (config.layers[i], &config.linear_attention) {
            (LayerKind::Linear, Some(sizes)) => {
                let id = StateId(config.index_of_kind(i));
                let net = GatedDeltaNet::load(id, *sizes, hidden, eps, &w.at("linear_attn"))?;
                states.push(net.state_len());
                Mixer::Linear(net)
            }
            _ => Mixer::Attention(Attention::load(i, config, &w.at("self_attn"))?),
        };
        Ok(Layer {
            input_norm: w.centred_norm("input_layernorm", hidden, eps)?,
            mixer,
            post_norm: w.centred_norm("post_attention_layernorm", hidden, eps)?,
            mlp: w.mlp("mlp", hidden, config.intermediate_size, false)?,
        })
    });
    let layers = layers.collect::<std::result::Result<Vec<_>, ModelError>>()?;
    let norm = weights.centred_final_norm(config)?;
    Ok(Box::new(weights.decoder_with_norm(config, layers, norm, StateLayout::new(states))?))
}

impl Attention {
    fn load(layer: usize, config: &ModelConfig, w: &Weights) -> std::result::Result<Self, ModelError> {
        let (hidden, d) = (config.hidden_size, config.head_dim);
        let projection = |name, out, into| w.linear(name, out, into, config.attention_bias);
        Ok(Attention {
            id: config.layer_id(layer),
            head_dim: d,
            q_and_gate: projection("q_proj", 2 * config.num_heads * d, hidden)?,
            k: projection("k_proj", config.kv_heads * d, hidden)?,
            v: projection("v_proj", config.kv_heads * d, hidden)?,
            o: projection("o_proj", hidden, config.num_heads * d)?,
            q_norm: w.centred_norm("q_norm", d, config.rms_norm_eps)?,
            k_norm: w.centred_norm("k_norm", d, config.rms_norm_eps)?,
        })
    }

    fn forward(&self, h: &Tensor, rope: &RopeTables, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let heads = |t: Tensor, d| t.reshape((ctx.layout().num_tokens(), (), d));

        let [both, k, v] = Linear::forward_all([&self.q_and_gate, &self.k, &self.v], h, ctx)?;
        let both = heads(both, 2 * self.head_dim)?;
        let q = both.narrow(2, 0, self.head_dim)?;
        let gate = both.narrow(2, self.head_dim, self.head_dim)?.contiguous()?;
        let (k, v) = (heads(k, self.head_dim)?, heads(v, self.head_dim)?);
        let (q, k) = (self.q_norm.forward(&q, ctx)?, self.k_norm.forward(&k, ctx)?);
        let (q, k) = rope.apply(&q, &k, ctx)?;
        let y = ctx.attend(self.id, &q, &k, &v)?;
        self.o.forward(&row_ops(ctx).sigmoid_mul(&gate, &y)?.flatten_from(1)?, ctx)
    }
}

impl DecoderLayer for Layer {
    fn forward(&self, x: &mut Residual, rope: &RopeTables, ctx: &ForwardContext<'_>) -> Result<()> {
        let h = x.norm(&self.input_norm, ctx)?;
        x.add(match &self.mixer {
            Mixer::Attention(attention) => attention.forward(&h, rope, ctx)?,
            Mixer::Linear(net) => net.forward(&h, ctx)?,
        })?;

        let h = x.norm(&self.post_norm, ctx)?;
        x.add(self.mlp.forward(&h, ctx)?)
    }

    fn kv_bias(&self) -> Option<(&[f32], &[f32])> {
        // A norm follows the projection, so its bias is no constant part of K.
        None
    }
}
