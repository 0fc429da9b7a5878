use std::fmt;

use half::{bf16, f16};

use crate::MatmulError;

/// How a weight's elements are stored. Little-endian; block types as ggml lays them out in GGUF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // ggml's names
pub enum WeightType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl WeightType {
    pub const ALL: [WeightType; 13] = [
        WeightType::F32,
        WeightType::F16,
        WeightType::Bf16,
        WeightType::Q8_0,
        WeightType::Q4_0,
        WeightType::Q4_1,
        WeightType::Q5_0,
        WeightType::Q5_1,
        WeightType::Q2_K,
        WeightType::Q3_K,
        WeightType::Q4_K,
        WeightType::Q5_K,
        WeightType::Q6_K,
    ];

    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "F32",
            WeightType::F16 => "F16",
            WeightType::Bf16 => "BF16",
            WeightType::Q8_0 => "Q8_0",
            WeightType::Q4_0 => "Q4_0",
            WeightType::Q4_1 => "Q4_1",
            WeightType::Q5_0 => "Q5_0",
            WeightType::Q5_1 => "Q5_1",
            WeightType::Q2_K => "Q2_K",
            WeightType::Q3_K => "Q3_K",
            WeightType::Q4_K => "Q4_K",
            WeightType::Q5_K => "Q5_K",
            WeightType::Q6_K => "Q6_K",
        }
    }

    /// Elements of one block.
    pub fn block_len(self) -> usize {
        match self {
            WeightType::F32 | WeightType::F16 | WeightType::Bf16 => 1,
            WeightType::Q8_0 | WeightType::Q4_0 | WeightType::Q4_1 | WeightType::Q5_0 | WeightType::Q5_1 => 32,
            WeightType::Q2_K | WeightType::Q3_K | WeightType::Q4_K | WeightType::Q5_K | WeightType::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::F16 | WeightType::Bf16 => 2,
            WeightType::Q8_0 => 34,
            WeightType::Q4_0 => 18,
            WeightType::Q4_1 => 20,
            WeightType::Q5_0 => 22,
            WeightType::Q5_1 => 24,
            WeightType::Q2_K => 84,
            WeightType::Q3_K => 110,
            WeightType::Q4_K => 144,
            WeightType::Q5_K => 176,
            WeightType::Q6_K => 210,
        }
    }

    /// Bytes of a row of `k` elements; `None` if `k` is not a multiple of the block (or the size overflows).
    pub fn row_bytes(self, k: usize) -> Option<usize> {
        k.is_multiple_of(self.block_len()).then(|| (k / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A weight of `n` rows (outputs) and `k` columns (inputs), row-major: the layout of a Hugging Face `Linear` and of a GGUF
/// tensor. It borrows the bytes, which may lie at any alignment (a memory-mapped file).
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    ty: WeightType,
    n: usize,
    k: usize,
    bytes: &'a [u8],
}

impl<'a> Weight<'a> {
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

    pub fn weight_type(&self) -> WeightType {
        self.ty
    }

    /// Rows: the length of an output row.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: the length of an input row.
    pub fn k(&self) -> usize {
        self.k
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.k / self.ty.block_len() * self.ty.block_bytes()
    }

    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes()..][..self.row_bytes()]
    }

    /// Rows `from..to` as a weight of their own.
    ///
    /// # Panics
    /// If `from > to` or `to > n`.
    pub fn rows(&self, from: usize, to: usize) -> Weight<'a> {
        let row = self.row_bytes();
        Weight { n: to - from, bytes: &self.bytes[from * row..to * row], ..*self }
    }
}

/// What the vector kernels convert.
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
}

/// An element type whose values convert to f32 one by one.
pub(crate) trait Element: Sync + 'static {
    const FORMAT: Format;
    const BYTES: usize;

    /// `bytes` holds exactly one element.
    fn to_f32(bytes: &[u8]) -> f32;

    /// The nearest element's bytes.
    fn from_f32(value: f32) -> impl IntoIterator<Item = u8>;
}

pub(crate) struct ElementF32;
pub(crate) struct ElementF16;
pub(crate) struct ElementBf16;

impl Element for ElementF32 {
    const FORMAT: Format = Format::F32;
    const BYTES: usize = 4;

    #[inline]
    fn to_f32(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn from_f32(value: f32) -> impl IntoIterator<Item = u8> {
        value.to_le_bytes()
    }
}

impl Element for ElementF16 {
    const FORMAT: Format = Format::F16;
    const BYTES: usize = 2;

    #[inline]
    fn to_f32(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    fn from_f32(value: f32) -> impl IntoIterator<Item = u8> {
        f16::from_f32(value).to_le_bytes()
    }
}

impl Element for ElementBf16 {
    const FORMAT: Format = Format::Bf16;
    const BYTES: usize = 2;

    #[inline]
    fn to_f32(bytes: &[u8]) -> f32 {
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    fn from_f32(value: f32) -> impl IntoIterator<Item = u8> {
        bf16::from_f32(value).to_le_bytes()
    }
}
