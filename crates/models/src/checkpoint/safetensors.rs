//! Checkpoints in safetensors: one file, or shards that an index names.
use super::mapped::map;
use super::{Entry, Tensors, read_json};
use crate::error::ModelError;
use matmul::WeightType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.
pub(crate) fn safetensors(folder: &Path) -> Result<Tensors, ModelError> {
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
        let file = map(&path)?;
        let start = file.as_ptr() as usize;
        let header = SafeTensors::deserialize(&file).map_err(|e| ModelError::file(&path, e))?;
        for (name, view) in header.iter() {
            let at = view.data().as_ptr() as usize - start;
            let entry = Entry {
                file: file.clone(),
                path: path.clone(),
                range: at..at + view.data().len(),
                kind: weight_type(view.dtype()).ok_or_else(|| format!("{:?}", view.dtype())),
                shape: view.shape().to_vec(),
                interleaved_heads: None,
            };
            tensors.insert(name.to_owned(), entry);
        }
    }
    Ok(tensors)
}

fn weight_type(dtype: Dtype) -> Option<WeightType> {
    match dtype {
        Dtype::F32 => Some(WeightType::F32),
        Dtype::F16 => Some(WeightType::F16),
        Dtype::BF16 => Some(WeightType::Bf16),
        _ => None,
    }
}
