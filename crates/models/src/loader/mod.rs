//! From a checkpoint to a model.
mod gguf;
mod mapped;
mod quantize;
mod safetensors;
mod tensors;
mod weights;

use crate::config::{Family, GenerationDefaults, ModelConfig};
use crate::error::ModelError;
use crate::{Model, llama, qwen2, qwen3, qwen3_5, qwen3_moe};
use candle_core::{DType, Device};
use quantize::Quantizer;
use std::path::{Path, PathBuf};

pub use gguf::GgufFiles;
pub use quantize::{Progress, WeightQuant};
pub(crate) use tensors::StoredWeight;
pub(crate) use weights::Weights;

pub struct LoadedModel {
    pub model: Box<dyn Model>,
    pub config: ModelConfig,
    pub generation: GenerationDefaults,
    /// Bytes of the weights that stay in their files, mapped; their pages may not be in memory yet.
    pub mapped_bytes: u64,
    /// Bytes of those that were made at load.
    pub owned_bytes: u64,
    /// Names the weights.
    pub fingerprint: String,
}

/// How a checkpoint is loaded.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// Multiply as on a GPU, floats in this type. `None`: as on a CPU on one, and in bf16 on a GPU.
    pub gpu_type: Option<DType>,
    pub weight_quant: Option<WeightQuant>,
    pub progress: Option<Progress>,
}

/// Where a model lies.
pub enum Checkpoint {
    /// A Hugging Face model folder: `config.json`, `generation_config.json` if there, one or many safetensors files, tokenizer.
    Folder(PathBuf),
    /// GGUF, tokenizer included.
    Gguf(GgufFiles),
}

impl Checkpoint {
    /// `path`: a folder, or a `.gguf` file (of shards any).
    ///
    /// Errors: what is neither; a GGUF file that is not whole.
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

/// Loads a model; its weights are memory-mapped.
///
/// Errors: an architecture that is not known (the known ones are named) or cannot be served; missing or malformed files and
/// tensors, each named.
pub fn load(checkpoint: &Checkpoint, device: &Device, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let (config, generation, tensors) = match checkpoint {
        Checkpoint::Folder(folder) => {
            let config = ModelConfig::read(folder)?;
            let generation = GenerationDefaults::read(folder, &config)?;
            (config, generation, safetensors::open(folder)?)
        }
        Checkpoint::Gguf(files) => {
            let (metadata, tensors) = (files.metadata()?, files.tensors()?);
            let config = gguf::config(&metadata, &tensors, files.path())?;
            let generation = gguf::generation(&metadata, &config)?;
            (config, generation, tensors)
        }
    };
    let origin = match checkpoint {
        Checkpoint::Folder(folder) => folder,
        Checkpoint::Gguf(files) => files.path(),
    };
    let gpu_type = options.gpu_type.or((!device.is_cpu()).then_some(DType::BF16));
    if let (Some(_), Some(part)) = (gpu_type, config.family.part_on_the_cpu()) {
        tracing::info!("a model of type {} on a GPU: {part}", config.model_type);
    }
    let (total, fingerprint) = (weights::num_bytes(&tensors), weights::fingerprint(&tensors, options.weight_quant));
    let quantizer = Quantizer::new(options.weight_quant, options.progress.clone(), total);
    let weights = Weights::new(tensors, origin, device, gpu_type, quantizer);
    let model = match config.family {
        Family::Llama => llama::load(&config, &weights)?,
        Family::Qwen2 => qwen2::load(&config, &weights)?,
        Family::Qwen3 => qwen3::load(&config, &weights)?,
        Family::Qwen3Moe => qwen3_moe::load(&config, &weights)?,
        Family::Qwen35 => qwen3_5::load(&config, &weights)?,
    };
    let (mapped_bytes, owned_bytes) = weights.report();
    Ok(LoadedModel { model, config, generation, mapped_bytes, owned_bytes, fingerprint })
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
