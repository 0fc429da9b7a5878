//! From a configuration to a running engine.
use crate::centring::{CALIBRATION_TEXT, Calibration};
use crate::core::Engine;
use crate::device::{DeviceChoice, free_on, gpu_type};
use crate::error::StartError;
use crate::handle::{EngineHandle, ModelInfo, channel};
use crate::kv_config::{KvConfig, KvFlags, Settled};
use crate::memory::Demand;
use crate::metrics::Metrics;
use crate::request::SamplingParams;
use crate::runner::ModelRunner;
use crate::select::select;
use attention::AttentionBackend;
use candle_core::Device;
use kv::KvLayout;
use models::{Checkpoint, GenerationDefaults, LoadOptions, LoadedModel, Model, WeightQuant};
use scheduler::{Scheduler, SchedulerConfig};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use text::{ChatTemplate, Tokenizer};
use turboquant::Format;

/// More than any machine that this program is built for has cores.
const MAX_THREADS: usize = 1024;

#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// A Hugging Face model folder, or a GGUF file.
    pub model: PathBuf,
    /// The folder's name if `None`.
    pub served_model_name: Option<String>,
    pub kv: KvFlags,
    /// Bytes; `None`: half of the free memory, or less if that is enough for every sequence at full length.
    pub kv_cache_memory: Option<u64>,
    /// `None`: the model's, or what the cache holds.
    pub max_model_len: Option<usize>,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: usize,
    /// Requests that may wait before new ones are refused.
    pub max_queued_requests: usize,
    /// CPU threads; `None`: all cores.
    pub threads: Option<usize>,
    /// What the projections of float weights are made into at load; `None`: left as they are.
    pub weight_quant: Option<WeightQuant>,
    pub device: DeviceChoice,
    /// Told how loading gets on.
    pub load_progress: Option<LoadProgress>,
}

/// Called with the bytes of the checkpoint that are loaded, and of how many.
#[derive(Clone)]
pub struct LoadProgress(pub models::Progress);

impl std::fmt::Debug for LoadProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoadProgress")
    }
}

impl EngineConfig {
    /// Defaults for a model folder, with a 16-bit cache of blocks of 32 tokens.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        EngineConfig {
            model: model.into(),
            served_model_name: None,
            kv: KvFlags::pair(Format::Bf16, Format::Bf16, 32),
            kv_cache_memory: None,
            max_model_len: None,
            max_num_seqs: 64,
            max_num_batched_tokens: 512,
            max_queued_requests: 1024,
            threads: None,
            weight_quant: None,
            device: DeviceChoice::Auto,
            load_progress: None,
        }
    }

    /// Errors: values that are wrong whatever the model.
    pub fn check(&self) -> Result<(), StartError> {
        self.scheduler(0).check()?;
        if self.max_queued_requests == 0 {
            let message = "is 0; it must be at least 1, or every request would be refused";
            return Err(StartError::flag("--max-queued-requests", message));
        }
        if let Some(n) = self.threads.filter(|n| *n > MAX_THREADS) {
            return Err(StartError::flag("--threads", format!("is {n}; it must be at most {MAX_THREADS}")));
        }
        self.kv.check()
    }

    fn scheduler(&self, num_blocks: usize) -> SchedulerConfig {
        SchedulerConfig {
            block_size: self.kv.block_size,
            num_blocks,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
        }
    }

    /// The name that clients ask for: the folder's or file's, unless another is given.
    pub fn model_name(&self) -> String {
        let own = || {
            let name = if self.model.is_file() { self.model.file_stem() } else { self.model.file_name() };
            name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
        };
        self.served_model_name.clone().unwrap_or_else(own)
    }
}

/// A model's files, read.
pub struct Loaded {
    pub model: Box<dyn Model>,
    /// As its configuration names it.
    pub model_type: String,
    pub tokenizer: Arc<Tokenizer>,
    pub template: Option<Arc<ChatTemplate>>,
    pub generation: GenerationDefaults,
    /// The model's own context limit.
    pub max_position_embeddings: usize,
    /// Bytes of the weights that are mapped: they will be in memory, and are not yet.
    pub mapped_bytes: u64,
    /// Names the weights.
    pub fingerprint: String,
    /// The text over which centring measures K and V.
    pub calibration_text: String,
    pub device: Device,
}

impl Loaded {
    pub fn calibration(&self) -> Calibration<'_> {
        Calibration {
            model: &*self.model,
            tokenizer: &self.tokenizer,
            fingerprint: &self.fingerprint,
            text: &self.calibration_text,
            device: &self.device,
        }
    }
}

/// Loads the model, takes the cache's memory and starts the engine's thread.
///
/// Errors: whatever is wrong with model, flags or memory, before anything is served.
pub fn start(config: &EngineConfig) -> Result<(EngineHandle, JoinHandle<()>), StartError> {
    launch(config, load(config)?)
}

/// Reads the model's files.
pub fn load(config: &EngineConfig) -> Result<Loaded, StartError> {
    config.check()?;
    let device = config.device.open()?;
    let checkpoint = Checkpoint::open(&config.model)?;
    let (tokenizer, template) = match &checkpoint {
        Checkpoint::Folder(folder) => (Tokenizer::from_dir(folder)?, ChatTemplate::from_dir(folder)?),
        Checkpoint::Gguf(files) => {
            let (metadata, path) = (files.metadata()?, files.path());
            (Tokenizer::from_gguf(&metadata, path)?, ChatTemplate::from_gguf(&metadata, path)?)
        }
    };
    let (tokenizer, template) = (Arc::new(tokenizer), template.map(Arc::new));
    let options = LoadOptions {
        gpu_type: gpu_type(&device),
        weight_quant: config.weight_quant,
        progress: config.load_progress.clone().map(|p| p.0),
    };
    let LoadedModel { model, config: model_config, generation, mapped_bytes, owned_bytes, fingerprint } =
        models::load(&checkpoint, &device, &options)?;
    tracing::info!("weights: {} bytes", mapped_bytes + owned_bytes);
    let max_position_embeddings = model_config.max_position_embeddings;
    let calibration_text = CALIBRATION_TEXT.to_owned();
    Ok(Loaded {
        model,
        model_type: model_config.model_type,
        tokenizer,
        template,
        generation,
        max_position_embeddings,
        mapped_bytes,
        fingerprint,
        calibration_text,
        device,
    })
}

/// Takes the cache's memory and starts the engine's thread.
pub fn launch(config: &EngineConfig, loaded: Loaded) -> Result<(EngineHandle, JoinHandle<()>), StartError> {
    let demand = Demand {
        kv_cache_memory: config.kv_cache_memory,
        max_model_len: config.max_model_len,
        model_limit: loaded.max_position_embeddings,
        max_num_seqs: config.max_num_seqs,
        state_bytes: (config.max_num_seqs * loaded.model.state_layout().bytes_per_sequence()) as u64,
        free_memory: free_on(&loaded.device).map(|free| free.saturating_sub(loaded.mapped_bytes)),
    };
    let named = |error: StartError| error.of_model(&loaded.model_type);
    let Settled { config: kv, budget, reason } = config.kv.settle(loaded.model.geometry(), &demand).map_err(named)?;
    if let Some(reason) = reason {
        tracing::info!("--kv-preset auto takes {reason}");
    }
    let centring = loaded.calibration().centring(config.kv.centre, &kv).map_err(named)?;
    let backend = select(&kv, loaded.model.geometry(), centring, &loaded.device).map_err(named)?;
    let Loaded { model, tokenizer, generation, device, .. } = loaded;
    let scheduler = Scheduler::new(config.scheduler(budget.num_blocks))?;
    let no_memory = |e: candle_core::Error| StartError::flag("--kv-cache-memory", e.to_string());
    let runner =
        ModelRunner::new(model, backend, budget.num_blocks, scheduler.num_slots(), device).map_err(no_memory)?;
    let info = ModelInfo {
        name: config.model_name(),
        max_model_len: budget.max_model_len,
        vocab_size: runner.vocab_size(),
        block_size: kv.block_size,
        num_blocks: budget.num_blocks,
        bytes_per_block: runner.backend().spec().bytes_per_block(),
        max_num_seqs: config.max_num_seqs,
        k_quant: kv.k.name().into(),
        v_quant: kv.v.name().into(),
        default_sampling: default_sampling(&generation),
    };
    log_cache(&info, &kv, &runner)?;
    // A model made from another may name its turns' end in the tokenizer's configuration alone.
    let mut eos = generation.eos_token_ids;
    eos.extend(tokenizer.eos_id());
    let metrics = Metrics::new(&info.name);
    let (handle, inbox) = channel(info, tokenizer.clone(), config.max_queued_requests);
    let engine = Engine {
        scheduler,
        runner,
        inbox,
        tokenizer,
        eos,
        max_model_len: budget.max_model_len,
        metrics,
        requests: BTreeMap::new(),
        next_seed: std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64),
        steps: 0,
        deadline: None,
    };
    let pool = compute_pool(config.threads)?;
    // On a thread of the pool a step's parallel parts start without waking anybody first.
    let thread =
        std::thread::Builder::new().name("tallow-engine".into()).spawn(move || pool.install(|| engine.run()))?;
    Ok((handle, thread))
}

/// The threads that compute; `None`: one a core.
pub fn compute_pool(threads: Option<usize>) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    builder.thread_name(|i| format!("tallow-compute-{i}")).build()
}

/// One line: the pair, bytes a token, the pool in tokens, the gain against bf16.
fn log_cache(info: &ModelInfo, kv: &KvConfig, runner: &ModelRunner) -> Result<(), StartError> {
    let (backend, states): (&dyn AttentionBackend, _) = (runner.backend(), runner.states());
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let spec = backend.spec();
    let heads = spec.layers().iter().map(|l| (l.kv_heads, l.record.head_dim(), Format::Bf16, Format::Bf16));
    let bf16 = KvLayout::new(kv.block_size, heads)?;
    tracing::info!(
        "KV cache: K {} V {}, {:.1} bytes a token, {} tokens in {} blocks, {:.1} MiB, {:.2}x the tokens of bf16",
        info.k_quant,
        info.v_quant,
        spec.bytes_per_token(),
        info.num_blocks * info.block_size,
        info.num_blocks,
        mib(backend.allocated_bytes()),
        bf16.bytes_per_token() / spec.bytes_per_token(),
    );
    if states.num_bytes() > 0 {
        tracing::info!(
            "recurrent states: {:.2} MiB a sequence, {:.1} MiB for {} sequences",
            mib(states.layout().bytes_per_sequence()),
            mib(states.num_bytes()),
            states.num_slots(),
        );
    }
    Ok(())
}

fn default_sampling(generation: &GenerationDefaults) -> SamplingParams {
    let plain = SamplingParams::default();
    SamplingParams {
        temperature: generation.temperature.unwrap_or(plain.temperature),
        top_k: generation.top_k.unwrap_or(plain.top_k),
        top_p: generation.top_p.unwrap_or(plain.top_p),
        min_p: generation.min_p.unwrap_or(plain.min_p),
        repetition_penalty: generation.repetition_penalty.unwrap_or(plain.repetition_penalty),
        ..plain
    }
}
