//! From a configuration to a thread that drives scheduler, model and sampler, and hands out tokens as events.
#![warn(missing_docs)]
mod error;
mod forward;
mod kl;
mod serve;
mod start;
mod threads;

pub use disk_cache::{DiskLimit, DiskOptions, DiskStats, DiskWriteState};
pub use error::{EngineError, RequestField, StartError, SubmitError};
pub use forward::{ModelRef, PrivateSequences};
pub use kl::{KL_LIMIT, KlFigures, PresetKl, divergence, log_softmax, text_windows, wikitext};
pub use kv::CacheIdentity;
pub use models::{Pooling, Reading, WeightFiles, WeightQuant};
pub use scheduler::{Miss, PrefixReport};
pub use serve::{
    ChunkNeed, DraftTokens, EmbeddingParams, EngineHandle, EngineInbox, EngineStats, Event, FinishReason,
    GenerationRequest, LogitsRow, MatchedStop, Message, ModelInfo, ModelRunner, PrefixEvent, PrefixHistory,
    PressureLevel, PressureReading, PressureSensor, PressureSource, QueuePermit, RequestId, RequestStream,
    SamplingParams, StepOutput, StopParams, TokenLogprob, argmax, channel,
};
pub use start::{
    Calibration, CentreMode, DecodeKernel, DeviceChoice, EngineConfig, Forecast, GpuProducts, KlNeed, KvOptions,
    KvPlan, MAX_DRAFT_TOKENS, MachineMemory, MemoryBudget, MemoryLimits, MemoryNeeds, MemoryTerm, ModelBundle,
    PlannedMachine, PresetForecast, StartPhase, StartPlan, StartProgress, cache_folder, cache_layout, forecast,
    free_memory, launch, load, machine_memory, most_exact_format, plan, select, start, usable_memory,
    vector_instructions,
};
pub use text::{ToolCallFormat, UnknownToolCallFormat};
pub use threads::compute_pool;
