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
