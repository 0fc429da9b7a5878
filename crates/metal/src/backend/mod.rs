//! The attention backend over any executor.
mod layer;
mod scratch;

use crate::batch::{Slice, Tile, slices, tiles};
use crate::executor::{Executor, Launch};
use crate::launch::{self, AttendBuffers, Params, QueryBuffers, ReduceBuffers, WriteBuffers};
use crate::shape::{AttendKernel, Shape};
use crate::tables::words;
use attention::{AttentionBackend, AttentionPlan, BatchLayout, Centring, LayerId, ModelGeometry};
use candle_core::{Error, Result, Tensor, bail};
use kv::{BlockCopy, BlockId, KvLayout};
use layer::{CorrectionBuffers, GpuLayer, correction_buffers, layer, shape_of};
use scratch::Scratch;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use turboquant::Rope;

/// A step's rows on the device.
struct StepBuffers<B> {
    slots: B,
    positions: B,
    tables: B,
    /// For each RoPE of the model the (cos, sin) of every row and pair.
    angles: Vec<B>,
    /// For each shape of the model's layers, how its attention is cut.
    slices: Vec<Vec<SliceBuffers<B>>>,
}

/// A slice of a step's attention, and its tiles on the device.
struct SliceBuffers<B> {
    slice: Slice,
    tiles: B,
}

/// Stores and attends by the kernels of `kernels/`.
///
/// A row's result depends on its query and the cache alone, bit by bit: every row goes through the same arithmetic,
/// whatever shares its tile.
pub struct GpuBackend<E: Executor> {
    pub(crate) executor: E,
    spec: KvLayout,
    /// The different RoPEs of the layers.
    ropes: Vec<Rope>,
    /// The different shapes of the layers.
    shapes: Vec<Shape>,
    layers: Vec<GpuLayer<E::Buffer>>,
    scratch: Mutex<Scratch<E::Buffer>>,
    /// Bound where a kernel reads nothing.
    pub(crate) nothing: E::Buffer,
    num_blocks: usize,
}

impl<E: Executor> GpuBackend<E> {
    /// `decode`: the kernel for single rows, `Mma` or `Vec`.
    ///
    /// Errors: a layout or a centring whose layers are not the model's; a format, head size or group without kernels.
    pub fn new(
        executor: E,
        spec: KvLayout,
        geometry: &ModelGeometry,
        centring: &Centring,
        decode: AttendKernel,
    ) -> Result<Self> {
        let (layers, n) = (spec.layers(), geometry.layers.len());
        if layers.len() != n || centring.layers.len() != n {
            bail!(
                "{n} layers in the model, {} in the KV layout, {} in the centring",
                layers.len(),
                centring.layers.len()
            );
        }
        let (ropes, of_layers) = geometry.ropes()?;
        let layers = layers.iter().zip(&geometry.layers).zip(&centring.layers).zip(of_layers).enumerate();
        let layers = layers.map(|(i, (((kv, model), keys), rope))| {
            if kv.kv_heads != model.kv_heads || kv.record.head_dim() != model.head_dim {
                bail!("layer {i}: the KV layout is not that of the model");
            }
            let shape = shape_of(kv, model, keys, decode);
            shape.check().map_err(|e| Error::Msg(format!("layer {i}: {e}")))?;
            layer(&executor, shape, keys, rope).map_err(|e| Error::Msg(format!("layer {i}: {e}")))
        });
        let layers: Vec<GpuLayer<_>> = layers.collect::<Result<_>>()?;
        let mut shapes: Vec<Shape> = Vec::new();
        layers.iter().for_each(|layer| {
            if !shapes.contains(&layer.shape) {
                shapes.push(layer.shape);
            }
        });
        let nothing = executor.buffer(&[]).map_err(Error::wrap)?;
        Ok(GpuBackend { executor, spec, ropes, shapes, layers, scratch: Mutex::default(), nothing, num_blocks: 0 })
    }

    fn cache<'a>(&self, layer: &'a GpuLayer<E::Buffer>) -> Result<&'a E::Buffer> {
        layer.buffers.cache.as_ref().ok_or_else(|| Error::Msg("the cache is not allocated".to_owned()))
    }

    pub(crate) fn run(&self, launches: &[Launch<'_, E::Buffer>]) -> Result<()> {
        self.executor.run(launches).map_err(Error::wrap)
    }

    fn prepared<'a>(&self, plan: &'a AttentionPlan) -> Result<&'a StepBuffers<E::Buffer>> {
        let prepared = plan.prepared.as_ref().and_then(|p| p.downcast_ref());
        prepared.ok_or_else(|| Error::Msg("the plan was made by another backend".to_owned()))
    }

    /// The step's angles for a layer; nothing for one without RoPE.
    fn angles<'a>(&'a self, layer: &GpuLayer<E::Buffer>, prepared: &'a StepBuffers<E::Buffer>) -> &'a E::Buffer {
        layer.rope.map_or(&self.nothing, |rope| &prepared.angles[rope])
    }

    /// Cuts a batch for the layers of a shape. The rows of tiles on the device are counted from their slice's first.
    fn cut(&self, shape: &Shape, layout: &BatchLayout) -> Result<Vec<SliceBuffers<E::Buffer>>> {
        let cut = slices(shape, &tiles(shape, layout), self.executor.most_work()).into_iter().map(|slice| {
            let first = slice.rows.start;
            let params = slice.tiles.iter().flat_map(|tile| {
                let rows = tile.rows.start - first..tile.rows.end - first;
                Tile { rows, ..tile.clone() }.params(shape.window).bytes()
            });
            let tiles = self.executor.buffer(&params.collect::<Vec<u8>>()).map_err(Error::wrap)?;
            Ok(SliceBuffers { slice, tiles })
        });
        cut.collect()
    }

    /// Attends the rows of a slice of a batch.
    fn attend_slice(
        &self,
        layer: &GpuLayer<E::Buffer>,
        SliceBuffers { slice, tiles: table }: &SliceBuffers<E::Buffer>,
        q: &E::Buffer,
        out: &E::Buffer,
        prepared: &StepBuffers<E::Buffer>,
    ) -> Result<()> {
        let (shape, buffers, correction) = (&layer.shape, &layer.buffers, layer.correction.as_ref());
        let (tiles, partitions, kernel) = (&slice.tiles, slice.partitions(), slice.tiles[0].kernel);
        let (first, rows) = (slice.rows.start, slice.rows.len());
        let mut scratch = self.scratch.lock().unwrap_or_else(|e| e.into_inner());
        scratch.reserve(&self.executor, shape, kernel, rows, tiles.len(), partitions).map_err(Error::wrap)?;
        let corrected = |f: fn(&CorrectionBuffers<E::Buffer>) -> &E::Buffer| correction.map_or(&self.nothing, f);
        let query = QueryBuffers {
            q,
            tiles: table,
            rotation: &buffers.rotation,
            key_constants: &buffers.key_constants,
            starts: corrected(|c| &c.starts),
            lists: &buffers.lists,
            fits: corrected(|c| &c.fits),
            angles: self.angles(layer, prepared),
            queries: scratch.queries.get(),
            corrections: scratch.corrections.get(),
        };
        let attend = AttendBuffers {
            queries: scratch.queries.get(),
            tiles: table,
            tables: &prepared.tables,
            cache: self.cache(layer)?,
            corrections: scratch.corrections.get(),
            high_operands: &buffers.high_operands,
            high_angles: &buffers.high_angles,
            part_o: scratch.part_o.get(),
            part_ml: scratch.part_ml.get(),
        };
        let reduce = ReduceBuffers {
            part_o: scratch.part_o.get(),
            part_ml: scratch.part_ml.get(),
            positions: &prepared.positions,
            rotation: &buffers.rotation,
            out,
        };
        let mut launches =
            vec![launch::query(shape, kernel, correction.map(|c| &c.tables), first, tiles.len(), partitions, &query)];
        let attends = slice
            .dispatches
            .iter()
            .map(|some| launch::attend_some(shape, kernel, some.tiles, (some.partitions.clone(), partitions), &attend));
        launches.extend(attends);
        launches.push(launch::reduce(shape, first, rows, partitions, &reduce));
        self.run(&launches)
    }

    fn block_bytes(&self, layer: &GpuLayer<E::Buffer>, block: BlockId) -> Result<Range<usize>> {
        if block.0 as usize >= self.num_blocks {
            bail!("block {} of a pool of {}", block.0, self.num_blocks);
        }
        let (start, bytes) = (block.0 as usize * layer.shape.page_bytes(), layer.shape.page_bytes());
        Ok(start..start + bytes)
    }

    fn check_block_bytes(&self, len: usize) -> Result<()> {
        let want = self.spec.bytes_per_block();
        if len != want { Err(Error::Msg(format!("{len} bytes for a block of {want}"))) } else { Ok(()) }
    }
}

impl<E: Executor> AttentionBackend for GpuBackend<E> {
    fn spec(&self) -> &KvLayout {
        &self.spec
    }

    fn allocate(&mut self, num_blocks: usize) -> Result<()> {
        let tokens = num_blocks * self.spec.block_size();
        for layer in &mut self.layers {
            layer.buffers.cache = None;
            let bytes = num_blocks * layer.shape.page_bytes();
            layer.buffers.cache = Some(self.executor.create(bytes).map_err(Error::wrap)?);
            // A sequence fits the pool.
            if let Some(old) = layer.correction.take() {
                layer.correction = Some(correction_buffers(&self.executor, &layer.shape, &old.tables, tokens)?);
            }
        }
        self.num_blocks = num_blocks;
        Ok(())
    }

    fn allocated_bytes(&self) -> usize {
        self.layers.iter().filter(|l| l.buffers.cache.is_some()).map(|l| self.num_blocks * l.shape.page_bytes()).sum()
    }

    fn plan(&mut self, layout: Arc<BatchLayout>) -> Result<AttentionPlan> {
        let slots = self.num_blocks * self.spec.block_size();
        if let Some(slot) = layout.slot_mapping.iter().find(|slot| **slot as usize >= slots) {
            bail!("slot {slot} lies outside of a pool of {} blocks", self.num_blocks);
        }
        let mut blocks = layout.block_tables.iter().flatten().map(|b| b.0);
        if let Some(block) = blocks.find(|b| *b as usize >= self.num_blocks) {
            bail!("block {block} of a pool of {}", self.num_blocks);
        }
        let buffer = |bytes: Vec<u8>| self.executor.buffer(&bytes).map_err(Error::wrap);
        let angles = |rope: &Rope| {
            buffer(rope.angles(&layout.positions).into_iter().flatten().flat_map(f32::to_le_bytes).collect())
        };
        let prepared: StepBuffers<E::Buffer> = StepBuffers {
            slices: self.shapes.iter().map(|shape| self.cut(shape, &layout)).collect::<Result<_>>()?,
            angles: self.ropes.iter().map(angles).collect::<Result<_>>()?,
            slots: buffer(words(layout.slot_mapping.iter().copied()))?,
            positions: buffer(words(layout.positions.iter().copied()))?,
            tables: buffer(words(layout.block_tables.iter().flatten().map(|b| b.0)))?,
        };
        Ok(AttentionPlan { layout, prepared: Some(Box::new(prepared)) })
    }

    fn write(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<()> {
        let layer = &self.layers[layer.0];
        let (shape, buffers, prepared) = (&layer.shape, &layer.buffers, self.prepared(plan)?);
        let want = (plan.layout.num_tokens(), shape.kv_heads, shape.head_dim());
        if k.dims3()? != want || v.dims3()? != want {
            bail!("K {:?} and V {:?} must be {want:?}: tokens, kv heads, head_dim", k.dims(), v.dims());
        }
        let (k, v) = (self.executor.import(k)?, self.executor.import(v)?);
        let write = WriteBuffers {
            k: &k,
            v: &v,
            slots: &prepared.slots,
            angles: self.angles(layer, prepared),
            rotation: &buffers.rotation,
            key_constants: &buffers.key_constants,
            positions: &prepared.positions,
            cache: self.cache(layer)?,
        };
        self.run(&[launch::write(shape, want.0, &write)])
    }

    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        let layer = &self.layers[layer.0];
        let (shape, prepared) = (&layer.shape, self.prepared(plan)?);
        let want = (plan.layout.num_tokens(), shape.heads(), shape.head_dim());
        if q.dims3()? != want {
            bail!("Q {:?} must be {want:?}: tokens, heads, head_dim", q.dims());
        }
        let buffer = self.executor.import(q)?;
        let out = self.executor.create_activation(want.0 * shape.row_bytes()).map_err(Error::wrap)?;
        let mut cut = self.shapes.iter().zip(&prepared.slices);
        let Some((_, slices)) = cut.find(|(other, _)| *other == shape) else {
            bail!("the plan was not made for this layer");
        };
        for slice in slices {
            self.attend_slice(layer, slice, &buffer, &out, prepared)?;
        }
        self.executor.export(&out, q.dims(), q.device())
    }

    fn copy_blocks(&self, copies: &[BlockCopy]) -> Result<()> {
        // In order, but all that do not touch a block that one before them wrote or read go together.
        let mut rest = copies;
        while !rest.is_empty() {
            let touches = |copy: &BlockCopy, before: &[BlockCopy]| {
                before.iter().any(|b| b.to == copy.from || b.to == copy.to || b.from == copy.to)
            };
            let count = (1..rest.len()).find(|i| touches(&rest[*i], &rest[..*i])).unwrap_or(rest.len());
            let pairs = words(rest[..count].iter().flat_map(|copy| [copy.from.0, copy.to.0]));
            let pairs = self.executor.buffer(&pairs).map_err(Error::wrap)?;
            for layer in &self.layers {
                for copy in &rest[..count] {
                    self.block_bytes(layer, copy.from)?;
                    self.block_bytes(layer, copy.to)?;
                }
                self.run(&[launch::copy_blocks(layer.shape.page_bytes(), count, &pairs, self.cache(layer)?)])?;
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    fn read_block(&self, block: BlockId, mut out: &mut [u8]) -> Result<()> {
        self.check_block_bytes(out.len())?;
        for layer in &self.layers {
            let range = self.block_bytes(layer, block)?;
            let (head, rest) = out.split_at_mut(range.len());
            self.executor.download(self.cache(layer)?, range.start, head).map_err(Error::wrap)?;
            out = rest;
        }
        Ok(())
    }

    fn page_order(&self) -> &'static str {
        "matrices of 8x8"
    }

    fn write_block(&self, block: BlockId, mut bytes: &[u8]) -> Result<()> {
        self.check_block_bytes(bytes.len())?;
        for layer in &self.layers {
            let range = self.block_bytes(layer, block)?;
            let (head, rest) = bytes.split_at(range.len());
            self.executor.upload(self.cache(layer)?, range.start, head).map_err(Error::wrap)?;
            bytes = rest;
        }
        Ok(())
    }
}
