//! Reference counts and autorelease pools.
use crate::double;
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// A counted reference to an object.
#[derive(Debug, Hash, PartialEq, Eq)]
pub struct Retained<T>(Arc<T>);

impl<T> Clone for Retained<T> {
    fn clone(&self) -> Self {
        Retained(Arc::clone(&self.0))
    }
}

impl<T: fmt::Display> fmt::Display for Retained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T> Deref for Retained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Retained<T> {
    /// The first reference to a new object. The real crate has no such function.
    pub fn of(object: T) -> Self {
        Retained(Arc::new(object))
    }

    /// The object's address.
    pub fn as_ptr(this: &Self) -> *const T {
        Arc::as_ptr(&this.0)
    }
}

impl<T: Send + Sync + 'static> Retained<T> {
    /// Returns the reference, and gives another one to the innermost pool of this thread, as a method does whose name
    /// begins with neither `new`, `alloc` nor `copy`. The real crate does this in its generated code.
    pub fn autoreleased(self) -> Self {
        let object = self.clone();
        POOLS.with_borrow_mut(|pools| {
            if pools.len() == 1 {
                double::leaked();
            }
            pools.last_mut().expect("the first is never taken away").push(Box::new(object));
        });
        self
    }
}

type Pool = Vec<Box<dyn Any>>;

thread_local! {
    /// The pools of this thread, the innermost last. The first is no pool: it has what is kept until the thread ends.
    static POOLS: RefCell<Vec<Pool>> = RefCell::new(vec![Pool::new()]);
}

/// The pool that is passed to a closure.
#[derive(Debug, Clone, Copy)]
pub struct AutoreleasePool<'pool>(PhantomData<&'pool ()>);

/// Takes a pool away, and lets its objects go, also when a panic unwinds.
struct Drained;

impl Drop for Drained {
    fn drop(&mut self) {
        drop(POOLS.with_borrow_mut(Vec::pop));
    }
}

/// Runs a closure with a pool of its own.
pub fn autoreleasepool<T>(work: impl for<'pool> FnOnce(AutoreleasePool<'pool>) -> T) -> T {
    POOLS.with_borrow_mut(|pools| pools.push(Pool::new()));
    let _drained = Drained;
    work(AutoreleasePool(PhantomData))
}
