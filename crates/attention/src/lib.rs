#![warn(missing_docs)]
//! The attention boundary: what a model sees ([`ForwardContext`]), what a backend promises ([`AttentionBackend`]), and
//! how a step's tokens are laid out ([`BatchLayout`]).
mod backend;
mod batch;
mod calibrate;
mod centre;
mod context;
pub mod cpu;
mod geometry;
mod hook;
mod states;

pub use backend::{AttentionBackend, AttentionPlan, LayerId};
pub use batch::BatchLayout;
pub use calibrate::{CalibrationReport, KeyCalibration};
pub use centre::{Centring, KeyCentring, KeyConstants};
pub use context::ForwardContext;
pub use cpu::CpuBackend;
pub use geometry::{LayerGeometry, ModelGeometry};
pub use hook::{BackendHook, HookedBackend};
pub use states::{SequenceStates, StateId, StateInputs, StateLayout, StateMemory, StatePool};
pub use turboquant::{Rope, RopeError};
