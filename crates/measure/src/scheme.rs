//! A way to store K and V, and the lists of schemes that are measured.
use crate::BLOCK_SIZE;
use crate::ggml::{GGML_BITS, GgmlRounding, rotates};
use attention::{AttentionBackend, Centring, HookedBackend};
use candle_core::Device;
use engine::{CentreMode, KvOptions, ModelBundle, StartError, cache_layout, most_exact_format, select};
use turboquant::{Format, KvPair, PRESETS, Side};

/// A way to store K and V.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    /// A pair of Tallow's formats.
    Pair {
        /// The formats.
        pair: KvPair,
        /// What keys go through before they are stored.
        centre: CentreMode,
    },
    /// One of llama.cpp's cache types, for comparison.
    Ggml {
        /// The bits of a code. 32 elements share a scale.
        bits: u32,
        /// Whether heads are rotated as llama.cpp does it.
        rotated: bool,
    },
}

impl Scheme {
    /// The most exact cache of a device, with which others are compared.
    pub fn exact(device: &Device) -> Scheme {
        Scheme::Pair { pair: KvPair::both(most_exact_format(device)), centre: CentreMode::Off }
    }

    /// The pair that the flags name; `None` if they name none.
    pub fn named(kv: &KvOptions) -> Option<Scheme> {
        kv.named_pair().map(|pair| Scheme::Pair { pair, centre: kv.centre })
    }

    /// Every preset with its name, from exact to small.
    pub fn presets(centre: CentreMode) -> impl Iterator<Item = (&'static str, Scheme)> {
        PRESETS.iter().map(move |preset| (preset.name, Scheme::Pair { pair: preset.pair, centre }))
    }

    /// The 16-bit formats, every preset's pair, and llama.cpp's types as it stores them for `bundle`'s model.
    pub fn presets_and_rivals(bundle: &ModelBundle, mode: CentreMode) -> Vec<Scheme> {
        let floors =
            [Format::Bf16, Format::F16].map(|format| Scheme::Pair { pair: KvPair::both(format), centre: mode });
        let presets = Self::presets(mode).map(|(_, scheme)| scheme).filter(|scheme| !floors.contains(scheme));
        let rotated = rotates_heads_of(bundle);
        let rivals = GGML_BITS.map(|bits| Scheme::Ggml { bits, rotated });
        floors.into_iter().chain(presets).chain(rivals).collect()
    }

    /// Every pair that is worth a look, and llama.cpp's types, plain and, where its rotation takes the heads of
    /// `bundle`'s model, rotated. A format that is in none of the pairs comes with the format of its name on the other
    /// side. Pairs of formats with one scale a vector come plain and, unless `mode` is off, centred.
    pub fn every_pair(bundle: &ModelBundle, mode: CentreMode) -> Vec<Scheme> {
        use Format::*;
        let others = [
            (Bf16, Bf16),
            (F16, F16),
            (Affine8, Int8),
            (Affine8, Lloyd3),
            (Affine5, Lloyd4),
            (Affine4, Lloyd3),
            (Affine4, Lloyd2),
        ];
        let one_scale = [
            (Tq8, Tq8),
            (Tq8, Tc5),
            (Tq8, Tc4),
            (Tc5, Tc5),
            (Tc5, Tc4),
            (Tc4, Tc4),
            (Tc3, Tc4),
            (Tc4, Tc3),
            (Tc3, Tc3),
            (Tc3, Tc2),
            (Tc2, Tc2),
        ];
        // f32 is what the others are compared with.
        let listed =
            |format| format == F32 || others.iter().chain(&one_scale).any(|(k, v)| *k == format || *v == format);
        let unlisted = Format::all(Side::K).filter(|k| !listed(*k));
        let rest = unlisted.filter_map(|k| Some((k, Format::parse(Side::V, k.name()).ok()?)));
        let (rest_one_scale, rest_others): (Vec<_>, Vec<_>) = rest.partition(|(k, _)| k.has_one_scale());
        let scheme = |(k, v), centre| Scheme::Pair { pair: KvPair::new(k, v), centre };
        let mut schemes: Vec<Scheme> = others.into_iter().chain(rest_others).map(|pair| scheme(pair, mode)).collect();
        let rotations = [false, true].into_iter().filter(|rotated| !rotated || rotates_heads_of(bundle));
        schemes.extend(rotations.flat_map(|rotated| GGML_BITS.map(|bits| Scheme::Ggml { bits, rotated })));
        let modes = if mode == CentreMode::Off { vec![mode] } else { vec![CentreMode::Off, mode] };
        let one_scale = one_scale.into_iter().chain(rest_one_scale);
        schemes.extend(one_scale.flat_map(|pair| modes.iter().map(move |mode| scheme(pair, *mode))));
        schemes
    }

    /// What stores K and V so, and whether keys are centred.
    pub(crate) fn backend(&self, bundle: &ModelBundle) -> Result<(Box<dyn AttentionBackend>, bool), StartError> {
        match *self {
            Scheme::Pair { pair, centre } => {
                let geometry = bundle.model.geometry();
                let layout = cache_layout(pair, BLOCK_SIZE, geometry)?;
                let centring = bundle.calibration().centring(centre, pair)?;
                let centred = !centring.is_none();
                Ok((select(layout, geometry, centring, bundle.device.tensors(), bundle.decode_kernel)?, centred))
            }
            Scheme::Ggml { bits, rotated } => {
                let device = bundle.device.tensors();
                let (rounding, geometry) = GgmlRounding::new(bits, rotated, bundle.model.geometry())?;
                let layout = cache_layout(KvPair::both(most_exact_format(device)), BLOCK_SIZE, &geometry)?;
                let centring = Centring::none(&geometry);
                let exact = select(layout, &geometry, centring, device, bundle.decode_kernel)?;
                Ok((Box::new(HookedBackend::new(exact, rounding)), false))
            }
        }
    }

    /// The names of the formats of K and of V.
    pub fn names(&self) -> (String, String) {
        match self {
            Scheme::Pair { pair, .. } => (pair.k.name().into(), pair.v.name().into()),
            Scheme::Ggml { bits, rotated } => {
                let name = format!("ggml{bits}{}", if *rotated { " rotated" } else { "" });
                (name.clone(), name)
            }
        }
    }
}

/// Whether llama.cpp rotates a head of the model.
fn rotates_heads_of(bundle: &ModelBundle) -> bool {
    bundle.model.geometry().layers.iter().any(|layer| rotates(layer.head_dim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::EngineConfig;

    /// Both lists have the 16-bit formats, each preset and llama.cpp's types once, rotated where llama.cpp would.
    #[test]
    fn lists_have_the_floors_the_presets_and_the_rivals() {
        for (model, rotates) in [("models/demo", true), ("models/tiny-mistral", false)] {
            let bundle = engine::load(&EngineConfig::new(testkit::repo(model))).unwrap();
            let short = Scheme::presets_and_rivals(&bundle, CentreMode::Auto);
            let every = Scheme::every_pair(&bundle, CentreMode::Auto);
            let count = |list: &[Scheme], scheme: Scheme| list.iter().filter(|listed| **listed == scheme).count();
            let presets = Scheme::presets(CentreMode::Auto).map(|(_, scheme)| scheme);
            let f16 = Scheme::Pair { pair: KvPair::both(Format::F16), centre: CentreMode::Auto };
            for scheme in presets.chain([f16]) {
                assert_eq!((count(&short, scheme), count(&every, scheme)), (1, 1), "{model}: {scheme:?}");
            }
            for bits in GGML_BITS {
                let plain = Scheme::Ggml { bits, rotated: false };
                let rotated = Scheme::Ggml { bits, rotated: true };
                assert_eq!(count(&short, rotated), usize::from(rotates), "{model}");
                assert_eq!(count(&short, plain), usize::from(!rotates), "{model}");
                assert_eq!((count(&every, plain), count(&every, rotated)), (1, usize::from(rotates)), "{model}");
            }
        }
        assert_eq!(Scheme::Ggml { bits: 4, rotated: true }.names().0, "ggml4 rotated");
    }
}
