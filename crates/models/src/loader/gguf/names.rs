//! The names of llama.cpp's tensors and those of Hugging Face's.
use crate::loader::tensors::Entry;
use gguf::{GgufError, Metadata};

/// Outside of the layers.
const GLOBAL: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// In a layer, behind `blk.N.` and `model.layers.N.`.
const LAYER: [(&str, &str); 12] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate"),
];

/// All experts of a layer in one tensor.
const EXPERTS: [(&str, &str); 3] =
    [("ffn_gate_exps", "gate_proj"), ("ffn_up_exps", "up_proj"), ("ffn_down_exps", "down_proj")];

/// Beyond every model's: each expert of a tensor becomes an entry of its own.
const MOST_EXPERTS: usize = 1 << 12;

pub(super) struct Namer {
    /// Query and kv heads of an architecture whose files have their rows in the order of interleaved RoPE pairs.
    interleaved: Option<(usize, usize)>,
    /// Of each layer; 0 for a model without.
    experts: usize,
}

impl Namer {
    pub fn new(metadata: &Metadata<'_>) -> Result<Self, GgufError> {
        let architecture = metadata.string("general.architecture")?;
        let key = format!("{architecture}.expert_count");
        let experts = metadata.optional(&key, Metadata::size)?.unwrap_or(0);
        if experts > MOST_EXPERTS {
            let message = format!("is {experts}; it must be at most {MOST_EXPERTS}");
            return Err(GgufError::Metadata { key, message });
        }
        if architecture != "llama" {
            return Ok(Namer { interleaved: None, experts });
        }
        let heads = metadata.size("llama.attention.head_count")?;
        let kv_heads = metadata.optional("llama.attention.head_count_kv", Metadata::size)?.unwrap_or(heads);
        Ok(Namer { interleaved: Some((heads, kv_heads)), experts })
    }

    /// The number of heads whose rows a tensor has in that order.
    pub fn interleaved_heads(&self, name: &str) -> Option<usize> {
        let (heads, kv_heads) = self.interleaved?;
        match layer_part(name)?.1.split_once('.')?.0 {
            "attn_q" => Some(heads),
            "attn_k" => Some(kv_heads),
            _ => None,
        }
    }

    /// A tensor under its other name; of a tensor of experts, each expert's. Names that have no other stay.
    ///
    /// Errors: another number of experts than the metadata's.
    pub fn rename(&self, name: &str, entry: Entry) -> Result<Vec<(String, Entry)>, GgufError> {
        if let Some((layer, part)) = layer_part(name)
            && let Some((part, kind)) = part.split_once('.')
        {
            let found =
                |table: &[(&str, &'static str)]| table.iter().find(|(from, _)| *from == part).map(|(_, to)| *to);
            if let Some(to) = found(&LAYER) {
                return Ok(vec![(format!("model.layers.{layer}.{to}.{kind}"), entry)]);
            }
            if let (Some(to), [experts, _, _]) = (found(&EXPERTS), &entry.shape[..]) {
                if *experts != self.experts {
                    let message = format!("has {experts} experts; expert_count says {}", self.experts);
                    return Err(GgufError::Malformed { what: format!("tensor {name}"), message });
                }
                // Rows are whole blocks, so each expert's part is.
                let bytes = entry.range.len() / experts;
                let expert = |i: usize| {
                    let start = entry.range.start + i * bytes;
                    let entry =
                        Entry { range: start..start + bytes, shape: entry.shape[1..].to_vec(), ..entry.clone() };
                    (format!("model.layers.{layer}.mlp.experts.{i}.{to}.{kind}"), entry)
                };
                return Ok((0..*experts).map(expert).collect());
            }
        }
        let global = name.split_once('.').and_then(|(part, kind)| {
            let (_, to) = GLOBAL.iter().find(|(from, _)| *from == part)?;
            Some(format!("{to}.{kind}"))
        });
        Ok(vec![(global.unwrap_or_else(|| name.to_owned()), entry)])
    }
}

/// Layer and rest of `blk.N.REST`.
fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}
