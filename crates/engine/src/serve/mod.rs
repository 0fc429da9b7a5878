//! Serving: requests come in through a handle, one thread computes steps and sends the tokens back as events.
mod active_request;
mod archive;
mod bans;
mod choice;
mod delivery;
mod engine_loop;
mod handle;
mod idle_measurement;
mod metrics;
mod pooled_prompt;
mod prefix_cache;
mod pressure;
mod request;
mod runner;
mod sampler;
mod upkeep;
mod validation;
mod warm_up;

pub(crate) use archive::Archive;
pub(crate) use engine_loop::Engine;
pub use handle::{
    EngineHandle, EngineInbox, EngineStats, Message, ModelInfo, QueuePermit, RequestId, RequestStream, channel,
};
pub(crate) use idle_measurement::IdleMeasurement;
pub(crate) use metrics::Metrics;
pub(crate) use prefix_cache::PrefixCache;
pub use prefix_cache::{PrefixEvent, PrefixHistory};
pub(crate) use pressure::PressureWatch;
pub use pressure::{PressureLevel, PressureReading, PressureSensor, PressureSource};
pub use request::{
    DraftTokens, EmbeddingParams, Event, FinishReason, GenerationRequest, MatchedStop, SamplingParams, StopParams,
    TokenLogprob,
};
pub use runner::{ChunkNeed, LogitsRow, ModelRunner, StepOutput};
pub use sampler::argmax;
pub(crate) use warm_up::warm_up;
