//! From a checkpoint to a model.
use crate::checkpoint::{Checkpoint, Reading, Tensors, WeightFiles, has_whole_norms, safetensors};
use crate::config::{ConfigJson, GenerationDefaults, GgufKeys, ModelConfig};
use crate::error::ModelError;
use crate::family::Family;
use crate::foreign_quant;
use crate::layers::is_asked_for;
use crate::model::Model;
use crate::registry::{family_of_gguf, family_of_json};
use crate::weights::{OnProgress, Quantizer, WeightBytes, WeightQuant, Weights, fingerprint, loaded_bytes, num_bytes};
use attention::ModelGeometry;
use compute::ComputeDevice;
use std::path::Path;
use std::sync::Arc;

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
    /// A name for configuration and weights, other for others: a hash in hexadecimal digits.
    pub fingerprint: String,
    /// The files that weights still lie in.
    pub files: WeightFiles,
}

/// How the weights of a checkpoint are loaded.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The type that the projections of a float checkpoint are quantised to; `None`: they stay as they are stored.
    pub weight_quant: Option<WeightQuant>,
    /// Told how far loading has come.
    pub progress: Option<OnProgress>,
}

/// A checkpoint whose headers have been read and whose weights have not.
pub struct OpenModel<'a> {
    path: &'a Path,
    family: &'static Family,
    config: ModelConfig,
    generation: GenerationDefaults,
    tensors: Tensors,
}

/// Reads the headers of a checkpoint.
///
/// Errors: an architecture that is not known (the known ones are named) or cannot be served; missing or malformed
/// files.
pub fn open(checkpoint: &Checkpoint) -> Result<OpenModel<'_>, ModelError> {
    match checkpoint {
        Checkpoint::Folder(path, reading) => {
            let json = ConfigJson::read(path)?;
            let quantization = foreign_quant::quantization(&json)?;
            let family = family_of_json(&json)?;
            if json.is_wrapper {
                tracing::info!("{}: a multimodal model, of which the text part is served", json.path.display());
            }
            let mut config = family.config_of_json(&json)?;
            let generation = GenerationDefaults::of_folder(path, &config)?;
            let is_asked_for = |name: &str| is_asked_for(name, config.num_layers());
            let tensors = safetensors(path, *reading, quantization.as_ref(), is_asked_for)?;
            config.one_plus_norm &= !has_whole_norms(&tensors);
            Ok(OpenModel::new(path, family, config, generation, tensors))
        }
        Checkpoint::Gguf(files) => {
            let (path, metadata) = (files.path(), files.metadata()?);
            let keys = GgufKeys::new(&metadata, path)?;
            let (family, names) = family_of_gguf(&keys)?;
            let tensors = files.tensors(names)?;
            let config = family.config_of_gguf(&keys, &tensors)?;
            let generation = GenerationDefaults::of_gguf(&metadata, &config.path, &config.eos)?;
            Ok(OpenModel::new(path, family, config, generation, tensors))
        }
    }
}

impl<'a> OpenModel<'a> {
    /// A model of those tensors that its layers ask for.
    fn new(
        path: &'a Path,
        family: &'static Family,
        config: ModelConfig,
        generation: GenerationDefaults,
        mut tensors: Tensors,
    ) -> Self {
        tensors.retain(|name, _| is_asked_for(name, config.num_layers()));
        OpenModel { path, family, config, generation, tensors }
    }

    /// Returns the geometry of the model's layers, for attention.
    pub fn geometry(&self) -> ModelGeometry {
        self.config.geometry()
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The bytes that the weights will take if they are quantised and read in this way.
    ///
    /// Errors: weights that are to be quantised and are so in their files.
    pub fn weight_bytes(&self, quant: Option<WeightQuant>, reading: Reading) -> Result<WeightBytes, ModelError> {
        self.check_unquantised(quant)?;
        Ok(loaded_bytes(&self.tensors, quant, reading == Reading::Mapped))
    }

    /// Errors: as [`Self::weight_bytes`]. A GGUF file's own types stay, since such files have floats
    /// beside them, and what becomes floats at load can be quantised further.
    fn check_unquantised(&self, quant: Option<WeightQuant>) -> Result<(), ModelError> {
        let kinds = self.tensors.values().filter(|entry| entry.groups.is_some()).filter_map(|e| e.kind.as_ref().ok());
        let quantised = || kinds.into_iter().find(|kind| kind.block_len() > 1);
        match quant.and_then(|quant| Some((quant, quantised()?))) {
            None => Ok(()),
            Some((quant, kind)) => {
                let (path, kind) = (self.path.to_owned(), kind.name());
                Err(ModelError::AlreadyQuantised { path, quant: quant.name(), kind })
            }
        }
    }

    /// The name that the model has once its weights are loaded and quantised in this way: see
    /// [`LoadedModel::fingerprint`].
    pub fn fingerprint(&self, quant: Option<WeightQuant>) -> String {
        fingerprint(&self.config, &self.tensors, quant)
    }

    /// Loads the weights to `device`. They stay in their memory-mapped files where the device can leave them there.
    ///
    /// Errors: missing or malformed tensors, each named; what [`Self::weight_bytes`] refuses.
    pub fn load(self, device: &Arc<dyn ComputeDevice>, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
        self.check_unquantised(options.weight_quant)?;
        let OpenModel { path, family, config, generation, tensors } = self;
        let files = WeightFiles::of(tensors.values().map(|entry| &entry.file));
        let (total, fingerprint) = (num_bytes(&tensors), fingerprint(&config, &tensors, options.weight_quant));
        let quantizer = Quantizer::new(options.weight_quant, options.progress.clone(), total);
        let weights = Weights::new(tensors, path, device, quantizer);
        let model = (family.load)(&config, &weights)?;
        let (mapped_bytes, owned_bytes) = weights.report();
        files.check()?;
        Ok(LoadedModel { model, config, generation, mapped_bytes, owned_bytes, fingerprint, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compute::CpuDevice;

    #[test]
    fn quantised_weights_have_another_name() {
        let name = |weight_quant| {
            let checkpoint = Checkpoint::open(&testkit::repo("models/tiny-mistral"), Reading::Mapped).unwrap();
            let options = LoadOptions { weight_quant, ..Default::default() };
            let device: Arc<dyn ComputeDevice> = Arc::new(CpuDevice);
            open(&checkpoint).unwrap().load(&device, &options).unwrap().fingerprint
        };
        let names = [None, Some(WeightQuant::Q8_0), Some(WeightQuant::Q4K)].map(name);
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2], "{names:?}");
        assert_eq!(name(Some(WeightQuant::Q4K)), names[2]);
    }

    #[test]
    fn the_same_weights_in_another_configuration_have_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let from = testkit::repo("models/tiny-mistral");
        std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let config = std::fs::read_to_string(from.join("config.json")).unwrap();
        let mut names = Vec::new();
        for config in [config.clone(), config.replace("10000.0", "20000.0")] {
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            let checkpoint = Checkpoint::open(folder.path(), Reading::Mapped).unwrap();
            names.push(open(&checkpoint).unwrap().fingerprint(None));
        }
        assert_ne!(names[0], names[1]);
        let checkpoint = Checkpoint::open(&from, Reading::Mapped).unwrap();
        assert_eq!(open(&checkpoint).unwrap().fingerprint(None), names[0], "wherever it lies");
    }

    #[test]
    fn headers_tell_what_the_weights_take() {
        for model in ["demo", "tiny-llama31", "tiny-qwen2", "tiny-qwen3moe", "tiny-qwen35"] {
            for weight_quant in [None, Some(WeightQuant::Q8_0), Some(WeightQuant::Q4K)] {
                for reading in [Reading::Mapped, Reading::InMemory] {
                    let checkpoint = Checkpoint::open(&testkit::repo(&format!("models/{model}")), reading).unwrap();
                    let open = open(&checkpoint).unwrap();
                    let told = open.weight_bytes(weight_quant, reading).unwrap();
                    let states = open.config().state_layout().bytes_per_sequence();
                    let options = LoadOptions { weight_quant, ..Default::default() };
                    let device: Arc<dyn ComputeDevice> = Arc::new(CpuDevice);
                    let loaded = open.load(&device, &options).unwrap();
                    assert_eq!(loaded.model.state_layout().bytes_per_sequence(), states, "{model}");
                    // Routers and gates stay as they are stored: less than a fiftieth of these models.
                    let (sum, taken) = (told.mapped + told.owned, loaded.mapped_bytes + loaded.owned_bytes);
                    assert!(sum.abs_diff(taken) * 50 <= taken, "{model} {weight_quant:?}: {told:?}, taken {taken}");
                    let is_exact = weight_quant.is_none();
                    assert!(!is_exact || (told.mapped, told.owned) == (loaded.mapped_bytes, loaded.owned_bytes));
                }
            }
        }
    }
}
