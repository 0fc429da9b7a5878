//! Device memory that the launches of one attention hand to each other. It grows to what was needed and is used by one
//! call at a time.
use crate::executor::{ExecError, Executor};
use crate::shape::{AttendKernel, Shape};

pub(crate) struct Scratch<B> {
    pub queries: Region<B>,
    pub corrections: Region<B>,
    pub part_o: Region<B>,
    pub part_ml: Region<B>,
}

impl<B> Default for Scratch<B> {
    fn default() -> Self {
        Scratch {
            queries: Region::default(),
            corrections: Region::default(),
            part_o: Region::default(),
            part_ml: Region::default(),
        }
    }
}

/// A buffer and its size.
pub(crate) struct Region<B>(Option<(B, usize)>);

impl<B> Default for Region<B> {
    fn default() -> Self {
        Region(None)
    }
}

impl<B> Region<B> {
    /// Takes at least `bytes` bytes; their content is undefined.
    fn reserve<E: Executor<Buffer = B>>(&mut self, executor: &E, bytes: usize) -> Result<(), ExecError> {
        if self.0.as_ref().is_none_or(|(_, len)| *len < bytes) {
            self.0 = None;
            self.0 = Some((executor.create(bytes)?, bytes));
        }
        Ok(())
    }

    pub fn get(&self) -> &B {
        match &self.0 {
            Some((buffer, _)) => buffer,
            None => unreachable!("reserved before use"),
        }
    }
}

impl<B> Scratch<B> {
    /// Room for `rows` rows in `tiles` tiles over `partitions` partitions.
    pub fn reserve<E: Executor<Buffer = B>>(
        &mut self,
        executor: &E,
        shape: &Shape,
        kernel: AttendKernel,
        rows: usize,
        tiles: usize,
        partitions: usize,
    ) -> Result<(), ExecError> {
        let octets = tiles * shape.kv_heads * shape.octets(kernel);
        let corrections = if shape.keys_centred { octets * partitions * shape.correction_floats() * 4 } else { 16 };
        let states = rows * shape.heads() * partitions;
        self.queries.reserve(executor, 2 * octets * shape.head_dim() * 16)?;
        self.corrections.reserve(executor, corrections)?;
        self.part_o.reserve(executor, states * shape.head_dim() * 4)?;
        self.part_ml.reserve(executor, states * 8)
    }
}
