//! The files of a checkpoint: what they are, and where their tensors lie.
mod content;
mod folder;
mod gguf;
mod gguf_names;
mod layer_tensor;
mod mapped;
mod mlx;
mod packed_experts;
mod quantization;
mod safetensors;
mod scaled;

use crate::error::ModelError;
use matmul::{Weight, WeightType};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use gguf::GgufFiles;
pub(crate) use gguf_names::{GgufNames, size_of_layers};
pub(crate) use mapped::WeightFile;
pub use mapped::{Reading, WeightFiles};
pub(crate) use mlx::has_whole_norms;
pub(crate) use quantization::{GroupMode, MlxModes};
pub(crate) use safetensors::{Quantization, safetensors};
pub(crate) use scaled::ScaledWeights;

/// Where a model lies.
pub enum Checkpoint {
    /// A Hugging Face model folder: `config.json`, `generation_config.json` if there is one, one or many safetensors
    /// files, and the tokenizer's files.
    Folder(PathBuf, Reading),
    /// The GGUF files of one model, which have its tokenizer too.
    Gguf(GgufFiles),
}

impl Checkpoint {
    /// Opens a model folder, a GGUF file by whatever name, or a folder with one; `path` may name any of a model's
    /// shards.
    ///
    /// Errors: a path that is none of these, with what it is; a GGUF file that is not whole.
    pub fn open(path: &Path, reading: Reading) -> Result<Self, ModelError> {
        if path.is_dir() {
            return folder::open(path, reading);
        }
        let head = content::head(path)?;
        let is_named_so = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if is_named_so || head.starts_with(b"GGUF") {
            return Ok(Checkpoint::Gguf(GgufFiles::open(path, reading)?));
        }
        // A safetensors file begins with the length of its header, which is JSON.
        let message = match content::foreign(&head) {
            Some(message) => message,
            None if head.get(8) == Some(&b'{') => "is a file of safetensors; name the folder it lies in",
            None => "is neither a model folder nor a GGUF file",
        };
        Err(ModelError::file(path, message))
    }
}

/// A tensor of a file of weights.
#[derive(Clone)]
pub(crate) struct Entry {
    pub file: Arc<WeightFile>,
    pub path: PathBuf,
    pub range: Range<usize>,
    /// The type of the elements; the name of a type that cannot be multiplied with is an error.
    pub kind: Result<WeightType, String>,
    pub shape: Vec<usize>,
    /// Set where rows are stored in the order of interleaved RoPE pairs: the number of heads that the rows make up.
    pub interleaved_heads: Option<usize>,
    /// Set where the bytes are the codes of groups, which become a weight of type `kind` together with these.
    pub groups: Option<Box<GroupParts>>,
}

/// What a quantised tensor has beside its codes.
#[derive(Clone)]
pub(crate) struct GroupParts {
    pub mode: GroupMode,
    pub scales: FilePart,
    pub biases: Option<FilePart>,
}

/// Some bytes of a file.
#[derive(Clone)]
pub(crate) struct FilePart {
    pub file: Arc<WeightFile>,
    pub range: Range<usize>,
}

impl FilePart {
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// Part `index` of `count` equal ones.
    pub fn piece(&self, index: usize, count: usize) -> Self {
        FilePart { file: Arc::clone(&self.file), range: piece(&self.range, index, count) }
    }
}

/// Part `index` of `count` equal ones of a range.
pub(crate) fn piece(range: &Range<usize>, index: usize, count: usize) -> Range<usize> {
    let len = range.len() / count.max(1);
    range.start + index * len..range.start + (index + 1) * len
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

    /// The bytes of all that the tensor consists of.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let groups = self.groups.iter().flat_map(|groups| std::iter::once(&groups.scales).chain(&groups.biases));
        std::iter::once(self.bytes()).chain(groups.map(FilePart::bytes))
    }

    /// How many bytes of files that is.
    pub fn num_bytes(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// Drops the tensor's pages from memory once they have been read for the last time.
    pub fn forget(&self) {
        self.file.forget(self.range.clone());
    }
}

/// The tensors of a checkpoint by the names that Hugging Face's checkpoints use.
pub(crate) type Tensors = BTreeMap<String, Entry>;

/// The types of GGUF files that are known but not multiplied with, each with what to take in place of such a file.
const INSTEAD: [(&str, &str); 5] = [
    ("IQ1_S", "take an IQ2_XXS file of this model, or a larger one"),
    ("IQ1_M", "take an IQ2_XXS file of this model, or a larger one"),
    ("NVFP4", "take a Q4_K_M file of this model, or an MXFP4 file"),
    ("Q8_1", "take a Q8_0 file of this model"),
    ("Q8_K", "take a Q8_0 file of this model"),
];

/// What a type that cannot be multiplied with could be replaced by, as the end of a sentence.
pub(crate) fn instead_of(kind: &str) -> &'static str {
    let floats = "take the model's weights as BF16, F16 or F32, or a GGUF file of it";
    INSTEAD.iter().find(|(name, _)| *name == kind).map_or(floats, |(_, instead)| instead)
}

/// Reads a JSON file. A byte order mark is skipped, and NaN and infinities, which Python writes and JSON does not have,
/// are read as null.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::file(path, e))?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    serde_json::from_str(text).or_else(|e| {
        let Some(repaired) = with_null_for_nan(text) else {
            let message = content::foreign(text.as_bytes()).map_or_else(|| e.to_string(), str::to_owned);
            return Err(ModelError::file(path, message));
        };
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
    fn a_type_of_gguf_files_is_multiplied_with_or_has_a_line_of_what_to_take() {
        let known: Vec<_> = (0..256).filter_map(|id| ::gguf::TensorType::of(id).ok()).collect();
        for kind in &known {
            let types = WeightType::GGML.into_iter().filter(|of| of.name() == kind.name);
            let lines = INSTEAD.iter().filter(|(name, _)| *name == kind.name);
            let is_number = matches!(kind.name, "I8" | "I16" | "I32" | "I64" | "F64");
            assert_eq!(types.count() + lines.count() + usize::from(is_number), 1, "{}", kind.name);
        }
        for kind in WeightType::GGML {
            let of_file = known.iter().find(|of| of.name == kind.name()).expect("a type of GGUF files");
            assert_eq!((of_file.block_len, of_file.block_bytes), (kind.block_len(), kind.block_bytes()), "{kind}");
        }
        assert!(INSTEAD.iter().all(|(name, _)| known.iter().any(|kind| kind.name == *name)));
        // The document has a row for each.
        let document = include_str!("../../../../docs/models.md");
        let row = |name: &str| {
            document.lines().any(|line| line.starts_with('|') && line.split([' ', ',']).any(|word| word == name))
        };
        assert!(WeightType::GGML.iter().all(|kind| row(kind.name())) && INSTEAD.iter().all(|(name, _)| row(name)));
        assert!(instead_of("IQ1_M").contains("IQ2_XXS") && instead_of("I16").contains("BF16"));
    }

    #[test]
    fn nan_outside_of_strings_is_null() {
        let json = r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "\"NaN\\", "c": NaN}"#;
        let expected = r#"{"a": null, "b": [null, null], "NaN": "\"NaN\\", "c": null}"#;
        assert_eq!(with_null_for_nan(json).as_deref(), Some(expected));
        assert_eq!(with_null_for_nan(r#"{"NaN": 1}"#), None);
    }
}
