//! What the engine is started with.
use super::device::{DecodeKernel, DeviceChoice, GpuProducts};
use super::kv_plan::KvOptions;
use super::memory::DEFAULT_NUM_SEQS;
use crate::error::StartError;
use crate::serve::PressureSource;
use disk_cache::DiskOptions;
use models::{Reading, WeightQuant};
use scheduler::SchedulerConfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use text::ToolCallFormat;
use turboquant::{Format, KvPair};

/// The most tokens of a draft where nobody says how many.
const DEFAULT_DRAFT_TOKENS: usize = 16;

/// The largest number of tokens that `--speculate` takes: as many rows as a product with few rows is made for, a few
/// times over.
pub const MAX_DRAFT_TOKENS: usize = 64;

/// Most `--threads`: more cores than any machine has that this program is built for.
const MAX_THREADS: usize = 1024;

/// What the engine is started with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// A Hugging Face model folder, a GGUF file, or a folder with one.
    pub model: PathBuf,
    /// The name that clients ask for; `None`: the folder's or file's.
    pub served_model_name: Option<String>,
    /// A file with the chat template that takes the place of the model's own.
    pub chat_template: Option<PathBuf>,
    /// Whether special tokens that clients write in messages are special tokens rather than text.
    pub chat_special_tokens: bool,
    /// How the model writes tool calls; `None`: as its chat template shows.
    pub tool_call_format: Option<ToolCallFormat>,
    /// How the cache is stored.
    pub kv: KvOptions,
    /// Bytes of memory that the engine may take in all, weights included; `None`: what is free, of which the cache
    /// takes half at most.
    pub memory: Option<u64>,
    /// Bytes of the cache; `None`: half of the free memory, or less if that is enough for every sequence at full
    /// length.
    pub kv_cache_memory: Option<u64>,
    /// The longest context in tokens; `None`: the model's, or what the cache holds.
    pub max_model_len: Option<usize>,
    /// Whether a longer context than the model's means the model's, as where several models share one setting, and is
    /// no error.
    pub context_is_cap: bool,
    /// Sequences that run at once; `None`: 64, or fewer where a model's recurrent states would take more than a quarter
    /// of the cache's memory.
    pub max_num_seqs: Option<usize>,
    /// Tokens of one step.
    pub max_num_batched_tokens: usize,
    /// How long a step may take that computes prompts while answers are streamed; `None`: as long as its tokens take.
    pub max_step_time: Option<Duration>,
    /// The most tokens of a draft that is computed along with an answer's next token; 0: nothing is drafted.
    pub max_draft_tokens: usize,
    /// Whether what is computed of prompts is kept for later ones that begin alike.
    pub prefix_cache: bool,
    /// Where and how much of the cache is kept on disk; `None`: nothing.
    pub disk_cache: Option<DiskOptions>,
    /// Requests that may wait before new ones are refused.
    pub max_queued_requests: usize,
    /// CPU threads; `None`: one a core.
    pub threads: Option<usize>,
    /// What the projections of float weights are quantised to at load; `None`: they stay as they are.
    pub weight_quant: Option<WeightQuant>,
    /// How weights come into memory.
    pub reading: Reading,
    /// What computes.
    pub device: DeviceChoice,
    /// The kernel for single rows on a GPU.
    pub decode_kernel: DecodeKernel,
    /// How products with few rows are computed on a GPU.
    pub gpu_products: GpuProducts,
    /// What tells how short of memory the machine is while the engine runs; `None`: nothing does.
    pub pressure: Option<PressureSource>,
    /// Told how the start gets on.
    pub progress: Option<StartProgress>,
}

/// A part of a start that may take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPhase {
    /// Weights are loaded: bytes of the checkpoint.
    Loading,
    /// Keys are measured: tokens.
    Calibration,
    /// The KL of presets is measured, since the start depends on it: tokens.
    PresetKl,
    /// A device compiles what it will run: 0 or 1 of 1.
    WarmUp,
}

/// A function that is called with how much of a part of the start is done, and with how much there is.
#[derive(Clone)]
pub struct StartProgress(pub Arc<dyn Fn(StartPhase, u64, u64) + Send + Sync>);

impl StartProgress {
    /// Calls the function.
    pub fn at(&self, phase: StartPhase, done: usize, total: usize) {
        (self.0)(phase, done as u64, total as u64);
    }
}

impl std::fmt::Debug for StartProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StartProgress")
    }
}

impl EngineConfig {
    /// Defaults for a model folder or file, with a bf16 cache of blocks of 32 tokens.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        EngineConfig {
            model: model.into(),
            served_model_name: None,
            chat_template: None,
            chat_special_tokens: false,
            tool_call_format: None,
            kv: KvOptions::pair(KvPair::both(Format::Bf16), 32),
            memory: None,
            kv_cache_memory: None,
            max_model_len: None,
            context_is_cap: false,
            max_num_seqs: None,
            max_num_batched_tokens: 512,
            max_step_time: Some(Duration::from_millis(200)),
            max_draft_tokens: DEFAULT_DRAFT_TOKENS,
            prefix_cache: true,
            disk_cache: None,
            max_queued_requests: 1024,
            threads: None,
            weight_quant: None,
            reading: Reading::Mapped,
            device: DeviceChoice::Auto,
            decode_kernel: DecodeKernel::Mma,
            gpu_products: GpuProducts::Auto,
            pressure: None,
            progress: None,
        }
    }

    /// Errors: values that are wrong whatever the model.
    pub fn check(&self) -> Result<(), StartError> {
        self.scheduler(0, 0, self.max_num_seqs.unwrap_or(DEFAULT_NUM_SEQS)).check()?;
        if self.max_queued_requests == 0 {
            let message = "is 0; it must be at least 1, or every request would be refused";
            return Err(StartError::flag("--max-queued-requests", message));
        }
        if self.max_draft_tokens > MAX_DRAFT_TOKENS {
            let message = format!("is {}; it must be off, or lie in [1, {MAX_DRAFT_TOKENS}]", self.max_draft_tokens);
            return Err(StartError::flag("--speculate", message));
        }
        if let Some(n) = self.threads.filter(|n| *n > MAX_THREADS) {
            return Err(StartError::flag("--threads", format!("is {n}; it must be at most {MAX_THREADS}")));
        }
        self.kv.check()
    }

    pub(super) fn scheduler(&self, num_blocks: usize, num_snapshots: usize, max_num_seqs: usize) -> SchedulerConfig {
        SchedulerConfig {
            block_size: self.kv.block_size,
            num_blocks,
            max_num_seqs,
            num_snapshots,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_step_time: self.max_step_time,
            max_draft_tokens: self.max_draft_tokens,
            has_states: false,
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
