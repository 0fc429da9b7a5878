//! What is stored: values of two kinds, and what they are found by.
use kv::BlockKey;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// A block's bytes in all layers.
    Block,
    /// The recurrent states at the end of a block, under that block's key.
    Snapshot,
}

impl EntryKind {
    /// What the value of this kind and key is found by.
    pub(crate) fn id(self, key: BlockKey) -> EntryId {
        EntryId { kind: self, key }
    }
}

/// A value that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEntry {
    /// What the value is.
    pub kind: EntryKind,
    /// The key of the block, or of the block at whose end the snapshot is.
    pub key: BlockKey,
    /// The key of the block before that block.
    pub parent: BlockKey,
    /// How many tokens a sequence has at the end of the block.
    pub tokens: u32,
    /// The value.
    pub bytes: Vec<u8>,
}

impl DiskEntry {
    pub(crate) fn id(&self) -> EntryId {
        self.kind.id(self.key)
    }

    /// What the value without which this one is of no use is found by.
    pub(crate) fn parent_id(&self) -> EntryId {
        self.id().parent(self.parent)
    }
}

/// What a value is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId {
    pub kind: EntryKind,
    pub key: BlockKey,
}

impl EntryId {
    /// The block of this key.
    pub fn block(key: BlockKey) -> Self {
        EntryId { kind: EntryKind::Block, key }
    }

    /// The block without which this value is of no use: a block's parent, or the block at whose end a snapshot is.
    pub fn parent(self, parent: BlockKey) -> Self {
        match self.kind {
            EntryKind::Block => EntryId::block(parent),
            EntryKind::Snapshot => EntryId::block(self.key),
        }
    }
}
