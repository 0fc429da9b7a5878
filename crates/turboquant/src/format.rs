//! The KV formats: names, sizes and which head dimensions they support.
use crate::codebook::{CUBIC4, LLOYD2, LLOYD3, LLOYD4, LLOYD5};
use std::fmt;

/// Which of the two vectors of a token a format or buffer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    K,
    V,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Side::K { "K" } else { "V" })
    }
}

/// How one (token, kv head) vector is stored. All but the first three are rotated before they are quantised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    F32,
    F16,
    Bf16,
    /// int8, one fp16 scale a vector.
    Tq8,
    /// 4-bit Lloyd-Max magnitude and sign, one fp16 scale a vector.
    Tq5,
    /// 3-bit magnitude (cubic codebook) and sign, one fp16 scale a vector.
    Tq4,
    /// 2-bit Lloyd-Max magnitude and sign, one fp16 scale a vector.
    Tq3,
    /// 1-bit Lloyd-Max magnitude and sign, one fp16 scale a vector.
    Tq2,
    /// K `q8_0`: 8-bit code, fp16 scale and fp16 minimum per 32 elements.
    Affine8,
    /// K `q5_0`.
    Affine5,
    /// K `q4_0`.
    Affine4,
    /// V `q8_0`: int8, fp16 scale per 32 elements.
    Int8,
    /// V `q5_0`: 5-bit Lloyd-Max, fp16 scale per 32 elements.
    Lloyd5,
    /// V `q4_0`.
    Lloyd4,
    /// V `q3_0`.
    Lloyd3,
    /// V `q2_0`.
    Lloyd2,
}

/// Why a format cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{side} format {name:?} is not known; allowed: {allowed} (nearest: {nearest:?})")]
    Unknown { side: Side, name: String, allowed: String, nearest: &'static str },
    #[error("format {format} is for {wanted} only, not for {side}")]
    Side { format: &'static str, wanted: Side, side: Side },
    #[error("{side} format {format} does not support head_dim {head_dim}; allowed: {allowed}")]
    HeadDim { side: Side, format: &'static str, head_dim: usize, allowed: &'static str },
    #[error("block size {0} is not supported; allowed: 16, 32")]
    BlockSize(usize),
}

/// Elements that share a scale in the formats with more than one.
pub(crate) const SCALE_GROUP: usize = 32;
/// Largest head dimension of any format.
pub const MAX_HEAD_DIM: usize = 512;

const ROTATED_DIMS: &[usize] = &[16, 32, 64, 80, 96, 128, 256, 512];
const K_NAMES: &[&str] = &["f32", "f16", "bf16", "tq8", "tq5", "tq4", "tq3", "tq2", "q8_0", "q5_0", "q4_0"];
const V_NAMES: &[&str] =
    &["f32", "f16", "bf16", "tq8", "tq5", "tq4", "tq3", "tq2", "q8_0", "q5_0", "q4_0", "q3_0", "q2_0"];
/// Other names of K formats, from the servers whose flags these are.
const K_ALIASES: &[(&str, Format)] = &[
    ("int8", Format::Affine8),
    ("uint8", Format::Affine8),
    ("int4", Format::Affine4),
    ("uint4", Format::Affine4),
    ("int2", Format::Tq2),
    ("uint2", Format::Tq2),
];

impl Format {
    /// The format that a `--k-quant` or `--v-quant` value names.
    pub fn parse(side: Side, name: &str) -> Result<Format, FormatError> {
        use Format::*;
        let found = match (side, name) {
            (_, "f32") => F32,
            (_, "f16") => F16,
            (_, "bf16") => Bf16,
            (_, "tq8") => Tq8,
            (_, "tq5") => Tq5,
            (_, "tq4") => Tq4,
            (_, "tq3") => Tq3,
            (_, "tq2") => Tq2,
            (Side::K, "q8_0") => Affine8,
            (Side::K, "q5_0") => Affine5,
            (Side::K, "q4_0") => Affine4,
            (Side::V, "q8_0") => Int8,
            (Side::V, "q5_0") => Lloyd5,
            (Side::V, "q4_0") => Lloyd4,
            (Side::V, "q3_0") => Lloyd3,
            (Side::V, "q2_0") => Lloyd2,
            _ => {
                let alias = K_ALIASES.iter().find(|(alias, _)| side == Side::K && *alias == name);
                return alias.map(|(_, format)| *format).ok_or_else(|| unknown(side, name));
            }
        };
        Ok(found)
    }

    /// The canonical flag value. K and V share names where the formats differ (`q8_0` is affine for K, symmetric for V).
    pub fn name(self) -> &'static str {
        use Format::*;
        match self {
            F32 => "f32",
            F16 => "f16",
            Bf16 => "bf16",
            Tq8 => "tq8",
            Tq5 => "tq5",
            Tq4 => "tq4",
            Tq3 => "tq3",
            Tq2 => "tq2",
            Affine8 | Int8 => "q8_0",
            Affine5 | Lloyd5 => "q5_0",
            Affine4 | Lloyd4 => "q4_0",
            Lloyd3 => "q3_0",
            Lloyd2 => "q2_0",
        }
    }

    /// Every canonical name of a side, least lossy first; aliases are left out.
    pub fn names(side: Side) -> &'static [&'static str] {
        if side == Side::K { K_NAMES } else { V_NAMES }
    }

    /// Whether vectors of `head_dim` elements can be stored on `side` in this format.
    pub fn check(self, side: Side, head_dim: usize) -> Result<(), FormatError> {
        use Format::*;
        let wanted = match self {
            Affine8 | Affine5 | Affine4 => Side::K,
            Int8 | Lloyd5 | Lloyd4 | Lloyd3 | Lloyd2 => Side::V,
            _ => side,
        };
        if wanted != side {
            return Err(FormatError::Side { format: self.name(), wanted, side });
        }
        let (good, allowed) = if self.is_rotated() {
            (ROTATED_DIMS.contains(&head_dim), "16, 32, 64, 80, 96, 128, 256, 512")
        } else {
            (head_dim > 0 && head_dim <= MAX_HEAD_DIM && head_dim.is_multiple_of(8), "multiples of 8 up to 512")
        };
        if good { Ok(()) } else { Err(FormatError::HeadDim { side, format: self.name(), head_dim, allowed }) }
    }

    /// Bytes of one (token, kv head) vector, scales included: the only formula.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        self.code_bytes(head_dim) + self.scale_bytes(head_dim)
    }

    /// Bits per element, scales included.
    pub fn bits_per_element(self, head_dim: usize) -> f64 {
        8.0 * self.row_bytes(head_dim) as f64 / head_dim as f64
    }

    /// Whether the vector is rotated before it is stored.
    pub fn is_rotated(self) -> bool {
        !matches!(self, Format::F32 | Format::F16 | Format::Bf16)
    }

    /// Magnitudes of the codebook for N(0,1), ascending; empty for formats without one.
    pub fn magnitudes(self) -> &'static [f32] {
        use Format::*;
        match self {
            Tq5 | Lloyd5 => &LLOYD5,
            Tq4 => &CUBIC4,
            Lloyd4 => &LLOYD4,
            Tq3 | Lloyd3 => &LLOYD3,
            Tq2 | Lloyd2 => &LLOYD2,
            _ => &[],
        }
    }

    /// Bits of one code (or of the float).
    pub(crate) fn code_bits(self) -> usize {
        use Format::*;
        match self {
            F32 => 32,
            F16 | Bf16 => 16,
            Tq8 | Affine8 | Int8 => 8,
            Tq5 | Affine5 | Lloyd5 => 5,
            Tq4 | Affine4 | Lloyd4 => 4,
            Tq3 | Lloyd3 => 3,
            Tq2 | Lloyd2 => 2,
        }
    }

    pub(crate) fn code_bytes(self, head_dim: usize) -> usize {
        head_dim * self.code_bits() / 8
    }

    pub(crate) fn scale_bytes(self, head_dim: usize) -> usize {
        use Format::*;
        match self {
            F32 | F16 | Bf16 => 0,
            Tq8 | Tq5 | Tq4 | Tq3 | Tq2 => 2,
            Affine8 | Affine5 | Affine4 => 4 * head_dim.div_ceil(SCALE_GROUP),
            Int8 | Lloyd5 | Lloyd4 | Lloyd3 | Lloyd2 => 2 * head_dim.div_ceil(SCALE_GROUP),
        }
    }
}

fn unknown(side: Side, name: &str) -> FormatError {
    let aliases = if side == Side::K { K_ALIASES } else { &[] };
    let all = || Format::names(side).iter().copied().chain(aliases.iter().map(|(alias, _)| *alias));
    let nearest = all().min_by_key(|known| distance(known, name)).unwrap_or("bf16");
    FormatError::Unknown { side, name: name.to_owned(), allowed: all().collect::<Vec<_>>().join(", "), nearest }
}

/// Levenshtein distance; only the first 16 bytes of either name count.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(16)], &b.as_bytes()[..b.len().min(16)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_formats_that_give_them_back() {
        for side in [Side::K, Side::V] {
            for name in Format::names(side) {
                let format = Format::parse(side, name).unwrap();
                assert_eq!(format.name(), *name);
                assert_eq!(format.check(side, 128), Ok(()));
            }
        }
        for (alias, name) in [("int8", "q8_0"), ("uint4", "q4_0"), ("uint2", "tq2")] {
            assert_eq!(Format::parse(Side::K, alias), Format::parse(Side::K, name));
        }
    }

    #[test]
    fn errors_name_the_value_and_what_is_allowed() {
        let message = Format::parse(Side::V, "q4-0").unwrap_err().to_string();
        assert!(message.contains("\"q4-0\"") && message.contains("q2_0") && message.contains("nearest: \"q4_0\""));
        let message = Format::Tq4.check(Side::K, 72).unwrap_err().to_string();
        assert!(message.contains("tq4") && message.contains("72") && message.contains("128"), "{message}");
        assert!(Format::Bf16.check(Side::K, 72).is_ok() && Format::Bf16.check(Side::K, 76).is_err());
        assert!(Format::Affine4.check(Side::V, 128).is_err() && Format::Lloyd4.check(Side::K, 128).is_err());
    }

    /// The sizes and bits of the format tables.
    #[test]
    fn row_bytes_are_the_published_ones() {
        use Format::*;
        for (format, sizes) in [
            (Tq8, [66, 82, 98, 130, 258]),
            (Tq5, [42, 52, 62, 82, 162]),
            (Tq4, [34, 42, 50, 66, 130]),
            (Tq3, [26, 32, 38, 50, 98]),
            (Tq2, [18, 22, 26, 34, 66]),
        ] {
            assert_eq!([64, 80, 96, 128, 256].map(|d| format.row_bytes(d)), sizes);
        }
        for (format, bits) in [(Affine8, 9.0), (Affine5, 6.0), (Affine4, 5.0), (Int8, 8.5), (Lloyd3, 3.5), (Bf16, 16.0)]
        {
            assert_eq!(format.bits_per_element(128), bits);
        }
        // The compression that the reference system publishes for its pairs, against bf16.
        let ratio = |k: Format, v: Format| 32.0 / (k.bits_per_element(128) + v.bits_per_element(128));
        assert_eq!((ratio(Affine8, Lloyd3) * 100.0).round(), 256.0);
        assert_eq!((ratio(Affine4, Lloyd3) * 100.0).round(), 376.0);
    }
}
