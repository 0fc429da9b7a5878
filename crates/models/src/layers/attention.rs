//! The projections around softmax attention.
use super::{Linear, Residual, RmsNorm};
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::weights::Weights;
use attention::LayerId;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, Rows};
use std::sync::Arc;

/// In what a family's attention differs from others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AttentionOptions {
    /// Whether the projections to q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// Whether each head of q and of k goes through a norm before RoPE (Henry et al., "Query-Key Normalization",
    /// arXiv:2010.04245).
    pub head_norms: bool,
    /// Whether `q_proj` gives a gate after each head's query: attention's output is multiplied by the gate's sigmoid.
    pub output_gate: bool,
}

/// Grouped-query attention (Ainslie et al., arXiv:2305.13245): everything but what `ForwardContext::attend` does.
pub(crate) struct Attention {
    device: Arc<dyn ComputeDevice>,
    /// The layer's KV cache.
    pub layer: LayerId,
    head_dim: usize,
    /// With an output gate, each head's query and gate, one after the other.
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Norms over each head of q and of k.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    output_gate: bool,
}

/// What the projections make of a step's rows.
pub(crate) struct Qkv {
    /// `[rows, num_heads, head_dim]`
    pub q: Tensor,
    /// `[rows, kv_heads, head_dim]`
    pub k: Tensor,
    /// `[rows, kv_heads, head_dim]`
    pub v: Tensor,
    /// `[rows, num_heads, head_dim]` where the layer has an output gate.
    gate: Option<Tensor>,
}

impl Attention {
    /// Loads layer `layer` of the model from `w`, the layer's `self_attn`.
    pub fn load(w: &Weights, layer: usize, options: AttentionOptions, config: &ModelConfig) -> LoadResult<Self> {
        let (hidden, d) = (config.hidden_size, config.head_dim);
        let q_width = if options.output_gate { 2 * d } else { d };
        let input = |name, heads: usize, width| Linear::load(w, name, heads * width, hidden, options.qkv_bias);
        let norm = |name| RmsNorm::load(w, name, d, config);
        Ok(Attention {
            device: Arc::clone(w.device()),
            layer: config.layer_id(layer),
            head_dim: d,
            q: input("q_proj", config.num_heads, q_width)?,
            k: input("k_proj", config.kv_heads, d)?,
            v: input("v_proj", config.kv_heads, d)?,
            o: Linear::load(w, "o_proj", hidden, config.num_heads * d, options.output_bias)?,
            head_norms: if options.head_norms { Some((norm("q_norm")?, norm("k_norm")?)) } else { None },
            output_gate: options.output_gate,
        })
    }

    /// Queries, keys and values of rows of `hidden_size` elements.
    pub fn qkv(&self, h: &Rows) -> Result<Qkv> {
        let heads = |x: Tensor, width: usize| x.reshape((h.num_rows(), (), width));
        let d = self.head_dim;
        let [q, k, v] = Linear::forward_all([&self.q, &self.k, &self.v], h)?;
        let (mut q, mut gate) = (heads(q, if self.output_gate { 2 * d } else { d })?, None);
        if self.output_gate {
            gate = Some(q.narrow(2, d, d)?.contiguous()?);
            q = q.narrow(2, 0, d)?.contiguous()?;
        }
        let (mut k, v) = (heads(k, d)?, heads(v, d)?);
        if let Some((q_norm, k_norm)) = &self.head_norms {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        Ok(Qkv { q, k, v, gate })
    }

    /// Adds the output projection of what attention gave, after the gate where there is one, to the stream. `y`:
    /// `[rows, num_heads, head_dim]`.
    pub fn add_output(&self, stream: &mut Residual, y: &Tensor, qkv: &Qkv) -> Result<()> {
        let y = match &qkv.gate {
            Some(gate) => self.device.sigmoid_mul(gate, y)?.flatten_from(1)?,
            None => y.flatten_from(1)?,
        };
        stream.add_projection(&self.o, &self.device.rows(&y)?)
    }

    /// The bias of K, which is a constant part of every key before RoPE. `None` where there is none, or where a norm
    /// follows the projection, so that the bias is no constant part of a key.
    pub fn key_bias(&self) -> Option<&[f32]> {
        match self.head_norms {
            None => self.k.bias(),
            Some(_) => None,
        }
    }
}
