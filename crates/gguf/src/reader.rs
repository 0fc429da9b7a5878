//! Reading a file's bytes from front to back.
use crate::{GgufError, malformed};

/// The bytes of a file, and how far they have been read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, offset: 0 }
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The next `len` bytes. `what` is what is being read, for the error.
    pub fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.offset..];
        let fits = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let bytes = fits.ok_or_else(|| GgufError::Truncated {
            what: what.to_owned(),
            offset: self.offset,
            needed: len,
            left: rest.len(),
        })?;
        self.offset += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N as u64, what)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub fn string(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|e| malformed(what, format!("is not UTF-8: {e}")))
    }
}
