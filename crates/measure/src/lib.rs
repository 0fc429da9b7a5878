//! What a pair of K/V formats costs a model, and how fast the model runs with it.
//!
//! Quality: the tokens of a text pass through the same chunked prefill that serving uses, once with an f32 cache (f16
//! on a GPU) and once with each scheme, and are compared token by token.
#![warn(missing_docs)]
mod drafts;
mod ggml;
mod needles;
mod quality;
mod rate;
mod scheme;
mod speed;
mod texts;
mod trial;

pub use drafts::{DraftSpeed, drafts};
pub use needles::{NeedleOptions, NeedleRow, needles};
pub use quality::{PositionRange, QualityReport, QualityRow, quality};
pub use rate::Rate;
pub use scheme::Scheme;
pub use speed::{BenchOptions, BenchRow, speed};
pub use texts::{BundledText, JudgedText, NotJudged, TextLengths, wikitext, windows};

/// Tokens of a prefill chunk, as served.
const CHUNK: usize = 512;
/// Tokens of a block of the caches that are measured.
const BLOCK_SIZE: usize = 32;
