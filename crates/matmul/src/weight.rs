use crate::{MatmulError, WeightType};

/// A weight of `n` rows (outputs) of `k` elements (inputs), row-major: the layout of a Hugging Face `Linear` and of a
/// GGUF tensor. It borrows the bytes, which may lie at any alignment, as in a memory-mapped file.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    ty: WeightType,
    n: usize,
    k: usize,
    bytes: &'a [u8],
}

impl<'a> Weight<'a> {
    /// Takes `bytes` as `n` rows of `k` elements of type `ty`.
    ///
    /// # Errors
    /// [`MatmulError`] if `k` is 0 or not a multiple of the type's quantisation block, or if `bytes` has another length
    /// than `n * ty.row_bytes(k)`.
    pub fn new(ty: WeightType, n: usize, k: usize, bytes: &'a [u8]) -> Result<Self, MatmulError> {
        if k == 0 {
            return Err(MatmulError::EmptyRow { ty });
        }
        if !k.is_multiple_of(ty.block_len()) {
            return Err(MatmulError::PartialBlock { ty, k, block: ty.block_len() });
        }
        let expected = ty.row_bytes(k).and_then(|row| row.checked_mul(n));
        let expected = expected.ok_or(MatmulError::TooLarge { ty, n, k })?;
        if bytes.len() != expected {
            return Err(MatmulError::Length { ty, n, k, expected, found: bytes.len() });
        }
        Ok(Self { ty, n, k, bytes })
    }

    /// Returns how the elements are stored.
    pub fn weight_type(&self) -> WeightType {
        self.ty
    }

    /// Returns the number of rows, which is the length of an output row.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Returns the number of elements of a row, which is the length of an input row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Returns the bytes of all rows.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.k / self.ty.block_len() * self.ty.block_bytes()
    }

    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes()..][..self.row_bytes()]
    }

    /// Returns rows `from..to` as a weight of their own.
    ///
    /// # Panics
    /// If `from > to` or `to > n`.
    pub fn rows(&self, from: usize, to: usize) -> Weight<'a> {
        let row = self.row_bytes();
        Weight { n: to - from, bytes: &self.bytes[from * row..to * row], ..*self }
    }
}
