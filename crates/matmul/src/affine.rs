//! The types of MLX's affine quantisation.

/// A type of MLX's affine quantisation: each group of elements has a scale and a bias, and an element is
/// `scale * code + bias`, where a code is an unsigned number of some bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Affine {
    bits: u8,
    group: u8,
    scales: HalfFloat,
}

/// A float type of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HalfFloat {
    /// IEEE's half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Affine {
    /// The bits that codes may have.
    pub const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
    /// The elements that a group may have.
    pub const GROUPS: [usize; 3] = [32, 64, 128];
    /// How many types there are.
    pub const COUNT: usize = Self::BITS.len() * Self::GROUPS.len() * 2;

    /// The type with codes of `bits` bits and groups of `group` elements, whose scales and biases are `scales`; `None`
    /// for numbers that are not among [`Self::BITS`] and [`Self::GROUPS`].
    pub const fn new(bits: usize, group: usize, scales: HalfFloat) -> Option<Self> {
        let is_known = matches!(bits, 2..=6 | 8) && matches!(group, 32 | 64 | 128);
        if is_known { Some(Affine { bits: bits as u8, group: group as u8, scales }) } else { None }
    }

    /// Returns the bits of a code.
    pub const fn bits(self) -> usize {
        self.bits as usize
    }

    /// Returns the elements of a group.
    pub const fn group(self) -> usize {
        self.group as usize
    }

    /// Returns the type of scales and biases.
    pub const fn scales(self) -> HalfFloat {
        self.scales
    }

    /// Returns the bytes of a group: scale, bias and codes.
    pub(crate) const fn group_bytes(self) -> usize {
        4 + self.group() * self.bits() / 8
    }

    /// The type with number `index` below [`Self::COUNT`].
    pub(crate) const fn nth(index: usize) -> Self {
        let scales = if index.is_multiple_of(2) { HalfFloat::F16 } else { HalfFloat::Bf16 };
        let (bits, group) = (Self::BITS[index / 6], Self::GROUPS[index / 2 % 3]);
        Affine { bits: bits as u8, group: group as u8, scales }
    }

    pub(crate) const fn name(self) -> &'static str {
        let bits = if self.bits == 8 { 5 } else { self.bits as usize - 2 };
        NAMES[bits][self.group as usize / 64][self.scales as usize]
    }
}

macro_rules! names {
    ($($bits:literal)*) => {
        [$([
            [concat!("AFFINE", $bits, "_G32_F16"), concat!("AFFINE", $bits, "_G32_BF16")],
            [concat!("AFFINE", $bits, "_G64_F16"), concat!("AFFINE", $bits, "_G64_BF16")],
            [concat!("AFFINE", $bits, "_G128_F16"), concat!("AFFINE", $bits, "_G128_BF16")],
        ]),*]
    };
}

/// Names by bits, group and type of scales.
const NAMES: [[[&str; 2]; 3]; 6] = names!(2 3 4 5 6 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_number_and_name() {
        for index in 0..Affine::COUNT {
            let of = Affine::nth(index);
            assert_eq!(Affine::new(of.bits(), of.group(), of.scales()), Some(of));
            let scales = format!("{:?}", of.scales()).to_uppercase();
            assert_eq!(of.name(), format!("AFFINE{}_G{}_{scales}", of.bits(), of.group()));
            assert!((0..index).all(|before| Affine::nth(before) != of));
        }
        for (bits, group) in [(1, 32), (7, 64), (4, 16), (4, 256), (260, 64)] {
            assert_eq!(Affine::new(bits, group, HalfFloat::F16), None);
        }
    }
}
