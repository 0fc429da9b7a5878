//! A stand-in for the crate `block2`: blocks of one argument that return nothing.
#![warn(missing_docs)]
use std::sync::Arc;

/// A block of type `F`, such as `dyn Fn(A)`.
pub struct Block<F: ?Sized>(Box<F>);

/// A counted reference to a block.
pub struct RcBlock<F: ?Sized>(Arc<Block<F>>);

impl<A: 'static> RcBlock<dyn Fn(A)> {
    /// A block that calls a closure.
    pub fn new(closure: impl Fn(A) + 'static) -> Self {
        #[allow(clippy::arc_with_non_send_sync)] // whoever calls it from another thread has to say why it may
        RcBlock(Arc::new(Block(Box::new(closure))))
    }

    /// The block's address, which is valid as long as a reference is kept.
    pub fn as_ptr(this: &Self) -> *mut Block<dyn Fn(A)> {
        Arc::as_ptr(&this.0).cast_mut()
    }

    /// Another reference to a block.
    ///
    /// # Safety
    /// The address must come from [`RcBlock::as_ptr`] of a block that lives.
    pub unsafe fn copy(block: *mut Block<dyn Fn(A)>) -> Self {
        // SAFETY: the address is that of an `Arc`'s content, as the caller promises.
        unsafe {
            Arc::increment_strong_count(block.cast_const());
            RcBlock(Arc::from_raw(block.cast_const()))
        }
    }

    /// Calls the block.
    pub fn call(&self, argument: A) {
        (self.0.0)(argument);
    }
}
