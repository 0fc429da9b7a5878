//! From the names of llama.cpp's tensors (`gguf-py/gguf/constants.py`) to those of Hugging Face's.
use super::Entry;
use super::packed_experts::{MAX_EXPERTS, by_expert};
use gguf::{GgufError, Metadata, Value};

/// What GGUF files of one architecture call things. Pairs are llama.cpp's name and Hugging Face's.
pub(crate) struct GgufNames {
    /// The file's `general.architecture`.
    pub architecture: &'static str,
    /// Tensors of a layer beyond those that any dense model has. A name of llama.cpp's with its kind, such as
    /// `ssm_dt.bias`, stands for one tensor, any other name for weight and bias.
    pub layer: &'static [&'static [(&'static str, &'static str)]],
    /// Tensors that hold all experts of a layer; empty for a dense model.
    pub experts: &'static [(&'static str, &'static str)],
    /// Whether the rows of q and k lie in the order of interleaved RoPE pairs, as llama.cpp's converter writes Llama's.
    pub interleaved_rope: bool,
}

impl GgufNames {
    /// The names of a dense model with tensors like Llama's, Qwen2's or Qwen3's.
    pub const fn dense(architecture: &'static str) -> Self {
        GgufNames { architecture, layer: &[], experts: &[], interleaved_rope: false }
    }
}

/// Tensors outside of the layers.
const GLOBAL: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Tensors of a layer, after `blk.N.` and `model.layers.N.`.
const LAYER: [(&str, &str); 11] = [
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
];

/// Renames the tensors of one checkpoint.
pub(super) struct Namer<'a> {
    names: &'a GgufNames,
    /// Query and kv heads of an architecture whose files have their rows in the order of interleaved RoPE pairs.
    interleaved: Option<(usize, usize)>,
    /// Experts of each layer; 0 for a dense model.
    experts: usize,
}

impl<'a> Namer<'a> {
    /// Errors: numbers of experts or heads that are missing or that no model has.
    pub fn new(metadata: &Metadata<'_>, names: &'a GgufNames) -> Result<Self, GgufError> {
        let key = format!("{}.expert_count", names.architecture);
        let experts = metadata.optional(&key, Metadata::size)?.unwrap_or(0);
        if experts > MAX_EXPERTS {
            let message = format!("is {experts}; it must be at most {MAX_EXPERTS}");
            return Err(GgufError::Metadata { key, message });
        }
        if !names.interleaved_rope {
            return Ok(Namer { names, interleaved: None, experts });
        }
        let key = format!("{}.attention.head_count", names.architecture);
        let heads = size_of_layers(metadata, &key)?;
        let kv_heads = metadata.optional(&format!("{key}_kv"), size_of_layers)?.unwrap_or(heads);
        Ok(Namer { names, interleaved: Some((heads, kv_heads)), experts })
    }

    /// The number of heads that a tensor's rows make up, if these lie in the order of interleaved RoPE pairs.
    pub fn interleaved_heads(&self, name: &str) -> Option<usize> {
        let (heads, kv_heads) = self.interleaved?;
        match layer_part(name)?.1.split_once('.')?.0 {
            "attn_q" => Some(heads),
            "attn_k" => Some(kv_heads),
            _ => None,
        }
    }

    /// A tensor under Hugging Face's name. A tensor that holds all experts becomes one for each expert; a name that is
    /// not known stays.
    ///
    /// Errors: another number of experts than the metadata's.
    pub fn rename(&self, name: &str, entry: Entry) -> Result<Vec<(String, Entry)>, GgufError> {
        if let Some((layer, whole)) = layer_part(name) {
            if let Some(to) = find(self.names.layer.iter().copied(), whole) {
                return Ok(vec![(format!("model.layers.{layer}.{to}"), entry)]);
            }
            if let Some((part, kind)) = whole.split_once('.') {
                let tables = std::iter::once(&LAYER[..]).chain(self.names.layer.iter().copied());
                if let Some(to) = find(tables, part) {
                    return Ok(vec![(format!("model.layers.{layer}.{to}.{kind}"), entry)]);
                }
                let to = find(std::iter::once(self.names.experts), part);
                if let (Some(to), [experts, _, _]) = (to, &entry.shape[..]) {
                    if *experts != self.experts {
                        let message = format!("has {experts} experts; expert_count says {}", self.experts);
                        return Err(GgufError::Malformed { what: format!("tensor {name}"), message });
                    }
                    return Ok(by_expert(&format!("model.layers.{layer}.mlp.experts"), to, kind, &entry));
                }
            }
        }
        let global = name.split_once('.').and_then(|(part, kind)| {
            let (_, to) = GLOBAL.iter().find(|(from, _)| *from == part)?;
            Some(format!("{to}.{kind}"))
        });
        Ok(vec![(global.unwrap_or_else(|| name.to_owned()), entry)])
    }
}

/// The second of the pair whose first is `name`.
fn find(tables: impl Iterator<Item = &'static [(&'static str, &'static str)]>, name: &str) -> Option<&'static str> {
    tables.flatten().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// A size that all layers have: one number, or a list of equal ones. A 0 in a list stands for a layer that has nothing
/// of the kind.
///
/// Errors: a missing key, another value, layers of unlike sizes.
pub(crate) fn size_of_layers(metadata: &Metadata<'_>, key: &str) -> Result<usize, GgufError> {
    let Some(list) = metadata.get(key).and_then(Value::as_array) else { return metadata.size(key) };
    let sizes = list.values().map(|value| value.as_u64().and_then(|size| usize::try_from(size).ok()));
    let mut sizes = sizes.filter(|size| *size != Some(0));
    let first = sizes.next().flatten();
    first.filter(|_| sizes.all(|size| size == first)).ok_or_else(|| {
        let message = "is a list; it must be one whole number, or a list in which all are equal".to_owned();
        GgufError::Metadata { key: key.to_owned(), message }
    })
}

/// The layer's number N and the rest of a name `blk.N.REST`.
fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}
