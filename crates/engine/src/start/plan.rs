//! What a start will take of memory, by a checkpoint's headers, before any weight is read.
use super::calibration::{self, CALIBRATION_TEXT};
use super::config::EngineConfig;
use super::device::free_on;
use super::kv_plan::KvPlan;
use super::memory::{self, MemoryLimits, MemoryNeeds, MemoryTerm};
use super::preset_kl::figures_file;
use crate::error::StartError;
use crate::kl::KlFigures;
use candle_core::Device;
use disk_cache::STAGING_BYTES;
use models::{Checkpoint, ModelConfig, Reading, WeightBytes};

/// Bytes that tokenizer and token masks are thought to take for each token of the vocabulary. It is an estimate: a
/// token is in two maps with its text, a merge in one, each some hundred bytes; a constraint's trie and masks are small
/// beside them.
const TEXT_BYTES_PER_TOKEN: u64 = 512;
/// Bytes for what is not counted: the program itself, its threads, connections, requests, what allocators keep.
const MARGIN: u64 = 64 << 20;

/// What a start settles about the cache, and what it takes of memory.
#[derive(Debug, Clone, PartialEq)]
pub struct StartPlan {
    /// The `model_type` of the model's configuration.
    pub model_type: String,
    /// Formats, layout, blocks and context.
    pub kv: KvPlan,
    /// What is needed of memory, term by term.
    pub terms: Vec<MemoryTerm>,
    /// What is free of the device's memory now, bytes; `None` if unknown.
    pub free_memory: Option<u64>,
    /// All memory of the machine, or of the container, bytes; `None` if unknown.
    pub total_memory: Option<u64>,
}

/// Plans a start by the headers of the model's files. [`super::start`] does it first, so that what does not fit is
/// refused before weights are read.
///
/// Errors: what a start refuses of flags, of the model's headers and of memory.
pub fn plan(config: &EngineConfig) -> Result<StartPlan, StartError> {
    config.check()?;
    let device = config.device.open()?;
    // Files that are to be read into memory are not needed whole for their headers.
    let checkpoint = Checkpoint::open(&config.model, Reading::Mapped)?;
    let open = models::open(&checkpoint)?;
    let weights = open.weight_bytes(config.weight_quant, config.reading);
    let limits = limits(config, open.config(), weights, free_beside(&device, weights.mapped + weights.owned));
    let model_type = open.config().model_type.clone();
    let figures = match calibration::measurements_folder() {
        Some(folder) if config.kv.is_auto() => {
            let fingerprint = open.fingerprint(config.weight_quant);
            figures_file(config, &folder, &fingerprint, CALIBRATION_TEXT, &device).read()
        }
        _ => KlFigures::default(),
    };
    let kv = config.kv.plan(&open.geometry(), &limits, &figures).map_err(|error| error.of_model(&model_type))?;
    let terms = limits.terms(&kv.layout, &kv.budget);
    Ok(StartPlan { model_type, kv, terms, free_memory: free_on(&device), total_memory: limits.total_memory })
}

impl MemoryLimits {
    /// What is left of memory beside all needs and `cache` bytes of cache; `None` where the system does not say.
    pub(super) fn room_beside(&self, cache: u64) -> Option<u64> {
        let of_free = self.free_memory.map(|free| free.saturating_sub(self.needs.beside_weights()));
        let of_total = self.total_memory.map(|total| total.saturating_sub(self.needs.resident(total)));
        of_free.into_iter().chain(of_total).min().map(|room| room.saturating_sub(cache))
    }
}

/// Free memory of the device, without what weights will take that are not loaded yet.
pub(super) fn free_beside(device: &Device, weights: u64) -> Option<u64> {
    free_on(device).map(|free| free.saturating_sub(weights))
}

/// What bounds the cache of a model. `free_memory`: what the weights leave.
pub(super) fn limits(
    config: &EngineConfig,
    model: &ModelConfig,
    weights: WeightBytes,
    free_memory: Option<u64>,
) -> MemoryLimits {
    MemoryLimits {
        kv_cache_memory: config.kv_cache_memory,
        max_model_len: config.max_model_len,
        model_limit: model.max_position_embeddings,
        max_num_seqs: config.max_num_seqs,
        state_bytes: model.state_layout().bytes_per_sequence() as u64,
        snapshots: config.prefix_cache,
        free_memory,
        total_memory: memory::total_memory(),
        needs: MemoryNeeds {
            mapped_weights: weights.mapped,
            owned_weights: weights.owned,
            activations: model.step_bytes(config.max_num_batched_tokens, config.max_num_seqs),
            disk_staging: if config.disk_cache.is_some() && config.prefix_cache { STAGING_BYTES as u64 } else { 0 },
            text: model.vocab_size() as u64 * TEXT_BYTES_PER_TOKEN,
            margin: MARGIN,
        },
    }
}
