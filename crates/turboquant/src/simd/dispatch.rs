//! Instruction sets, and the steps that are compiled for each of them.
use super::steps::Steps;
use crate::format::Format;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Isa {
    /// No vector instructions.
    Scalar,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VNNI, VBMI (Zen 4, Ice Lake and later).
    Avx512,
    /// NEON with the dot product extension.
    Neon,
}

impl Isa {
    /// The fastest one of this machine.
    pub fn best() -> Isa {
        Isa::available().pop().unwrap_or(Isa::Scalar)
    }

    /// Every one that this machine has, slowest first.
    pub fn available() -> Vec<Isa> {
        [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available()).collect()
    }

    fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::avx512::is_available(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::neon::is_available(),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

impl Steps {
    /// The steps for two formats; `None` if the machine lacks `isa`.
    pub(crate) fn new(isa: Isa, k: Format, v: Format) -> Option<Steps> {
        match isa {
            _ if !isa.is_available() => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(super::avx2::steps(k, v)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(super::avx512::steps(k, v)),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(super::neon::steps(k, v)),
            _ => Some(super::portable::steps(k, v)),
        }
    }
}

/// The instance of `$name` whose const parameter is the number of `$format`, for the formats that a CPU's kernels read
/// as they are stored. All other formats are decoded to f32 first, so their instance is that of f32.
macro_rules! for_direct_format {
    ($format:expr, $name:ident) => {{
        use $crate::format::Format;
        match $format {
            Format::F16 => $name::<{ Format::F16 as u8 }>,
            Format::Bf16 => $name::<{ Format::Bf16 as u8 }>,
            Format::Tq8 => $name::<{ Format::Tq8 as u8 }>,
            Format::Tc5 => $name::<{ Format::Tc5 as u8 }>,
            Format::Tc4 => $name::<{ Format::Tc4 as u8 }>,
            Format::Tc3 => $name::<{ Format::Tc3 as u8 }>,
            Format::Tc2 => $name::<{ Format::Tc2 as u8 }>,
            // A test finds a format that is read as it is stored and missing above.
            _ => $name::<{ Format::F32 as u8 }>,
        }
    }};
}
pub(in crate::simd) use for_direct_format;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Side;

    /// Floats and formats of one scale are read as stored, in codes whose bits fit a line; others are decoded.
    #[test]
    fn a_format_is_read_directly_if_it_is_not_decoded() {
        fn number<const FORMAT: u8>() -> u8 {
            FORMAT
        }
        for format in Format::all(Side::K).chain(Format::all(Side::V)) {
            let read_as = Format::from_number(for_direct_format!(format, number)());
            let direct = format.is_float() || format.has_one_scale();
            assert_eq!(read_as, if direct { format } else { Format::F32 });
            assert!(!format.has_one_scale() || [8, 5, 4, 3, 2].contains(&format.code_bits()), "{format:?}");
        }
    }
}
