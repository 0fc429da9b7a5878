//! The division of a batch for a step: tiles, dispatches of bounded work, and when a GPU is waited for.
mod pace;
mod slices;
mod tiles;

pub(crate) use pace::rows_at_once;
pub use pace::{Pace, WORK_OF_TURN};
pub(crate) use slices::{Slice, slices};
pub use tiles::{Tile, tiles};
