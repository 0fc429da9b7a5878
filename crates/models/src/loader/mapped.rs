//! Memory-mapped files: the one place of this crate with unsafe code.
#![allow(unsafe_code)]
use crate::error::ModelError;
use matmul::{Weight, WeightType};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Maps a file read-only.
pub(crate) fn map(path: &Path) -> Result<Arc<Mmap>, ModelError> {
    let file = File::open(path).map_err(|e| ModelError::file(path, e))?;
    // SAFETY: the map is only read, as bytes, for which every value is valid. Somebody who truncates the file under a running
    // server ends it by a signal, as with every program that maps its weights.
    let map = unsafe { Mmap::map(&file) };
    map.map(Arc::new).map_err(|e| ModelError::file(path, e))
}

/// A matrix `[n, k]` inside a mapped file; nothing is copied.
#[derive(Clone)]
pub(crate) struct MappedWeight {
    file: Arc<Mmap>,
    range: Range<usize>,
    kind: WeightType,
    shape: (usize, usize),
}

impl MappedWeight {
    /// Errors: a range whose length is not that of the shape.
    pub fn new(
        file: Arc<Mmap>,
        range: Range<usize>,
        kind: WeightType,
        (n, k): (usize, usize),
    ) -> Result<Self, matmul::MatmulError> {
        Weight::new(kind, n, k, &file[range.clone()])?;
        Ok(MappedWeight { file, range, kind, shape: (n, k) })
    }

    pub fn view(&self) -> Weight<'_> {
        let (n, k) = self.shape;
        Weight::new(self.kind, n, k, &self.file[self.range.clone()]).expect("checked in `new`")
    }
}
