//! One layer's shape, and the buffers that its kernels read beside the batch.
use crate::executor::Executor;
use crate::shape::{AttendKernel, Shape};
use crate::tables::{LayerTables, PartitionTables, exact_groups, rotation_words};
use attention::{LayerCentre, LayerGeometry};
use candle_core::{Error, Result};
use kv::LayerKv;
use turboquant::CorrectionTables;

/// What a layer's kernels read beside the batch.
pub(crate) struct LayerBuffers<B> {
    pub cache: Option<B>,
    pub rotation: B,
    pub means: B,
    pub value_means: B,
    pub lists: B,
    pub high_operands: B,
    pub high_angles: B,
}

/// What `query` reads to correct the logits of centred keys.
pub(crate) struct CorrectionBuffers<B> {
    pub tables: CorrectionTables,
    pub starts: B,
    pub fits: B,
}

pub(crate) struct GpuLayer<B> {
    pub shape: Shape,
    pub buffers: LayerBuffers<B>,
    pub correction: Option<CorrectionBuffers<B>>,
    /// The index of the layer's RoPE among those of the model; `None` for a layer without.
    pub rope: Option<usize>,
}

pub(crate) fn shape_of(kv: &LayerKv, model: &LayerGeometry, centre: &LayerCentre, decode: AttendKernel) -> Shape {
    Shape {
        scale: model.scale,
        decode,
        keys_centred: !centre.keys.is_empty(),
        values_centred: !centre.values.is_empty(),
        exact_groups: exact_groups(&centre.keys),
        pairs: model.rope.as_ref().map_or(0, |rope| rope.pairs()),
        window: model.sliding_window,
        ..Shape::new(kv.record, kv.kv_heads, model.group())
    }
}

pub(crate) fn layer<E: Executor>(
    executor: &E,
    shape: Shape,
    centre: &LayerCentre,
    rope: Option<usize>,
) -> Result<GpuLayer<E::Buffer>> {
    let tables = centre.keys.first().map(|_| LayerTables::new(&centre.keys));
    let correction = match centre.keys.first() {
        Some(first) => Some(correction_buffers(executor, &shape, first.tables(), turboquant::PARTITION)?),
        None => None,
    };
    let buffer = |bytes: &[u8]| executor.buffer(bytes).map_err(Error::wrap);
    let of = |f: fn(&LayerTables) -> &Vec<u8>| buffer(tables.as_ref().map_or(&[], |tables| f(tables)));
    let value_means: Vec<u8> = centre.values.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let buffers = LayerBuffers {
        cache: None,
        rotation: buffer(&rotation_words(&shape))?,
        means: of(|t| &t.means)?,
        value_means: buffer(&value_means)?,
        lists: of(|t| &t.lists)?,
        high_operands: of(|t| &t.high_operands)?,
        high_angles: of(|t| &t.high_angles)?,
    };
    Ok(GpuLayer { shape, buffers, correction, rope })
}

pub(crate) fn correction_buffers<E: Executor>(
    executor: &E,
    shape: &Shape,
    tables: &CorrectionTables,
    tokens: usize,
) -> Result<CorrectionBuffers<E::Buffer>> {
    let bytes = match shape.exact_groups {
        Some(_) => PartitionTables::exact(tables, tokens),
        None => PartitionTables::new(tables, tokens),
    };
    let buffer = |bytes: &[u8]| executor.buffer(bytes).map_err(Error::wrap);
    Ok(CorrectionBuffers { tables: tables.clone(), starts: buffer(&bytes.starts)?, fits: buffer(&bytes.fits)? })
}
