//! Buffers.
use crate::double::{ALLOCATED, broken};
use crate::types::MTLResourceOptions;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSRange, NSString};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The longest buffer, bytes: that of a Mac of 8 GB.
pub const MAX_BUFFER_LENGTH: usize = 4 << 30;
const PAGE: usize = 4096;
/// New memory is filled with it. Floats of it are not numbers, and indices are out of range.
const POISON: u8 = 0xff;

/// The memory of a buffer, which lives as long as a buffer or a command that has not run.
#[derive(Debug)]
pub struct Memory {
    /// Told apart from all memory that was ever there.
    pub id: u64,
    start: NonNull<u8>,
    length: usize,
    private: bool,
    /// Whether its user orders the encoders that use it, by fences.
    pub untracked: bool,
    /// Commands that use it and have not completed.
    uses: AtomicUsize,
}

// SAFETY: the memory is reached through copies and through the pointer that `contents` gives, as on the real device:
// who uses the latter has to wait for the GPU.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(length: usize, options: MTLResourceOptions) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if length == 0 || length > MAX_BUFFER_LENGTH {
            broken("a new buffer", format_args!("has {length} bytes; 1 to {MAX_BUFFER_LENGTH} are allowed"));
        }
        let layout = layout(length);
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: that many bytes were taken.
        unsafe { start.as_ptr().write_bytes(POISON, length) };
        ALLOCATED.fetch_add(length, Ordering::Relaxed);
        let is = |option: MTLResourceOptions| options.0 & option.0 != 0;
        Arc::new(Memory {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            start,
            length,
            private: is(MTLResourceOptions::StorageModePrivate),
            untracked: is(MTLResourceOptions::HazardTrackingModeUntracked),
            uses: AtomicUsize::new(0),
        })
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// The bytes from `offset` on, as they are now.
    pub fn bytes(&self, offset: usize) -> &[u8] {
        // SAFETY: the range lies in the memory. Only the thread that runs commands writes while commands run, and it
        // does so between reads.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), self.length - offset) }
    }

    /// Puts bytes at `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "the caller has checked the range");
        // SAFETY: the range lies in the memory; `bytes` may lie there too.
        unsafe { self.start.as_ptr().add(offset).copy_from(bytes.as_ptr(), bytes.len()) };
    }

    /// Commands that use the memory and have not completed.
    pub fn uses(&self) -> usize {
        self.uses.load(Ordering::Relaxed)
    }

    pub fn begin_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end_use(&self) {
        self.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        ALLOCATED.fetch_sub(self.length, Ordering::Relaxed);
        // SAFETY: it was taken with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout(self.length)) };
    }
}

fn layout(length: usize) -> Layout {
    Layout::from_size_align(length, PAGE).expect("a length that was checked")
}

/// A buffer.
#[allow(missing_docs)] // Apple's names
pub trait MTLBuffer {
    fn length(&self) -> usize;
    fn contents(&self) -> NonNull<c_void>;
    fn didModifyRange(&self, range: NSRange);
}

/// Something in memory.
#[allow(missing_docs)] // Apple's names
pub trait MTLResource {
    fn setLabel(&self, label: Option<&NSString>);
}

pub fn buffer(memory: Arc<Memory>) -> Retained<ProtocolObject<dyn MTLBuffer>> {
    Retained::of(ProtocolObject::of(memory))
}

/// The memory of a buffer.
pub fn memory_of<P: ?Sized>(buffer: &ProtocolObject<P>) -> &Arc<Memory> {
    buffer.get()
}

impl MTLBuffer for ProtocolObject<dyn MTLBuffer> {
    fn length(&self) -> usize {
        memory_of(self).length
    }

    /// Null of a private buffer, which the real crate's type hides; here it ends the thread.
    fn contents(&self) -> NonNull<c_void> {
        let memory = memory_of(self);
        if memory.private {
            broken("contents()", format_args!("the CPU does not see a private buffer of {} bytes", memory.length));
        }
        memory.start.cast()
    }

    /// Shared memory needs none.
    fn didModifyRange(&self, _: NSRange) {}
}

impl MTLResource for ProtocolObject<dyn MTLBuffer> {
    fn setLabel(&self, _: Option<&NSString>) {}
}
