//! Launches of attention: queries, partitions, reduction.
use super::bind;
use super::params::{AttendParams, Params, QueryParams, ReduceParams};
use crate::executor::Launch;
use crate::shape::{AttendKernel, Shape};
use crate::tables::ExactPairs;
use std::ops::Range;
use turboquant::CorrectionTables;

/// Simdgroups of a threadgroup of `query`. Each prepares partitions of its own.
const SIMDGROUPS: usize = 4;

/// Buffers of [`query`].
#[derive(Debug)]
pub struct QueryBuffers<'a, B> {
    /// `[rows][heads][head_dim]`, before RoPE.
    pub q: &'a B,
    /// [`crate::TileParams`].
    pub tiles: &'a B,
    /// From [`crate::rotation_words`].
    pub rotation: &'a B,
    /// From [`crate::LayerTables`], as `lists` is; `starts` and `fits` are from [`crate::PartitionTables`]. These four
    /// and `corrections` are touched only where keys are centred.
    pub key_constants: &'a B,
    /// [`crate::PartitionTables::starts`].
    pub starts: &'a B,
    /// [`crate::LayerTables::lists`].
    pub lists: &'a B,
    /// [`crate::PartitionTables::fits`].
    pub fits: &'a B,
    /// `[rows][pairs]` (cos, sin), times RoPE's attention factor; not read for a layer without RoPE.
    pub angles: &'a B,
    /// `[tiles][kv_heads][octets][4 x head_dim]` words, twice as many for [`AttendKernel::Vec`].
    pub queries: &'a B,
    /// `[tiles][kv_heads][octets][partitions]` records of [`Shape::correction_floats`].
    pub corrections: &'a B,
}

/// Applies RoPE to the queries of `tiles` tiles, rotates them and lays them out; where keys are centred, also divides
/// them by the pair scales and prepares the mean correction of `partitions` partitions. Tiles count rows from
/// `first_row`.
pub fn query<'a, B>(
    shape: &Shape,
    kernel: AttendKernel,
    tables: Option<&CorrectionTables>,
    first_row: usize,
    tiles: usize,
    partitions: usize,
    buffers: &QueryBuffers<'a, B>,
) -> Launch<'a, B> {
    let &QueryBuffers { q, tiles: table, rotation, key_constants, starts, lists, fits, angles, queries, corrections } =
        buffers;
    let approximated = match (tables, shape.exact_groups) {
        (None, _) => 0,
        (Some(tables), None) => tables.approximated().len(),
        (Some(tables), Some(_)) => ExactPairs::of(tables.rope()).approximated.len(),
    };
    let partitions_each = shape.partitions_together(kernel, tiles, partitions);
    let params = QueryParams {
        octets: shape.octets(kernel) as u32,
        partitions: partitions as u32,
        pairs: shape.pairs as u32,
        approximated: approximated.div_ceil(8) as u32,
        pair_groups: shape.pair_groups() as u32,
        correction_stride: shape.correction_floats() as u32,
        partitions_each: partitions_each as u32,
        append_low_halves: u32::from(kernel == AttendKernel::Vec),
        norm: shape.norm(),
        scale: shape.scale2(),
        mean_scale: shape.scale2() * tables.map_or(1.0, |tables| tables.rope().attention_factor()),
    };
    let layers = if shape.keys_centred { 1 + partitions.div_ceil(SIMDGROUPS * partitions_each) } else { 1 };
    let mut bindings = bind(&[q, table, rotation, key_constants, starts, lists, fits, angles], &[queries, corrections]);
    bindings[0].offset = first_row * shape.row_bytes();
    bindings[7].offset = first_row * shape.pairs * 8;
    Launch {
        kernel: format!("query_d{}", shape.head_dim()),
        constants: shape.constants(),
        grid: [(shape.kv_heads * shape.octets(kernel)) as u32, tiles as u32, layers as u32],
        threads: 32 * SIMDGROUPS as u32,
        bindings,
        params: (10, params.bytes()),
        work: shape.query_work(kernel, tiles, partitions),
    }
}

/// Buffers of [`attend`].
#[derive(Debug)]
pub struct AttendBuffers<'a, B> {
    /// The queries that [`query`] wrote.
    pub queries: &'a B,
    /// [`crate::TileParams`].
    pub tiles: &'a B,
    /// Block numbers of all sequences.
    pub tables: &'a B,
    /// The layer's pages.
    pub cache: &'a B,
    /// The terms that [`query`] wrote for the mean correction.
    pub corrections: &'a B,
    /// From [`crate::LayerTables`], as `high_angles` is.
    pub high_operands: &'a B,
    /// [`crate::LayerTables::high_angles`].
    pub high_angles: &'a B,
    /// `[rows][heads][partitions][head_dim]` f32.
    pub part_o: &'a B,
    /// `[rows][heads][partitions]`: maximum and sum of weights, base 2.
    pub part_ml: &'a B,
}

/// Attends each tile to each of `partitions` partitions. A threadgroup a (kv head, tile, partition).
///
/// [`AttendKernel::Vec`] takes tiles of one row.
pub fn attend<'a, B>(
    shape: &Shape,
    kernel: AttendKernel,
    tiles: usize,
    partitions: usize,
    buffers: &AttendBuffers<'a, B>,
) -> Launch<'a, B> {
    attend_some(shape, kernel, tiles, (0..partitions, partitions), buffers)
}

/// Attends each tile to a run of partitions, out of `partitions` for which there are states.
pub(crate) fn attend_some<'a, B>(
    shape: &Shape,
    kernel: AttendKernel,
    tiles: usize,
    (some, partitions): (Range<usize>, usize),
    buffers: &AttendBuffers<'a, B>,
) -> Launch<'a, B> {
    let &AttendBuffers {
        queries,
        tiles: table,
        tables,
        cache,
        corrections,
        high_operands,
        high_angles,
        part_o,
        part_ml,
    } = buffers;
    let params = AttendParams {
        octets: shape.octets(kernel) as u32,
        partitions: partitions as u32,
        window: shape.window_or_all(),
        scale: shape.scale2(),
        first: some.start as u32,
        pair_groups: shape.pair_groups() as u32,
        correction_stride: shape.correction_floats() as u32,
    };
    let (d, depth) = (shape.head_dim(), shape.depth(kernel));
    Launch {
        kernel: match kernel {
            AttendKernel::Mma => format!("attend_mma_d{d}_c{}_u{depth}", shape.octets(kernel)),
            AttendKernel::Vec => format!("attend_vec_d{d}_u{depth}"),
            AttendKernel::Prefill => format!("prefill_d{d}_u{depth}"),
        },
        constants: shape.constants(),
        grid: [shape.kv_heads as u32, tiles as u32, some.len() as u32],
        threads: if kernel == AttendKernel::Prefill { 256 } else { 128 },
        bindings: bind(&[queries, table, tables, cache, corrections, high_operands, high_angles], &[part_o, part_ml]),
        params: (9, params.bytes()),
        work: (tiles * some.len() * shape.kv_heads) as u64 * shape.partition_work(kernel),
    }
}

/// Buffers of [`reduce`].
#[derive(Debug)]
pub struct ReduceBuffers<'a, B> {
    /// The partial sums that [`attend`] wrote, as it wrote `part_ml`.
    pub part_o: &'a B,
    /// [`AttendBuffers::part_ml`].
    pub part_ml: &'a B,
    /// The position of each row in its sequence.
    pub positions: &'a B,
    /// From [`crate::rotation_words`].
    pub rotation: &'a B,
    /// `[rows][heads][head_dim]`.
    pub out: &'a B,
}

/// Merges the partitions of `rows` rows from `first_row` on, with which the partial states begin. A threadgroup merges
/// one (row, query head), or each of its simdgroups does where there are many; the bits are the same.
pub fn reduce<'a, B>(
    shape: &Shape,
    first_row: usize,
    rows: usize,
    partitions: usize,
    buffers: &ReduceBuffers<'a, B>,
) -> Launch<'a, B> {
    let &ReduceBuffers { part_o, part_ml, positions, rotation, out } = buffers;
    let items = rows * shape.heads();
    let alone = items >= 2048 && shape.head_dim() <= 128;
    let params = ReduceParams {
        items: items as u32,
        partitions: partitions as u32,
        window: shape.window_or_all(),
        one_simdgroup_per_item: u32::from(alone),
        norm: shape.norm(),
    };
    let mut bindings = bind(&[part_o, part_ml, positions, rotation], &[out]);
    bindings[2].offset = 4 * first_row;
    bindings[4].offset = first_row * shape.row_bytes();
    Launch {
        kernel: format!("reduce_d{}", shape.head_dim()),
        constants: shape.constants(),
        grid: [if alone { items.div_ceil(8) } else { items } as u32, 1, 1],
        threads: 256,
        bindings,
        params: (5, params.bytes()),
        // A multiplication an element of each partition, a rotation.
        work: (items * shape.head_dim() * (2 * partitions + 40)) as u64,
    }
}
