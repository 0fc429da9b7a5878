//! From a checkpoint to a model.
use crate::checkpoint::{Checkpoint, Tensors, safetensors};
use crate::config::{ConfigJson, GenerationDefaults, GgufKeys, ModelConfig};
use crate::error::ModelError;
use crate::family::Family;
use crate::model::Model;
use crate::registry::{family_of_gguf, family_of_json};
use crate::weights::{OnProgress, Quantizer, WeightQuant, Weights, fingerprint, num_bytes};
use candle_core::{DType, Device};
use std::path::Path;

/// A model, ready to run, and what its checkpoint says beside the weights.
pub struct LoadedModel {
    /// The model.
    pub model: Box<dyn Model>,
    /// Its configuration.
    pub config: ModelConfig,
    /// How to sample and when to stop where a request does not say.
    pub generation: GenerationDefaults,
    /// The bytes of the weights that stay in their mapped files; their pages may not be in memory yet.
    pub mapped_bytes: u64,
    /// The bytes of the weights that were made at load.
    pub owned_bytes: u64,
    /// A name for the weights, other for others: a hash in hexadecimal digits.
    pub fingerprint: String,
}

/// How a checkpoint is loaded.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The type in which a GPU multiplies floats. `None`: products are the CPU's on a CPU, and in bf16 on a GPU.
    pub gpu_type: Option<DType>,
    /// What the projections of a float checkpoint are quantised to; `None`: they stay as they are stored.
    pub weight_quant: Option<WeightQuant>,
    /// Told how far loading has come.
    pub progress: Option<OnProgress>,
}

/// Loads a model to `device`; its weights are memory-mapped.
///
/// Errors: an architecture that is not known (the known ones are named) or cannot be served; missing or malformed files
/// and tensors, each named.
pub fn load(checkpoint: &Checkpoint, device: &Device, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let Opened { path, family, config, generation, tensors } = open(checkpoint)?;
    let gpu_type = options.gpu_type.or((!device.is_cpu()).then_some(DType::BF16));
    if let (Some(_), Some(reason)) = (gpu_type, family.waits_for_cpu) {
        tracing::info!("a model of type {} on a GPU: {reason}", config.model_type);
    }
    let (total, fingerprint) = (num_bytes(&tensors), fingerprint(&tensors, options.weight_quant));
    let quantizer = Quantizer::new(options.weight_quant, options.progress.clone(), total);
    let weights = Weights::new(tensors, path, device, gpu_type, quantizer);
    let model = (family.load)(&config, &weights)?;
    let (mapped_bytes, owned_bytes) = weights.report();
    Ok(LoadedModel { model, config, generation, mapped_bytes, owned_bytes, fingerprint })
}

/// A checkpoint whose headers have been read.
struct Opened<'a> {
    path: &'a Path,
    family: &'static Family,
    config: ModelConfig,
    generation: GenerationDefaults,
    tensors: Tensors,
}

fn open(checkpoint: &Checkpoint) -> Result<Opened<'_>, ModelError> {
    match checkpoint {
        Checkpoint::Folder(path) => {
            let json = ConfigJson::read(path)?;
            let family = family_of_json(&json)?;
            if json.is_wrapper {
                tracing::info!("{}: a multimodal model, of which the text part is served", json.path.display());
            }
            let config = family.config_of_json(&json)?;
            let generation = GenerationDefaults::of_folder(path, &config)?;
            Ok(Opened { path, family, config, generation, tensors: safetensors(path)? })
        }
        Checkpoint::Gguf(files) => {
            let (path, metadata) = (files.path(), files.metadata()?);
            let keys = GgufKeys::new(&metadata, path)?;
            let (family, names) = family_of_gguf(&keys)?;
            let tensors = files.tensors(names)?;
            let config = family.config_of_gguf(&keys, &tensors)?;
            let generation = GenerationDefaults::of_gguf(&metadata, &config)?;
            Ok(Opened { path, family, config, generation, tensors })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_weights_have_another_name() {
        let name = |weight_quant| {
            let checkpoint = Checkpoint::open(&testkit::repo("models/tiny-mistral")).unwrap();
            let options = LoadOptions { weight_quant, ..Default::default() };
            load(&checkpoint, &Device::Cpu, &options).unwrap().fingerprint
        };
        let names = [None, Some(WeightQuant::Q8_0), Some(WeightQuant::Q4K)].map(name);
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2], "{names:?}");
        assert_eq!(name(Some(WeightQuant::Q4K)), names[2]);
    }
}
