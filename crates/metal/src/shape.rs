//! The shape of one layer, on which its kernels depend: formats, sizes, and which kernel attends.
use crate::executor::Constant;
use turboquant::{Format, PARTITION, RecordLayout, Side};

/// Partitions that a simdgroup of `query` prepares together where there are many: `kTogether` of `query.metal`.
const TOGETHER: usize = 4;

/// The most query heads of a kv head that `attend_vec` serves: `kHeads` of `attend_vec.metal`.
const VEC_GROUP: usize = 4;

/// The kernel that attends. The bits of a row are the same in `Mma` and `Prefill`; `Vec` sums in another order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttendKernel {
    /// The kernel `attend_mma`, which computes one row or a few at a time by products of 8x8 matrices.
    Mma,
    /// The kernel `attend_vec`, which computes one row at a time without matrices, for at most 4 query heads per kv
    /// head.
    Vec,
    /// The kernel `prefill`, which computes chunks of a prompt, 64 columns at once, or 128 at a head size of 64.
    Prefill,
}

/// Why there are no kernels for a layer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages name the fields
pub enum KernelError {
    #[error("{side} format {format} has no Metal kernels; allowed: {}", gpu_formats(*side))]
    Format { side: Side, format: &'static str },
    #[error("head_dim {0} has no Metal kernels; allowed: 64, 80, 96, 128, 256, 512")]
    HeadDim(usize),
    #[error("{heads} query heads for {kv_heads} kv heads; allowed: 1 to 16 query heads a kv head")]
    Group { heads: usize, kv_heads: usize },
    /// `attend_vec` keeps the query heads of a kv head in registers.
    #[error("decode kernel vec is for at most {most} query heads a kv head, not {0}; allowed: mma", most = VEC_GROUP)]
    Vec(usize),
}

/// Lists the formats of a side that have kernels.
fn gpu_formats(side: Side) -> String {
    Format::all(side).filter(|format| format.gpu_id().is_some()).map(Format::name).collect::<Vec<_>>().join(", ")
}

/// One layer: its cache, its heads, and how its keys are centred.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// The layout of a record.
    pub record: RecordLayout,
    /// Kv heads.
    pub kv_heads: usize,
    /// Query heads of a kv head: the size of a GQA group.
    pub group: usize,
    /// The factor of all logits.
    pub scale: f32,
    /// The kernel for single rows, `Mma` or `Vec`.
    pub decode: AttendKernel,
    /// Whether a mean is subtracted from keys, and pairs are scaled.
    pub keys_centred: bool,
    /// The number of pair groups where the mean correction is exact, as for keys stored as floats; `None` where
    /// quadratics correct coded keys.
    pub exact_groups: Option<usize>,
    /// RoPE pairs of a head; 0 for a layer without RoPE.
    pub pairs: usize,
    /// A token sees at most this many, itself included.
    pub window: Option<usize>,
}

impl Shape {
    /// A layer whose keys are not centred, without a window, with RoPE over whole heads.
    pub fn new(record: RecordLayout, kv_heads: usize, group: usize) -> Self {
        let d = record.head_dim();
        Shape {
            record,
            kv_heads,
            group,
            scale: 1.0 / (d as f32).sqrt(),
            decode: AttendKernel::Mma,
            keys_centred: false,
            exact_groups: None,
            pairs: d / 2,
            window: None,
        }
    }

    /// Errors: a format, head size or group without kernels.
    pub fn check(&self) -> Result<(), KernelError> {
        for (side, format) in [(Side::K, self.record.k()), (Side::V, self.record.v())] {
            if format.gpu_id().is_none() {
                return Err(KernelError::Format { side, format: format.name() });
            }
        }
        if ![64, 80, 96, 128, 256, 512].contains(&self.record.head_dim()) {
            return Err(KernelError::HeadDim(self.record.head_dim()));
        }
        if !(1..=16).contains(&self.group) {
            return Err(KernelError::Group { heads: self.group * self.kv_heads, kv_heads: self.kv_heads });
        }
        if self.decode == AttendKernel::Vec && self.group > VEC_GROUP {
            return Err(KernelError::Vec(self.group));
        }
        Ok(())
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.record.head_dim()
    }

    /// Query heads of the layer.
    pub fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    /// Bytes of a block of this layer.
    pub fn page_bytes(&self) -> usize {
        self.kv_heads * self.record.bytes()
    }

    /// Bytes of one row's queries or outputs.
    pub(crate) fn row_bytes(&self) -> usize {
        self.heads() * self.head_dim() * 4
    }

    pub(crate) fn norm(&self) -> f32 {
        1.0 / (self.head_dim() as f32).sqrt()
    }

    /// The scale of logits in base 2.
    pub(crate) fn scale2(&self) -> f32 {
        self.scale * std::f32::consts::LOG2_E
    }

    pub(crate) fn window_or_all(&self) -> u32 {
        self.window.map_or(u32::MAX, |w| w as u32)
    }

    /// The kernel that attends `rows` rows of a sequence.
    pub fn kernel_of(&self, rows: usize) -> AttendKernel {
        match rows {
            1 => self.decode,
            _ if rows <= self.tile_rows(AttendKernel::Mma) || self.head_dim() > 256 => AttendKernel::Mma,
            _ => AttendKernel::Prefill,
        }
    }

    /// Column octets of a tile.
    pub fn octets(&self, kernel: AttendKernel) -> usize {
        match kernel {
            // `prefill` has 8 simdgroups, each with as many octets as `Octets` of `prefill.metal` says.
            AttendKernel::Prefill if self.head_dim() == 64 => 16,
            AttendKernel::Prefill => 8,
            AttendKernel::Mma | AttendKernel::Vec => self.group.div_ceil(8),
        }
    }

    /// Rows of a tile: as many as its columns hold.
    pub fn tile_rows(&self, kernel: AttendKernel) -> usize {
        if kernel == AttendKernel::Vec { 1 } else { self.octets(kernel) * 8 / self.group }
    }

    /// How many times 8 tokens a simdgroup has in flight: as many as its registers hold. `Mma` and `Prefill` have the
    /// same number, since those tokens move the maximum of a partial state together, which shows in its bits.
    pub(crate) fn depth(&self, kernel: AttendKernel) -> usize {
        let coded = self.record.k().is_rotated() && self.record.v().is_rotated();
        let largest = if kernel == AttendKernel::Vec { 64 } else { 128 };
        if coded && self.head_dim() <= largest { 4 } else { 2 }
    }

    /// Pair groups whose high-frequency pairs are corrected.
    pub(crate) fn pair_groups(&self) -> usize {
        self.exact_groups.unwrap_or(1)
    }

    /// Partitions that a simdgroup of `query` prepares: [`TOGETHER`] where enough threadgroups are left to fill a GPU,
    /// since it reads its tables once for all of them; else 1.
    pub(crate) fn partitions_together(&self, kernel: AttendKernel, tiles: usize, partitions: usize) -> usize {
        if self.kv_heads * self.octets(kernel) * tiles * partitions < 4096 { 1 } else { TOGETHER }
    }

    /// f32 values that the mean correction of a partition takes for one column octet: the amplitudes of the
    /// high-frequency pairs, then the terms of 16 intervals, 3 or 8 each.
    pub fn correction_floats(&self) -> usize {
        128 * self.pair_groups() + 16 * 8 * if self.exact_groups.is_some() { 8 } else { 3 } + 8
    }

    /// About how many lane operations `query` takes for `tiles` tiles: a rotation of each element and, where keys are
    /// centred, for each RoPE pair, column octet and partition the products that make the terms of 16 intervals (3 of a
    /// quadratic, 8 of a polynomial), of the cosine and of the sine in three parts.
    pub(crate) fn query_work(&self, kernel: AttendKernel, tiles: usize, partitions: usize) -> u64 {
        let terms = if self.exact_groups.is_some() { 8 } else { 3 };
        let partition = if self.keys_centred { 8 * (self.head_dim() / 2) * (16 * 6 * terms + 20) } else { 0 };
        (tiles * self.kv_heads * self.octets(kernel) * (8 * self.head_dim() * 40 + partitions * partition)) as u64
    }

    /// About how many lane operations attention takes for one kv head, tile and partition: an element of K or V is
    /// decoded in 7 and multiplied with each column (docs/kernels-log.md: 15 cycles an element for 8 columns). The
    /// products of the mean correction come on top of those with K.
    pub(crate) fn partition_work(&self, kernel: AttendKernel) -> u64 {
        let (columns, steps) = (8 * self.octets(kernel), self.head_dim() / 8);
        let missing = match (self.keys_centred, self.exact_groups) {
            (false, _) => 0,
            (true, None) => 7,
            (true, Some(groups)) => 6 * groups + 3,
        };
        let elements = 2 * PARTITION * self.head_dim();
        (elements * (7 + columns) + elements * columns * missing / (2 * steps)) as u64
    }

    /// The function constants of every kernel of the layer.
    pub fn constants(&self) -> Vec<Constant> {
        let id = |format: Format| format.gpu_id().unwrap_or(u32::MAX);
        vec![
            Constant::Uint(0, id(self.record.k())),
            Constant::Uint(1, id(self.record.v())),
            Constant::Bool(2, self.keys_centred),
            Constant::Uint(4, self.record.block_size().trailing_zeros()),
            Constant::Bool(6, self.window.is_some()),
            Constant::Bool(8, self.exact_groups.is_some()),
            Constant::Uint(9, self.kv_heads as u32),
            Constant::Uint(10, self.group as u32),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vec_is_refused_for_more_query_heads_than_its_registers_hold() {
        let record = RecordLayout::new(Format::Tc4, Format::Tc4, 64, 32).unwrap();
        for (decode, group, good) in [
            (AttendKernel::Vec, VEC_GROUP, true),
            (AttendKernel::Vec, VEC_GROUP + 1, false),
            (AttendKernel::Mma, VEC_GROUP + 1, true),
        ] {
            let checked = Shape { decode, ..Shape::new(record, 2, group) }.check();
            assert_eq!(checked, if good { Ok(()) } else { Err(KernelError::Vec(group)) });
        }
        let message = KernelError::Vec(7).to_string();
        assert!(["vec", "4", "7", "mma"].iter().all(|part| message.contains(part)), "{message}");
        let text = crate::source::library(None, &[]);
        assert!(text.contains(&format!("constant constexpr int kHeads = {VEC_GROUP};")));
    }

    #[test]
    fn query_follows_as_many_partitions_together() {
        let text = crate::source::library(None, &[]);
        assert!(text.contains(&format!("constant constexpr uint kTogether = {TOGETHER};")));
    }
}
