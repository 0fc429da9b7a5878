//! The types of elements.
use half::{bf16, f16};

/// A type of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    F32,
    F16,
    Bf16,
    I64,
    U32,
    U8,
}

impl Element {
    /// The type by Candle's or MLX's name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "f32" | "float32" => Element::F32,
            "f16" | "float16" => Element::F16,
            "bf16" | "bfloat16" => Element::Bf16,
            "i64" => Element::I64,
            "u32" => Element::U32,
            "u8" => Element::U8,
            _ => return None,
        })
    }

    pub fn size(self) -> usize {
        match self {
            Element::I64 => 8,
            Element::F32 | Element::U32 => 4,
            Element::F16 | Element::Bf16 => 2,
            Element::U8 => 1,
        }
    }

    /// How many elements a thread of Candle's elementwise kernels takes.
    pub fn a_thread(self) -> usize {
        8 / self.size()
    }

    /// Element `index`, exact below 2^53.
    pub fn get(self, bytes: &[u8], index: usize) -> f64 {
        let bytes = &bytes[index * self.size()..][..self.size()];
        match *bytes {
            [a] => f64::from(a),
            [a, b] if self == Element::F16 => f16::from_le_bytes([a, b]).to_f64(),
            [a, b] => bf16::from_le_bytes([a, b]).to_f64(),
            [a, b, c, d] if self == Element::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            [a, b, c, d] => f64::from(u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64,
            _ => unreachable!("a size that `size` gives"),
        }
    }

    /// Sets element `index` to the nearest value of the type.
    pub fn set(self, bytes: &mut [u8], index: usize, value: f64) {
        let bytes = &mut bytes[index * self.size()..][..self.size()];
        match self {
            Element::F32 => bytes.copy_from_slice(&(value as f32).to_le_bytes()),
            Element::F16 => bytes.copy_from_slice(&f16::from_f64(value).to_le_bytes()),
            Element::Bf16 => bytes.copy_from_slice(&bf16::from_f64(value).to_le_bytes()),
            Element::I64 => bytes.copy_from_slice(&(value as i64).to_le_bytes()),
            Element::U32 => bytes.copy_from_slice(&(value as u32).to_le_bytes()),
            Element::U8 => bytes.copy_from_slice(&(value as u8).to_le_bytes()),
        }
    }
}
