//! Device memory that the launches of one attention hand to each other. It grows to what was needed and is used by one
//! call at a time; what it had before is retired, since launches that were given it may still have to run.
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
            if let Some((replaced, _)) = self.0.take() {
                executor.retire(replaced);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Launch;
    use std::sync::Mutex;

    /// Buffers are numbered; nothing runs.
    #[derive(Default)]
    struct Numbered {
        created: Mutex<usize>,
        retired: Mutex<Vec<usize>>,
    }

    impl Executor for Numbered {
        type Buffer = usize;

        fn create(&self, _: usize) -> Result<usize, ExecError> {
            let mut created = self.created.lock().unwrap();
            *created += 1;
            Ok(*created)
        }
        fn upload(&self, _: &usize, _: usize, _: &[u8]) -> Result<(), ExecError> {
            Ok(())
        }
        fn download(&self, _: &usize, _: usize, _: &mut [u8]) -> Result<(), ExecError> {
            Ok(())
        }
        fn run(&self, _: &[Launch<'_, usize>]) -> Result<(), ExecError> {
            Ok(())
        }
        fn retire(&self, buffer: usize) {
            self.retired.lock().unwrap().push(buffer);
        }
    }

    #[test]
    fn a_region_that_grows_retires_what_it_was() {
        let (executor, mut region) = (Numbered::default(), Region::default());
        for (bytes, buffer, retired) in [(16, 1, &[][..]), (8, 1, &[]), (17, 2, &[1]), (64, 3, &[1, 2])] {
            region.reserve(&executor, bytes).unwrap();
            assert_eq!((region.get(), &executor.retired.lock().unwrap()[..]), (&buffer, retired), "{bytes} bytes");
        }
    }
}
