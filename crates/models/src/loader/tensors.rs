//! Where a checkpoint's tensors lie, whatever the file format.
use super::mapped::forget;
use crate::error::ModelError;
use matmul::{MatmulError, Weight, WeightType};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A tensor of a mapped file.
#[derive(Clone)]
pub(crate) struct Entry {
    pub file: Arc<Mmap>,
    pub path: PathBuf,
    pub range: Range<usize>,
    /// The name of the type where it is none that can be multiplied with.
    pub kind: Result<WeightType, String>,
    pub shape: Vec<usize>,
    /// Rows of each of so many heads are stored in the order of interleaved RoPE pairs.
    pub interleaved_heads: Option<usize>,
}

impl Entry {
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// The elements of a vector `[n]`.
    ///
    /// Errors: another shape, or a type that cannot be read.
    pub fn floats(&self, n: usize) -> Result<Vec<f32>, ModelError> {
        let error = |message: String| ModelError::file(&self.path, message);
        let kind =
            self.kind.as_ref().map_err(|kind| error(format!("has a vector of type {kind}, which is not known")))?;
        let weight = Weight::new(*kind, 1, n, self.bytes()).map_err(|e| error(e.to_string()))?;
        let mut values = vec![0f32; n];
        matmul::dequantize_row(weight, 0, &mut values);
        Ok(values)
    }

    /// Drops the tensor's pages, which have been read for the last time.
    pub fn forget(&self) {
        forget(&self.file, self.range.clone());
    }
}

/// By the names that Hugging Face's checkpoints use.
pub(crate) type Tensors = BTreeMap<String, Entry>;

#[derive(Clone)]
enum Bytes {
    Mapped(Arc<Mmap>, Range<usize>),
    Owned(Arc<Vec<u8>>),
}

/// A matrix `[n, k]`: inside a mapped file, or made at load.
#[derive(Clone)]
pub(crate) struct StoredWeight {
    bytes: Bytes,
    kind: WeightType,
    shape: (usize, usize),
}

impl StoredWeight {
    /// Errors: a range whose length is not that of the shape.
    pub fn mapped(
        file: Arc<Mmap>,
        range: Range<usize>,
        kind: WeightType,
        shape: (usize, usize),
    ) -> Result<Self, MatmulError> {
        Self { bytes: Bytes::Mapped(file, range), kind, shape }.checked()
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
            Bytes::Mapped(file, range) => &file[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Whether it lies in a file, whose pages may not be in memory yet.
    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped(..))
    }

    /// Drops the pages of rows that have been read for the last time.
    pub fn forget_rows(&self, rows: Range<usize>) {
        if let Bytes::Mapped(file, range) = &self.bytes {
            let row = range.len() / self.shape.0.max(1);
            forget(file, range.start + rows.start * row..range.start + rows.end * row);
        }
    }

    pub fn view(&self) -> Weight<'_> {
        let (n, k) = self.shape;
        Weight::new(self.kind, n, k, self.bytes()).expect("checked when made")
    }
}
