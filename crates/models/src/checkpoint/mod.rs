//! The files of a checkpoint: what they are, and where their tensors lie.
mod gguf;
mod gguf_names;
mod mapped;
mod safetensors;

use crate::error::ModelError;
use matmul::{Weight, WeightType};
use memmap2::Mmap;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use gguf::GgufFiles;
pub(crate) use gguf_names::{GgufNames, size_of_layers};
pub(crate) use mapped::forget;
pub(crate) use safetensors::safetensors;

/// Where a model lies.
pub enum Checkpoint {
    /// A Hugging Face model folder: `config.json`, `generation_config.json` if there is one, one or many safetensors
    /// files, and the tokenizer's files.
    Folder(PathBuf),
    /// The GGUF files of one model, which have its tokenizer too.
    Gguf(GgufFiles),
}

impl Checkpoint {
    /// Opens a model folder or a `.gguf` file; `path` may name any of a model's shards.
    ///
    /// Errors: a path that is neither, and a GGUF file that is not whole.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            return Ok(Checkpoint::Gguf(GgufFiles::open(path)?));
        }
        match path.is_dir() {
            true => Ok(Checkpoint::Folder(path.to_owned())),
            false => Err(ModelError::file(path, "is neither a model folder nor a .gguf file")),
        }
    }
}

/// A tensor of a mapped file.
#[derive(Clone)]
pub(crate) struct Entry {
    pub file: Arc<Mmap>,
    pub path: PathBuf,
    pub range: Range<usize>,
    /// The type of the elements; the name of a type that cannot be multiplied with is an error.
    pub kind: Result<WeightType, String>,
    pub shape: Vec<usize>,
    /// Set where rows are stored in the order of interleaved RoPE pairs: the number of heads that the rows make up.
    pub interleaved_heads: Option<usize>,
}

impl Entry {
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// The elements of a vector of `n`.
    ///
    /// Errors: another number of elements, or a type that cannot be read.
    pub fn floats(&self, n: usize) -> Result<Vec<f32>, ModelError> {
        let error = |message: String| ModelError::file(&self.path, message);
        let kind =
            self.kind.as_ref().map_err(|kind| error(format!("has a vector of type {kind}, which is not known")))?;
        let weight = Weight::new(*kind, 1, n, self.bytes()).map_err(|e| error(e.to_string()))?;
        let mut values = vec![0f32; n];
        matmul::dequantize_row(weight, 0, &mut values);
        Ok(values)
    }

    /// Drops the tensor's pages from memory once they have been read for the last time.
    pub fn forget(&self) {
        forget(&self.file, self.range.clone());
    }
}

/// The tensors of a checkpoint by the names that Hugging Face's checkpoints use.
pub(crate) type Tensors = BTreeMap<String, Entry>;

/// Reads a JSON file. A byte order mark is skipped, and NaN and infinities, which Python writes and JSON does not have,
/// are read as null.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::file(path, e))?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    serde_json::from_str(text).or_else(|e| {
        let Some(repaired) = with_null_for_nan(text) else { return Err(ModelError::file(path, e)) };
        tracing::warn!("{}: NaN or Infinity is no JSON; it is read as null", path.display());
        serde_json::from_str(&repaired).map_err(|e| ModelError::file(path, e))
    })
}

/// JSON with null in place of Python's NaN and Infinity; `None` if it has neither outside of strings.
fn with_null_for_nan(json: &str) -> Option<String> {
    let (mut out, mut rest, mut found) = (String::with_capacity(json.len()), json, false);
    let (mut in_string, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let number = ["NaN", "-Infinity", "Infinity"].iter().find(|name| !in_string && rest.starts_with(**name));
        if let Some(number) = number {
            (out, rest, found) = (out + "null", &rest[number.len()..], true);
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_outside_of_strings_is_null() {
        let json = r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "\"NaN\\", "c": NaN}"#;
        let expected = r#"{"a": null, "b": [null, null], "NaN": "\"NaN\\", "c": null}"#;
        assert_eq!(with_null_for_nan(json).as_deref(), Some(expected));
        assert_eq!(with_null_for_nan(r#"{"NaN": 1}"#), None);
    }
}
