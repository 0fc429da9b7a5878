//! The engine loop: drives scheduler, model and sampler on a thread of its own.
mod awake;
pub mod bench;
mod centring;
mod choice;
mod core;
mod device;
mod error;
pub mod eval;
mod handle;
mod kv_config;
mod memory;
mod metrics;
mod request;
mod runner;
mod sampler;
mod select;
mod start;
mod validation;

pub use centring::Calibration;
pub use device::DeviceChoice;
pub use error::{EngineError, RequestField, StartError, SubmitError};
pub use handle::{
    EngineHandle, EngineInbox, EngineStats, Message, ModelInfo, QueuePermit, RequestId, RequestStream, channel,
};
pub use kv_config::{CentreMode, KvConfig, KvFlags, PRESETS, Settled};
pub use memory::{Demand, MemoryBudget, free_memory};
pub use models::WeightQuant;
pub use request::{Event, FinishReason, GenerationRequest, MatchedStop, SamplingParams, StopParams, TokenLogprob};
pub use runner::{Logits, ModelRunner, Row, Want};
pub use select::select;
pub use start::{EngineConfig, LoadProgress, Loaded, compute_pool, launch, load, start};
pub use validation::{MAX_CHOICES, MAX_STOP_STRINGS, MAX_TOP_LOGPROBS};
