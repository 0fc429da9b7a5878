//! How room is made: what was used longest ago goes, from whichever file nobody else has.
use crate::error::DiskError;
use crate::file::CellFile;
use crate::folder::cache_files;
use crate::index::DiskIndex;
use std::io;
use std::path::Path;

/// A file and what it holds.
pub(crate) type OpenFile = (CellFile, DiskIndex);

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
/// left that was used before `before`; then makes the files smaller. Returns how many bytes were written for that.
pub(crate) fn trim(files: &mut [OpenFile], wanted: u64, before: u64) -> io::Result<u64> {
    let mut written = 0;
    for (file, index) in files.iter_mut() {
        let cells = index.take_discarded();
        written += file.erase(&cells)?;
        index.release(&cells);
    }
    let mut gain: u64 = files.iter().map(can_shrink_by).sum();
    while gain < wanted {
        let oldest = files.iter_mut().filter_map(|file| file.1.oldest(None).map(|(id, used)| (used, id, file)));
        let Some((_, id, file)) = oldest.min_by_key(|(used, id, _)| (*used, *id)).filter(|(used, ..)| *used < before)
        else {
            break;
        };
        gain -= can_shrink_by(file);
        if let Some(value) = file.1.remove(&id) {
            written += file.0.erase(&value.cells)?;
            file.1.release(&value.cells);
        }
        gain += can_shrink_by(file);
    }
    for file in files {
        written += compact(file)?;
    }
    Ok(written)
}

/// Deletes those of these files that hold nothing any more.
pub(crate) fn delete_empty(files: Vec<OpenFile>) -> Result<(), DiskError> {
    files.into_iter().filter(|(_, index)| index.cells() == 0).try_for_each(|(file, _)| file.delete())
}

fn live_cells(index: &DiskIndex) -> u32 {
    index.cells() - u32::try_from(index.free_cells()).unwrap_or(index.cells())
}

fn can_shrink_by((file, index): &OpenFile) -> u64 {
    file.geometry().file_bytes(index.cells()) - file.geometry().file_bytes(live_cells(index))
}

/// Moves values from the file's end into its free cells, and cuts the file behind the last one.
fn compact((file, index): &mut OpenFile) -> io::Result<u64> {
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
