//! The bytes of weight files, memory-mapped or read into memory: the one place of this crate with unsafe code.
//!
//! A mapped file that is cut short under a running server, by a new download in its place say, has no bytes for some of
//! its pages any more, and reading one of those is a bus error (SIGBUS), by which the system ends a process. Here a
//! handler puts pages of zeros in their place, so that the read goes on, and marks the file as lost. Whoever computes
//! with weights asks [`WeightFiles::check`] afterwards, and then throws away what it has computed.
#![allow(unsafe_code)]
use super::content::foreign;
use crate::error::ModelError;
use memmap2::{Mmap, MmapMut, UncheckedAdvice};
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

/// How the bytes of weights come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// Their file is mapped: a page is read when it is first needed, and the system may take its memory back.
    #[default]
    Mapped,
    /// Their file is read whole at once; what becomes of it afterwards does not matter.
    InMemory,
}

/// The bytes of a file of weights.
pub(crate) struct WeightFile {
    path: PathBuf,
    bytes: Mmap,
    /// `None` where the bytes have been read into memory.
    source: Option<Source>,
}

/// The file that a mapping is of.
struct Source {
    file: File,
    place: &'static GuardedPlace,
    /// When the file was last written to, and a hash of samples of what it held then.
    seen: Mutex<(Option<SystemTime>, blake3::Hash)>,
}

impl WeightFile {
    /// Maps or reads a file.
    ///
    /// Errors: it cannot be read, or is none of a model's.
    pub fn open(path: &Path, reading: Reading) -> Result<Arc<Self>, ModelError> {
        let error = |e: std::io::Error| ModelError::file(path, e);
        let mut file = File::open(path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if !metadata.is_file() {
            return Err(ModelError::file(path, "is no file"));
        }
        let (path, len) = (path.to_owned(), usize::try_from(metadata.len()).unwrap_or(usize::MAX));
        let weights = match reading {
            _ if len == 0 => return Err(ModelError::file(&path, foreign(&[]).unwrap_or_default())),
            Reading::InMemory => {
                let mut bytes = MmapMut::map_anon(len).map_err(|e| ModelError::file(&path, e))?;
                file.read_exact(&mut bytes).map_err(|e| ModelError::file(&path, e))?;
                let bytes = bytes.make_read_only().map_err(|e| ModelError::file(&path, e))?;
                WeightFile { path, bytes, source: None }
            }
            Reading::Mapped => {
                // SAFETY: the map is only read, as bytes, for which every value is valid. Somebody who writes to the
                // file changes them; `check` finds that. Who cuts the file short makes reads of what is gone bus
                // errors, which `on_bus_error` turns into zeros.
                let bytes = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::file(&path, e))?;
                let place = GuardedPlace::take(bytes.as_ptr() as usize, len).ok_or_else(|| {
                    ModelError::file(&path, format!("is one of more than {MAX_FILES} files; take a model in fewer"))
                })?;
                let seen = Mutex::new((metadata.modified().ok(), samples(&bytes)));
                WeightFile { path, bytes, source: Some(Source { file, place, seen }) }
            }
        };
        match foreign(&weights[..len.min(512)]) {
            Some(message) => Err(ModelError::file(&weights.path, message)),
            None => Ok(Arc::new(weights)),
        }
    }

    /// Whether the bytes lie in the file, so that their pages may not be in memory yet.
    pub fn is_mapped(&self) -> bool {
        self.source.is_some()
    }

    /// Takes the pages that lie wholly in `range` out of this process's memory; a later read brings them back from the
    /// file.
    pub fn forget(&self, range: Range<usize>) {
        // The largest page of the systems served (Apple Silicon).
        const PAGE: usize = 16384;
        let (from, to) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if from < to && self.is_mapped() {
            // SAFETY: the map is of a file, shared and never written, so a page that is dropped is read again with the
            // same bytes.
            let advised = unsafe { self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
            // It is advice: where the system does not take it, memory is freed later.
            let _ = advised;
        }
    }

    /// Errors: the file no longer holds what it held when it was mapped.
    fn check(&self) -> Result<(), ModelError> {
        let Some(source) = &self.source else { return Ok(()) };
        let wrong = |what: &str| {
            let advice = "Start again with the file whole; with --no-mmap a start reads weights into memory, and no \
                          later change matters";
            Err(ModelError::file(&self.path, format!("{what} while its weights were in use. {advice}")))
        };
        let metadata = source.file.metadata().map_err(|e| ModelError::file(&self.path, e))?;
        if metadata.len() < self.bytes.len() as u64 {
            return wrong(&format!("was cut from {} to {} bytes", self.bytes.len(), metadata.len()));
        }
        let mut seen = source.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = metadata.modified().ok();
        if seen.0 != modified {
            // Some programs set a file's time and leave its bytes.
            if samples(&self.bytes) != seen.1 {
                return wrong("was written to");
            }
            seen.0 = modified;
        }
        match source.place.is_lost.load(Ordering::Acquire) {
            true => wrong("could not be read any more, or was cut for a moment,"),
            false => Ok(()),
        }
    }
}

impl Deref for WeightFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for WeightFile {
    fn drop(&mut self) {
        if let Some(source) = &self.source {
            // The bytes are unmapped after this, so the handler never knows a place that is another's.
            source.place.give_back();
        }
    }
}

/// A hash of stretches of a file, spread evenly, by which a file that has been replaced is known.
fn samples(bytes: &[u8]) -> blake3::Hash {
    const STRETCHES: usize = 64;
    const STRETCH: usize = 4096;
    let mut hash = blake3::Hasher::new();
    for i in 0..STRETCHES {
        let start = bytes.len() / STRETCHES * i;
        hash.update(&bytes[start..bytes.len().min(start + STRETCH)]);
    }
    hash.finalize()
}

/// The files that a model's weights lie in.
#[derive(Default)]
pub struct WeightFiles(Vec<Weak<WeightFile>>);

impl WeightFiles {
    /// Those of `files` that are mapped, each once. A file counts until its last weight has gone.
    pub(crate) fn of<'a>(files: impl Iterator<Item = &'a Arc<WeightFile>>) -> Self {
        let mut mapped: Vec<Weak<WeightFile>> = Vec::new();
        for file in files.filter(|file| file.is_mapped()) {
            let file = Arc::downgrade(file);
            if !mapped.iter().any(|known| known.ptr_eq(&file)) {
                mapped.push(file);
            }
        }
        WeightFiles(mapped)
    }

    /// Checks that all that was computed so far was computed with the weights that were loaded.
    ///
    /// Errors: a file was cut short or written to since it was mapped.
    pub fn check(&self) -> Result<(), ModelError> {
        self.0.iter().filter_map(Weak::upgrade).try_for_each(|file| file.check())
    }
}

/// Most files that are mapped at once. A handler of a signal cannot take memory.
const MAX_FILES: usize = 4096;

/// A mapping that the handler of bus errors knows.
struct GuardedPlace {
    start: AtomicUsize,
    /// 0 for a place that is free.
    len: AtomicUsize,
    is_lost: AtomicBool,
}

static PLACES: [GuardedPlace; MAX_FILES] =
    [const { GuardedPlace { start: AtomicUsize::new(0), len: AtomicUsize::new(0), is_lost: AtomicBool::new(false) } };
        MAX_FILES];

/// What was done about bus errors before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// The system's page in bytes.
static PAGE: AtomicUsize = AtomicUsize::new(0);

impl GuardedPlace {
    /// Makes a mapping known to the handler, which is installed by the first call. `None` if there are too many.
    fn take(start: usize, len: usize) -> Option<&'static Self> {
        static TAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        install();
        let place = PLACES.iter().find(|place| place.len.load(Ordering::Acquire) == 0)?;
        place.is_lost.store(false, Ordering::Release);
        place.start.store(start, Ordering::Release);
        place.len.store(len, Ordering::Release);
        Some(place)
    }

    fn give_back(&self) {
        self.len.store(0, Ordering::Release);
    }
}

/// Installs the handler of bus errors once.
fn install() {
    PREVIOUS.get_or_init(|| {
        // SAFETY: all arguments are valid. `sigaction` is plain data, for which zeros are a value. The handler does
        // only what is allowed in one, and runs on the alternate stack where the thread has one, because the previous
        // handler, which it falls back to, is Rust's for stacks that overflow.
        unsafe {
            PAGE.store(usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(16384), Ordering::Release);
            let mut previous: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous);
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // An error would leave the system's action, by which the process ends as without the handler.
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
            previous
        }
    });
}

/// Puts zeros in the place of a mapped file from the page on that could not be read. For any other address the previous
/// action is put back, and takes place when the read is tried again.
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid `info`.
    let address = unsafe { (*info).si_addr() } as usize;
    let page = PAGE.load(Ordering::Acquire).max(1);
    for place in &PLACES {
        let (len, start) = (place.len.load(Ordering::Acquire), place.start.load(Ordering::Acquire));
        let end = (start + len).next_multiple_of(page);
        if len == 0 || !(start..end).contains(&address) {
            continue;
        }
        let from = address / page * page;
        place.is_lost.store(true, Ordering::Release);
        // SAFETY: these pages belong to the mapping of `place`, which is alive, because somebody reads it at this
        // moment. It is read as bytes alone, for which zeros are valid, and unmapping it later unmaps these pages too.
        // `mmap` is a call to the system that takes no lock and no memory of this process.
        let zeros = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
            libc::mmap(from as *mut libc::c_void, end - from, libc::PROT_READ, flags, -1, 0)
        };
        if zeros != libc::MAP_FAILED {
            return;
        }
    }
    // SAFETY: `sigaction` may be called in a handler, and its arguments are valid.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, PREVIOUS.get().unwrap_or(&default), std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, (0..len).map(|i| (i % 251) as u8 + 1).collect::<Vec<_>>()).unwrap();
        (folder, path)
    }

    fn sum(bytes: &[u8]) -> u64 {
        bytes.iter().map(|b| u64::from(*b)).sum()
    }

    #[test]
    fn a_mapped_file_that_is_cut_reads_as_zeros_and_is_found() {
        const LEN: usize = 1 << 20;
        let (_folder, path) = file(LEN);
        let mapped = WeightFile::open(&path, Reading::Mapped).unwrap();
        let files = WeightFiles::of([&mapped, &mapped].into_iter());
        let whole = sum(&mapped);
        files.check().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
        // Each of these would end the process without the handler.
        assert!((0..4).all(|_| std::thread::scope(|scope| scope.spawn(|| sum(&mapped)).join().unwrap()) < whole));
        assert_eq!(mapped[LEN - 1], 0);
        let message = files.check().unwrap_err().to_string();
        assert!(message.contains("cut from 1048576 to 100000 bytes") && message.contains("--no-mmap"), "{message}");
        // What is whole again was not while it was read.
        File::options().write(true).open(&path).unwrap().set_len(LEN as u64).unwrap();
        assert!(files.check().is_err());
        drop(mapped);
        files.check().unwrap();
    }

    #[test]
    fn a_file_that_is_written_to_is_found_and_one_that_is_touched_is_not() {
        let (_folder, path) = file(1 << 16);
        let mapped = WeightFile::open(&path, Reading::Mapped).unwrap();
        let files = WeightFiles::of(std::iter::once(&mapped));
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        files.check().unwrap();
        std::fs::write(&path, vec![7; 1 << 16]).unwrap();
        assert!(files.check().unwrap_err().to_string().contains("was written to"));
    }

    #[test]
    fn what_is_read_into_memory_does_not_change_with_its_file() {
        let (_folder, path) = file(1 << 16);
        let read = WeightFile::open(&path, Reading::InMemory).unwrap();
        let whole = sum(&read);
        // Dropping its pages would lose them.
        read.forget(0..1 << 16);
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(sum(&read), whole);
        WeightFiles::of(std::iter::once(&read)).check().unwrap();
    }
}
