//! The rule by which `--kv-preset auto` takes presets or leaves them out: their KL on the model.
use crate::kl::{KL_LIMIT, KlFigures};
use turboquant::{KvPair, PRESETS, Preset};

/// The lossiest preset that `auto` takes of a model on which nothing has been measured yet.
pub(super) const LOSSIEST_UNMEASURED: &str = "near-lossless";

/// Whether `auto` may take a preset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// It may: its KL is within the limit, it stores floats, or it is not known to be too lossy and is none of those
    /// that must be measured first.
    Allowed,
    /// Its KL, nats, is above the limit.
    TooLossy(f64),
    /// It must be measured first.
    Unmeasured,
}

/// The presets that `auto` chooses from, from exact to small.
pub(super) fn auto_presets() -> impl Iterator<Item = &'static Preset> {
    PRESETS.iter().filter(|preset| preset.auto)
}

/// The pairs of those presets that must be measured on a model.
pub(super) fn measured_pairs() -> Vec<KvPair> {
    auto_presets().filter(|preset| is_lossy(preset)).map(|preset| preset.pair).collect()
}

/// Whether a preset stores codes. Floats of 16 bits lose no more than products of quantised weights do.
pub(super) fn is_lossy(preset: &Preset) -> bool {
    !(preset.pair.k.is_float() && preset.pair.v.is_float())
}

/// Whether `auto` may take `preset`, by what has been measured on the model.
pub(super) fn verdict(preset: &Preset, figures: &KlFigures) -> Verdict {
    let place = |name| PRESETS.iter().position(|known| known.name == name);
    match figures.of(preset.pair) {
        _ if !is_lossy(preset) => Verdict::Allowed,
        Some(kl) if kl <= KL_LIMIT => Verdict::Allowed,
        Some(kl) => Verdict::TooLossy(kl),
        None if place(preset.name) <= place(LOSSIEST_UNMEASURED) => Verdict::Allowed,
        None => Verdict::Unmeasured,
    }
}

/// What is known of a preset's KL, as a part of a sentence; `None` of one that need not be measured.
pub(super) fn kl_in_words(preset: &Preset, figures: &KlFigures) -> Option<String> {
    is_lossy(preset).then(|| match figures.of(preset.pair) {
        Some(kl) => format!("KL {kl:.4} nats on {} tokens (limit {KL_LIMIT})", figures.tokens),
        None => format!("KL on this model not measured yet (limit {KL_LIMIT})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(name: &str) -> &'static Preset {
        PRESETS.iter().find(|preset| preset.name == name).unwrap()
    }

    #[test]
    fn a_preset_above_the_limit_is_passed_over() {
        for preset in auto_presets().filter(|preset| is_lossy(preset)) {
            let with = |kl| verdict(preset, &KlFigures::new(2048, [(preset.pair, kl)]));
            assert_eq!(with(KL_LIMIT), Verdict::Allowed, "{}", preset.name);
            assert_eq!(with(KL_LIMIT + 1e-9), Verdict::TooLossy(KL_LIMIT + 1e-9), "{}", preset.name);
        }
    }

    #[test]
    fn without_figures_nothing_lossier_than_near_lossless_is_taken() {
        let none = KlFigures::default();
        let allowed: Vec<_> = auto_presets().filter(|p| verdict(p, &none) == Verdict::Allowed).collect();
        assert_eq!(allowed.last().map(|preset| preset.name), Some(LOSSIEST_UNMEASURED));
        assert_eq!(verdict(preset("balanced"), &none), Verdict::Unmeasured);
        // A figure of another preset tells nothing of this one.
        let other = KlFigures::new(2048, [(preset("near-lossless").pair, 0.001)]);
        assert_eq!(verdict(preset("balanced"), &other), Verdict::Unmeasured);
    }

    #[test]
    fn floats_need_no_figure() {
        assert_eq!(kl_in_words(preset("bf16"), &KlFigures::default()), None);
        assert!(
            !measured_pairs().contains(&preset("bf16").pair) && measured_pairs().contains(&preset("balanced").pair)
        );
    }
}
