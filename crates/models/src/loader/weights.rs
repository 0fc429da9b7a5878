//! Tensors by name, checked against the shapes the model must have.
use super::quantize::{Quantizer, WeightQuant, deinterleave};
use super::tensors::{Entry, StoredWeight, Tensors};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::layers::{Decoder, Embedding, Linear, Mlp, RmsNorm};
use attention::StateLayout;
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in the tree of tensor names.
#[derive(Clone)]
pub(crate) struct Weights {
    tensors: Arc<Tensors>,
    /// The folder or file they come from, for errors.
    origin: PathBuf,
    prefix: String,
    device: Device,
    /// What a GPU computes in; `None`: products are the CPU's.
    gpu_type: Option<DType>,
    quantizer: Arc<Quantizer>,
}

impl Weights {
    pub fn new(
        tensors: Tensors,
        origin: &Path,
        device: &Device,
        gpu_type: Option<DType>,
        quantizer: Quantizer,
    ) -> Self {
        let (tensors, quantizer) = (Arc::new(tensors), Arc::new(quantizer));
        Weights {
            tensors,
            origin: origin.to_owned(),
            prefix: String::new(),
            device: device.clone(),
            gpu_type,
            quantizer,
        }
    }

    /// Everything below `prefix`.
    pub fn at(&self, prefix: impl AsRef<str>) -> Self {
        Weights { prefix: format!("{}{}.", self.prefix, prefix.as_ref()), ..self.clone() }
    }

    /// The decoder's part: `model`, or what multimodal wrappers call it.
    fn decoder_root(&self) -> Self {
        let roots = ["model", "model.language_model", "language_model.model"];
        let has = |root: &&str| self.has(&format!("{root}.embed_tokens.weight"));
        self.at(roots.into_iter().find(has).unwrap_or("model"))
    }

    /// The decoder's layer `layer`.
    pub fn layer(&self, layer: usize) -> Self {
        self.decoder_root().at(format!("layers.{layer}"))
    }

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

    /// A matrix `[n, k]`: left where it lies in the file, or quantised if that was asked for.
    pub fn matrix(&self, name: &str, n: usize, k: usize) -> Result<StoredWeight, ModelError> {
        self.weight(name, (n, k), |weight| self.quantizer.projection(weight))
    }

    /// The embedding or the head, which cost more when they are coarse.
    fn vocabulary(&self, name: &str, n: usize, k: usize) -> Result<StoredWeight, ModelError> {
        self.weight(name, (n, k), |weight| self.quantizer.vocabulary(weight))
    }

    fn weight(
        &self,
        name: &str,
        (n, k): (usize, usize),
        quantize: impl Fn(&StoredWeight) -> Result<Option<StoredWeight>, matmul::MatmulError>,
    ) -> Result<StoredWeight, ModelError> {
        let (entry, tensor) = self.find(name)?;
        let error = |e: matmul::MatmulError| ModelError::Tensor {
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
        self.quantizer.done(entry.range.len(), mapped, owned);
        Ok(weight)
    }

    /// A vector `[n]` as f32.
    pub fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        self.elements(name, &[n])
    }

    /// All elements as f32 of a tensor that must have the shape `shape`.
    pub fn elements(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let n: usize = shape.iter().product();
        let stored = self.stored(name, shape, (1, n))?;
        let mut values = vec![0f32; n];
        matmul::dequantize_row(stored.view(), 0, &mut values);
        let (entry, _) = self.find(name)?;
        self.quantizer.done(entry.range.len(), 0, n * size_of::<f32>());
        Ok(match entry.interleaved_heads {
            Some(heads) => super::quantize::deinterleave_rows(&values, 1, heads),
            None => values,
        })
    }

    /// The tensor `name`, which must have the shape `shape`, as a matrix.
    fn stored(&self, name: &str, shape: &[usize], (n, k): (usize, usize)) -> Result<StoredWeight, ModelError> {
        let (entry, tensor) = self.find(name)?;
        let error = |message: String| ModelError::Tensor { path: entry.path.clone(), tensor: tensor.clone(), message };
        if entry.shape != shape {
            return Err(error(format!("has the shape {:?}; the configuration asks for {shape:?}", entry.shape)));
        }
        let unknown = |kind: &String| {
            let known = matmul::WeightType::ALL.map(|t| t.name()).join(", ");
            error(format!("is of type {kind}; known are {known}"))
        };
        let kind = *entry.kind.as_ref().map_err(unknown)?;
        StoredWeight::mapped(entry.file.clone(), entry.range.clone(), kind, (n, k)).map_err(|e| error(e.to_string()))
    }

    /// `name.weight`, and `name.bias` if `bias`.
    pub fn linear(&self, name: impl AsRef<str>, n: usize, k: usize, bias: bool) -> Result<Linear, ModelError> {
        let name = name.as_ref();
        let weight = self.matrix(&format!("{name}.weight"), n, k)?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), n)?) } else { None };
        Ok(Linear::new(weight, bias, &self.device, self.gpu_type)?)
    }

    /// `name.weight` as it is stored, multiplied in f32: a small matrix whose errors would be large ones.
    pub fn exact_linear(&self, name: &str, n: usize, k: usize) -> Result<Linear, ModelError> {
        let weight = self.weight(&format!("{name}.weight"), (n, k), |_| Ok(None))?;
        Ok(Linear::new(weight, None, &self.device, self.gpu_type.map(|_| DType::F32))?)
    }

    pub fn norm(&self, name: &str, n: usize, eps: f64) -> Result<RmsNorm, ModelError> {
        let weight = Tensor::from_vec(self.vector(&format!("{name}.weight"), n)?, n, &self.device)?;
        Ok(RmsNorm::new(weight, eps))
    }

    /// A norm whose weight is stored less 1.
    pub fn centred_norm(&self, name: &str, n: usize, eps: f64) -> Result<RmsNorm, ModelError> {
        let weight = self.vector(&format!("{name}.weight"), n)?.into_iter().map(|w| 1.0 + w).collect();
        Ok(RmsNorm::new(Tensor::from_vec(weight, n, &self.device)?, eps))
    }

    pub fn mlp(&self, name: &str, hidden: usize, intermediate: usize, bias: bool) -> Result<Mlp, ModelError> {
        let w = self.at(name);
        Ok(Mlp {
            gate: w.linear("gate_proj", intermediate, hidden, bias)?,
            up: w.linear("up_proj", intermediate, hidden, bias)?,
            down: w.linear("down_proj", hidden, intermediate, bias)?,
        })
    }

    /// Embedding, final norm and head around `layers`.
    pub fn decoder<L>(&self, config: &ModelConfig, layers: Vec<L>) -> Result<Decoder<L>, ModelError> {
        let norm = self.decoder_root().norm("norm", config.hidden_size, config.rms_norm_eps)?;
        self.decoder_with_norm(config, layers, norm, StateLayout::default())
    }

    /// [`Self::decoder`] with a final norm of another kind, and layers that keep states.
    pub fn decoder_with_norm<L>(
        &self,
        config: &ModelConfig,
        layers: Vec<L>,
        norm: RmsNorm,
        states: StateLayout,
    ) -> Result<Decoder<L>, ModelError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = self.decoder_root().vocabulary("embed_tokens.weight", vocab, hidden)?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false if self.has("language_model.lm_head.weight") => {
                self.vocabulary("language_model.lm_head.weight", vocab, hidden)?
            }
            false => self.vocabulary("lm_head.weight", vocab, hidden)?,
        };
        Ok(Decoder {
            embedding: Embedding::new(embedding, &self.device),
            layers,
            norm,
            head: Linear::new(head, None, &self.device, self.gpu_type)?,
            geometry: config.geometry(),
            states,
        })
    }

    /// The final norm of a family that stores norms less 1.
    pub fn centred_final_norm(&self, config: &ModelConfig) -> Result<RmsNorm, ModelError> {
        self.decoder_root().centred_norm("norm", config.hidden_size, config.rms_norm_eps)
    }

    /// Says what could not be loaded as asked; the bytes of all weights as they are kept: mapped, and in memory.
    pub fn report(&self) -> (u64, u64) {
        self.quantizer.report()
    }
}

/// Bytes of all tensors as stored.
pub(crate) fn num_bytes(tensors: &Tensors) -> u64 {
    tensors.values().map(|e| e.range.len() as u64).sum()
}

/// Names these weights: a hash of all names, types and shapes, of the first and last bytes of each tensor, and of what they are made
/// into. Hashing all bytes would read gigabytes that are otherwise read when they are needed.
pub(crate) fn fingerprint(tensors: &Tensors, quant: Option<WeightQuant>) -> String {
    const SAMPLE: usize = 1 << 16;
    let mut hash = blake3::Hasher::new();
    for (name, entry) in tensors {
        let kind = match &entry.kind {
            Ok(kind) => kind.name(),
            Err(name) => name,
        };
        hash.update(format!("{name} {kind} {:?};", entry.shape).as_bytes());
        let bytes = entry.bytes();
        hash.update(&bytes[..bytes.len().min(SAMPLE)]);
        hash.update(&bytes[bytes.len().saturating_sub(SAMPLE)..]);
    }
    if let Some(quant) = quant {
        hash.update(format!("{quant:?}").as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}
