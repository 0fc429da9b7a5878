//! The weights of a model by name, checked against the shapes that the model must have.
mod forecast;
mod groups;
mod quantize;
mod stored;

use crate::checkpoint::{Entry, Tensors, instead_of};
use crate::config::ModelConfig;
use crate::error::ModelError;
use compute::{ComputeDevice, StoredMatrix};
use matmul::MatmulError;
use quantize::{deinterleave, deinterleave_rows};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use forecast::WeightBytes;
pub(crate) use forecast::loaded_bytes;
pub(crate) use quantize::Quantizer;
pub use quantize::{OnProgress, WeightQuant};
pub(crate) use stored::StoredWeight;

/// The tensors whose names begin with a prefix. Layers load themselves from these.
#[derive(Clone)]
pub(crate) struct Weights {
    tensors: Arc<Tensors>,
    /// The folder or file they come from, for errors.
    origin: PathBuf,
    prefix: String,
    device: Arc<dyn ComputeDevice>,
    quantizer: Arc<Quantizer>,
}

impl Weights {
    /// All tensors of a checkpoint that lies at `origin`.
    pub fn new(tensors: Tensors, origin: &Path, device: &Arc<dyn ComputeDevice>, quantizer: Quantizer) -> Self {
        let (tensors, quantizer) = (Arc::new(tensors), Arc::new(quantizer));
        Weights { tensors, origin: origin.to_owned(), prefix: String::new(), device: Arc::clone(device), quantizer }
    }

    /// The tensors below `prefix.`.
    pub fn at(&self, prefix: impl AsRef<str>) -> Self {
        Weights { prefix: format!("{}{}.", self.prefix, prefix.as_ref()), ..self.clone() }
    }

    /// Where the model computes.
    pub fn device(&self) -> &Arc<dyn ComputeDevice> {
        &self.device
    }

    /// Whether the checkpoint has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(&format!("{}{name}", self.prefix))
    }

    fn find(&self, name: &str) -> Result<(&Entry, String), ModelError> {
        let tensor = format!("{}{name}", self.prefix);
        match self.tensors.get(&tensor) {
            Some(entry) => Ok((entry, tensor)),
            None => Err(ModelError::MissingTensor { path: self.origin.clone(), tensor }),
        }
    }

    /// A matrix `[n, k]`, left where it lies in the file, or quantised if that was asked for.
    ///
    /// Errors: a tensor that is missing, or that has another shape or a type that is not known. So it is for all
    /// tensors here.
    pub fn matrix(&self, name: &str, n: usize, k: usize) -> Result<StoredWeight, ModelError> {
        self.weight(name, (n, k), |weight| self.quantizer.projection(weight))
    }

    /// The embedding or the head, `[n, k]`, which are quantised less coarsely, as coarse ones cost more quality.
    pub fn vocabulary(&self, name: &str, n: usize, k: usize) -> Result<StoredWeight, ModelError> {
        self.weight(name, (n, k), |weight| self.quantizer.vocabulary(weight))
    }

    /// A matrix `[n, k]` as it is stored, or as f32 where it is of MLX's types, with which products round activations.
    pub fn exact_matrix(&self, name: &str, n: usize, k: usize) -> Result<StoredWeight, ModelError> {
        let is_groups = self.find(name)?.0.groups.is_some();
        self.weight(name, (n, k), |weight| if is_groups { groups::floats(weight).map(Some) } else { Ok(None) })
    }

    fn weight(
        &self,
        name: &str,
        (n, k): (usize, usize),
        quantize: impl Fn(&StoredWeight) -> Result<Option<StoredWeight>, MatmulError>,
    ) -> Result<StoredWeight, ModelError> {
        let (entry, tensor) = self.find(name)?;
        let error = |e: MatmulError| ModelError::Tensor {
            path: entry.path.clone(),
            tensor: tensor.clone(),
            message: e.to_string(),
        };
        let mut weight = self.stored(name, &[n, k], (n, k))?;
        if let Some(heads) = entry.interleaved_heads {
            weight = deinterleave(&weight, heads).map_err(error)?;
        }
        if let Some(smaller) = quantize(&weight).map_err(error)? {
            weight = smaller;
            entry.forget();
        }
        let bytes = weight.view().bytes().len();
        let (mapped, owned) = if weight.is_mapped() { (bytes, 0) } else { (0, bytes) };
        self.quantizer.count_loaded(entry.num_bytes(), mapped, owned);
        Ok(weight)
    }

    /// A vector of `n` elements, as f32.
    pub fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        self.elements(name, &[n])
    }

    /// All elements of a tensor of shape `shape`, as f32.
    pub fn elements(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let n: usize = shape.iter().product();
        let stored = self.stored(name, shape, (1, n))?;
        let mut values = vec![0f32; n];
        matmul::dequantize_row(stored.view(), 0, &mut values);
        let (entry, _) = self.find(name)?;
        self.quantizer.count_loaded(entry.num_bytes(), 0, n * size_of::<f32>());
        Ok(match entry.interleaved_heads {
            Some(heads) => deinterleave_rows(&values, 1, heads),
            None => values,
        })
    }

    /// The tensor `name`, which must have the shape `shape`, as a matrix.
    fn stored(&self, name: &str, shape: &[usize], (n, k): (usize, usize)) -> Result<StoredWeight, ModelError> {
        let (entry, tensor) = self.find(name)?;
        let error = |message: String| ModelError::Tensor { path: entry.path.clone(), tensor: tensor.clone(), message };
        let unknown = |kind: &String| {
            if kind == "U32" {
                return error("is of type U32, as codes of MLX's are, and has no scales beside it".into());
            }
            let known = matmul::WeightType::GGML.map(|t| t.name()).join(", ");
            error(format!("is of type {kind}; known are {known}: {}", instead_of(kind)))
        };
        let kind = *entry.kind.as_ref().map_err(unknown)?;
        // Some formats leave dimensions of 1 out.
        let wide = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        if wide(&entry.shape) != wide(shape) {
            return Err(error(format!("has the shape {:?}; the configuration asks for {shape:?}", entry.shape)));
        }
        if let Some(groups) = &entry.groups {
            return groups::joined(entry, groups, kind, (n, k)).map_err(error);
        }
        StoredWeight::in_file(entry.file.clone(), entry.range.clone(), kind, (n, k)).map_err(|e| error(e.to_string()))
    }

    /// Logs what could not be loaded as asked. Returns the bytes of all weights that stay in their files, and of those
    /// in memory.
    pub fn report(&self) -> (u64, u64) {
        self.quantizer.report()
    }
}

/// The bytes of all tensors as they are stored.
pub(crate) fn num_bytes(tensors: &Tensors) -> u64 {
    tensors.values().map(|entry| entry.num_bytes() as u64).sum()
}

/// A name for a model: a hash of its configuration, of the names, types and shapes of all tensors, of the first and
/// last 64 KiB of each, and of what the weights are made into. Hashing all bytes would read gigabytes that are
/// otherwise read when they are needed.
pub(crate) fn fingerprint(config: &ModelConfig, tensors: &Tensors, quant: Option<WeightQuant>) -> String {
    const SAMPLE: usize = 1 << 16;
    let mut hash = blake3::Hasher::new();
    // The path is left out, so that a model keeps its name when its folder is moved.
    let config = ModelConfig { path: PathBuf::new(), ..config.clone() };
    hash.update(format!("{config:?};").as_bytes());
    for (name, entry) in tensors {
        let kind = match &entry.kind {
            Ok(kind) => kind.name(),
            Err(name) => name,
        };
        hash.update(format!("{name} {kind} {:?};", entry.shape).as_bytes());
        for bytes in entry.parts() {
            hash.update(&bytes[..bytes.len().min(SAMPLE)]);
            hash.update(&bytes[bytes.len().saturating_sub(SAMPLE)..]);
        }
    }
    if let Some(quant) = quant {
        hash.update(format!("{quant:?}").as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}
