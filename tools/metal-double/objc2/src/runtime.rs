//! Objects that are known by a protocol.
use crate::double;
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// An object of which nothing is known.
#[derive(Debug)]
pub struct AnyObject(());

/// An object that adopts protocol `P`. What it is made of is found again by [`ProtocolObject::get`].
#[repr(C)]
pub struct ProtocolObject<P: ?Sized> {
    object: Box<dyn Any + Send + Sync>,
    class: &'static str,
    protocol: PhantomData<fn(&P)>,
}

impl<P: ?Sized> ProtocolObject<P> {
    /// An object, counted by its protocol until it dies. The real crate has no such function.
    pub fn of(object: impl Any + Send + Sync) -> Self {
        let class = std::any::type_name::<P>();
        double::born(class);
        ProtocolObject { object: Box::new(object), class, protocol: PhantomData }
    }

    /// What the object is made of. The real crate has no such function.
    ///
    /// # Panics
    /// If it is made of something else.
    pub fn get<T: Any>(&self) -> &T {
        self.object.downcast_ref().unwrap_or_else(|| panic!("{} is not {}", self.class, std::any::type_name::<T>()))
    }

    /// The object by another protocol.
    pub fn from_ref<Q: ?Sized>(object: &ProtocolObject<Q>) -> &Self {
        // SAFETY: the types differ in their marker alone, which has no size, and their layout is C's.
        unsafe { &*std::ptr::from_ref(object).cast() }
    }
}

impl<P: ?Sized> Drop for ProtocolObject<P> {
    fn drop(&mut self) {
        double::died(self.class);
    }
}

impl<P: ?Sized> fmt::Debug for ProtocolObject<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:p}", self.class, self)
    }
}

impl<P: ?Sized> PartialEq for ProtocolObject<P> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl<P: ?Sized> Eq for ProtocolObject<P> {}

impl<P: ?Sized> Hash for ProtocolObject<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self).hash(state);
    }
}

/// An object's address. The real crate has no such function.
pub fn address<P: ?Sized>(object: &ProtocolObject<P>) -> *const AnyObject {
    std::ptr::from_ref(object).cast()
}
