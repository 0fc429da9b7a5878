//! What a K/V pair costs a model: the same tokens through the same chunked prefill that serving uses, once with an f32 cache
//! (f16 on a GPU) and once with each pair, compared token by token.
mod cache;
mod ggml;
mod needle;
mod quality;

pub(crate) use cache::TrialCache;
pub use needle::{NeedleOptions, NeedleRow, needles};
pub use quality::{QualityOptions, QualityReport, QualityRow, quality};

use crate::error::StartError;
use crate::kv_config::{CentreMode, KvConfig};
use crate::select::{most_exact, select};
use crate::start::Loaded;
use attention::AttentionBackend;
use candle_core::Device;
use ggml::{GGML_BITS, GgmlBackend};
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
    },
    /// llama.cpp's cache types, for comparison: blocks of 32 without rotation, of so many bits.
    Ggml(u32),
}

impl Scheme {
    /// What others are compared with.
    pub fn exact(device: &Device) -> Scheme {
        let format = most_exact(device);
        Scheme::Pair { k: format, v: format, centre: CentreMode::Off }
    }

    /// The cache, and whether anything is taken out of what it stores.
    fn backend(&self, loaded: &Loaded) -> Result<(Box<dyn AttentionBackend>, bool), StartError> {
        let (k, v, centre) = match *self {
            Scheme::Pair { k, v, centre } => (k, v, centre),
            Scheme::Ggml(bits) => {
                let (exact, centred) = Scheme::exact(&loaded.device).backend(loaded)?;
                return Ok((Box::new(GgmlBackend::new(exact, bits)), centred));
            }
        };
        let config = KvConfig::new(k, v, BLOCK_SIZE);
        let centring = loaded.calibration().centring(centre, &config)?;
        let centred = !centring.is_none();
        Ok((select(&config, loaded.model.geometry(), centring, &loaded.device)?, centred))
    }

    /// Of K and of V.
    pub fn names(&self) -> (String, String) {
        match self {
            Scheme::Pair { k, v, .. } => (k.name().into(), v.name().into()),
            Scheme::Ggml(bits) => (format!("ggml{bits}"), format!("ggml{bits}")),
        }
    }
}
