//! Checkpoints in safetensors: one file, or shards that an index names.
use super::packed_experts::{MAX_EXPERTS, by_expert};
use super::{Entry, MlxModes, Reading, ScaledWeights, Tensors, WeightFile, mlx, read_json};
use crate::error::ModelError;
use matmul::WeightType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Who has quantised the layers of a folder, and how.
pub(crate) enum Quantization {
    /// MLX.
    Mlx(MlxModes),
    /// compressed-tensors or transformers, as integers or FP8 with scales.
    Scaled(ScaledWeights),
}

/// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names. `quantization`: how they are
/// quantised, if they are; layers are joined whose weight is asked for.
///
/// Errors: missing files and damaged ones; quantised layers that are not whole.
pub(crate) fn safetensors(
    folder: &Path,
    reading: Reading,
    quantization: Option<&Quantization>,
    is_asked_for: impl Fn(&str) -> bool,
) -> Result<Tensors, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = folder.join("model.safetensors.index.json");
    let files: BTreeSet<String> = if index.exists() {
        read_json::<Index>(&index)?.weight_map.into_values().collect()
    } else {
        BTreeSet::from(["model.safetensors".into()])
    };
    let mut tensors = Tensors::new();
    for name in files {
        // A name in an index must not lead out of the model's folder.
        if Path::new(&name).components().count() != 1 || name == ".." {
            return Err(ModelError::file(&index, format!("{name} is not the name of a file beside it")));
        }
        let path = folder.join(&name);
        let file = WeightFile::open(&path, reading)?;
        let start = file.as_ptr() as usize;
        let header = SafeTensors::deserialize(&file).map_err(|e| {
            let cause = cut_short(&file).unwrap_or_else(|| format!("it is no safetensors file, or is damaged: {e}"));
            ModelError::file(&path, cause)
        })?;
        for (name, view) in header.iter() {
            let at = view.data().as_ptr() as usize - start;
            let entry = Entry {
                file: file.clone(),
                path: path.clone(),
                range: at..at + view.data().len(),
                kind: weight_type(view.dtype()).ok_or_else(|| format!("{:?}", view.dtype())),
                shape: view.shape().to_vec(),
                interleaved_heads: None,
                groups: None,
            };
            tensors.insert(name.to_owned(), entry);
        }
    }
    match quantization {
        None => {}
        Some(Quantization::Mlx(modes)) => mlx::join_parts(&mut tensors, modes, is_asked_for)?,
        Some(Quantization::Scaled(weights)) => weights.join_parts(&mut tensors, is_asked_for)?,
    }
    let single = |(name, entry): (String, Entry)| match packed_experts(&name, &entry) {
        Some((prefix, projection)) => by_expert(&prefix, projection, "weight", &entry),
        None => vec![(name, entry)],
    };
    Ok(tensors.into_iter().flat_map(single).collect())
}

/// The experts' prefix and the projection, if a tensor holds a projection of all experts of a layer, as checkpoints of
/// Qwen3.5's mixtures do, and MLX's of all mixtures.
fn packed_experts<'a>(name: &'a str, entry: &Entry) -> Option<(String, &'a str)> {
    let (prefix, projection) = match name.strip_suffix(".weight").and_then(|name| name.split_once(".switch_mlp.")) {
        Some((mlp, projection)) => (format!("{mlp}.experts"), projection),
        None => name.rsplit_once('.').map(|(prefix, projection)| (prefix.to_owned(), projection))?,
    };
    let is_packed = prefix.ends_with(".mlp.experts") && projection.ends_with("_proj") && entry.shape.len() == 3;
    (is_packed && entry.shape[0] <= MAX_EXPERTS).then_some((prefix, projection))
}

/// What a file lacks that ends too early; `None` for a file that does not, or whose header cannot be read.
fn cut_short(file: &[u8]) -> Option<String> {
    let told = |needed: u64| Some(format!("has {} of {needed} bytes: it is not whole, fetch it again", file.len()));
    let Some((length, rest)) = file.split_first_chunk::<8>() else { return told(8) };
    let length = u64::from_le_bytes(*length);
    // The library believes no larger header.
    let header_len = usize::try_from(length).ok().filter(|n| *n <= 100_000_000)?;
    let Some(header) = rest.get(..header_len) else { return told(8 + length) };
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let ends = header.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    let needed = ends.max()?.checked_add(8 + length)?;
    if needed > file.len() as u64 { told(needed) } else { None }
}

fn weight_type(dtype: Dtype) -> Option<WeightType> {
    match dtype {
        Dtype::F32 => Some(WeightType::F32),
        Dtype::F16 => Some(WeightType::F16),
        Dtype::BF16 => Some(WeightType::Bf16),
        _ => None,
    }
}
