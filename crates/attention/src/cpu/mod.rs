//! Attention over the pages on a CPU, with the kernels of `turboquant`.
mod pages;
mod schedule;

use crate::{AttentionBackend, AttentionPlan, BatchLayout, Centring, LayerId, ModelGeometry};
use candle_core::{CpuStorage, Error, Result, Storage, Tensor, bail};
use kv::{BlockCopy, BlockId, KvLayout};
use pages::Pages;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use turboquant::{Isa, Kernel, KeyTransform, MAX_GROUP, MAX_HEAD_DIM, Rope, apply_rope};

/// The cache of one layer and the kernels for its formats.
struct CpuLayer {
    kernel: Kernel,
    /// What keys go through, by kv head; empty: RoPE alone.
    transforms: Vec<KeyTransform>,
    /// The index of the layer's RoPE among those of the model; `None` for a layer without.
    rope: Option<usize>,
    pages: RwLock<Pages>,
}

impl CpuLayer {
    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        // Bytes of any value are valid, so a panic in a writer leaves nothing broken.
        self.pages.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Stores one K and V vector of the token at `position`, K after RoPE with `angles` and whatever else it goes
    /// through.
    fn store(&self, record: &mut [u8], slot: usize, head: usize, at: (usize, &[[f32; 2]]), k: &[f32], v: &[f32]) {
        let (position, angles) = at;
        let mut own = [0.0; MAX_HEAD_DIM];
        let own = &mut own[..k.len()];
        own.copy_from_slice(k);
        match self.transforms.get(head) {
            Some(transform) => transform.apply(own, position, angles),
            None => apply_rope(own, angles),
        }
        self.kernel.store(record, slot, own, v);
    }
}

/// What a step needs beside its layout.
struct StepAngles {
    /// For each RoPE of the model the (cos, sin) of every row and pair: `[ropes][num_tokens][pairs]`.
    angles: Vec<Vec<[f32; 2]>>,
}

impl StepAngles {
    fn of(plan: &AttentionPlan) -> Result<&StepAngles> {
        let prepared = plan.prepared.as_ref().and_then(|p| p.downcast_ref());
        prepared.ok_or_else(|| Error::Msg("the plan was made by another backend".to_owned()))
    }

    /// A layer's angles.
    fn angles<'a>(&'a self, rope: Option<usize>, ropes: &'a [Rope]) -> LayerAngles<'a> {
        LayerAngles(rope.map(|rope| (&ropes[rope], self.angles[rope].as_slice())))
    }
}

/// The RoPE of one layer and the angles of a step's rows; `None` for a layer without RoPE.
#[derive(Clone, Copy)]
struct LayerAngles<'a>(Option<(&'a Rope, &'a [[f32; 2]])>);

impl<'a> LayerAngles<'a> {
    /// (cos, sin) of each pair of a row; none for a layer without RoPE.
    fn row(&self, row: usize) -> &'a [[f32; 2]] {
        self.0.map_or(&[], |(rope, angles)| rope.row(angles, row))
    }
}

/// Attention over pages in this computer's memory.
pub struct CpuBackend {
    spec: KvLayout,
    geometry: ModelGeometry,
    /// The different RoPEs of the layers.
    ropes: Vec<Rope>,
    layers: Vec<CpuLayer>,
}

impl CpuBackend {
    /// # Errors
    /// A layout or a centring whose layers are not the model's; a GQA group larger than there are kernels for; more
    /// RoPE pairs than half a head.
    pub fn new(spec: KvLayout, geometry: ModelGeometry, centring: Centring) -> Result<Self> {
        Self::with_isa(spec, geometry, centring, Isa::best())
    }

    /// With the kernels of one instruction set, for tests and benchmarks.
    pub fn with_isa(spec: KvLayout, geometry: ModelGeometry, centring: Centring, isa: Isa) -> Result<Self> {
        let same = |(kv, model): (&kv::LayerKv, &crate::LayerGeometry)| {
            kv.kv_heads == model.kv_heads && kv.record.head_dim() == model.head_dim
        };
        if spec.layers().len() != geometry.layers.len() || !spec.layers().iter().zip(&geometry.layers).all(same) {
            bail!("the KV layout's layers are not those of the model");
        }
        if centring.layers.len() != geometry.layers.len() {
            bail!("the centring's layers are not those of the model");
        }
        if let Some(layer) = geometry.layers.iter().find(|layer| layer.group() > MAX_GROUP) {
            let (heads, kv_heads) = (layer.num_heads, layer.kv_heads);
            bail!("{heads} heads for {kv_heads} kv heads; there are kernels for up to {MAX_GROUP} heads of a kv head");
        }
        let (ropes, of_layers) = geometry.ropes()?;
        let layers = spec
            .layers()
            .iter()
            .zip(centring.layers)
            .zip(of_layers)
            .enumerate()
            .map(|(i, ((layer, transforms), rope))| CpuLayer {
                kernel: Kernel::new(layer.record, isa),
                transforms,
                rope,
                pages: RwLock::new(Pages::empty(layer.kv_heads, spec.page_bytes(i))),
            })
            .collect();
        Ok(CpuBackend { spec, geometry, ropes, layers })
    }
}

impl AttentionBackend for CpuBackend {
    fn spec(&self) -> &KvLayout {
        &self.spec
    }

    fn allocate(&mut self, num_blocks: usize) -> Result<()> {
        for layer in &mut self.layers {
            let pages = layer.pages.get_mut().unwrap_or_else(|e| e.into_inner());
            pages.allocate(num_blocks)?;
        }
        Ok(())
    }

    fn allocated_bytes(&self) -> usize {
        self.layers.iter().map(|l| l.read().num_bytes()).sum()
    }

    fn plan(&mut self, layout: Arc<BatchLayout>) -> Result<AttentionPlan> {
        let angles = self.ropes.iter().map(|rope| rope.angles(&layout.positions)).collect();
        Ok(AttentionPlan { layout, prepared: Some(Box::new(StepAngles { angles })) })
    }

    fn write(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<()> {
        let geometry = &self.geometry.layers[layer.0];
        let (rows, d) = (plan.layout.num_tokens(), geometry.head_dim);
        let want = (rows, geometry.kv_heads, d);
        if k.dims3()? != want || v.dims3()? != want {
            bail!("K {:?} and V {:?} must be {want:?}: tokens, kv heads, head_dim", k.dims(), v.dims());
        }
        with_slices([k, v], |[k, v]| {
            let state = &self.layers[layer.0];
            let angles = StepAngles::of(plan)?.angles(state.rope, &self.ropes);
            state.write().store(&plan.layout.slot_mapping, self.spec.block_size(), |row, head, record, slot| {
                let at = (row * geometry.kv_heads + head) * d;
                let position = plan.layout.positions[row] as usize;
                state.store(record, slot, head, (position, angles.row(row)), &k[at..][..d], &v[at..][..d]);
            })
        })
    }

    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        let geometry = &self.geometry.layers[layer.0];
        let want = (plan.layout.num_tokens(), geometry.num_heads, geometry.head_dim);
        if q.dims3()? != want {
            bail!("Q {:?} must be {want:?}: tokens, heads, head_dim", q.dims());
        }
        let mut out = vec![0f32; q.elem_count()];
        let state = &self.layers[layer.0];
        with_slices([q], |[q]| {
            let pages = state.read();
            let work = schedule::Work {
                kernel: &state.kernel,
                transforms: &state.transforms,
                pages: &pages,
                geometry,
                layout: &plan.layout,
                angles: StepAngles::of(plan)?.angles(state.rope, &self.ropes),
            };
            work.run(q, &mut out);
            Ok(())
        })?;
        Tensor::from_vec(out, want, q.device())
    }

    fn copy_blocks(&self, copies: &[BlockCopy]) -> Result<()> {
        for layer in &self.layers {
            let mut pages = layer.write();
            copies.iter().try_for_each(|copy| pages.copy(copy.from, copy.to))?;
        }
        Ok(())
    }

    fn read_block(&self, block: BlockId, mut out: &mut [u8]) -> Result<()> {
        self.check_block_bytes(out.len())?;
        for layer in &self.layers {
            let pages = layer.read();
            let (head, rest) = out.split_at_mut(pages.page_bytes());
            head.copy_from_slice(pages.page(block)?);
            out = rest;
        }
        Ok(())
    }

    fn page_order(&self) -> &'static str {
        "vectors of 16 tokens"
    }

    fn write_block(&self, block: BlockId, mut bytes: &[u8]) -> Result<()> {
        self.check_block_bytes(bytes.len())?;
        for layer in &self.layers {
            let mut pages = layer.write();
            let (head, rest) = bytes.split_at(pages.page_bytes());
            pages.page_mut(block)?.copy_from_slice(head);
            bytes = rest;
        }
        Ok(())
    }
}

impl CpuBackend {
    fn check_block_bytes(&self, len: usize) -> Result<()> {
        let want = self.spec.bytes_per_block();
        if len != want {
            bail!("{len} bytes for a block of {want}");
        }
        Ok(())
    }
}

/// The elements of contiguous f32 tensors on the CPU.
fn with_slices<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> Result<R>) -> Result<R> {
    let tensors = tensors.map(|t| t.contiguous());
    let mut guards = Vec::with_capacity(N);
    for tensor in &tensors {
        let tensor = tensor.as_ref().map_err(|e| Error::Msg(e.to_string()))?;
        guards.push(tensor.storage_and_layout());
    }
    let mut slices = [&[][..]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(CpuStorage::F32(data)) = &**storage else {
            bail!("the CPU attention backend takes f32 tensors on the CPU")
        };
        let start = layout.start_offset();
        *slice = &data[start..start + layout.shape().elem_count()];
    }
    f(slices)
}
