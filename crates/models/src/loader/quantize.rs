//! Weights made at load: quantised, or with their rows put in order.
use super::tensors::StoredWeight;
use matmul::{MatmulError, Weight, WeightType};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `--weight-quant`: what the projections of a float checkpoint are made into at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightQuant {
    Q8_0,
    Q6K,
    Q4K,
}

impl WeightQuant {
    pub const NAMES: [&str; 3] = ["q8_0", "q6_k", "q4_k"];

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "q8_0" => Some(WeightQuant::Q8_0),
            "q6_k" => Some(WeightQuant::Q6K),
            "q4_k" => Some(WeightQuant::Q4K),
            _ => None,
        }
    }

    fn projection(self) -> WeightType {
        match self {
            WeightQuant::Q8_0 => WeightType::Q8_0,
            WeightQuant::Q6K => WeightType::Q6_K,
            WeightQuant::Q4K => WeightType::Q4_K,
        }
    }

    /// Embedding and head: as llama.cpp's presets have them.
    fn vocabulary(self) -> WeightType {
        match self {
            WeightQuant::Q8_0 => WeightType::Q8_0,
            WeightQuant::Q6K | WeightQuant::Q4K => WeightType::Q6_K,
        }
    }
}

/// Told how many bytes of the checkpoint are loaded, of how many.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Makes weights smaller as they are loaded, one after the other, and keeps count.
pub(crate) struct Quantizer {
    quant: Option<WeightQuant>,
    progress: Option<Progress>,
    total: u64,
    loaded: AtomicU64,
    /// Bytes of what has been loaded, in the form in which it stays.
    mapped: AtomicU64,
    owned: AtomicU64,
    /// Weights whose rows do not divide into the blocks that were asked for.
    others: AtomicU64,
}

impl Quantizer {
    /// `total`: bytes of the checkpoint.
    pub fn new(quant: Option<WeightQuant>, progress: Option<Progress>, total: u64) -> Self {
        Quantizer {
            quant,
            progress,
            total,
            loaded: AtomicU64::new(0),
            mapped: AtomicU64::new(0),
            owned: AtomicU64::new(0),
            others: AtomicU64::new(0),
        }
    }

    pub fn projection(&self, weight: &StoredWeight) -> Result<Option<StoredWeight>, MatmulError> {
        self.quant.map_or(Ok(None), |quant| self.smaller(weight, quant.projection()))
    }

    pub fn vocabulary(&self, weight: &StoredWeight) -> Result<Option<StoredWeight>, MatmulError> {
        self.quant.map_or(Ok(None), |quant| self.smaller(weight, quant.vocabulary()))
    }

    /// In blocks of `kind`, or of `q8_0` where a row does not divide into those. `None` for rows that divide into neither, and
    /// for what is quantised already.
    fn smaller(&self, weight: &StoredWeight, kind: WeightType) -> Result<Option<StoredWeight>, MatmulError> {
        if weight.view().weight_type().block_len() > 1 {
            return Ok(None);
        }
        let k = weight.view().k();
        let fits = [kind, WeightType::Q8_0].into_iter().find(|kind| kind.row_bytes(k).is_some());
        if fits != Some(kind) {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
        fits.map(|kind| quantize(weight, kind)).transpose()
    }

    /// Counts `bytes` of the checkpoint as loaded, and what stays of them: `mapped` bytes in the file and `owned` ones in memory.
    pub fn done(&self, bytes: usize, mapped: usize, owned: usize) {
        self.mapped.fetch_add(mapped as u64, Ordering::Relaxed);
        self.owned.fetch_add(owned as u64, Ordering::Relaxed);
        let loaded = self.loaded.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if let Some(progress) = &self.progress {
            progress(loaded.min(self.total), self.total);
        }
    }

    /// Says what could not be done as asked; the bytes of all weights: mapped, and in memory.
    pub fn report(&self) -> (u64, u64) {
        let others = self.others.load(Ordering::Relaxed);
        if others > 0 {
            tracing::warn!(
                "--weight-quant: {others} weights have rows that do not divide into blocks; they are q8_0 or as stored"
            );
        }
        (self.mapped.load(Ordering::Relaxed), self.owned.load(Ordering::Relaxed))
    }
}

/// `weight` in blocks of `kind`. Source pages are dropped slab by slab, so that memory holds the result and little more.
fn quantize(weight: &StoredWeight, kind: WeightType) -> Result<StoredWeight, MatmulError> {
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

/// The rows of each head in the order of half-split RoPE pairs, for rows in that of interleaved ones. Whole rows move, so blocks
/// stay whole.
pub(crate) fn deinterleave(weight: &StoredWeight, heads: usize) -> Result<StoredWeight, MatmulError> {
    let view: Weight<'_> = weight.view();
    let (n, k, kind) = (view.n(), view.k(), view.weight_type());
    let bytes = deinterleave_rows(view.bytes(), view.bytes().len() / n.max(1), heads);
    weight.forget_rows(0..n);
    StoredWeight::owned(bytes, kind, (n, k))
}

/// [`deinterleave`] of rows of `width` elements.
pub(crate) fn deinterleave_rows<T: Copy>(rows: &[T], width: usize, heads: usize) -> Vec<T> {
    let head = rows.len() / heads;
    let pairs = head / width / 2;
    let halves = rows.chunks_exact(head).flat_map(|head| [(head, 0), (head, 1)]);
    let from = halves.flat_map(|(head, half)| (0..pairs).map(move |pair| &head[(2 * pair + half) * width..][..width]));
    from.flatten().copied().collect()
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
        let quantizer = Quantizer::new(Some(WeightQuant::Q4K), None, 0);
        for (k, kind) in [(256, Some(WeightType::Q4_K)), (96, Some(WeightType::Q8_0)), (40, None)] {
            let got = quantizer.projection(&weight(k)).unwrap();
            assert_eq!(got.map(|w| w.view().weight_type()), kind, "{k}");
        }
        assert_eq!(quantizer.others.load(Ordering::Relaxed), 2);
        let quantised = quantizer.projection(&weight(256)).unwrap().unwrap();
        assert!(quantizer.vocabulary(&quantised).unwrap().is_none());
    }
}
