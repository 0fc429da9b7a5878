//! Weights that are made at load: quantised ones, and those whose rows are put in another order.
use super::StoredWeight;
use compute::StoredMatrix;
use matmul::{MatmulError, Weight, WeightType};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `--weight-quant`: what the projections of a float checkpoint are made into at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightQuant {
    /// 8-bit integers with a scale for each 32.
    Q8_0,
    /// ggml's `Q6_K`: 6.6 bits a weight.
    Q6K,
    /// ggml's `Q4_K`: 4.5 bits a weight.
    Q4K,
    /// ggml's `IQ4_NL`: 4.5 bits a weight, in blocks of 32, which divide the rows that blocks of 256 do not.
    IQ4NL,
}

impl WeightQuant {
    /// The names that the flag takes.
    pub const NAMES: [&str; 4] = ["q8_0", "q6_k", "q4_k", "iq4_nl"];

    /// The type that a name of [`Self::NAMES`] stands for; `None` for another name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "q8_0" => Some(WeightQuant::Q8_0),
            "q6_k" => Some(WeightQuant::Q6K),
            "q4_k" => Some(WeightQuant::Q4K),
            "iq4_nl" => Some(WeightQuant::IQ4NL),
            _ => None,
        }
    }

    /// Its name among [`Self::NAMES`].
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(super) fn projection(self) -> WeightType {
        match self {
            WeightQuant::Q8_0 => WeightType::Q8_0,
            WeightQuant::Q6K => WeightType::Q6_K,
            WeightQuant::Q4K => WeightType::Q4_K,
            WeightQuant::IQ4NL => WeightType::IQ4_NL,
        }
    }

    /// The type of embedding and head, chosen as llama.cpp's presets choose it.
    pub(super) fn vocabulary(self) -> WeightType {
        match self {
            WeightQuant::Q8_0 => WeightType::Q8_0,
            WeightQuant::Q6K | WeightQuant::Q4K | WeightQuant::IQ4NL => WeightType::Q6_K,
        }
    }
}

/// A function that is told how many bytes of the checkpoint are loaded, and how many there are.
pub type OnProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Quantises weights as they are loaded, one after the other, and counts their bytes.
pub(crate) struct Quantizer {
    quant: Option<WeightQuant>,
    progress: Option<OnProgress>,
    total: u64,
    loaded: AtomicU64,
    /// The bytes of what has been loaded and stays in its file.
    mapped: AtomicU64,
    /// The bytes of what has been loaded and stays in memory.
    owned: AtomicU64,
    /// How many weights there were whose rows do not divide into the blocks that were asked for.
    unfit: AtomicU64,
}

impl Quantizer {
    /// A quantiser for a checkpoint of `total` bytes.
    pub fn new(quant: Option<WeightQuant>, progress: Option<OnProgress>, total: u64) -> Self {
        Quantizer {
            quant,
            progress,
            total,
            loaded: AtomicU64::new(0),
            mapped: AtomicU64::new(0),
            owned: AtomicU64::new(0),
            unfit: AtomicU64::new(0),
        }
    }

    /// A projection's weight, quantised; `None` where it stays as it is stored.
    pub fn projection(&self, weight: &StoredWeight) -> Result<Option<StoredWeight>, MatmulError> {
        self.quant.map_or(Ok(None), |quant| self.smaller(weight, quant.projection()))
    }

    /// The embedding's or the head's weight, quantised; `None` where it stays as it is stored.
    pub fn vocabulary(&self, weight: &StoredWeight) -> Result<Option<StoredWeight>, MatmulError> {
        self.quant.map_or(Ok(None), |quant| self.smaller(weight, quant.vocabulary()))
    }

    /// Quantises a weight to `kind`, or to what [`kind_that_fits`] has in its place; `None` where it has nothing.
    fn smaller(&self, weight: &StoredWeight, kind: WeightType) -> Result<Option<StoredWeight>, MatmulError> {
        if weight.view().weight_type().block_len() > 1 {
            return Ok(None);
        }
        let fits = kind_that_fits(weight.view().weight_type(), kind, weight.view().k());
        if fits != Some(kind) {
            self.unfit.fetch_add(1, Ordering::Relaxed);
        }
        fits.map(|kind| quantize(weight, kind)).transpose()
    }

    /// Counts `bytes` of the checkpoint as loaded. Of these, `mapped` bytes stay in the file and `owned` ones in
    /// memory.
    pub fn count_loaded(&self, bytes: usize, mapped: usize, owned: usize) {
        self.mapped.fetch_add(mapped as u64, Ordering::Relaxed);
        self.owned.fetch_add(owned as u64, Ordering::Relaxed);
        let loaded = self.loaded.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if let Some(progress) = &self.progress {
            progress(loaded.min(self.total), self.total);
        }
    }

    /// Logs what could not be quantised as asked. Returns the bytes of all weights that stay in their files, and of
    /// those in memory.
    pub fn report(&self) -> (u64, u64) {
        let unfit = self.unfit.load(Ordering::Relaxed);
        if unfit > 0 {
            tracing::warn!(
                "--weight-quant: {unfit} weights have rows that do not divide into blocks; they are q8_0 or as stored"
            );
        }
        (self.mapped.load(Ordering::Relaxed), self.owned.load(Ordering::Relaxed))
    }
}

/// What a weight with rows of `k` elements is quantised to if `wanted` is asked for: that, or `q8_0` where a row is no
/// whole number of its quantisation blocks. `None` for rows that are of neither's, and for a weight that is quantised
/// already.
pub(super) fn kind_that_fits(stored: WeightType, wanted: WeightType, k: usize) -> Option<WeightType> {
    let kinds = [wanted, WeightType::Q8_0].into_iter();
    kinds.filter(|_| stored.block_len() == 1).find(|kind| kind.row_bytes(k).is_some())
}

/// Quantises a weight to `kind`. The pages of the source are dropped a slab of rows after the other, so that memory
/// holds the result and little more.
fn quantize(weight: &StoredWeight, kind: WeightType) -> Result<StoredWeight, MatmulError> {
    /// Bytes of the source that are quantised before their pages are dropped.
    const SLAB: usize = 1 << 24;
    let view = weight.view();
    let (n, k) = (view.n(), view.k());
    let too_large = MatmulError::TooLarge { ty: kind, n, k };
    let row = kind.row_bytes(k).ok_or(too_large)?;
    let rows = (SLAB / (view.bytes().len() / n.max(1)).max(1)).max(1);
    let mut out = vec![0u8; n * row];
    for (slab, out) in out.chunks_mut(rows * row).enumerate() {
        let from = slab * rows;
        out.par_chunks_exact_mut(row).enumerate().try_for_each(|(i, out)| {
            let mut values = vec![0f32; k];
            matmul::dequantize_row(view, from + i, &mut values);
            out.copy_from_slice(&matmul::quantize(kind, &values)?);
            Ok(())
        })?;
        weight.forget_rows(from..from + out.len() / row);
    }
    StoredWeight::owned(out, kind, (n, k))
}

/// Brings the rows of each head from the order of interleaved RoPE pairs (elements 2i and 2i + 1) to that of half-split
/// ones (elements i and i + head_dim / 2). Whole rows move, so quantisation blocks stay whole.
pub(crate) fn deinterleave(weight: &StoredWeight, heads: usize) -> Result<StoredWeight, MatmulError> {
    let view: Weight<'_> = weight.view();
    let (n, k, kind) = (view.n(), view.k(), view.weight_type());
    let bytes = deinterleave_rows(view.bytes(), view.bytes().len() / n.max(1), heads);
    weight.forget_rows(0..n);
    StoredWeight::owned(bytes, kind, (n, k))
}

/// Does what [`deinterleave`] does with rows of `width` elements.
pub(crate) fn deinterleave_rows<T: Copy>(rows: &[T], width: usize, heads: usize) -> Vec<T> {
    let head = rows.len() / heads;
    let pairs = head / width / 2;
    let halves = rows.chunks_exact(head).flat_map(|head| [(head, 0), (head, 1)]);
    let from = halves.flat_map(|(head, half)| (0..pairs).map(move |pair| &head[(2 * pair + half) * width..][..width]));
    // Row by row, since most of a model's start is this copy where its weights are mapped.
    from.fold(Vec::with_capacity(rows.len()), |mut to, row| {
        to.extend_from_slice(row);
        to
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_become_half_split() {
        // Two heads of three pairs, two elements a row: row (head, pair, half) is written as its number.
        let rows: Vec<u32> = (0..12).flat_map(|row| [row, row]).collect();
        let got: Vec<u32> = deinterleave_rows(&rows, 2, 2).into_iter().step_by(2).collect();
        assert_eq!(got, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn rows_that_do_not_divide_take_the_next_coarser_blocks() {
        let bytes = |n: usize| (0..n).flat_map(|i| (i as f32 / n as f32).to_le_bytes()).collect();
        let weight = |k: usize| StoredWeight::owned(bytes(2 * k), WeightType::F32, (2, k)).unwrap();
        let fits = |quantizer: &Quantizer, k| {
            quantizer.projection(&weight(k)).unwrap().map(|weight| weight.view().weight_type())
        };
        let quantizer = Quantizer::new(Some(WeightQuant::IQ4NL), None, 0);
        assert_eq!(fits(&quantizer, 96), Some(WeightType::IQ4_NL));
        assert_eq!(quantizer.unfit.load(Ordering::Relaxed), 0);
        let quantizer = Quantizer::new(Some(WeightQuant::Q4K), None, 0);
        for (k, kind) in [(256, Some(WeightType::Q4_K)), (96, Some(WeightType::Q8_0)), (40, None)] {
            assert_eq!(fits(&quantizer, k), kind, "{k}");
        }
        assert_eq!(quantizer.unfit.load(Ordering::Relaxed), 2);
        let quantised = quantizer.projection(&weight(256)).unwrap().unwrap();
        assert!(quantizer.vocabulary(&quantised).unwrap().is_none());
    }
}
