//! What a K/V pair costs a model: the same tokens through the same chunked prefill that serving uses, once with an f32 cache
//! and once with each pair, compared token by token.
mod ggml;
mod needle;
mod quality;

pub use needle::{NeedleOptions, NeedleRow, needles};
pub use quality::{QualityOptions, QualityReport, QualityRow, quality};

use crate::error::StartError;
use crate::kv_config::{CentreMode, KvConfig};
use crate::select::select;
use crate::start::Loaded;
use attention::{AttentionBackend, AttentionPlan, BatchLayout, ForwardContext, SequenceStates, StatePool};
use ggml::{GGML_BITS, GgmlBackend};
use kv::{BlockPool, BlockTable};
use std::sync::Arc;
use turboquant::Format;

/// Tokens of a prefill chunk, as served.
const CHUNK: usize = 512;
const BLOCK_SIZE: usize = 32;

/// One way to store K and V.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    Pair {
        k: Format,
        v: Format,
        centre: CentreMode,
        boundary_layers: usize,
    },
    /// llama.cpp's cache types, for comparison: blocks of 32 without rotation, of so many bits.
    Ggml(u32),
}

impl Scheme {
    pub const EXACT: Scheme =
        Scheme::Pair { k: Format::F32, v: Format::F32, centre: CentreMode::Off, boundary_layers: 0 };

    /// The cache, and whether anything is taken out of what it stores.
    pub(crate) fn backend(&self, loaded: &Loaded) -> Result<(Box<dyn AttentionBackend>, bool), StartError> {
        let (k, v, centre, boundary_layers) = match *self {
            Scheme::Pair { k, v, centre, boundary_layers } => (k, v, centre, boundary_layers),
            Scheme::Ggml(bits) => {
                let (exact, centred) = Scheme::EXACT.backend(loaded)?;
                return Ok((Box::new(GgmlBackend::new(exact, bits)), centred));
            }
        };
        let config = KvConfig { k, v, block_size: BLOCK_SIZE, boundary_layers };
        let centring = loaded.calibration().centring(centre, &config)?;
        let centred = !centring.is_none();
        Ok((select(&config, loaded.model.geometry(), centring, &loaded.device)?, centred))
    }

    pub(crate) fn names(&self) -> (String, String) {
        match self {
            Scheme::Pair { k, v, .. } => (k.name().into(), v.name().into()),
            Scheme::Ggml(bits) => (format!("ggml{bits}"), format!("ggml{bits}")),
        }
    }
}

/// A scheme's cache with one sequence in it.
struct Run {
    backend: Box<dyn AttentionBackend>,
    pool: BlockPool,
    table: BlockTable,
    states: StatePool,
    centred: bool,
}

impl Run {
    fn new(scheme: &Scheme, loaded: &Loaded, tokens: usize) -> Result<Self, StartError> {
        let (mut backend, centred) = scheme.backend(loaded)?;
        let pool = BlockPool::new(tokens.div_ceil(BLOCK_SIZE));
        backend.allocate(pool.num_blocks())?;
        let states = StatePool::new(loaded.model.state_layout().clone(), 1);
        Ok(Run { backend, pool, table: BlockTable::new(BLOCK_SIZE), states, centred })
    }

    /// Computes `tokens` at `start..`; the logits of `rows` of them, row after row.
    fn forward(&mut self, loaded: &Loaded, start: usize, tokens: &[u32], rows: &[u32]) -> Result<Vec<f32>, StartError> {
        let full = |e: kv::OutOfBlocks| candle_core::Error::Msg(e.to_string());
        self.table.prepare_write(&self.pool, start, start + tokens.len()).map_err(full)?;
        let mut layout = BatchLayout::default();
        layout.push(start, tokens.len(), &self.table);
        let plan: AttentionPlan = self.backend.plan(Arc::new(layout))?;
        let states = SequenceStates { pool: &self.states, slots: &[0] };
        let logits = loaded.model.forward(tokens, rows, &ForwardContext::new(&*self.backend, &plan, states))?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}
