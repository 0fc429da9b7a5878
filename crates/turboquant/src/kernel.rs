//! The public kernel: stores and attends the records of one layer.
use crate::encode;
use crate::format::Side;
use crate::key_transform::{CorrectionQuery, KeyTransform};
use crate::layout::RecordLayout;
use crate::page;
use crate::rotation::Rotation;
use crate::simd::{self, HeadQuery, Isa, Steps};
use half::f16;

/// Most query heads of one kv head.
pub const MAX_GROUP: usize = 16;

/// Stores vectors into the records of one layer and attends to them. `Send + Sync`, cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    layout: RecordLayout,
    isa: Isa,
    pub(crate) steps: Steps,
    pub(crate) rotation: Option<Rotation>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("layout", &self.layout).field("isa", &self.isa).finish_non_exhaustive()
    }
}

/// The query heads of one token and kv head, prepared for one kernel.
#[derive(Clone, Debug)]
pub struct Query {
    pub(crate) group: usize,
    head_dim: usize,
    floats: Vec<f32>,
    words: Vec<u32>,
    wide: Vec<u64>,
    sums: Vec<i32>,
    units: Vec<f32>,
    pub(crate) correction: Option<CorrectionQuery>,
}

impl Query {
    /// Query heads of the kv head.
    pub fn group(&self) -> usize {
        self.group
    }

    pub(crate) fn head(&self, g: usize) -> HeadQuery<'_> {
        let (d, n) = (self.head_dim, self.head_dim / 4);
        HeadQuery {
            floats: self.floats.get(g * d..(g + 1) * d).unwrap_or(&[]),
            words: self.words.get(g * n..(g + 1) * n).unwrap_or(&[]),
            wide: self.wide.get(g * n..(g + 1) * n).unwrap_or(&[]),
            sum: self.sums.get(g).copied().unwrap_or(0),
            unit: self.units.get(g).copied().unwrap_or(0.0),
        }
    }
}

impl Kernel {
    /// # Panics
    /// If the machine lacks `isa`.
    pub fn new(layout: RecordLayout, isa: Isa) -> Kernel {
        let steps = Steps::new(isa, layout.k(), layout.v());
        let steps = steps.unwrap_or_else(|| panic!("instruction set {isa:?} is not on this machine"));
        let rotated = layout.k().is_rotated() || layout.v().is_rotated();
        Kernel { layout, isa, steps, rotation: rotated.then(|| Rotation::new(layout.head_dim())) }
    }

    /// The layout of the records that it takes.
    pub fn layout(&self) -> &RecordLayout {
        &self.layout
    }

    /// The instruction set that it was compiled for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Writes slot `slot` (0..block_size) of `record`. `k` and `v`: `[head_dim]`, `k` after RoPE or after
    /// [`KeyTransform::apply`].
    ///
    /// NaN is stored as 0. Elements of coded and f16 vectors are clamped to ±65504, those of f32 and bf16 vectors to
    /// ±1e30, so that attention stays finite.
    pub fn store(&self, record: &mut [u8], slot: usize, k: &[f32], v: &[f32]) {
        self.check_slot(record, slot);
        let d = self.layout.head_dim();
        assert!(
            k.len() == d && v.len() == d,
            "k and v must have head_dim {d} elements, not {} and {}",
            k.len(),
            v.len()
        );
        for (side, x) in [(Side::K, k), (Side::V, v)] {
            self.steps.store(&self.layout, self.rotation.as_ref(), record, slot, side, x);
        }
    }

    /// The decoded and un-rotated vector of a slot, `[head_dim]`.
    pub fn load(&self, record: &[u8], slot: usize, side: Side, out: &mut [f32]) {
        self.check_slot(record, slot);
        assert_eq!(out.len(), self.layout.head_dim(), "out must have head_dim elements");
        simd::load(&self.layout, record, slot, side, out);
        self.unrotate(side, out);
    }

    /// The codes of a vector, one an element, and its scales as [`Kernel::store`] would pack them, for devices with a
    /// page order of their own. Codes: two's complement (`tq8`, V `q8_0`), unsigned (K `q8_0` to `q4_0`), else the
    /// magnitude's index with the sign in the bit above it. Empty for floats.
    pub fn encode(&self, side: Side, x: &[f32]) -> (Vec<u8>, Vec<f16>) {
        let (format, d) = (self.layout.format(side), self.layout.head_dim());
        assert_eq!(x.len(), d, "x must have head_dim elements");
        let Some(rotation) = self.rotation.as_ref().filter(|_| format.is_rotated()) else {
            return (Vec::new(), Vec::new());
        };
        let mut z: Vec<f32> = x.iter().map(|x| encode::sanitize(*x, encode::LIMIT)).collect();
        self.steps.rotate(rotation, &mut z);
        let (mut codes, mut scales) = (vec![0; d], vec![0; format.scale_bytes(d)]);
        self.steps.encode(format, &z, &mut codes, &mut scales);
        (codes, scales.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect())
    }

    fn check_slot(&self, record: &[u8], slot: usize) {
        let (bytes, slots) = (self.layout.bytes(), self.layout.block_size());
        assert!(record.len() == bytes, "a record has {bytes} bytes, not {}", record.len());
        assert!(slot < slots, "slot {slot} of a block of {slots}");
    }

    fn unrotate(&self, side: Side, x: &mut [f32]) {
        if let Some(rotation) = self.rotation.as_ref().filter(|_| self.layout.format(side).is_rotated()) {
            self.steps.unrotate(rotation, x);
        }
    }

    /// Prepares the query heads of one token and kv head.
    ///
    /// `q`: `[group][head_dim]`, after RoPE, unrotated. `scale` multiplies logits (1/sqrt(head_dim) usually).
    /// `transform`: what the stored keys went through beside RoPE.
    pub fn query(&self, q: &[f32], group: usize, scale: f32, transform: Option<&KeyTransform>) -> Query {
        let d = self.layout.head_dim();
        assert!((1..=MAX_GROUP).contains(&group), "group {group}; allowed: 1..={MAX_GROUP}");
        assert_eq!(q.len(), group * d, "q must have group * head_dim elements");
        let base2 = scale * std::f32::consts::LOG2_E;
        let mut floats = q.to_vec();
        if let Some(transform) = transform {
            let scaled = |q: &mut [f32]| q.iter_mut().zip(transform.inverse_scale()).for_each(|(q, s)| *q *= s);
            floats.chunks_exact_mut(d).for_each(scaled);
        }
        if let Some(rotation) = self.rotation.as_ref().filter(|_| self.layout.k().is_rotated()) {
            floats.chunks_exact_mut(d).for_each(|q| self.steps.rotate(rotation, q));
        }
        floats.iter_mut().for_each(|v| *v *= base2);
        floats.chunks_exact_mut(d).for_each(|q| page::to_key_order(self.layout.k(), q));
        let correction = transform.map(|transform| transform.query(q, group, base2));
        let mut query = Query {
            group,
            head_dim: d,
            floats,
            words: Vec::new(),
            wide: Vec::new(),
            sums: Vec::new(),
            units: Vec::new(),
            correction,
        };
        if self.layout.k().has_one_scale() {
            for q in query.floats.chunks_exact(d) {
                let (sum, unit) = self.steps.quantize(q, &mut query.words, &mut query.wide);
                query.sums.push(sum);
                query.units.push(unit);
            }
            query.floats.clear();
        }
        query
    }

    /// Elements of the state of `group` query heads: o `[group][head_dim]`, m `[group]`, l `[group]`, logits in base 2.
    pub fn part_len(&self, group: usize) -> usize {
        group * (self.layout.head_dim() + 2)
    }

    /// The state of an empty range.
    pub fn reset(&self, part: &mut [f32], group: usize) {
        let (o, ml) = part.split_at_mut(group * self.layout.head_dim());
        o.fill(0.0);
        ml[..group].fill(simd::NONE);
        ml[group..2 * group].fill(0.0);
    }

    /// Adds the state `other` of another range of tokens to `into`. The result depends on the order of merges.
    pub fn merge(&self, into: &mut [f32], other: &[f32], group: usize) {
        let len = self.part_len(group);
        assert!(into.len() == len && other.len() == len, "states of group {group} have {len} elements");
        self.steps.merge(into, other, group);
    }

    /// Turns a state into outputs `[group][head_dim]`: o / l, un-rotated. Zero for an empty range.
    pub fn finish(&self, part: &[f32], group: usize, out: &mut [f32]) {
        let d = self.layout.head_dim();
        assert_eq!(out.len(), group * d, "out must have group * head_dim elements");
        for (g, out) in out.chunks_exact_mut(d).enumerate() {
            let l = part[group * (d + 1) + g];
            if l <= 0.0 {
                out.fill(0.0);
                continue;
            }
            let inverse = 1.0 / l;
            out.iter_mut().zip(&part[g * d..]).for_each(|(out, o)| *out = o * inverse);
            self.unrotate(Side::V, out);
        }
    }
}
