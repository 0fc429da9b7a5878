//! The bytes of a file: a head page, then groups of a table and the cells that it describes.
//!
//! ```text
//! head page (4 KiB) | table of 128 headers (16 KiB), 128 cells | table, 128 cells | ...
//! ```
//! A header describes what its cell holds: a value, or a part of one. It carries a checksum, so that a header that is
//! damaged or half written counts as none, and its cell as free. A file has no other state: nothing must be repaired
//! after a crash.
use crate::index::ValueRecord;
use crate::options::CacheLabel;
use crate::value::{DiskValueId, DiskValueKind};
use kv::{BlockKey, CacheIdentity};

/// The bytes of the head page.
pub(crate) const HEAD_BYTES: usize = 4096;
/// The bytes of a header.
pub(crate) const HEADER_BYTES: usize = 128;
/// How many cells a table describes.
pub(crate) const GROUP: u32 = 128;
const TABLE_BYTES: u64 = GROUP as u64 * HEADER_BYTES as u64;

const MAGIC: &[u8; 8] = b"tallowkv";
const VERSION: u32 = 1;
/// How many bytes of each text of the label are stored.
const LABEL_BYTES: usize = 1900;

/// Where headers and cells of a file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The bytes of a cell.
    pub cell_bytes: u64,
}

impl Geometry {
    /// The geometry for blocks of `block_bytes`. Cells begin at multiples of 4 KiB, as a disk's pages do, where that
    /// costs little.
    pub fn for_blocks(block_bytes: usize) -> Self {
        let align = if block_bytes >= 64 << 10 { 4096 } else { 512 };
        Geometry { cell_bytes: (block_bytes.max(1) as u64).next_multiple_of(align) }
    }

    /// How many cells a value of `bytes` takes.
    pub fn cells_of_value(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cell_bytes).max(1)
    }

    fn group_bytes(&self) -> u64 {
        TABLE_BYTES + u64::from(GROUP) * self.cell_bytes
    }

    /// Where the header of a cell lies.
    pub fn header_at(&self, cell: u32) -> u64 {
        HEAD_BYTES as u64 + u64::from(cell / GROUP) * self.group_bytes() + u64::from(cell % GROUP) * HEADER_BYTES as u64
    }

    /// Where a cell lies.
    pub fn cell_at(&self, cell: u32) -> u64 {
        let table = self.header_at(cell / GROUP * GROUP);
        table + TABLE_BYTES + u64::from(cell % GROUP) * self.cell_bytes
    }

    /// The size of a file of so many cells. An empty file has not even a head page.
    pub fn file_bytes(&self, cells: u32) -> u64 {
        match cells.checked_sub(1) {
            None => 0,
            Some(last) => self.cell_at(last) + self.cell_bytes,
        }
    }

    /// How many whole cells a file of `bytes` has.
    pub fn cells_in(&self, bytes: u64) -> u32 {
        let rest = bytes.saturating_sub(HEAD_BYTES as u64);
        let (groups, rest) = (rest / self.group_bytes(), rest % self.group_bytes());
        let cells = groups * u64::from(GROUP) + rest.saturating_sub(TABLE_BYTES) / self.cell_bytes;
        u32::try_from(cells).unwrap_or(u32::MAX)
    }
}

/// The fields of the head page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub identity: CacheIdentity,
    pub geometry: Geometry,
    pub label: CacheLabel,
}

impl FileHead {
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut fields = Vec::with_capacity(HEAD_BYTES);
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&self.geometry.cell_bytes.to_le_bytes());
        fields.extend_from_slice(self.identity.as_bytes());
        for text in [&self.label.model, &self.label.formats] {
            let end = (0..=text.len().min(LABEL_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            fields.extend_from_slice(&(end as u32).to_le_bytes());
            fields.extend_from_slice(&text.as_bytes()[..end]);
        }
        let mut page = [0; HEAD_BYTES];
        page[..fields.len()].copy_from_slice(&fields);
        let checksum = blake3::hash(&page[..HEAD_BYTES - 32]);
        page[HEAD_BYTES - 32..].copy_from_slice(checksum.as_bytes());
        page
    }

    /// Reads a head page; `None` if it is not of this version, or is damaged.
    pub fn decode(page: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (fields, checksum) = page.split_at(HEAD_BYTES - 32);
        if blake3::hash(fields).as_bytes() != checksum {
            return None;
        }
        let fields = fields.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
        let (cell_bytes, fields) = fields.split_first_chunk()?;
        let (identity, fields) = fields.split_first_chunk()?;
        let (model, fields) = take_text(fields)?;
        let (formats, _) = take_text(fields)?;
        let geometry = Geometry { cell_bytes: u64::from_le_bytes(*cell_bytes) };
        let label = CacheLabel { model, formats };
        (geometry.cell_bytes > 0).then(|| FileHead { identity: CacheIdentity::from_bytes(*identity), geometry, label })
    }
}

fn take_text(fields: &[u8]) -> Option<(String, &[u8])> {
    let (length, fields) = fields.split_first_chunk()?;
    let (text, fields) = fields.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((String::from_utf8(text.to_vec()).ok()?, fields))
}

/// The fields of a header: the value that its cell holds, or of which it holds a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CellHeader {
    pub id: DiskValueId,
    pub parent: BlockKey,
    pub tokens: u32,
    /// The length of the whole value in bytes.
    pub len: u64,
    /// BLAKE3 of the whole value.
    pub hash: [u8; 32],
    /// When the value was used last, in microseconds since 1970.
    pub last_used: u64,
    /// The number of the part that the cell holds, from 0.
    pub part: u32,
}

impl CellHeader {
    /// The header of one part of a value.
    pub fn of_part(id: DiskValueId, value: &ValueRecord, part: u32) -> Self {
        let ValueRecord { parent, tokens, len, hash, last_used, .. } = *value;
        CellHeader { id, parent, tokens, len, hash, last_used, part }
    }

    /// The header's bytes, for this cell of the file of this identity: elsewhere they are not valid.
    pub fn encode(&self, identity: &CacheIdentity, cell: u32) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0] = match self.id.kind {
            DiskValueKind::Block => 1,
            DiskValueKind::Snapshot => 2,
        };
        header[4..8].copy_from_slice(&self.tokens.to_le_bytes());
        header[8..12].copy_from_slice(&self.part.to_le_bytes());
        header[16..32].copy_from_slice(self.id.key.as_bytes());
        header[32..48].copy_from_slice(self.parent.as_bytes());
        header[48..56].copy_from_slice(&self.len.to_le_bytes());
        header[56..64].copy_from_slice(&self.last_used.to_le_bytes());
        header[64..96].copy_from_slice(&self.hash);
        let checksum = checksum(&header, identity, cell);
        header[112..].copy_from_slice(&checksum);
        header
    }

    /// Reads a header's bytes; `None` if they are not valid.
    pub fn decode(header: &[u8; HEADER_BYTES], identity: &CacheIdentity, cell: u32) -> Option<Self> {
        let kind = match header[0] {
            1 => DiskValueKind::Block,
            2 => DiskValueKind::Snapshot,
            _ => return None,
        };
        if header[112..] != checksum(header, identity, cell) {
            return None;
        }
        Some(CellHeader {
            id: DiskValueId { kind, key: BlockKey::from_bytes(*header[16..].first_chunk()?) },
            parent: BlockKey::from_bytes(*header[32..].first_chunk()?),
            tokens: u32::from_le_bytes(*header[4..].first_chunk()?),
            len: u64::from_le_bytes(*header[48..].first_chunk()?),
            hash: *header[64..].first_chunk()?,
            last_used: u64::from_le_bytes(*header[56..].first_chunk()?),
            part: u32::from_le_bytes(*header[8..].first_chunk()?),
        })
    }
}

fn checksum(header: &[u8; HEADER_BYTES], identity: &CacheIdentity, cell: u32) -> [u8; 16] {
    let mut hash = blake3::Hasher::new_keyed(identity.as_bytes());
    hash.update(&cell.to_le_bytes());
    hash.update(&header[..112]);
    let mut checksum = [0; 16];
    checksum.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_lie_one_after_the_other_and_a_size_has_as_many_as_it_says() {
        for block_bytes in [1, 512, 5_000, 65_536, 270_000] {
            let geometry = Geometry::for_blocks(block_bytes);
            assert!(geometry.cell_bytes >= block_bytes as u64);
            let mut end = HEAD_BYTES as u64;
            for cell in 0..3 * GROUP {
                if cell % GROUP == 0 {
                    assert_eq!(geometry.header_at(cell), end);
                    end += TABLE_BYTES;
                }
                assert_eq!(geometry.cell_at(cell), end);
                end += geometry.cell_bytes;
                assert_eq!(geometry.file_bytes(cell + 1), end);
                assert_eq!(geometry.cells_in(end), cell + 1);
                assert_eq!(geometry.cells_in(end - 1), cell);
            }
        }
    }

    #[test]
    fn a_header_is_valid_in_its_place_alone_and_no_bit_of_it_may_change() {
        let identity = CacheIdentity::from_bytes([3; 32]);
        let key = BlockKey::from_bytes([5; 16]);
        let id = DiskValueId { kind: DiskValueKind::Snapshot, key };
        let header = CellHeader { id, parent: key, tokens: 48, len: 77, hash: [9; 32], last_used: 1 << 50, part: 2 };
        let bytes = header.encode(&identity, 7);
        assert_eq!(CellHeader::decode(&bytes, &identity, 7), Some(header));
        assert_eq!(CellHeader::decode(&bytes, &identity, 8), None);
        assert_eq!(CellHeader::decode(&bytes, &CacheIdentity::from_bytes([4; 32]), 7), None);
        for bit in 0..8 * HEADER_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CellHeader::decode(&flipped, &identity, 7), None, "bit {bit}");
        }
    }

    #[test]
    fn a_head_page_keeps_its_label_and_no_bit_of_it_may_change() {
        let label = CacheLabel { model: "é".repeat(2000), formats: "tc4".into() };
        let identity = CacheIdentity::from_bytes([3; 32]);
        let head = FileHead { identity, geometry: Geometry::for_blocks(70_000), label };
        let page = head.encode();
        let read = FileHead::decode(&page).expect("a head page");
        assert_eq!((read.identity, read.geometry), (head.identity, head.geometry));
        assert_eq!((read.label.model.len(), read.label.formats.as_str()), (1900, "tc4"));
        for byte in 0..HEAD_BYTES {
            let mut flipped = page;
            flipped[byte] ^= 1 << (byte % 8);
            assert_eq!(FileHead::decode(&flipped), None, "byte {byte}");
        }
    }
}
