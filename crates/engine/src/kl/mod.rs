//! The KL of K/V pairs on a model: how far the next token's distribution lies from that with the most exact cache.
mod divergence;
mod figures;
mod measurement;

pub use divergence::{divergence, log_softmax};
pub(crate) use figures::{FiguresFile, FiguresKey};
pub use figures::{KlFigures, PresetKl};
pub(crate) use measurement::{KlMeasurement, KlSetup};
pub use measurement::{text_windows, wikitext};

/// The largest KL, in nats, of a preset that `--kv-preset auto` takes.
pub const KL_LIMIT: f64 = 0.05;
