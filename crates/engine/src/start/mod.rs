//! From a configuration to a running engine: settings are checked, files read, the cache planned, the thread started.
mod backend;
mod calibration;
mod config;
mod device;
mod disk;
mod generation;
mod identity;
mod kv_plan;
mod loading;
mod machine_memory;
mod memory;
mod plan;
mod preset_choice;
mod preset_kl;
mod speculation;

pub use backend::{most_exact_format, select};
pub use calibration::{Calibration, cache_folder};
pub use config::{EngineConfig, MAX_DRAFT_TOKENS, StartPhase, StartProgress};
pub use device::{DecodeKernel, DeviceChoice, GpuProducts, vector_instructions};
pub use kv_plan::{CentreMode, KlNeed, KvOptions, KvPlan, cache_layout};
pub use loading::{ModelBundle, load};
pub use machine_memory::{MachineMemory, free_memory, machine_memory};
pub use memory::{MemoryBudget, MemoryLimits, MemoryNeeds, MemoryTerm};
pub use plan::{Forecast, PlannedMachine, PresetForecast, StartPlan, forecast, plan, usable_memory};

use crate::error::StartError;
use crate::kl::KlFigures;
use crate::serve::{
    Archive, Engine, EngineHandle, IdleMeasurement, Metrics, ModelInfo, ModelRunner, PrefixCache, PressureWatch,
    channel, warm_up,
};
use crate::threads::compute_pool;
use attention::AttentionBackend;
use identity::IdentityFields;
use kv::{CacheIdentity, KvLayout};
use models::{Model, WeightBytes};
use scheduler::{Scheduler, SchedulerConfig};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use turboquant::{Format, KvPair};

/// Plans the start, loads the model, takes the cache's memory and starts the engine's thread.
///
/// Errors: whatever is wrong with model, flags or memory, before anything is served.
pub fn start(config: &EngineConfig) -> Result<(EngineHandle, JoinHandle<()>), StartError> {
    plan(config)?;
    launch(config, load(config)?)
}

/// Takes the cache's memory and starts the engine's thread. The thread ends after [`EngineHandle::shutdown`], or once
/// every handle and stream is gone.
///
/// Errors: a cache that the model, the flags or the memory do not allow.
pub fn launch(config: &EngineConfig, bundle: ModelBundle) -> Result<(EngineHandle, JoinHandle<()>), StartError> {
    let named = |error: StartError| error.of_model(&bundle.model_config.model_type);
    let PlannedCache { plan, max_num_seqs, figures, backend, identity, idle_measurement } =
        plan_cache(config, &bundle).map_err(named)?;
    let has_states = bundle.model.state_layout().bytes_per_sequence() > 0;
    let max_draft_tokens = speculation::max_draft_tokens(config, &bundle);
    let weight_bytes = bundle.mapped_bytes + bundle.owned_bytes;
    let ModelBundle { model, model_config, tokenizer, generation, device, files, .. } = bundle;
    let budget = plan.budget;
    let limits = config.scheduler(budget.num_blocks, budget.num_snapshots, max_num_seqs);
    let mut scheduler = Scheduler::new(SchedulerConfig { max_draft_tokens, has_states, ..limits })?;
    let identity = identity.filter(|_| reuses_prefixes(config, &*model, budget.num_snapshots));
    let no_memory = |e: candle_core::Error| StartError::flag("--kv-cache-memory", e.to_string());
    let compiles = device.compiles_on_first_use();
    let mut runner =
        ModelRunner::new(model, backend, budget.num_blocks, scheduler.num_state_slots(), device).map_err(no_memory)?;
    let info = ModelInfo {
        name: config.model_name(),
        path: config.model.clone(),
        model_type: model_config.model_type,
        weight_bytes,
        trained_len: model_config.max_position_embeddings,
        max_model_len: budget.max_model_len,
        vocab_size: runner.model().vocab_size(),
        has_head: runner.model().has_head(),
        hidden_size: runner.model().hidden_size(),
        pooling: model_config.pooling,
        turn_ends: generation.eos_token_ids.clone(),
        block_size: plan.layout.block_size(),
        num_blocks: budget.num_blocks,
        bytes_per_block: plan.layout.bytes_per_block(),
        max_num_seqs,
        prefix_cache: identity.is_some(),
        num_snapshots: budget.num_snapshots,
        k_quant: plan.pair.k.name().into(),
        v_quant: plan.pair.v.name().into(),
        default_sampling: generation::default_sampling(&generation),
    };
    log_cache(&plan, &runner)?;
    let pool = compute_pool(config.threads)?;
    if compiles {
        pool.install(|| compile_kernels(config, &mut scheduler, &mut runner, budget.max_model_len))?;
    }
    let mut prefix_cache = PrefixCache { identity, archive: None };
    let disk = identity.map_or(Ok(None), |identity| disk::open(config, &info, identity))?;
    if let Some(disk) = &disk {
        let archive = Archive::new(Arc::clone(disk));
        scheduler = scheduler.with_archive(archive.blocks(info.bytes_per_block, info.block_size));
        prefix_cache.archive = Some(archive);
    }
    let metrics = Metrics::new(&info.name, max_draft_tokens);
    let (handle, inbox) = channel(info, tokenizer.clone(), config.max_queued_requests);
    let inbox = inbox.with_disk(disk);
    inbox.set_kl_figures(figures);
    let memory = PressureWatch::new(config.pressure.as_ref().and_then(|source| (source.0)()));
    let eos = generation.eos_token_ids;
    let engine = Engine::new(scheduler, runner, files, inbox, tokenizer, eos, metrics, prefix_cache, memory)
        .with_idle_measurement(idle_measurement);
    // On a thread of the pool the parallel parts of a step start without waking anybody first.
    let thread =
        std::thread::Builder::new().name("tallow-engine".into()).spawn(move || pool.install(|| engine.run()))?;
    Ok((handle, thread))
}

/// Has a device that compiles kernels when they are first used do so now.
fn compile_kernels(
    config: &EngineConfig,
    scheduler: &mut Scheduler,
    runner: &mut ModelRunner,
    max_model_len: usize,
) -> Result<(), StartError> {
    let tell = |done| config.progress.iter().for_each(|progress| progress.at(StartPhase::WarmUp, done, 1));
    let begin = Instant::now();
    tracing::info!("warming up: the device's kernels are compiled");
    tell(0);
    warm_up(scheduler, runner, max_model_len)?;
    tell(1);
    tracing::info!("warmed up in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Whether prompts are looked for in the cache. A model with recurrent states needs snapshots for it.
fn reuses_prefixes(config: &EngineConfig, model: &dyn Model, num_snapshots: usize) -> bool {
    let state_bytes = model.state_layout().bytes_per_sequence();
    let possible = state_bytes == 0 || num_snapshots > 0;
    if config.prefix_cache && !possible {
        tracing::warn!(
            "prefixes are not cached: --kv-cache-memory has no room for snapshots, {state_bytes} bytes each, beside \
             the recurrent states of as many sequences as run at once (--max-num-seqs)"
        );
    }
    config.prefix_cache && possible
}

/// What a start settles about the cache.
struct PlannedCache {
    /// How it is stored.
    plan: KvPlan,
    /// How many sequences run at once.
    max_num_seqs: usize,
    /// The KL of presets on the model, as far as it is known.
    figures: KlFigures,
    /// What computes attention over it.
    backend: Box<dyn AttentionBackend>,
    /// Its identity; `None` where prefixes are not cached.
    identity: Option<CacheIdentity>,
    /// What is measured for later starts.
    idle_measurement: Option<IdleMeasurement>,
}

/// Settles how the cache is stored and what computes attention over it.
fn plan_cache(config: &EngineConfig, bundle: &ModelBundle) -> Result<PlannedCache, StartError> {
    let geometry = bundle.model.geometry();
    let weights = WeightBytes { mapped: bundle.mapped_bytes, owned: bundle.owned_bytes };
    let free = plan::free_beside(config, bundle.device.tensors(), weights);
    let limits = plan::limits(config, &bundle.model_config, weights, free);
    let mut figures = preset_kl::figures_file_of(config, bundle).map(|file| file.read()).unwrap_or_default();
    let mut plan = config.kv.plan(geometry, &limits, &figures)?;
    if plan.kl_need == KlNeed::BeforeStart {
        figures = preset_kl::measure_now(config, bundle, &limits)?;
        plan = config.kv.plan(geometry, &limits, &figures)?;
    }
    if let Some(reason) = &plan.reason {
        tracing::info!("kv preset {reason}");
    }
    let is_idle_work = plan.kl_need == KlNeed::WhenIdle;
    let idle_measurement = is_idle_work.then(|| preset_kl::when_idle(config, bundle, &limits, &plan)).flatten();
    let centring = bundle.calibration().centring(config.kv.centre, plan.pair)?;
    let device = bundle.device.tensors();
    let backend = select(plan.layout.clone(), geometry, centring.clone(), device, bundle.decode_kernel)?;
    let kernels = format!("{:?} {}", bundle.decode_kernel, bundle.device.order_of_sums());
    let identity = IdentityFields {
        fingerprint: &bundle.fingerprint,
        model: &(&bundle.model_config, geometry),
        layout: &plan.layout,
        centring: &centring,
        page_order: backend.page_order(),
        kernels: &kernels,
    };
    let identity = config.prefix_cache.then(|| identity.identity());
    let max_num_seqs = limits.max_num_seqs;
    Ok(PlannedCache { plan, max_num_seqs, figures, backend, identity, idle_measurement })
}

/// Logs the pair of formats, the bytes a token takes, how many tokens there is room for, and how many bf16 would have
/// room for.
fn log_cache(plan: &KvPlan, runner: &ModelRunner) -> Result<(), StartError> {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let (layout, states) = (&plan.layout, runner.states());
    let bf16 = KvPair::both(Format::Bf16);
    let heads = layout.layers().iter().map(|l| (l.kv_heads, l.record.head_dim(), bf16.k, bf16.v));
    let bf16 = KvLayout::new(layout.block_size(), heads)?;
    tracing::info!(
        "KV cache: K {} V {}, {:.1} bytes a token, {} tokens in {} blocks, {:.1} MiB, {:.2}x the tokens of bf16",
        plan.pair.k.name(),
        plan.pair.v.name(),
        layout.bytes_per_token(),
        plan.budget.num_blocks * layout.block_size(),
        plan.budget.num_blocks,
        mib(runner.backend().allocated_bytes()),
        bf16.bytes_per_token() / layout.bytes_per_token(),
    );
    if states.num_bytes() > 0 {
        tracing::info!(
            "recurrent states: {:.2} MiB a sequence, {:.1} MiB for {} sequences and {} snapshots",
            mib(states.layout().bytes_per_sequence()),
            mib(states.num_bytes()),
            states.num_slots() - plan.budget.num_snapshots,
            plan.budget.num_snapshots,
        );
    }
    Ok(())
}
