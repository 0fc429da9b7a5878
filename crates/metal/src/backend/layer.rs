//! One layer's shape, and the buffers that its kernels read beside the batch.
use crate::executor::Executor;
use crate::shape::{AttendKernel, Shape};
use crate::tables::{LayerTables, PartitionTables, exact_groups, rotation_words};
use attention::LayerGeometry;
use candle_core::{Error, Result};
use kv::LayerKv;
use turboquant::{CorrectionTables, KeyTransform};

/// The buffers of a layer that its kernels read, beside those of the batch.
pub(crate) struct LayerBuffers<B> {
    pub cache: Option<B>,
    pub rotation: B,
    pub key_constants: B,
    pub lists: B,
    pub high_operands: B,
    pub high_angles: B,
}

/// The tables by which the kernel `query` corrects the logits of centred keys, and their buffers.
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

/// `keys`: what the layer's keys go through, by kv head.
pub(crate) fn shape_of(kv: &LayerKv, model: &LayerGeometry, keys: &[KeyTransform], decode: AttendKernel) -> Shape {
    Shape {
        scale: model.scale,
        decode,
        keys_centred: !keys.is_empty(),
        exact_groups: exact_groups(keys),
        pairs: model.rope.as_ref().map_or(0, |rope| rope.pairs()),
        window: model.sliding_window,
        ..Shape::new(kv.record, kv.kv_heads, model.group())
    }
}

pub(crate) fn layer<E: Executor>(
    executor: &E,
    shape: Shape,
    keys: &[KeyTransform],
    rope: Option<usize>,
) -> Result<GpuLayer<E::Buffer>> {
    let tables = keys.first().map(|_| LayerTables::new(keys));
    let correction = match keys.first() {
        Some(first) => Some(correction_buffers(executor, &shape, first.tables(), turboquant::PARTITION)?),
        None => None,
    };
    let buffer = |bytes: &[u8]| executor.buffer(bytes).map_err(Error::wrap);
    let of = |f: fn(&LayerTables) -> &Vec<u8>| buffer(tables.as_ref().map_or(&[], |tables| f(tables)));
    let buffers = LayerBuffers {
        cache: None,
        rotation: buffer(&rotation_words(&shape))?,
        key_constants: of(|t| &t.key_constants)?,
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
