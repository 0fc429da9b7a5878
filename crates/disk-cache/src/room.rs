//! How room is made: the values that were used longest ago are deleted, from any file that no other process has.
use crate::error::DiskError;
use crate::file::{CellFile, OpenFile};
use crate::folder::cache_files;
use crate::index::DiskIndex;
use std::io;
use std::path::Path;

/// Opens all files of a folder but `own` that no process has. Damaged ones are deleted.
pub(crate) fn unused_files(dir: &Path, own: &Path) -> Result<Vec<OpenFile>, DiskError> {
    let mut files = Vec::new();
    for path in cache_files(dir)?.into_iter().filter(|path| path != own) {
        match CellFile::open_existing(&path) {
            Ok(file) => files.push(file),
            Err(DiskError::Locked { .. }) => {}
            Err(DiskError::Damaged { .. }) => {
                tracing::warn!("{} is of another form or damaged, and is deleted", path.display());
                std::fs::remove_file(&path).map_err(DiskError::io("deleting", &path))?;
            }
            Err(error) => tracing::debug!("no room is made there: {error}"),
        }
    }
    Ok(files)
}

/// Removes values, the oldest of all these files first, until the files can be smaller by `wanted` bytes or no value is
/// left that was used before the stamp `used_before`; then makes the files smaller. Returns how many bytes were written
/// for that.
pub(crate) fn trim<'f>(
    files: impl IntoIterator<Item = &'f mut OpenFile>,
    wanted: u64,
    used_before: u64,
) -> io::Result<u64> {
    let mut files: Vec<&mut OpenFile> = files.into_iter().collect();
    let mut written = 0;
    for OpenFile { file, index } in files.iter_mut().map(|open| &mut **open) {
        let cells = index.take_discarded();
        written += file.erase(&cells)?;
        index.release(&cells);
    }
    let mut gain: u64 = files.iter().map(|open| can_shrink_by(open)).sum();
    while gain < wanted {
        let oldest = files.iter_mut().filter_map(|open| open.index.oldest(None).map(|(id, used)| (used, id, open)));
        let oldest = oldest.min_by_key(|(last_used, id, _)| (*last_used, *id));
        let Some((_, id, open)) = oldest.filter(|(last_used, ..)| *last_used < used_before) else { break };
        gain -= can_shrink_by(open);
        if let Some(value) = open.index.remove(&id) {
            written += open.file.erase(&value.cells)?;
            open.index.release(&value.cells);
        }
        gain += can_shrink_by(open);
    }
    for file in files {
        written += compact(file)?;
    }
    Ok(written)
}

/// Deletes the files that have no cells left.
pub(crate) fn delete_empty(files: Vec<OpenFile>) -> Result<(), DiskError> {
    files.into_iter().filter(|open| open.index.cells() == 0).try_for_each(|open| open.file.delete())
}

fn live_cells(index: &DiskIndex) -> u32 {
    index.cells() - u32::try_from(index.free_cells()).unwrap_or(index.cells())
}

fn can_shrink_by(OpenFile { file, index }: &OpenFile) -> u64 {
    file.geometry().file_bytes(index.cells()) - file.geometry().file_bytes(live_cells(index))
}

/// Moves values from the file's end into its free cells, and cuts the file off after the last cell in use.
fn compact(OpenFile { file, index }: &mut OpenFile) -> io::Result<u64> {
    let cells = live_cells(index);
    let mut written = 0;
    for id in index.values_beyond(cells) {
        let Some(value) = index.get(&id).cloned() else { continue };
        // The lowest free cells lie before the file's new end, and they suffice: all that is live fits there.
        let take = || index.take_cells(1).and_then(|cells| cells.first().copied());
        if let Some((moved, bytes)) = file.move_value(id, &value, cells, take)? {
            written += bytes;
            index.set_cells(&id, moved);
        }
    }
    if index.cells() != cells {
        file.resize(index.cells(), cells)?;
        index.resize(cells);
    }
    Ok(written)
}
