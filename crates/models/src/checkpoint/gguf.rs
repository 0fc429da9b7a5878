//! Checkpoints in GGUF: one file, or shards.
use super::gguf_names::{GgufNames, Namer};
use super::{Entry, Reading, Tensors, WeightFile};
use crate::error::ModelError;
use gguf::{Gguf, Metadata, Split};
use matmul::WeightType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of one checkpoint, their headers checked.
pub struct GgufFiles {
    files: Vec<(PathBuf, Arc<WeightFile>)>,
}

impl GgufFiles {
    /// Opens a model's file, or all of its shards, of which `path` may name any.
    ///
    /// Errors: missing files, files that are no GGUF or not whole, shards that are not of one model.
    pub fn open(path: &Path, reading: Reading) -> Result<Self, ModelError> {
        let paths = gguf::shards(path);
        let count = paths.len();
        let mut files = Vec::with_capacity(count);
        for (number, path) in paths.into_iter().enumerate() {
            let file = WeightFile::open(&path, reading)?;
            let error = |e| ModelError::file(&path, e);
            let header = Gguf::parse(&file).map_err(error)?;
            let split = Split::of(&header.metadata).map_err(error)?;
            if split != (Split { number, count }) {
                let message = format!(
                    "is shard {} of {}; by its name it is {} of {count}",
                    split.number + 1,
                    split.count,
                    number + 1
                );
                return Err(ModelError::file(&path, message));
            }
            files.push((path, file));
        }
        Ok(GgufFiles { files })
    }

    /// The path of the first file, which has the model's metadata.
    pub fn path(&self) -> &Path {
        &self.files[0].0
    }

    /// The model's metadata, tokenizer and chat template included.
    ///
    /// Errors: a file that is no GGUF; [`Self::open`] has checked that.
    pub fn metadata(&self) -> Result<Metadata<'_>, ModelError> {
        let (path, file) = &self.files[0];
        Ok(Gguf::parse(file).map_err(|e| ModelError::file(path, e))?.metadata)
    }

    /// The tensors of all shards under the names that Hugging Face gives them.
    ///
    /// Errors: a tensor that two shards have, and numbers of experts that do not agree.
    pub(crate) fn tensors(&self, names: &GgufNames) -> Result<Tensors, ModelError> {
        let metadata = self.metadata()?;
        let namer = Namer::new(&metadata, names).map_err(|e| ModelError::file(self.path(), e))?;
        let mut tensors = Tensors::new();
        for (path, file) in &self.files {
            let header = Gguf::parse(file).map_err(|e| ModelError::file(path, e))?;
            for (name, info) in header.tensors {
                let entry = Entry {
                    file: file.clone(),
                    path: path.clone(),
                    range: info.range,
                    kind: weight_type(info.kind.name).ok_or_else(|| info.kind.name.to_owned()),
                    shape: info.shape,
                    interleaved_heads: namer.interleaved_heads(name),
                    groups: None,
                };
                for (name, entry) in namer.rename(name, entry).map_err(|e| ModelError::file(path, e))? {
                    if tensors.insert(name, entry).is_some() {
                        return Err(ModelError::file(path, "has a tensor that another shard has too"));
                    }
                }
            }
        }
        Ok(tensors)
    }
}

fn weight_type(name: &str) -> Option<WeightType> {
    WeightType::GGML.into_iter().find(|kind| kind.name() == name)
}
