//! From a model's files to a model in memory.
use super::backend::compute_device;
use super::calibration::{CALIBRATION_TEXT, Calibration, measurements_folder};
use super::config::{EngineConfig, StartPhase, StartProgress};
use super::device::DecodeKernel;
use super::generation::turn_ends;
use crate::error::StartError;
use compute::ComputeDevice;
use models::{Checkpoint, GenerationDefaults, LoadOptions, LoadedModel, Model, ModelConfig, OnProgress, WeightFiles};
use std::path::PathBuf;
use std::sync::Arc;
use text::{ChatTemplate, Tokenizer};

/// A model, its tokenizer and its chat template.
pub struct ModelBundle {
    /// The model, its weights on `device`.
    pub model: Box<dyn Model>,
    /// Its configuration.
    pub model_config: ModelConfig,
    /// The tokenizer that came with the model.
    pub tokenizer: Arc<Tokenizer>,
    /// The chat template; `None` where the model came without one.
    pub template: Option<Arc<ChatTemplate>>,
    /// What the model's files say about generation, with every token that ends an answer.
    pub generation: GenerationDefaults,
    /// Bytes of the weights that are mapped: they will be in memory once they have been read.
    pub mapped_bytes: u64,
    /// Bytes of the weights that are in memory.
    pub owned_bytes: u64,
    /// The files that weights still lie in.
    pub files: WeightFiles,
    /// Names the weights.
    pub fingerprint: String,
    /// The text over which keys are measured.
    pub calibration_text: String,
    /// The folder in which what is measured of the model is kept; `None`: it is measured at each start.
    pub measurements_folder: Option<PathBuf>,
    /// What computes the model beside its attention.
    pub device: Arc<dyn ComputeDevice>,
    /// The kernel for single rows on a GPU.
    pub decode_kernel: DecodeKernel,
    /// Told how the start gets on.
    pub progress: Option<StartProgress>,
}

impl ModelBundle {
    /// What a calibration needs of the model.
    pub fn calibration(&self) -> Calibration<'_> {
        Calibration {
            model: &*self.model,
            tokenizer: &self.tokenizer,
            fingerprint: &self.fingerprint,
            files: &self.files,
            text: &self.calibration_text,
            device: &*self.device,
            folder: self.measurements_folder.as_deref(),
            progress: self.progress.as_ref(),
        }
    }
}

/// Reads the model's files.
///
/// Errors: values of the configuration that are wrong, a device that there is not, files that are missing or wrong.
pub fn load(config: &EngineConfig) -> Result<ModelBundle, StartError> {
    config.check()?;
    let device = config.device.open()?;
    let checkpoint = Checkpoint::open(&config.model, config.reading)?;
    let (tokenizer, template) = match &checkpoint {
        Checkpoint::Folder(folder, _) => (Tokenizer::from_dir(folder)?, ChatTemplate::from_dir(folder)?),
        Checkpoint::Gguf(files) => {
            let (metadata, path) = (files.metadata()?, files.path());
            (Tokenizer::from_gguf(&metadata, path)?, ChatTemplate::from_gguf(&metadata, path)?)
        }
    };
    let template = chat_template(config, &tokenizer, template)?;
    let open = models::open(&checkpoint)?;
    let device = compute_device(&device, config.gpu_products)?;
    let progress = config
        .progress
        .clone()
        .map(|progress| -> OnProgress { Arc::new(move |done, total| (progress.0)(StartPhase::Loading, done, total)) });
    let options = LoadOptions { weight_quant: config.weight_quant, progress };
    let LoadedModel { model, config: model_config, mut generation, mapped_bytes, owned_bytes, fingerprint, files } =
        open.load(&device, &options)?;
    generation.eos_token_ids = turn_ends(&generation, &tokenizer, template.as_ref());
    tracing::info!("weights: {} bytes", mapped_bytes + owned_bytes);
    Ok(ModelBundle {
        model,
        model_config,
        tokenizer: Arc::new(tokenizer),
        template: template.map(Arc::new),
        generation,
        mapped_bytes,
        owned_bytes,
        fingerprint,
        files,
        calibration_text: CALIBRATION_TEXT.to_owned(),
        measurements_folder: measurements_folder(),
        device,
        decode_kernel: config.decode_kernel,
        progress: config.progress.clone(),
    })
}

/// The chat template: the one that the configuration names, or the model's `own`. One of the model's own that does not
/// compile is logged, since it costs requests with messages alone.
///
/// Errors: a named file that cannot be read, or whose template does not compile.
fn chat_template(
    config: &EngineConfig,
    tokenizer: &Tokenizer,
    own: Option<ChatTemplate>,
) -> Result<Option<ChatTemplate>, StartError> {
    let template = match &config.chat_template {
        Some(file) => {
            let named = ChatTemplate::from_file(file, tokenizer);
            Some(named.map_err(|e| StartError::flag("--chat-template", e.to_string()))?)
        }
        None => own,
    };
    if let Some(problem) = template.as_ref().and_then(ChatTemplate::problem) {
        tracing::warn!("{problem}; requests with messages are refused until --chat-template names another");
    }
    Ok(template.map(|template| {
        let template = template.reading_special_tokens(config.chat_special_tokens);
        template.calling_tools_as(config.tool_call_format)
    }))
}
