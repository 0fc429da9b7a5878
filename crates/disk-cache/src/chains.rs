//! The chains of blocks in a file.
use crate::index::DiskIndex;
use crate::options::CacheLabel;
use crate::value::{DiskValueId, DiskValueKind};
use kv::CacheIdentity;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A block that no other block follows, and all that come before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSummary {
    /// Whose blocks they are.
    pub identity: CacheIdentity,
    /// How people know the identity.
    pub label: CacheLabel,
    /// How many tokens the chain has, up to its end.
    pub tokens: u32,
    /// The bytes of its blocks and snapshots. Values that several chains share count for the one
    /// that was used last.
    pub bytes: u64,
    /// When the chain was used last.
    pub last_used: SystemTime,
}

/// The chains of a file, the one used last first.
pub(crate) fn chains_of(identity: CacheIdentity, label: &CacheLabel, index: &DiskIndex) -> Vec<ChainSummary> {
    let values = index.values();
    let mut followed = HashSet::new();
    let mut snapshots = HashMap::new();
    for (id, value) in values {
        match id.kind {
            DiskValueKind::Block => {
                followed.insert(DiskValueId::block(value.parent));
            }
            DiskValueKind::Snapshot => {
                snapshots.insert(DiskValueId::block(id.key), value);
            }
        }
    }
    // A snapshot whose block is gone stands for itself.
    let is_end = |id: &DiskValueId| match id.kind {
        DiskValueKind::Block => !followed.contains(id),
        DiskValueKind::Snapshot => !values.contains_key(&DiskValueId::block(id.key)),
    };
    let last_used = |id: &DiskValueId| {
        let own = values.get(id).map_or(0, |value| value.last_used);
        own.max(snapshots.get(id).map_or(0, |value| value.last_used))
    };
    let mut ends: Vec<_> =
        values.iter().filter(|(id, _)| is_end(id)).map(|(id, value)| (last_used(id), *id, value)).collect();
    ends.sort_by_key(|(last_used, id, _)| (std::cmp::Reverse(*last_used), *id));
    let mut counted = HashSet::new();
    ends.into_iter()
        .map(|(last_used, end, value)| {
            let mut chain = ChainSummary {
                identity,
                label: label.clone(),
                tokens: value.tokens,
                bytes: 0,
                last_used: UNIX_EPOCH + Duration::from_micros(last_used),
            };
            let mut at = end;
            while let Some(value) = values.get(&at).filter(|_| counted.insert(at)) {
                let snapshot = if at.kind == DiskValueKind::Block { snapshots.get(&at) } else { None };
                chain.bytes += value.len + snapshot.map_or(0, |value| value.len);
                at = at.parent(value.parent);
            }
            chain
        })
        .collect()
}
