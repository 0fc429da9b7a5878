//! One identity's file: opened and locked, its index read, values written, read and erased.
use crate::error::DiskError;
use crate::format::{CellHeader, FileHead, GROUP, Geometry, HEAD_BYTES, HEADER_BYTES};
use crate::index::{DiskIndex, ValueRecord};
use crate::options::{CacheLabel, DiskContents};
use crate::value::DiskValueId;
use kv::CacheIdentity;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start waits for a process that is about to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// The extension of the files' names.
pub(crate) const EXTENSION: &str = "kvcache";

/// An open file and the index of its values.
pub(crate) struct OpenFile {
    pub file: CellFile,
    pub index: DiskIndex,
}

/// An identity's file. Only its writer changes it; others read.
#[derive(Debug)]
pub(crate) struct CellFile {
    path: PathBuf,
    file: File,
    head: FileHead,
}

/// The outcome of reading a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The bytes are those that were written.
    Whole(Vec<u8>),
    /// The bytes are not those that were written, or some are missing.
    Damaged,
}

impl CellFile {
    /// The path of an identity's file.
    pub fn path_of(dir: &Path, identity: &CacheIdentity) -> PathBuf {
        dir.join(format!("{identity}.{EXTENSION}"))
    }

    /// Opens and locks an identity's file, which is begun anew where it is missing or damaged.
    pub fn open(dir: &Path, contents: &DiskContents) -> Result<OpenFile, DiskError> {
        let path = Self::path_of(dir, &contents.identity);
        let geometry = Geometry::for_blocks(contents.block_bytes);
        let head = FileHead { identity: contents.identity, geometry, label: contents.label.clone() };
        let file = lock(&path, true, PATIENCE)?;
        match read_head(&file, &path)? {
            FirstPage::Head(found) if (found.identity, found.geometry) == (head.identity, head.geometry) => {}
            FirstPage::Missing => {}
            _ => {
                tracing::warn!("{} is of another form or damaged; a new one is begun", path.display());
                file.set_len(0).map_err(DiskError::io("emptying", &path))?;
            }
        }
        let file = CellFile { path, file, head };
        let index = file.load()?;
        Ok(OpenFile { file, index })
    }

    /// Opens and locks a file that is there.
    pub fn open_existing(path: &Path) -> Result<OpenFile, DiskError> {
        Self::with_head(lock(path, false, Duration::ZERO)?, path)
    }

    /// Opens a file that another process may write at this moment, to list its values.
    pub fn open_to_list(path: &Path) -> Result<OpenFile, DiskError> {
        Self::with_head(File::open(path).map_err(DiskError::io("opening", path))?, path)
    }

    fn with_head(file: File, path: &Path) -> Result<OpenFile, DiskError> {
        let FirstPage::Head(head) = read_head(&file, path)? else {
            return Err(DiskError::Damaged { path: path.to_path_buf() });
        };
        let file = CellFile { path: path.to_path_buf(), file, head };
        let index = file.load()?;
        Ok(OpenFile { file, index })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn geometry(&self) -> Geometry {
        self.head.geometry
    }

    pub fn identity(&self) -> CacheIdentity {
        self.head.identity
    }

    pub fn label(&self) -> &CacheLabel {
        &self.head.label
    }

    /// Whether the file's path still leads to this file.
    pub fn is_in_place(&self) -> bool {
        same_file(&self.file, &self.path)
    }

    /// Reads all headers. A value of which a part is missing does not count; its cells are discarded, and so are cells
    /// whose headers are not valid.
    fn load(&self) -> Result<DiskIndex, DiskError> {
        let size = self.file.metadata().map_err(DiskError::io("asking for the size of", &self.path))?.len();
        let cells = self.geometry().cells_in(size);
        let mut index = DiskIndex::default();
        index.resize(cells);
        let mut found = FoundParts::default();
        let mut table = vec![0; GROUP as usize * HEADER_BYTES];
        for first in (0..cells).step_by(GROUP as usize) {
            self.file
                .read_exact_at(&mut table, self.geometry().header_at(first))
                .map_err(DiskError::io("reading", &self.path))?;
            for (cell, header) in (first..cells).zip(table.as_chunks::<HEADER_BYTES>().0) {
                if *header == [0; HEADER_BYTES] {
                    continue;
                }
                index.take_cell(cell);
                match CellHeader::decode(header, &self.identity(), cell) {
                    Some(header) => found.add(header, cell, cells, &self.geometry()),
                    None => found.discarded.push(cell),
                }
            }
        }
        found.into_index(&mut index);
        Ok(index)
    }

    /// Makes the file, which has `from` cells, `to` cells long. The head page is written to a file that was empty.
    /// Returns how many bytes were written.
    pub fn resize(&self, from: u32, to: u32) -> io::Result<u64> {
        let begun = from == 0 && to > 0;
        if begun {
            self.file.write_all_at(&self.head.encode(), 0)?;
        }
        self.file.set_len(self.geometry().file_bytes(to))?;
        Ok(if begun { HEAD_BYTES as u64 } else { 0 })
    }

    /// Writes a value and the headers of its parts to its cells; returns how many bytes were written.
    pub fn write_value(&self, id: DiskValueId, value: &ValueRecord, bytes: &[u8]) -> io::Result<u64> {
        let size = usize::try_from(self.geometry().cell_bytes).unwrap_or(usize::MAX);
        for (cell, part) in value.cells.iter().zip(bytes.chunks(size)) {
            self.file.write_all_at(part, self.geometry().cell_at(*cell))?;
        }
        for part in 0..value.cells.len() {
            self.write_header(id, value, part)?;
        }
        Ok(value.len + (value.cells.len() * HEADER_BYTES) as u64)
    }

    /// Writes the header of one part of a value; returns how many bytes were written.
    pub fn write_header(&self, id: DiskValueId, value: &ValueRecord, part: usize) -> io::Result<u64> {
        let Some(cell) = value.cells.get(part) else { return Ok(0) };
        let header = CellHeader::of_part(id, value, part as u32).encode(&self.identity(), *cell);
        self.file.write_all_at(&header, self.geometry().header_at(*cell))?;
        Ok(HEADER_BYTES as u64)
    }

    /// Erases the headers of cells; returns how many bytes were written.
    pub fn erase(&self, cells: &[u32]) -> io::Result<u64> {
        for cell in cells {
            self.file.write_all_at(&[0; HEADER_BYTES], self.geometry().header_at(*cell))?;
        }
        Ok((cells.len() * HEADER_BYTES) as u64)
    }

    /// Reads a value and checks it.
    pub fn read_value(&self, value: &ValueRecord) -> io::Result<Checked> {
        let size = usize::try_from(self.geometry().cell_bytes).unwrap_or(usize::MAX);
        let mut bytes = vec![0; usize::try_from(value.len).map_err(io::Error::other)?];
        for (cell, part) in value.cells.iter().zip(bytes.chunks_mut(size)) {
            match self.file.read_exact_at(part, self.geometry().cell_at(*cell)) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Checked::Damaged),
                result => result?,
            }
        }
        let whole = blake3::hash(&bytes).as_bytes() == &value.hash;
        Ok(if whole { Checked::Whole(bytes) } else { Checked::Damaged })
    }

    /// Copies a cell's bytes to another; returns how many bytes were written.
    fn copy_cell(&self, from: u32, to: u32) -> io::Result<u64> {
        let geometry = self.geometry();
        let mut bytes = vec![0; usize::try_from(geometry.cell_bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, geometry.cell_at(from))?;
        self.file.write_all_at(&bytes, geometry.cell_at(to))?;
        Ok(geometry.cell_bytes)
    }

    /// Copies the parts of a value that lie from cell `cells` on to free cells before it. Returns where the value lies
    /// then, and how many bytes were written; `None` where too few cells are free.
    pub fn move_value(
        &self,
        id: DiskValueId,
        value: &ValueRecord,
        cells: u32,
        mut take: impl FnMut() -> Option<u32>,
    ) -> io::Result<Option<(Box<[u32]>, u64)>> {
        let mut moved = value.clone();
        let mut written = 0;
        for part in 0..moved.cells.len() {
            let from = moved.cells[part];
            if from >= cells {
                let Some(to) = take() else { return Ok(None) };
                written += self.copy_cell(from, to)?;
                moved.cells[part] = to;
                written += self.write_header(id, &moved, part)?;
            }
        }
        Ok(Some((moved.cells, written)))
    }

    /// Deletes the file.
    pub fn delete(self) -> Result<(), DiskError> {
        std::fs::remove_file(&self.path).map_err(DiskError::io("deleting", &self.path))
    }
}

/// The parts of values that a file's headers name.
#[derive(Default)]
struct FoundParts {
    values: HashMap<DiskValueId, (CellHeader, Vec<Option<u32>>)>,
    discarded: Vec<u32>,
}

impl FoundParts {
    fn add(&mut self, header: CellHeader, cell: u32, cells_of_file: u32, geometry: &Geometry) {
        let parts = usize::try_from(geometry.cells_of_value(header.len)).unwrap_or(usize::MAX);
        let part = header.part as usize;
        // A value has at most as many parts as the file has cells; no header may take memory for more.
        if part >= parts || parts > cells_of_file as usize {
            return self.discarded.push(cell);
        }
        match self.values.entry(header.id) {
            Place::Vacant(place) => {
                let mut cells = vec![None; parts];
                cells[part] = Some(cell);
                place.insert((header, cells));
            }
            Place::Occupied(mut place) => {
                let (first, cells) = place.get_mut();
                if (first.hash, first.len) != (header.hash, header.len) || cells[part].is_some() {
                    return self.discarded.push(cell);
                }
                cells[part] = Some(cell);
                first.last_used = first.last_used.max(header.last_used);
            }
        }
    }

    fn into_index(self, index: &mut DiskIndex) {
        let FoundParts { values, mut discarded } = self;
        for (id, (header, cells)) in values {
            let CellHeader { parent, tokens, len, hash, last_used, .. } = header;
            let whole: Option<Box<[u32]>> = cells.iter().copied().collect();
            match whole {
                Some(cells) => index.insert(id, ValueRecord { parent, tokens, len, hash, last_used, cells }),
                None => discarded.extend(cells.iter().flatten()),
            }
        }
        index.discard(&discarded);
    }
}

/// Returns the file, locked for this process alone, where the lock comes free within `patience`.
fn lock(path: &Path, create: bool, patience: Duration) -> Result<File, DiskError> {
    let begin = Instant::now();
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(0o600);
        let file = options.open(path).map_err(DiskError::io("opening", path))?;
        match file.try_lock() {
            Ok(()) if same_file(&file, path) => return Ok(file),
            // The process that held the lock has deleted the file just before the lock came free.
            Ok(()) if begin.elapsed() < PATIENCE => {}
            Ok(()) => return Err(DiskError::Gone { path: path.to_path_buf() }),
            Err(TryLockError::WouldBlock) if begin.elapsed() < patience => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(DiskError::Locked { path: path.to_path_buf() }),
            Err(TryLockError::Error(error)) => return Err(DiskError::io("locking", path)(error)),
        }
    }
}

/// Whether `path` leads to this open file.
pub(crate) fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// The first page of a file.
enum FirstPage {
    /// The file is empty.
    Missing,
    Damaged,
    Head(FileHead),
}

fn read_head(file: &File, path: &Path) -> Result<FirstPage, DiskError> {
    let size = file.metadata().map_err(DiskError::io("asking for the size of", path))?.len();
    if size < HEAD_BYTES as u64 {
        return Ok(if size == 0 { FirstPage::Missing } else { FirstPage::Damaged });
    }
    let mut page = [0; HEAD_BYTES];
    file.read_exact_at(&mut page, 0).map_err(DiskError::io("reading", path))?;
    Ok(FileHead::decode(&page).map_or(FirstPage::Damaged, FirstPage::Head))
}
