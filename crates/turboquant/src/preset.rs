//! Pairs of formats, and the presets that name some of them.
use crate::format::Format;
use std::fmt;

/// How keys and how values are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct KvPair {
    /// The format of keys.
    pub k: Format,
    /// The format of values.
    pub v: Format,
}

impl KvPair {
    /// A format for keys and one for values.
    pub const fn new(k: Format, v: Format) -> Self {
        KvPair { k, v }
    }

    /// One format for both sides.
    pub const fn both(format: Format) -> Self {
        KvPair { k: format, v: format }
    }
}

impl fmt::Display for KvPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.k.name(), self.v.name())
    }
}

/// A pair with a name of its own, the value of `--kv-preset`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Preset {
    /// The value of the flag.
    pub name: &'static str,
    /// What it stands for.
    pub pair: KvPair,
    /// Whether `--kv-preset auto` may choose it.
    pub auto: bool,
}

/// Every preset, from exact to small. `extreme` is experimental.
pub static PRESETS: [Preset; 6] = [
    Preset { name: "bf16", pair: KvPair::both(Format::Bf16), auto: true },
    Preset { name: "transparent", pair: KvPair::both(Format::Tq8), auto: true },
    Preset { name: "near-lossless", pair: KvPair::both(Format::Tc5), auto: true },
    Preset { name: "balanced", pair: KvPair::both(Format::Tc4), auto: true },
    Preset { name: "compact", pair: KvPair::new(Format::Tc4, Format::Tc3), auto: false },
    Preset { name: "extreme", pair: KvPair::both(Format::Tc3), auto: false },
];
