//! The attention boundary: what a model sees ([`ForwardContext`]), what a backend promises ([`AttentionBackend`]), and how a
//! step's tokens are laid out ([`BatchLayout`]).
mod backend;
mod batch;
pub mod conformance;
mod context;
pub mod cpu;
mod geometry;

pub use backend::{AttentionBackend, AttentionPlan, LayerId};
pub use batch::BatchLayout;
pub use context::ForwardContext;
pub use cpu::CpuBackend;
pub use geometry::{LayerGeometry, ModelGeometry, Rope, RopeConvention};
