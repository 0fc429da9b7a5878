//! Memory-mapped files: the one place of this crate with unsafe code.
#![allow(unsafe_code)]
use crate::error::ModelError;
use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Maps a file read-only.
pub(crate) fn map(path: &Path) -> Result<Arc<Mmap>, ModelError> {
    let file = File::open(path).map_err(|e| ModelError::file(path, e))?;
    // SAFETY: the map is only read, as bytes, for which every value is valid. Somebody who truncates the file under a
    // running server ends it by a signal, as with every program that maps its weights.
    let map = unsafe { Mmap::map(&file) };
    map.map(Arc::new).map_err(|e| ModelError::file(path, e))
}

/// Takes the pages that lie wholly in `range` out of this process's memory; a later read brings them back from the
/// file.
pub(crate) fn forget(map: &Mmap, range: Range<usize>) {
    // The largest page of the systems served (Apple Silicon).
    const PAGE: usize = 16384;
    let (from, to) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
    if from < to {
        // SAFETY: the map is of a file, shared and never written, so a page that is dropped is read again with the same
        // bytes.
        let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        // It is advice: where the system does not take it, memory is freed later.
        let _ = advised;
    }
}
