//! Launches of products with weights.
use super::bind;
use super::params::{ExactParams, NormOperandParams, PackParams, Params, ProductParams};
use crate::executor::{Access, Binding, Launch};
use matmul::WeightType;

/// Elements of a row that share a power of two: `kGroup` of `operand.h`.
pub(super) const GROUP: usize = 32;

/// Rows of a weight that a simdgroup multiplies: `kTileRows` of `product.metal`.
const TILE_ROWS: usize = 16;

/// Elements in multiples of which k is cut.
const UNIT: usize = 256;

/// The binary logarithm of the number of partitions of rows of `k` elements: 4 where k has as many units, and 8
/// (`kMostPartitions` of `product.metal`) where each has two, since a simdgroup that is done after one unit has spent a
/// third of its time on beginning and end.
fn partition_shift(k: usize) -> u32 {
    let units = k.div_ceil(UNIT);
    units.min(4).max(units / 2).min(8).ilog2()
}

/// Octets of rows that a simdgroup multiplies at once. A weight is decoded once for all of them.
fn octets_at_once(rows: usize) -> usize {
    match rows {
        ..=8 => 1,
        9..=16 => 2,
        17..=32 => 4,
        _ => 8,
    }
}

/// Octets of an operand, those of padding included.
fn octets(rows: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(octets_at_once(rows))
}

/// Bytes of the operand that [`pack_rows`] makes of `rows` rows of `k` elements, and of the sums beside it.
pub fn operand_bytes(rows: usize, k: usize) -> [usize; 2] {
    operand_offsets(8 * octets(rows), k)
}

/// The bytes at which row `row` of an operand begins, and its sums. `row`: a multiple of 8.
pub(crate) fn operand_offsets(row: usize, k: usize) -> [usize; 2] {
    let groups = row / 8 * k.div_ceil(GROUP);
    [groups * GROUP * 8 * 2, groups * 3 * 8 * 4]
}

/// Makes an operand of `rows` rows of `k` elements. Buffers: x, `[rows][k]` f32; the operand and its sums, of
/// [`operand_bytes`].
pub fn pack_rows<'a, B>(rows: usize, k: usize, [x, operand, sums]: [&'a B; 3]) -> Launch<'a, B> {
    let groups = k.div_ceil(GROUP);
    Launch {
        kernel: "pack_rows".to_owned(),
        constants: Vec::new(),
        grid: [groups.div_ceil(4) as u32, octets(rows) as u32, 1],
        threads: 128,
        bindings: bind(&[x], &[operand, sums]),
        params: (3, PackParams { rows: rows as u32, width: k as u32, groups: groups as u32 }.bytes()),
        work: (8 * octets(rows) * k) as u64,
    }
}

/// Buffers of [`norm_operand`].
#[derive(Debug)]
pub struct NormOperandBuffers<'a, B> {
    /// `[rows][k]`.
    pub x: &'a B,
    /// `[rows][k]`; neither this nor `sum` is touched where nothing is added.
    pub delta: &'a B,
    /// `[k]`.
    pub weight: &'a B,
    /// `[rows][k]`: x + delta.
    pub sum: &'a B,
    /// As in [`pack_rows`].
    pub operand: &'a B,
    /// As in [`pack_rows`].
    pub sums: &'a B,
}

/// sum = x + delta if `add`, else x; the operand of sum / rms(sum) x weight, of `rows` rows of `k` elements.
pub fn norm_operand<'a, B>(
    rows: usize,
    (k, add, eps): (usize, bool, f32),
    buffers: &NormOperandBuffers<'a, B>,
) -> Launch<'a, B> {
    let &NormOperandBuffers { x, delta, weight, sum, operand, sums } = buffers;
    let params = NormOperandParams {
        rows: rows as u32,
        width: k as u32,
        groups: k.div_ceil(GROUP) as u32,
        add: u32::from(add),
        eps,
    };
    Launch {
        kernel: "norm_operand".to_owned(),
        constants: Vec::new(),
        grid: [octets(rows) as u32, 1, 1],
        threads: 512,
        bindings: bind(&[x, delta, weight], &[sum, operand, sums]),
        params: (6, params.bytes()),
        work: (30 * 8 * octets(rows) * k) as u64,
    }
}

/// Rows of an operand.
#[derive(Debug)]
pub struct ProductRows<'a, B> {
    /// The operand that [`pack_rows`] made, as it made `sums`.
    pub halves: &'a B,
    /// See `halves`.
    pub sums: &'a B,
    /// The first row, a multiple of 64.
    pub first: usize,
    /// How many rows there are.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
    /// Set where each weight is a stack of experts' weights.
    pub experts: Option<TileExperts<'a, B>>,
}

/// The expert of each tile of rows.
#[derive(Debug)]
pub struct TileExperts<'a, B> {
    /// `[tiles]`, u32, from the operand's first row on: tiles of `u32::MAX` are left out.
    pub numbers: &'a B,
    /// Rows of a tile: 8, 16, 32 or 64.
    pub tile: usize,
}

impl<B> Clone for TileExperts<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for TileExperts<'_, B> {}

/// A weight of a product.
#[derive(Debug)]
pub struct ProductWeight<'a, B> {
    /// Quantisation blocks as ggml has them, or 16-bit floats whose rows are padded to whole groups of 32; those of all
    /// experts, one after the other, in a stack.
    pub bytes: &'a B,
    /// Rows of the weight, or of one expert's.
    pub n: usize,
    /// `[n]` f32.
    pub bias: Option<&'a B>,
    /// A power of two: elements times this are what a float weight's bytes hold (f16), or are multiplied by it to
    /// become halves (bf16). 1 for other types.
    pub unit: f32,
}

/// The output of products; `out` is `[rows][n]` f32.
#[derive(Debug)]
pub enum ProductForm<'a, B> {
    /// The products with up to three weights go to an output each.
    Each(&'a [&'a B]),
    /// The product with one weight is added to the residual, `[rows][n]` f32, and goes to another buffer.
    Onto {
        /// The residual that the product is added to.
        residual: &'a B,
        /// The sum.
        out: &'a B,
    },
    /// silu(first) x second, of two weights of the same size.
    Gated(&'a B),
}

impl<'a, B> ProductForm<'a, B> {
    /// Its number, as kernels know it; what is added to; the outputs.
    fn parts(&self, nothing: &'a B) -> (u32, &'a B, &[&'a B]) {
        match self {
            ProductForm::Each(outs) => (0, nothing, outs),
            ProductForm::Onto { residual, out } => (1, residual, std::slice::from_ref(out)),
            ProductForm::Gated(out) => (2, nothing, std::slice::from_ref(out)),
        }
    }
}

/// Weights of one type that a launch multiplies, rows of `k` elements.
struct ProductWeights<'w, 'a, B> {
    kind: WeightType,
    k: usize,
    of: &'w [ProductWeight<'a, B>],
}

impl<'a, B> ProductWeights<'_, 'a, B> {
    fn get(&self, i: usize) -> Option<&ProductWeight<'a, B>> {
        self.of.get(i)
    }

    /// Tiles of `tile_rows` rows of the weights or, where one gates, of half as many of each.
    fn tiles(&self, form: u32, tile_rows: usize) -> usize {
        match form {
            2 => self.of[0].n.div_ceil(tile_rows / 2),
            _ => self.of.iter().map(|weight| weight.n.div_ceil(tile_rows)).sum(),
        }
    }

    /// Their bytes and biases, three of each.
    fn buffers(&self, nothing: &'a B) -> [[&'a B; 3]; 2] {
        let bytes = [0, 1, 2].map(|i| self.get(i).map_or(nothing, |w| w.bytes));
        [bytes, [0, 1, 2].map(|i| self.get(i).and_then(|w| w.bias).unwrap_or(nothing))]
    }

    fn params(&self, rows: usize, form: u32, partition_shift: u32) -> ProductParams {
        let [n0, n1, n2] = [0, 1, 2].map(|i| self.get(i).map_or(0, |w| w.n as u32));
        let [unit0, unit1, unit2] = [0, 1, 2].map(|i| self.get(i).map_or(1.0, |w| w.unit));
        ProductParams {
            n0,
            n1,
            n2,
            rows: rows as u32,
            groups: self.k.div_ceil(GROUP) as u32,
            row_bytes: row_bytes(self.kind, self.k) as u32,
            partition_shift,
            biased: (0..3).map(|i| u32::from(self.get(i).is_some_and(|w| w.bias.is_some())) << i).sum(),
            form,
            unit0,
            unit1,
            unit2,
            by_expert: 0,
        }
    }
}

/// The products of rows with the transpose of weights of one type, plus a bias where there is one. A row's bits do not
/// depend on the other rows. `nothing` is bound where nothing is read.
///
/// # Panics
/// For f32 weights, which [`product_f32`] multiplies; for none or more than three weights.
pub fn product<'a, B>(
    kind: WeightType,
    x: &ProductRows<'a, B>,
    weights: &[ProductWeight<'a, B>],
    form: &ProductForm<'a, B>,
    nothing: &'a B,
) -> Launch<'a, B> {
    assert!(kind != WeightType::F32, "f32 weights have a kernel of their own");
    assert!((1..=3).contains(&weights.len()), "{} weights at once", weights.len());
    let at_once = x.experts.as_ref().map_or_else(|| octets_at_once(x.rows), |experts| experts.tile / 8);
    let partition_shift = partition_shift(x.k);
    let of = ProductWeights { kind, k: x.k, of: weights };
    let (number, residual, outs) = form.parts(nothing);
    let tiles = of.tiles(number, TILE_ROWS);
    let by_expert = u32::from(x.experts.is_some());
    let params = ProductParams { by_expert, ..of.params(x.rows, number, partition_shift) };
    let (columns, threads) = match at_once {
        8 => (tiles.div_ceil(4), 128),
        _ => (tiles, 32 << partition_shift),
    };
    let [bytes, biases] = of.buffers(nothing);
    let read = [&[x.halves, x.sums][..], &bytes, &biases, &[residual]].concat();
    let written = [0, 1, 2].map(|i| outs.get(i).copied().unwrap_or(nothing));
    let mut bindings = bind(&read, &written);
    let [operand, sums] = operand_offsets(x.first, x.k);
    (bindings[0].offset, bindings[1].offset) = (operand, sums);
    bindings[8].offset = if number == 1 { x.first * weights[0].n * 4 } else { 0 };
    for (binding, weight) in bindings[9..].iter_mut().zip(weights).take(outs.len()) {
        binding.offset = x.first * weight.n * 4;
    }
    let (numbers, offset) = x.experts.as_ref().map_or((nothing, 0), |of| (of.numbers, x.first / of.tile * 4));
    bindings.push(Binding { index: 12, buffer: numbers, offset, access: Access::Read });
    Launch {
        kernel: format!("product_{}_o{at_once}", kind.name().to_lowercase()),
        constants: Vec::new(),
        grid: [columns as u32, x.rows.div_ceil(8 * at_once) as u32, 1],
        threads,
        bindings,
        params: (13, params.bytes()),
        work: weights.iter().map(|w| product_work(w.n, x.k, x.rows)).sum(),
    }
}

/// The most rows of x that [`matvec`] multiplies.
pub const MATVEC_ROWS: usize = 2;

/// Whether [`matvec`] multiplies rows of `k` elements with weights of a type.
pub fn has_matvec(kind: WeightType, k: usize) -> bool {
    kind != WeightType::F32 && k.is_multiple_of(GROUP)
}

/// Rows of a weight that a simdgroup multiplies with `rows` rows of x: R of `matvec.metal`.
fn matvec_tile_rows(rows: usize) -> usize {
    if rows == 1 { 4 } else { 2 }
}

/// The products of at most [`MATVEC_ROWS`] rows of x, `[rows][k]` f32, with the transpose of weights of one type, by a
/// kernel that has no tiles of columns to fill. Bits are other ones than those of [`product`], but do not depend on the
/// other rows either.
///
/// # Panics
/// For what [`has_matvec`] denies, or more rows; for none or more than three weights.
pub fn matvec<'a, B>(
    kind: WeightType,
    (x, rows, k): (&'a B, usize, usize),
    weights: &[ProductWeight<'a, B>],
    form: &ProductForm<'a, B>,
    nothing: &'a B,
) -> Launch<'a, B> {
    assert!(has_matvec(kind, k) && (1..=MATVEC_ROWS).contains(&rows), "{rows} rows of {k} elements with {kind}");
    assert!((1..=3).contains(&weights.len()), "{} weights at once", weights.len());
    let of = ProductWeights { kind, k, of: weights };
    // Four lanes have a block of 128 elements, or of 256; a simdgroup reads eight side by side.
    let passes = k.div_ceil(8 * kind.block_len().max(128));
    let partition_shift = passes.min(8).ilog2();
    let simdgroups = (1 << partition_shift).max(2);
    let (number, residual, outs) = form.parts(nothing);
    let tiles = of.tiles(number, matvec_tile_rows(rows));
    let [bytes, biases] = of.buffers(nothing);
    let read = [&[x][..], &bytes, &biases, &[residual]].concat();
    let written = [0, 1, 2].map(|i| outs.get(i).copied().unwrap_or(nothing));
    Launch {
        kernel: format!("matvec_{}_x{rows}", kind.name().to_lowercase()),
        constants: Vec::new(),
        grid: [tiles.div_ceil(simdgroups >> partition_shift) as u32, 1, 1],
        threads: 32 * simdgroups as u32,
        bindings: bind(&read, &written),
        params: (11, of.params(rows, number, partition_shift).bytes()),
        work: weights.iter().map(|w| (w.n * k * (4 + rows)) as u64).sum(),
    }
}

/// Bytes of a row of a weight as [`product`] reads it, or [`product_f32`].
pub fn row_bytes(kind: WeightType, k: usize) -> usize {
    let k = match kind {
        WeightType::F32 => k,
        WeightType::F16 | WeightType::Bf16 => k.next_multiple_of(GROUP),
        _ => k.next_multiple_of(kind.block_len()),
    };
    k / kind.block_len() * kind.block_bytes()
}

/// About how many lane operations a product takes: 8 an element of the weight and octet of rows for the products, 4 an
/// element to decode it.
pub(crate) fn product_work(n: usize, k: usize, rows: usize) -> u64 {
    (n as u64) * (k as u64) * (8 * octets(rows) + 4 * octets(rows).div_ceil(8)) as u64
}

/// The rows of x times the transpose of an f32 weight of `n` rows, in f32. Buffers: x, `[rows][k]`; the weight,
/// `[n][k]`; the bias, `[n]`, which is not read where `biased` is not set; the output, `[rows][n]`. Both x and the
/// output begin with row `first`.
pub fn product_f32<'a, B>(
    n: usize,
    k: usize,
    (first, rows): (usize, usize),
    biased: bool,
    [x, weight, bias, out]: [&'a B; 4],
) -> Launch<'a, B> {
    let params = ExactParams { n: n as u32, rows: rows as u32, k: k as u32, biased: u32::from(biased) };
    let mut bindings = bind(&[x, weight, bias], &[out]);
    (bindings[0].offset, bindings[3].offset) = (first * k * 4, first * n * 4);
    Launch {
        kernel: "product_f32".to_owned(),
        constants: Vec::new(),
        grid: [n.div_ceil(4) as u32, rows.div_ceil(8) as u32, 1],
        threads: 128,
        bindings,
        params: (4, params.bytes()),
        work: 2 * (n as u64) * (k as u64) * rows.next_multiple_of(8) as u64,
    }
}
