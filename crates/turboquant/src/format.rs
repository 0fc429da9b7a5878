//! The KV formats: one table with a row for each, from which names, sizes, help texts and kernels derive.
use crate::codebook::Codebook;
use crate::edit_distance::distance;
use crate::trellis::Trellis;
use std::fmt;

/// The side of a token's two vectors that a format or buffer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    /// Keys.
    K,
    /// Values.
    V,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Side::K { "K" } else { "V" })
    }
}

/// How one vector (the K or the V of a token in one kv head) is stored. [`Format::help`] describes each; all but the
/// floats are rotated before they are quantised.
#[allow(missing_docs)] // the table describes them
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Tq8,
    Tc5,
    Tc4,
    Tc3,
    Tc2,
    Affine8,
    Affine5,
    Affine4,
    Int8,
    Lloyd5,
    Lloyd4,
    Lloyd3,
    Lloyd2,
}

/// How an element becomes a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Coding {
    /// As a float, not rotated.
    Float { bits: usize, exponent_bits: usize },
    /// As an integer of 8 bits from -127 to 127: element / scale.
    Int8,
    /// As an unsigned integer of so many bits: (element - minimum) / scale.
    Affine(usize),
    /// As a sign and the index of a magnitude; the element is about scale x magnitude.
    Book(Codebook),
    /// As the next step of a path, which the elements before take part in; the element is about scale x value.
    Trellis(Trellis),
}

/// The scales that are stored with the codes of a vector, fp16 each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScaleLayout {
    /// None: floats.
    Unscaled,
    /// One.
    PerVector,
    /// One for each scale group of [`SCALE_GROUP`] elements; with [`Coding::Affine`] a minimum as well.
    PerGroup,
}

/// A row of the table of formats.
struct FormatRow {
    format: Format,
    /// The value of `--k-quant` and `--v-quant`. A K format and a V format may share it.
    name: &'static str,
    /// Other names of it among K formats, from the servers whose flags these are.
    k_aliases: &'static [&'static str],
    /// The sides that may be stored so.
    sides: &'static [Side],
    coding: Coding,
    scale_layout: ScaleLayout,
    /// The number that GPU kernels have for the format; `None`: there are no kernels for it.
    gpu_id: Option<u32>,
}

const BOTH: &[Side] = &[Side::K, Side::V];
const K: &[Side] = &[Side::K];
const V: &[Side] = &[Side::V];

/// The formats in the order of the enum. A change of coding or scales makes stored caches decode to noise.
const TABLE: [FormatRow; 16] = {
    use Coding::{Affine, Book, Float, Int8, Trellis as Path};
    use ScaleLayout::{PerGroup, PerVector, Unscaled};
    [
        row(Format::F32, "f32", &[], BOTH, Float { bits: 32, exponent_bits: 8 }, Unscaled, None),
        row(Format::F16, "f16", &[], BOTH, Float { bits: 16, exponent_bits: 5 }, Unscaled, Some(0)),
        row(Format::Bf16, "bf16", &[], BOTH, Float { bits: 16, exponent_bits: 8 }, Unscaled, Some(1)),
        row(Format::Tq8, "tq8", &[], BOTH, Int8, PerVector, Some(2)),
        row(Format::Tc5, "tc5", &[], BOTH, Path(Trellis::Tc5), PerVector, Some(3)),
        row(Format::Tc4, "tc4", &[], BOTH, Path(Trellis::Tc4), PerVector, Some(4)),
        row(Format::Tc3, "tc3", &[], BOTH, Path(Trellis::Tc3), PerVector, Some(5)),
        row(Format::Tc2, "tc2", &["int2", "uint2"], BOTH, Path(Trellis::Tc2), PerVector, Some(6)),
        row(Format::Affine8, "q8_0", &["int8", "uint8"], K, Affine(8), PerGroup, Some(7)),
        row(Format::Affine5, "q5_0", &[], K, Affine(5), PerGroup, Some(8)),
        row(Format::Affine4, "q4_0", &["int4", "uint4"], K, Affine(4), PerGroup, Some(9)),
        row(Format::Int8, "q8_0", &[], V, Int8, PerGroup, Some(10)),
        row(Format::Lloyd5, "q5_0", &[], V, Book(Codebook::Lloyd5), PerGroup, Some(11)),
        row(Format::Lloyd4, "q4_0", &[], V, Book(Codebook::Lloyd4), PerGroup, Some(12)),
        row(Format::Lloyd3, "q3_0", &[], V, Book(Codebook::Lloyd3), PerGroup, Some(13)),
        row(Format::Lloyd2, "q2_0", &[], V, Book(Codebook::Lloyd2), PerGroup, Some(14)),
    ]
};

const fn row(
    format: Format,
    name: &'static str,
    k_aliases: &'static [&'static str],
    sides: &'static [Side],
    coding: Coding,
    scale_layout: ScaleLayout,
    gpu_id: Option<u32>,
) -> FormatRow {
    FormatRow { format, name, k_aliases, sides, coding, scale_layout, gpu_id }
}

// A format is the number of its row. Kernels multiply the codes of a format with one scale as integers, which codebooks
// do not have.
const _: () = {
    let mut i = 0;
    while i < TABLE.len() {
        assert!(TABLE[i].format as usize == i);
        assert!(!matches!((TABLE[i].coding, TABLE[i].scale_layout), (Coding::Book(_), ScaleLayout::PerVector)));
        i += 1;
    }
};

/// Why a format cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages name the fields
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

impl Format {
    const fn row(self) -> &'static FormatRow {
        &TABLE[self as usize]
    }

    /// The format of a number that a kernel has as its const parameter.
    pub(crate) const fn from_number(number: u8) -> Format {
        TABLE[number as usize].format
    }

    /// The format that a `--k-quant` or `--v-quant` value names.
    ///
    /// Errors: an unknown name, with the known ones.
    pub fn parse(side: Side, name: &str) -> Result<Format, FormatError> {
        let named = |row: &&FormatRow| {
            row.sides.contains(&side) && (row.name == name || side == Side::K && row.k_aliases.contains(&name))
        };
        TABLE.iter().find(named).map(|row| row.format).ok_or_else(|| unknown(side, name))
    }

    /// The canonical flag value. K and V share names where the formats differ (`q8_0` is affine for K, symmetric for
    /// V).
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Every format of a side, of each kind the least lossy first.
    pub fn all(side: Side) -> impl Iterator<Item = Format> {
        TABLE.iter().filter(move |row| row.sides.contains(&side)).map(|row| row.format)
    }

    /// The sides that may be stored so.
    pub fn sides(self) -> &'static [Side] {
        self.row().sides
    }

    /// Every canonical name of a side in that order; aliases are left out.
    pub fn names(side: Side) -> impl Iterator<Item = &'static str> {
        Format::all(side).map(Format::name)
    }

    /// What is stored, in a line.
    pub fn help(self) -> String {
        let codes = match self.coding() {
            Coding::Float { bits, exponent_bits } => format!("floats of {bits} bits, {exponent_bits} of them exponent"),
            Coding::Int8 => "integers of 8 bits".to_owned(),
            Coding::Affine(bits) => format!("integers of {bits} bits above a minimum"),
            Coding::Book(book) => format!("codes of {} bits (Lloyd-Max)", book.bits()),
            Coding::Trellis(trellis) => format!("codes of {} bits (trellis)", trellis.bits()),
        };
        match self.scale_layout() {
            ScaleLayout::Unscaled => codes,
            ScaleLayout::PerVector => format!("{codes}, one scale a vector"),
            ScaleLayout::PerGroup => format!("{codes}, one scale for {SCALE_GROUP} elements"),
        }
    }

    /// The number that GPU kernels have for the format; `None`: there are no kernels for it.
    pub fn gpu_id(self) -> Option<u32> {
        self.row().gpu_id
    }

    /// Whether vectors of `head_dim` elements can be stored on `side` in this format.
    pub fn check(self, side: Side, head_dim: usize) -> Result<(), FormatError> {
        if let [wanted] = *self.row().sides
            && wanted != side
        {
            return Err(FormatError::Side { format: self.name(), wanted, side });
        }
        let (good, allowed) = if self.is_rotated() {
            (ROTATED_DIMS.contains(&head_dim), "16, 32, 64, 80, 96, 128, 256, 512")
        } else {
            (head_dim > 0 && head_dim <= MAX_HEAD_DIM && head_dim.is_multiple_of(8), "multiples of 8 up to 512")
        };
        if good { Ok(()) } else { Err(FormatError::HeadDim { side, format: self.name(), head_dim, allowed }) }
    }

    /// Bytes of one vector, scales included: the only formula.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        self.code_bytes(head_dim) + self.scale_bytes(head_dim)
    }

    /// Bits per element, scales included.
    pub fn bits_per_element(self, head_dim: usize) -> f64 {
        8.0 * self.row_bytes(head_dim) as f64 / head_dim as f64
    }

    /// Whether the vector is rotated before it is stored.
    pub fn is_rotated(self) -> bool {
        !self.is_float()
    }

    /// Whether elements are stored as floats.
    pub fn is_float(self) -> bool {
        matches!(self.coding(), Coding::Float { .. })
    }

    /// Whether an element's value depends on the codes before it too (`tc5` to `tc2`), so that storing a vector means
    /// finding the best path of codes.
    pub fn is_trellis(self) -> bool {
        self.trellis().is_some()
    }

    /// The trellis code of the format, if it is one.
    pub(crate) const fn trellis(self) -> Option<Trellis> {
        match self.coding() {
            Coding::Trellis(trellis) => Some(trellis),
            _ => None,
        }
    }

    /// Whether a vector has one scale (`tq8`, and `tc5` to `tc2`). The codes of these formats are multiplied as
    /// integers.
    pub const fn has_one_scale(self) -> bool {
        matches!(self.scale_layout(), ScaleLayout::PerVector)
    }

    /// Magnitudes of the codebook for N(0,1), ascending; empty for formats without one.
    pub fn magnitudes(self) -> &'static [f32] {
        match self.coding() {
            Coding::Book(book) => book.magnitudes(),
            _ => &[],
        }
    }

    pub(crate) const fn coding(self) -> Coding {
        self.row().coding
    }

    pub(crate) const fn scale_layout(self) -> ScaleLayout {
        self.row().scale_layout
    }

    /// Bits of one code (or of the float).
    pub(crate) const fn code_bits(self) -> usize {
        match self.coding() {
            Coding::Float { bits, .. } | Coding::Affine(bits) => bits,
            Coding::Int8 => 8,
            Coding::Book(book) => book.bits(),
            Coding::Trellis(trellis) => trellis.bits(),
        }
    }

    pub(crate) fn code_bytes(self, head_dim: usize) -> usize {
        head_dim * self.code_bits() / 8
    }

    pub(crate) fn scale_bytes(self, head_dim: usize) -> usize {
        let groups = head_dim.div_ceil(SCALE_GROUP);
        match (self.scale_layout(), self.coding()) {
            (ScaleLayout::Unscaled, _) => 0,
            (ScaleLayout::PerVector, _) => 2,
            (ScaleLayout::PerGroup, Coding::Affine(_)) => 4 * groups,
            (ScaleLayout::PerGroup, _) => 2 * groups,
        }
    }
}

fn unknown(side: Side, name: &str) -> FormatError {
    let rows = || TABLE.iter().filter(|row| row.sides.contains(&side));
    let aliases = rows().filter(|_| side == Side::K).flat_map(|row| row.k_aliases.iter().copied());
    let all: Vec<&'static str> = rows().map(|row| row.name).chain(aliases).collect();
    let nearest = all.iter().copied().min_by_key(|known| distance(known, name)).unwrap_or("bf16");
    FormatError::Unknown { side, name: name.to_owned(), allowed: all.join(", "), nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_formats_that_give_them_back() {
        for side in [Side::K, Side::V] {
            for name in Format::names(side) {
                let format = Format::parse(side, name).unwrap();
                assert_eq!(format.name(), name);
                assert_eq!(format.check(side, 128), Ok(()));
            }
        }
        for (alias, name) in [("int8", "q8_0"), ("uint4", "q4_0"), ("uint2", "tc2")] {
            assert_eq!(Format::parse(Side::K, alias), Format::parse(Side::K, name));
        }
    }

    #[test]
    fn errors_name_the_value_and_what_is_allowed() {
        let message = Format::parse(Side::V, "q4-0").unwrap_err().to_string();
        assert!(message.contains("\"q4-0\"") && message.contains("q2_0") && message.contains("nearest: \"q4_0\""));
        let message = Format::Tc4.check(Side::K, 72).unwrap_err().to_string();
        assert!(message.contains("tc4") && message.contains("72") && message.contains("128"), "{message}");
        assert!(Format::Bf16.check(Side::K, 72).is_ok() && Format::Bf16.check(Side::K, 76).is_err());
        assert!(Format::Affine4.check(Side::V, 128).is_err() && Format::Lloyd4.check(Side::K, 128).is_err());
    }

    /// The sizes and bits of the format tables.
    #[test]
    fn row_bytes_are_the_published_ones() {
        use Format::*;
        for (format, sizes) in [
            (Tq8, [66, 82, 98, 130, 258]),
            (Tc5, [42, 52, 62, 82, 162]),
            (Tc4, [34, 42, 50, 66, 130]),
            (Tc3, [26, 32, 38, 50, 98]),
            (Tc2, [18, 22, 26, 34, 66]),
        ] {
            assert_eq!([64, 80, 96, 128, 256].map(|d| format.row_bytes(d)), sizes);
        }
        let bits = [(Affine8, 9.0), (Affine5, 6.0), (Affine4, 5.0), (Int8, 8.5), (Lloyd3, 3.5), (Bf16, 16.0)];
        for (format, bits) in bits {
            assert_eq!(format.bits_per_element(128), bits);
        }
        // The compression that the reference system publishes for its pairs, against bf16.
        let ratio = |k: Format, v: Format| 32.0 / (k.bits_per_element(128) + v.bits_per_element(128));
        assert_eq!((ratio(Affine8, Lloyd3) * 100.0).round(), 256.0);
        assert_eq!((ratio(Affine4, Lloyd3) * 100.0).round(), 376.0);
    }
}
