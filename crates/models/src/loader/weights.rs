//! Tensors by name, checked against the shapes the model must have.
use super::mapped::MappedWeight;
use super::safetensors::{Entry, open};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::layers::{Decoder, Embedding, Linear, Mlp, RmsNorm};
use candle_core::{Device, Tensor};
use matmul::WeightType;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in the tree of tensor names.
#[derive(Clone)]
pub(crate) struct Weights {
    tensors: Arc<BTreeMap<String, Entry>>,
    folder: PathBuf,
    prefix: String,
    device: Device,
}

impl Weights {
    pub fn open(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let tensors = Arc::new(open(folder)?);
        Ok(Weights { tensors, folder: folder.to_owned(), prefix: String::new(), device: device.clone() })
    }

    /// Everything below `prefix`.
    pub fn at(&self, prefix: String) -> Self {
        Weights { prefix: format!("{}{prefix}.", self.prefix), ..self.clone() }
    }

    pub fn num_bytes(&self) -> u64 {
        self.tensors.values().map(|e| e.range.len() as u64).sum()
    }

    /// Names these weights: a hash of all names, types and shapes, and of the first and last bytes of each tensor. Hashing all
    /// bytes would read gigabytes that are otherwise read when they are needed.
    pub fn fingerprint(&self) -> String {
        const SAMPLE: usize = 1 << 16;
        let mut hash = blake3::Hasher::new();
        for (name, entry) in self.tensors.iter() {
            hash.update(format!("{name} {:?} {:?};", entry.dtype, entry.shape).as_bytes());
            let bytes = &entry.file[entry.range.clone()];
            hash.update(&bytes[..bytes.len().min(SAMPLE)]);
            hash.update(&bytes[bytes.len().saturating_sub(SAMPLE)..]);
        }
        hash.finalize().to_hex()[..32].to_owned()
    }

    fn find(&self, name: &str) -> Result<(&Entry, String), ModelError> {
        let tensor = format!("{}{name}", self.prefix);
        match self.tensors.get(&tensor) {
            Some(entry) => Ok((entry, tensor)),
            None => Err(ModelError::MissingTensor { path: self.folder.clone(), tensor }),
        }
    }

    /// A matrix `[n, k]`, left where it lies in the file.
    pub fn matrix(&self, name: &str, n: usize, k: usize) -> Result<MappedWeight, ModelError> {
        self.mapped(name, &[n, k], (n, k))
    }

    /// A vector `[n]` as f32.
    pub fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0f32; n];
        matmul::dequantize_row(self.mapped(name, &[n], (1, n))?.view(), 0, &mut values);
        Ok(values)
    }

    /// The tensor `name`, which must have the shape `shape`, as a matrix.
    fn mapped(&self, name: &str, shape: &[usize], (n, k): (usize, usize)) -> Result<MappedWeight, ModelError> {
        let (entry, tensor) = self.find(name)?;
        let error = |message: String| ModelError::Tensor { path: entry.path.clone(), tensor: tensor.clone(), message };
        if entry.shape != shape {
            return Err(error(format!("has the shape {:?}; the configuration asks for {shape:?}", entry.shape)));
        }
        let kind = match entry.dtype {
            Dtype::F32 => WeightType::F32,
            Dtype::F16 => WeightType::F16,
            Dtype::BF16 => WeightType::Bf16,
            other => return Err(error(format!("is of type {other:?}; known are F32, F16 and BF16"))),
        };
        MappedWeight::new(entry.file.clone(), entry.range.clone(), kind, (n, k)).map_err(|e| error(e.to_string()))
    }

    /// `name.weight`, and `name.bias` if `bias`.
    pub fn linear(&self, name: impl AsRef<str>, n: usize, k: usize, bias: bool) -> Result<Linear, ModelError> {
        let name = name.as_ref();
        let weight = self.matrix(&format!("{name}.weight"), n, k)?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), n)?) } else { None };
        Ok(Linear::new(weight, bias, &self.device)?)
    }

    pub fn norm(&self, name: &str, n: usize, eps: f64) -> Result<RmsNorm, ModelError> {
        let weight = Tensor::from_vec(self.vector(&format!("{name}.weight"), n)?, n, &self.device)?;
        Ok(RmsNorm::new(weight, eps))
    }

    pub fn mlp(&self, name: &str, hidden: usize, intermediate: usize, bias: bool) -> Result<Mlp, ModelError> {
        let w = self.at(name.to_owned());
        Ok(Mlp {
            gate: w.linear("gate_proj", intermediate, hidden, bias)?,
            up: w.linear("up_proj", intermediate, hidden, bias)?,
            down: w.linear("down_proj", hidden, intermediate, bias)?,
        })
    }

    /// Embedding, final norm and head around `layers`.
    pub fn decoder<L>(&self, config: &ModelConfig, layers: Vec<L>) -> Result<Decoder<L>, ModelError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = self.matrix("model.embed_tokens.weight", vocab, hidden)?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => self.matrix("lm_head.weight", vocab, hidden)?,
        };
        Ok(Decoder {
            embedding: Embedding::new(embedding, &self.device),
            layers,
            norm: self.norm("model.norm", hidden, config.rms_norm_eps)?,
            head: Linear::new(head, None, &self.device)?,
            geometry: config.geometry(),
        })
    }
}
