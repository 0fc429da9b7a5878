//! What blocks are called: by a number, and by a key of 128 bits that stands for all tokens up to a block's end and for
//! all that decides their stored bits.
use std::fmt;

/// Index of a block, the same in every layer's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// What decides the bits of stored blocks beside their tokens: weights, formats, block size, page order and whatever
/// else changes what a token leaves in the cache. Blocks of one identity never serve another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheIdentity([u8; 32]);

impl CacheIdentity {
    /// The BLAKE3 hash of named fields. Each name and value is hashed with its length, so that no two lists of fields
    /// are the same text.
    pub fn new<'a>(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("tallow 2026 cache identity");
        for (name, value) in fields {
            for part in [name.as_bytes(), value] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        CacheIdentity(*hash.finalize().as_bytes())
    }

    /// The identity with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        CacheIdentity(bytes)
    }

    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CacheIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for CacheIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheIdentity({self})")
    }
}

/// The key of a full block: BLAKE3, cut to 128 bits, of the key of the block before and the token ids of this one. Two
/// blocks with the same key hold the same bytes. Keys are compared whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey([u8; 16]);

impl BlockKey {
    /// The key that comes before a sequence's first block. Requests with unlike `salt` share no block, so that no
    /// client can time another's prompts.
    pub fn root(identity: &CacheIdentity, salt: &str) -> Self {
        Self::hash(&identity.0, salt.as_bytes())
    }

    /// The key of the block that holds `tokens` and follows the block of this key.
    pub fn next(self, tokens: &[u32]) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        Self::hash(&self.0, &bytes)
    }

    /// The keys of the full blocks of `tokens`, which follow the block of this key.
    pub fn chain(self, tokens: &[u32], block_size: usize) -> impl Iterator<Item = BlockKey> {
        tokens.chunks_exact(block_size).scan(self, |key, block| {
            *key = key.next(block);
            Some(*key)
        })
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        BlockKey(bytes)
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// `before` has one length for roots, 32, and another for later keys, 16, so neither can stand for the other.
    fn hash(before: &[u8], text: &[u8]) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(&(before.len() as u64).to_le_bytes());
        hash.update(before);
        hash.update(text);
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        BlockKey(key)
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockKey({self})")
    }
}

/// Writes bytes as hexadecimal digits.
fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_all_that_came_before() {
        let identity = CacheIdentity::new([("weights", &[1, 2][..])]);
        let root = BlockKey::root(&identity, "");
        let key = |tokens: &[[u32; 2]]| tokens.iter().fold(root, |key, block| key.next(block));
        assert_eq!(key(&[[1, 2], [3, 4]]), key(&[[1, 2], [3, 4]]));
        let others = [key(&[[1, 2]]), key(&[[3, 4], [1, 2]]), key(&[[1, 3], [3, 4]]), root, root.next(&[1, 2, 3, 4])];
        assert!(others.iter().all(|other| *other != key(&[[1, 2], [3, 4]])));
    }

    #[test]
    fn identities_and_salts_share_nothing() {
        let one = CacheIdentity::new([("a", &b"bc"[..]), ("d", b"")]);
        let other = CacheIdentity::new([("ab", &b"c"[..]), ("d", b"")]);
        assert_ne!(one, other);
        assert_ne!(BlockKey::root(&one, ""), BlockKey::root(&other, ""));
        assert_ne!(BlockKey::root(&one, ""), BlockKey::root(&one, "client"));
        assert_eq!(CacheIdentity::from_bytes(*one.as_bytes()), one);
    }
}
