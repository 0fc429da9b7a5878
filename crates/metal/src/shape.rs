//! What the kernels of a layer depend on.
use crate::executor::Constant;
use turboquant::{Format, RecordLayout};

/// `kTogether` of `query.metal`.
const TOGETHER: usize = 4;

/// The kernels that attend. A row's bits are the same in `Mma` and `Chunk`, not in `Vec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Single rows, or a few, by 8x8 matrix products (`attend_mma`).
    Mma,
    /// Single rows of at most 4 query heads a kv head by plain arithmetic (`attend_vec`).
    Vec,
    /// Chunks of a prompt: 64 columns at once, 128 at a head size of 64 (`prefill`).
    Chunk,
}

/// Why there are no kernels for a layer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KernelError {
    #[error("{side} format {format} has no Metal kernels; allowed: f16, bf16, tq8 to tq2, q8_0 to q2_0")]
    Format { side: &'static str, format: &'static str },
    #[error("head_dim {0} has no Metal kernels; allowed: 64, 80, 96, 128, 256, 512")]
    HeadDim(usize),
    #[error("{heads} query heads for {kv_heads} kv heads; allowed: 1 to 16 query heads a kv head")]
    Group { heads: usize, kv_heads: usize },
}

/// One layer: its cache, its heads, and what is taken out of K and V.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    pub record: RecordLayout,
    pub kv_heads: usize,
    /// Query heads of a kv head.
    pub group: usize,
    /// Of logits.
    pub scale: f32,
    /// Of single rows.
    pub form: Form,
    pub keys_centred: bool,
    pub values_centred: bool,
    /// Groups of 8 fast pairs where centred keys are followed exactly, as those stored as floats are; `None`: by parabolas.
    pub exact_groups: Option<usize>,
    /// RoPE pairs that turn.
    pub pairs: usize,
    /// A token sees at most this many, itself included.
    pub window: Option<usize>,
}

impl Shape {
    /// Of plain attention to what lies in the cache as it was given: nothing is taken out, no window, all pairs turn.
    pub fn new(record: RecordLayout, kv_heads: usize, group: usize) -> Self {
        let d = record.head_dim();
        Shape {
            record,
            kv_heads,
            group,
            scale: 1.0 / (d as f32).sqrt(),
            form: Form::Mma,
            keys_centred: false,
            values_centred: false,
            exact_groups: None,
            pairs: d / 2,
            window: None,
        }
    }

    /// Errors: a format, head size or group without kernels.
    pub fn check(&self) -> Result<(), KernelError> {
        for (side, format) in [("K", self.record.k()), ("V", self.record.v())] {
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
        Ok(())
    }

    pub fn head_dim(&self) -> usize {
        self.record.head_dim()
    }

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

    /// What attends `rows` rows of a sequence.
    pub fn form_of(&self, rows: usize) -> Form {
        match rows {
            1 => self.form,
            _ if rows <= self.tile_rows(Form::Mma) || self.head_dim() > 256 => Form::Mma,
            _ => Form::Chunk,
        }
    }

    /// Blocks of 8 columns of a tile.
    pub fn blocks(&self, form: Form) -> usize {
        match form {
            // 8 simdgroups, of as many as `Blocks` of `prefill.metal` says.
            Form::Chunk if self.head_dim() == 64 => 16,
            Form::Chunk => 8,
            Form::Mma | Form::Vec => self.group.div_ceil(8),
        }
    }

    /// Rows of a tile: as many as its columns hold.
    pub fn tile_rows(&self, form: Form) -> usize {
        if form == Form::Vec { 1 } else { self.blocks(form) * 8 / self.group }
    }

    /// Tiles of 8 tokens that a simdgroup has in flight: as many as registers hold. `Mma` and `Chunk` have the same, since a step's tokens
    /// are one state's and move its maximum together.
    pub(crate) fn depth(&self, form: Form) -> usize {
        let coded = self.record.k().is_rotated() && self.record.v().is_rotated();
        let largest = if form == Form::Vec { 64 } else { 128 };
        if coded && self.head_dim() <= largest { 4 } else { 2 }
    }

    /// Groups of 8 fast pairs that are followed.
    pub(crate) fn fast_groups(&self) -> usize {
        self.exact_groups.unwrap_or(1)
    }

    /// Partitions that a simdgroup of `query` follows: [`TOGETHER`], for all of which it reads tables once, where enough threadgroups are left
    /// to fill a GPU.
    pub(crate) fn follow_span(&self, form: Form, tiles: usize, parts: usize) -> usize {
        if self.kv_heads * self.blocks(form) * tiles * parts < 4096 { 1 } else { TOGETHER }
    }

    /// Floats of a partition's record in `follow`, of 8 columns: amplitudes of the fast pairs, then what follows 16 blocks of 32 tokens
    /// in three terms, or in eight.
    pub fn follow_floats(&self) -> usize {
        128 * self.fast_groups() + 16 * 8 * if self.exact_groups.is_some() { 8 } else { 3 }
    }

    /// The function constants, of every kernel of the layer.
    pub(crate) fn constants(&self) -> Vec<Constant> {
        let id = |format: Format| format.gpu_id().unwrap_or(u32::MAX);
        vec![
            Constant::Uint(0, id(self.record.k())),
            Constant::Uint(1, id(self.record.v())),
            Constant::Bool(2, self.keys_centred),
            Constant::Bool(3, self.values_centred),
            Constant::Uint(4, self.record.block_size().trailing_zeros()),
            Constant::Bool(6, self.window.is_some()),
            Constant::Bool(8, self.exact_groups.is_some()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::TOGETHER;

    #[test]
    fn query_follows_as_many_partitions_together() {
        let text = crate::source::library(None);
        assert!(text.contains(&format!("constant constexpr uint kTogether = {TOGETHER};")));
    }
}
