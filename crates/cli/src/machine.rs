//! The memory of a Mac by its name, for plans of a machine other than this one.
use anyhow::{Result, anyhow};
use engine::PlannedMachine;
use std::str::FromStr;

const GIB: u64 = 1 << 30;
/// From this size on macOS recommends three quarters of the memory to a GPU, below it two thirds. Reported by users of
/// Metal for 8, 16, 24 and 32 GB, and for 36, 64 and 96 GB.
const LARGE: u64 = 36;

/// A Mac by its chip and memory, such as `M2 8GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac {
    /// All of its memory, GiB (Apple's GB).
    gibibytes: u64,
}

impl Mac {
    /// What a server finds there while no other program needs more than what macOS does not recommend to the GPU.
    pub fn memory(self) -> PlannedMachine {
        let (share, of) = if self.gibibytes < LARGE { (2, 3) } else { (3, 4) };
        PlannedMachine { total: self.gibibytes * GIB, free: self.gibibytes * GIB * share / of }
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || anyhow!("it must be a Mac's chip and memory, such as \"M2 8GB\" or \"M4 Pro 48GB\"");
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let (chip, size) = match &words[..] {
            [chip @ .., size, "gb" | "gib"] | [chip @ .., size] => (chip, size),
            [] => return Err(wrong()),
        };
        let is_generation = |word: &str| matches!(word.as_bytes(), [b'm', b'1'..=b'9']);
        let is_chip = match chip {
            [generation] | [generation, "pro" | "max" | "ultra"] => is_generation(generation),
            _ => false,
        };
        let digits = size.trim_end_matches("ib").trim_end_matches('b').trim_end_matches('g');
        match digits.parse() {
            Ok(gibibytes @ 8..=1024) if is_chip => Ok(Mac { gibibytes }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_macs_memory_is_known_by_its_name() {
        // What users have reported of Metal's recommendation, in MiB.
        for (name, recommended) in [
            ("M2 8GB", 5461),
            ("m1 16 gb", 10_922),
            ("M1 Max 32GiB", 21_845),
            ("M3 Max 36G", 27_648),
            ("M2 Max 64GB", 49_152),
            ("M2 Max 96GB", 73_728),
        ] {
            assert_eq!(name.parse::<Mac>().unwrap().memory().free >> 20, recommended, "{name}");
        }
        for name in ["M2", "8GB", "M2 8TB", "M2 4GB", "M2 Mini 8GB", "Intel 16GB", "", "gb", "M2 -8GB"] {
            assert!(name.parse::<Mac>().is_err(), "{name}");
        }
    }
}
