//! What a start will take of memory, by a checkpoint's headers, before any weight is read.
use super::calibration::{self, CALIBRATION_TEXT};
use super::config::EngineConfig;
use super::device::{free_on, gpu_limit};
use super::kv_plan::{KvOptions, KvPlan};
use super::machine_memory::total_memory;
use super::memory::{MemoryLimits, MemoryNeeds, MemoryTerm, SHARE_OF_FREE};
use super::preset_kl::figures_file;
use crate::error::StartError;
use crate::kl::KlFigures;
use attention::ModelGeometry;
use candle_core::Device;
use disk_cache::STAGING_BYTES;
use models::{Checkpoint, ModelConfig, Reading, WeightBytes};
use turboquant::{PRESETS, Preset};

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
}

/// The memory of a machine other than this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedMachine {
    /// All of it, bytes.
    pub total: u64,
    /// What a server finds free, bytes.
    pub free: u64,
}

/// What a start would settle, and what it would with each preset.
#[derive(Debug)]
pub struct Forecast {
    /// The `model_type` of the model's configuration.
    pub model_type: String,
    /// The longest context that the model was made for, tokens.
    pub model_limit: usize,
    /// What is free of the device's memory, bytes; `None` if unknown.
    pub free_memory: Option<u64>,
    /// All memory of the machine, or of the container, bytes; `None` if unknown.
    pub total_memory: Option<u64>,
    /// What is needed of memory beside the cache, term by term.
    pub needs: Vec<MemoryTerm>,
    /// Bytes of one sequence's recurrent states.
    pub state_bytes: u64,
    /// Every preset, from exact to small.
    pub presets: Vec<PresetForecast>,
    /// What a start settles, or why it is refused.
    pub start: Result<StartPlan, StartError>,
}

/// What a start would settle with a preset.
#[derive(Debug)]
pub struct PresetForecast {
    /// The preset.
    pub preset: &'static Preset,
    /// Its KL divergence on the model, nats; `None` where it has not been measured.
    pub kl: Option<f64>,
    /// The longest context that the memory holds, tokens; 0 where the model cannot be started.
    pub max_context: usize,
    /// The plan of a start, or why it is refused.
    pub plan: Result<KvPlan, StartError>,
}

/// Plans a start by the headers of the model's files. [`super::start`] does it first, so that what does not fit is
/// refused before weights are read.
///
/// Errors: what a start refuses of flags, of the model's headers and of memory.
pub fn plan(config: &EngineConfig) -> Result<StartPlan, StartError> {
    check_named_memory(config)?;
    Headers::read(config, None)?.start(config)
}

/// Tells what [`plan`] does, and the same of every preset. `machine`: the one that is planned for; `None` for this one.
///
/// Errors: flags or headers that a start would refuse whatever the memory.
pub fn forecast(config: &EngineConfig, machine: Option<PlannedMachine>) -> Result<Forecast, StartError> {
    let headers = Headers::read(config, machine)?;
    Ok(Forecast {
        presets: PRESETS.iter().map(|preset| headers.preset(config, preset)).collect(),
        start: headers.start(config),
        model_limit: headers.limits.model_limit,
        free_memory: headers.free_memory,
        total_memory: headers.limits.total_memory,
        needs: headers.limits.needs.terms(),
        state_bytes: headers.limits.state_bytes,
        model_type: headers.model_type,
    })
}

/// The memory that engines with these settings may take as things are, bytes: what `--memory` names, or what is free of
/// the device's; `None` if unknown.
///
/// Errors: a device that there is not; a `--memory` that this machine does not have.
pub fn usable_memory(config: &EngineConfig) -> Result<Option<u64>, StartError> {
    check_named_memory(config)?;
    Ok(free_for(config, &config.device.open()?, 0))
}

/// What a plan needs of a model's headers and of the machine.
struct Headers {
    model_type: String,
    geometry: ModelGeometry,
    limits: MemoryLimits,
    figures: KlFigures,
    free_memory: Option<u64>,
}

impl Headers {
    fn read(config: &EngineConfig, machine: Option<PlannedMachine>) -> Result<Self, StartError> {
        config.check()?;
        let device = config.device.open()?;
        // Files that are to be read into memory are not needed whole for their headers.
        let checkpoint = Checkpoint::open(&config.model, Reading::Mapped)?;
        let open = models::open(&checkpoint)?;
        let weights = open.weight_bytes(config.weight_quant, config.reading)?;
        let free_memory = machine.map_or_else(|| free_for(config, &device, 0), |machine| Some(machine.free));
        let beside_weights = free_memory.map(|free| free.saturating_sub(weights.mapped + weights.owned));
        let mut limits = limits(config, open.config(), weights, beside_weights);
        if let Some(machine) = machine {
            limits.total_memory = Some(machine.total);
        }
        let figures = match calibration::measurements_folder() {
            Some(folder) if config.kv.is_auto() => {
                let fingerprint = open.fingerprint(config.weight_quant);
                figures_file(config, &folder, &fingerprint, CALIBRATION_TEXT, &device).read()
            }
            _ => KlFigures::default(),
        };
        let model_type = open.config().model_type.clone();
        Ok(Headers { model_type, geometry: open.geometry(), limits, figures, free_memory })
    }

    fn start(&self, config: &EngineConfig) -> Result<StartPlan, StartError> {
        let kv = self.plan(&config.kv, &self.limits)?;
        let terms = self.limits.terms(&kv.layout, &kv.budget);
        Ok(StartPlan { model_type: self.model_type.clone(), kv, terms })
    }

    fn preset(&self, config: &EngineConfig, preset: &'static Preset) -> PresetForecast {
        let options = config.kv.with_preset(preset);
        let unasked = MemoryLimits { max_model_len: None, ..self.limits };
        PresetForecast {
            preset,
            kl: self.figures.of(preset.pair),
            max_context: self.plan(&options, &unasked).map_or(0, |plan| plan.budget.max_model_len),
            plan: self.plan(&options, &self.limits),
        }
    }

    fn plan(&self, options: &KvOptions, limits: &MemoryLimits) -> Result<KvPlan, StartError> {
        let plan = options.plan(&self.geometry, limits, &self.figures);
        plan.map_err(|error| error.of_model(&self.model_type))
    }
}

impl MemoryLimits {
    /// What is left of memory beside all needs and `cache` bytes of cache; `None` where the system does not say.
    pub(super) fn room_beside(&self, cache: u64) -> Option<u64> {
        let of_free = self.free_memory.map(|free| free.saturating_sub(self.needs.beside_weights()));
        let of_total = self.total_memory.map(|total| total.saturating_sub(self.needs.resident(total)));
        of_free.into_iter().chain(of_total).min().map(|room| room.saturating_sub(cache))
    }
}

/// Errors: a `--memory` that this machine does not have.
fn check_named_memory(config: &EngineConfig) -> Result<(), StartError> {
    match (config.memory, total_memory()) {
        // No server runs in so little: a unit was forgotten.
        (Some(named), _) if named < 1 << 20 => {
            let message = format!("is {named} bytes; write a unit, such as 6GiB");
            Err(StartError::flag("--memory", message))
        }
        (Some(named), Some(total)) if named > total => {
            let message = format!("is {named} bytes; this machine, or the container, has {total} in all");
            Err(StartError::flag("--memory", message))
        }
        _ => Ok(()),
    }
}

/// The memory that an engine may count on, bytes, where `loaded` bytes of its weights are in memory already: what
/// `--memory` names, or what is free of the device's. A GPU takes no more than its own limit. `None` if unknown.
fn free_for(config: &EngineConfig, device: &Device, loaded: u64) -> Option<u64> {
    match config.memory.map(|named| named.saturating_sub(loaded)) {
        Some(left) => Some(gpu_limit(device).map_or(left, |limit| left.min(limit))),
        None => free_on(device),
    }
}

/// What weights that are loaded leave of that memory. Those in mapped files come into memory as they are read.
pub(super) fn free_beside(config: &EngineConfig, device: &Device, weights: WeightBytes) -> Option<u64> {
    free_for(config, device, weights.owned).map(|free| free.saturating_sub(weights.mapped))
}

/// What bounds the cache of a model. `free_memory`: what the weights leave.
pub(super) fn limits(
    config: &EngineConfig,
    model: &ModelConfig,
    weights: WeightBytes,
    free_memory: Option<u64>,
) -> MemoryLimits {
    let state_bytes = model.state_layout().bytes_per_sequence() as u64;
    let share_of_free = if config.memory.is_some() { 1.0 } else { SHARE_OF_FREE };
    let cache = config.kv_cache_memory.or(free_memory.map(|free| (free as f64 * share_of_free) as u64));
    let max_num_seqs = config.max_num_seqs.unwrap_or_else(|| MemoryLimits::sequences(state_bytes, cache));
    let logit_rows = config.scheduler(0, 0, max_num_seqs).max_sampled_rows();
    MemoryLimits {
        kv_cache_memory: config.kv_cache_memory,
        max_model_len: match config.context_is_cap {
            true => config.max_model_len.map(|tokens| tokens.min(model.max_position_embeddings)),
            false => config.max_model_len,
        },
        model_limit: model.max_position_embeddings,
        max_num_seqs,
        state_bytes,
        snapshots: config.prefix_cache,
        free_memory,
        share_of_free,
        total_memory: config.memory.or_else(total_memory),
        is_named: config.memory.is_some(),
        needs: MemoryNeeds {
            mapped_weights: weights.mapped,
            owned_weights: weights.owned,
            activations: model.step_bytes(config.max_num_batched_tokens, logit_rows),
            disk_staging: if config.disk_cache.is_some() && config.prefix_cache { STAGING_BYTES as u64 } else { 0 },
            text: model.vocab_size() as u64 * TEXT_BYTES_PER_TOKEN,
            margin: MARGIN,
        },
    }
}
