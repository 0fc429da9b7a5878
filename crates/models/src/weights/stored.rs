//! A weight matrix as it is kept: in its file, or in memory.
use crate::checkpoint::WeightFile;
use compute::StoredMatrix;
use matmul::{MatmulError, Weight, WeightType};
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone)]
enum Bytes {
    InFile(Arc<WeightFile>, Range<usize>),
    Owned(Arc<Vec<u8>>),
}

/// A matrix `[n, k]`, inside a file of weights or made at load. Copies share the bytes.
#[derive(Clone)]
pub(crate) struct StoredWeight {
    bytes: Bytes,
    kind: WeightType,
    shape: (usize, usize),
}

impl StoredWeight {
    /// Errors: a range whose length is not that of the shape.
    pub fn in_file(
        file: Arc<WeightFile>,
        range: Range<usize>,
        kind: WeightType,
        shape: (usize, usize),
    ) -> Result<Self, MatmulError> {
        Self { bytes: Bytes::InFile(file, range), kind, shape }.checked()
    }

    /// Errors: bytes whose length is not that of the shape.
    pub fn owned(bytes: Vec<u8>, kind: WeightType, shape: (usize, usize)) -> Result<Self, MatmulError> {
        Self { bytes: Bytes::Owned(Arc::new(bytes)), kind, shape }.checked()
    }

    fn checked(self) -> Result<Self, MatmulError> {
        Weight::new(self.kind, self.shape.0, self.shape.1, self.bytes())?;
        Ok(self)
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::InFile(file, range) => &file[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Whether the matrix lies in a mapped file, whose pages may not be in memory yet.
    pub fn is_mapped(&self) -> bool {
        matches!(&self.bytes, Bytes::InFile(file, _) if file.is_mapped())
    }

    /// Drops the pages of rows from memory once these have been read for the last time.
    pub fn forget_rows(&self, rows: Range<usize>) {
        if let Bytes::InFile(file, range) = &self.bytes {
            let row = range.len() / self.shape.0.max(1);
            file.forget(range.start + rows.start * row..range.start + rows.end * row);
        }
    }
}

impl StoredMatrix for StoredWeight {
    fn view(&self) -> Weight<'_> {
        let (n, k) = self.shape;
        Weight::new(self.kind, n, k, self.bytes()).expect("checked when made")
    }

    fn forget(&self) {
        self.forget_rows(0..self.shape.0);
    }
}
