//! The engine loop: drives scheduler, model and sampler on a thread of its own.
mod choice;
mod core;
mod error;
mod handle;
mod memory;
mod metrics;
mod request;
mod runner;
mod sampler;
mod select;
mod start;

pub use error::{EngineError, StartError, SubmitError};
pub use handle::{
    EngineHandle, EngineInbox, EngineStats, MAX_CHOICES, MAX_TOP_LOGPROBS, Message, ModelInfo, QueueSlot, RequestId,
    RequestStream, channel,
};
pub use memory::{Demand, MemoryBudget, free_memory};
pub use request::{Event, FinishReason, GenerationRequest, MatchedStop, SamplingParams, StopParams, TokenLogprob};
pub use runner::{Logits, ModelRunner};
pub use select::{KvConfig, select};
pub use start::{EngineConfig, Loaded, launch, load, start};
