//! Sets of buffers that stay resident.
use crate::double::broken;
use crate::memory::{Memory, memory_of};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a set is made with.
#[derive(Debug)]
pub struct MTLResidencySetDescriptor(());

impl MTLResidencySetDescriptor {
    /// The plain one.
    #[allow(clippy::new_ret_no_self)] // the real crate's name
    pub fn new() -> Retained<Self> {
        Retained::of(MTLResidencySetDescriptor(()))
    }
}

/// What a set has.
pub trait MTLAllocation {}

/// A set, which keeps the memory of its buffers.
#[allow(missing_docs)] // Apple's names
pub trait MTLResidencySet {
    fn requestResidency(&self);
    fn addAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>);
    fn removeAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>);
    fn commit(&self);
}

type Set = Mutex<HashMap<u64, Arc<Memory>>>;

pub fn set() -> Retained<ProtocolObject<dyn MTLResidencySet>> {
    Retained::of(ProtocolObject::of(Set::default()))
}

impl MTLResidencySet for ProtocolObject<dyn MTLResidencySet> {
    fn requestResidency(&self) {}

    fn addAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
        let (set, memory) = (self.get::<Set>(), memory_of(allocation));
        set.lock().unwrap_or_else(PoisonError::into_inner).insert(memory.id, Arc::clone(memory));
    }

    fn removeAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
        let (set, memory) = (self.get::<Set>(), memory_of(allocation));
        let was_there = set.lock().unwrap_or_else(PoisonError::into_inner).remove(&memory.id).is_some();
        let length = memory.length();
        if !was_there {
            broken("removeAllocation", format_args!("a buffer of {length} bytes is not in the residency set"));
        }
        if memory.uses() > 0 {
            let uses = memory.uses();
            let rule = format!("{uses} commands that use it have not completed");
            broken(
                "removeAllocation",
                format_args!("a buffer of {length} bytes leaves the residency set while {rule}"),
            );
        }
    }

    fn commit(&self) {}
}
