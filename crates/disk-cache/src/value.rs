//! The values that are stored: their two kinds, and the ids that they are found by.
use kv::BlockKey;

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiskValueKind {
    /// A block's bytes in all layers.
    Block,
    /// The recurrent states at the end of a block, under that block's key.
    Snapshot,
}

impl DiskValueKind {
    /// Returns the id of the value of this kind and key.
    pub(crate) fn id(self, key: BlockKey) -> DiskValueId {
        DiskValueId { kind: self, key }
    }
}

/// A value that a [`crate::DiskCache`] is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedValue {
    /// The kind of the value.
    pub kind: DiskValueKind,
    /// The key of the block, or of the block at whose end the snapshot is.
    pub key: BlockKey,
    /// The key of the block before that block.
    pub parent: BlockKey,
    /// How many tokens a sequence has at the end of the block.
    pub tokens: u32,
    /// The value's bytes.
    pub bytes: Vec<u8>,
}

impl OfferedValue {
    pub(crate) fn id(&self) -> DiskValueId {
        self.kind.id(self.key)
    }

    /// Returns the id of the value without which this one is of no use.
    pub(crate) fn parent_id(&self) -> DiskValueId {
        self.id().parent(self.parent)
    }
}

/// The id that a value is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DiskValueId {
    pub kind: DiskValueKind,
    pub key: BlockKey,
}

impl DiskValueId {
    /// Returns the id of the block of this key.
    pub fn block(key: BlockKey) -> Self {
        DiskValueId { kind: DiskValueKind::Block, key }
    }

    /// Returns the id of the block without which this value is of no use: a block's parent, or the block at whose end a
    /// snapshot is.
    pub fn parent(self, parent: BlockKey) -> Self {
        match self.kind {
            DiskValueKind::Block => DiskValueId::block(parent),
            DiskValueKind::Snapshot => DiskValueId::block(self.key),
        }
    }
}
