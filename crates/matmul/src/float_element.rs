//! The float types of weights, whose elements convert to f32 one by one.

use half::{bf16, f16};

/// The conversion that a vector kernel applies.
pub(crate) enum FloatFormat {
    F32,
    F16,
    Bf16,
}

/// A float type as weights store it, little-endian.
pub(crate) trait FloatElement: Sync + 'static {
    const FORMAT: FloatFormat;
    /// Bytes of an element.
    const BYTES: usize;

    /// Converts `bytes`, which holds exactly one element.
    fn to_f32(bytes: &[u8]) -> f32;

    /// Returns the bytes of the element nearest to `value`.
    fn from_f32(value: f32) -> impl IntoIterator<Item = u8>;
}

pub(crate) struct ElementF32;
pub(crate) struct ElementF16;
pub(crate) struct ElementBf16;

impl FloatElement for ElementF32 {
    const FORMAT: FloatFormat = FloatFormat::F32;
    const BYTES: usize = 4;

    #[inline]
    fn to_f32(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn from_f32(value: f32) -> impl IntoIterator<Item = u8> {
        value.to_le_bytes()
    }
}

impl FloatElement for ElementF16 {
    const FORMAT: FloatFormat = FloatFormat::F16;
    const BYTES: usize = 2;

    #[inline]
    fn to_f32(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    fn from_f32(value: f32) -> impl IntoIterator<Item = u8> {
        f16::from_f32(value).to_le_bytes()
    }
}

impl FloatElement for ElementBf16 {
    const FORMAT: FloatFormat = FloatFormat::Bf16;
    const BYTES: usize = 2;

    #[inline]
    fn to_f32(bytes: &[u8]) -> f32 {
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    fn from_f32(value: f32) -> impl IntoIterator<Item = u8> {
        bf16::from_f32(value).to_le_bytes()
    }
}
