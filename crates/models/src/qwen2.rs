//! Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`): Llama with a bias on q, k and v, which in K can be large.
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
    o: Linear,
    post_norm: RmsNorm,
    mlp: Mlp,
}

pub(crate) fn load(config: &ModelConfig, weights: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let layers = (0..config.layers.len()).map(|i| {
        let w = weights.layer(i);
        let (hidden, d) = (config.hidden_size, config.head_dim);
        let projection = |name, out, into, bias| w.linear(format!("self_attn.{name}"), out, into, bias);
        Ok(Layer {
            id: config.layer_id(i),
            head_dim: d,
            input_norm: w.norm("input_layernorm", hidden, config.rms_norm_eps)?,
            q: projection("q_proj", config.num_heads * d, hidden, true)?,
            k: projection("k_proj", config.kv_heads * d, hidden, true)?,
            v: projection("v_proj", config.kv_heads * d, hidden, true)?,
            o: projection("o_proj", hidden, config.num_heads * d, false)?,
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
        let (q, k) = rope.apply(&heads(q)?, &heads(k)?, ctx)?;
        let y = ctx.attend(self.id, &q, &k, &heads(v)?)?;
        x.add(self.o.forward(&y.flatten_from(1)?, ctx)?)?;

        let h = x.norm(&self.post_norm, ctx)?;
        x.add(self.mlp.forward(&h, ctx)?)
    }

    fn kv_bias(&self) -> Option<(&[f32], &[f32])> {
        self.k.bias().zip(self.v.bias())
    }
}
