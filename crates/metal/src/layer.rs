//! One layer's shape and what its kernels read beside the batch.
use crate::centring::{RopeTables, Tables, exact_groups};
use crate::executor::Executor;
use crate::shape::{Element, Form, Shape};
use attention::{LayerCentre, LayerGeometry, ModelGeometry, RopeConvention};
use candle_core::{Error, Result};
use kv::LayerKv;
use turboquant::{Rope, Rotation};

/// What a layer's kernels read beside the batch.
pub(crate) struct LayerBuffers<B> {
    pub cache: Option<B>,
    pub rotation: B,
    pub means: B,
    pub value_means: B,
    pub lists: B,
    pub fast_tiles: B,
    pub fast_turns: B,
}

/// Of the rope that centred layers of one head size share.
pub(crate) struct RopeBuffers<B> {
    pub rope: Rope,
    pub starts: B,
    pub offsets: B,
    pub fits: B,
}

pub(crate) struct Layer<B> {
    pub shape: Shape,
    pub buffers: LayerBuffers<B>,
    pub rope: Option<RopeBuffers<B>>,
}

pub(crate) fn shape_of(
    kv: &LayerKv,
    model: &LayerGeometry,
    geometry: &ModelGeometry,
    centre: &LayerCentre,
    element: Element,
    form: Form,
) -> Shape {
    Shape {
        scale: model.scale,
        element,
        // `Vec` holds 4 heads.
        form: if model.group() <= 4 { form } else { Form::Mma },
        keys_centred: !centre.keys.is_empty(),
        values_centred: !centre.values.is_empty(),
        exact_groups: exact_groups(&centre.keys),
        interleaved_rope: geometry.rope.convention == RopeConvention::Interleaved,
        pairs: geometry.rope.inv_freq.len(),
        window: model.sliding_window,
        ..Shape::new(kv.record, kv.kv_heads, model.group())
    }
}

/// What kernels read of the rotation, as bytes: the signs, an element a bit, then the Paley rows.
pub fn rotation_words(shape: &Shape) -> Vec<u8> {
    if !shape.record.k().is_rotated() && !shape.record.v().is_rotated() {
        return Vec::new();
    }
    let rotation = Rotation::new(shape.head_dim());
    let word = |signs: &[f32]| signs.iter().enumerate().fold(0u32, |w, (i, s)| w | u32::from(*s < 0.0) << i);
    let words = rotation.signs().chunks(32).map(word).chain(rotation.paley_rows());
    words.flat_map(u32::to_le_bytes).collect()
}

pub(crate) fn layer<E: Executor>(executor: &E, shape: Shape, centre: &LayerCentre) -> Result<Layer<E::Buffer>> {
    let tables = centre.keys.first().map(|_| Tables::new(&centre.keys));
    let rope = match centre.keys.first() {
        Some(first) => Some(rope_buffers(executor, &shape, first.rope(), turboquant::PARTITION)?),
        None => None,
    };
    let buffer = |bytes: &[u8]| executor.buffer(bytes).map_err(Error::wrap);
    let of = |f: fn(&Tables) -> &Vec<u8>| buffer(tables.as_ref().map_or(&[], |tables| f(tables)));
    let value_means: Vec<u8> = centre.values.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let buffers = LayerBuffers {
        cache: None,
        rotation: buffer(&rotation_words(&shape))?,
        means: of(|t| &t.means)?,
        value_means: buffer(&value_means)?,
        lists: of(|t| &t.lists)?,
        fast_tiles: of(|t| &t.fast_tiles)?,
        fast_turns: of(|t| &t.fast_turns)?,
    };
    Ok(Layer { shape, buffers, rope })
}

pub(crate) fn rope_buffers<E: Executor>(
    executor: &E,
    shape: &Shape,
    rope: &Rope,
    tokens: usize,
) -> Result<RopeBuffers<E::Buffer>> {
    let tables = match shape.exact_groups {
        Some(_) => RopeTables::exact(rope, tokens),
        None => RopeTables::new(rope, tokens),
    };
    let buffer = |bytes: &[u8]| executor.buffer(bytes).map_err(Error::wrap);
    Ok(RopeBuffers {
        rope: rope.clone(),
        starts: buffer(&tables.starts)?,
        offsets: buffer(&tables.offsets)?,
        fits: buffer(&tables.fits)?,
    })
}
