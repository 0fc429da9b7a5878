//! Qwen3 (`Qwen3ForCausalLM`): Llama with a norm over each head of q and k.
use crate::Model;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::layers::{DecoderLayer, Linear, Mlp, Residual, RmsNorm, RopeTables};
use crate::loader::Weights;
use attention::{ForwardContext, LayerId};
use candle_core::Tensor;

struct Layer {
    id: LayerId,
    head_dim: usize,
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    o: Linear,
    post_norm: RmsNorm,
    mlp: Mlp,
}

pub(crate) fn load(config: &ModelConfig, weights: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let layers = (0..config.layers.len()).map(|i| {
        let w = weights.layer(i);
        let (hidden, d) = (config.hidden_size, config.head_dim);
        let projection = |name, out, into| w.linear(format!("self_attn.{name}"), out, into, config.attention_bias);
        Ok(Layer {
            id: config.layer_id(i),
            head_dim: d,
            input_norm: w.norm("input_layernorm", hidden, config.rms_norm_eps)?,
            q: projection("q_proj", config.num_heads * d, hidden)?,
            k: projection("k_proj", config.kv_heads * d, hidden)?,
            v: projection("v_proj", config.kv_heads * d, hidden)?,
            o: projection("o_proj", hidden, config.num_heads * d)?,
            q_norm: w.norm("self_attn.q_norm", d, config.rms_norm_eps)?,
            k_norm: w.norm("self_attn.k_norm", d, config.rms_norm_eps)?,
            post_norm: w.norm("post_attention_layernorm", hidden, config.rms_norm_eps)?,
            mlp: w.mlp("mlp", hidden, config.intermediate_size, false)?,
        })
    });
    let layers = layers.collect::<Result<Vec<_>, ModelError>>()?;
    Ok(Box::new(weights.decoder(config, layers)?))
}

impl DecoderLayer for Layer {
    fn forward(&self, x: &mut Residual, rope: &RopeTables, ctx: &ForwardContext<'_>) -> candle_core::Result<()> {
        let heads = |t: Tensor| t.reshape((ctx.layout().num_tokens(), (), self.head_dim));

        let h = x.norm(&self.input_norm, ctx)?;
        let [q, k, v] = Linear::forward_all([&self.q, &self.k, &self.v], &h, ctx)?;
        let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?);
        let (q, k) = (self.q_norm.forward(&q, ctx)?, self.k_norm.forward(&k, ctx)?);
        let (q, k) = rope.apply(&q, &k, ctx)?;
        let y = ctx.attend(self.id, &q, &k, &v)?;
        x.add(self.o.forward(&y.flatten_from(1)?, ctx)?)?;

        let h = x.norm(&self.post_norm, ctx)?;
        x.add(self.mlp.forward(&h, ctx)?)
    }

    fn kv_bias(&self) -> Option<(&[f32], &[f32])> {
        // A norm follows the projection, so its bias is no constant part of K.
        None
    }
}
