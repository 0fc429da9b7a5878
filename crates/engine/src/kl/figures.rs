//! The figures that have been measured of a model, and the file that keeps them for later starts.
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use turboquant::{KvPair, PRESETS, Preset};

/// Part of the name of kept figures: change it when the measurement changes.
const VERSION: &str = "1";

/// The KL of some pairs on one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlFigures {
    /// Tokens over which they were measured.
    pub tokens: usize,
    pairs: Vec<PairKl>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairKl {
    /// The name of the format of keys.
    k: String,
    /// The name of the format of values.
    v: String,
    /// The mean over the tokens, nats.
    kl: f64,
}

impl KlFigures {
    /// Figures measured over so many tokens: pairs and their KL in nats.
    pub fn new(tokens: usize, pairs: impl IntoIterator<Item = (KvPair, f64)>) -> Self {
        let pairs =
            pairs.into_iter().map(|(pair, kl)| PairKl { k: pair.k.name().to_owned(), v: pair.v.name().to_owned(), kl });
        KlFigures { tokens, pairs: pairs.collect() }
    }

    /// The KL of a pair, nats; `None` where it has not been measured.
    pub fn of(&self, pair: KvPair) -> Option<f64> {
        self.pairs.iter().find(|known| known.k == pair.k.name() && known.v == pair.v.name()).map(|known| known.kl)
    }

    /// The presets that `--kv-preset auto` chooses from, from exact to small, and what is known of each.
    pub fn presets(&self) -> impl Iterator<Item = PresetKl> {
        PRESETS.iter().filter(|preset| preset.auto).map(|Preset { name, pair, .. }| PresetKl {
            preset: name,
            k: pair.k.name(),
            v: pair.v.name(),
            kl: self.of(*pair),
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let figures: KlFigures = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match figures.pairs.iter().all(|pair| pair.kl.is_finite() && pair.kl >= 0.0) {
            true => Ok(figures),
            false => Err("a KL is negative or no number".to_owned()),
        }
    }
}

/// What a preset costs a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PresetKl {
    /// The preset's name.
    pub preset: &'static str,
    /// The name of its format of keys.
    pub k: &'static str,
    /// The name of its format of values.
    pub v: &'static str,
    /// Its KL, nats; `None` where it has not been measured.
    pub kl: Option<f64>,
}

/// All that figures depend on beside the pair.
#[derive(Debug, Clone, Copy)]
pub struct FiguresKey<'a> {
    /// Names the weights.
    pub fingerprint: &'a str,
    /// Names how keys are centred: the mode, and how and over what text their constants are measured.
    pub centring: &'a str,
    /// What computes, such as "Cpu".
    pub device: &'a str,
    /// Names the version of the codecs.
    pub codecs: &'a str,
}

/// The file that keeps a model's figures.
#[derive(Debug, Clone)]
pub struct FiguresFile(PathBuf);

impl FiguresFile {
    /// The file in `folder` for this key.
    pub fn new(folder: &Path, key: &FiguresKey<'_>) -> Self {
        let FiguresKey { fingerprint, centring, device, codecs } = key;
        let rest = format!("{VERSION}\n{codecs}\n{centring}\n{device}");
        let rest = &blake3::hash(rest.as_bytes()).to_hex()[..16];
        FiguresFile(folder.join(format!("{fingerprint}-{rest}.kl.json")))
    }

    /// The kept figures; none where there is no file. A file that cannot be read is logged, and counts as none, so that
    /// what it kept is measured anew.
    pub fn read(&self) -> KlFigures {
        self.try_read().unwrap_or_else(|problem| {
            tracing::warn!("kv presets: {} is left out, and measured anew: {problem}", self.0.display());
            KlFigures::default()
        })
    }

    /// Errors: a file that cannot be read, or is not whole.
    fn try_read(&self) -> Result<KlFigures, String> {
        match std::fs::read(&self.0) {
            Ok(bytes) => KlFigures::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(KlFigures::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Keeps figures in place of what was kept. That they cannot be kept is logged: they are then measured again.
    pub fn write(&self, figures: &KlFigures) {
        if let Err(error) = self.try_write(figures) {
            tracing::warn!("kv presets: their KL is not kept: {}: {error}", self.0.display());
        }
    }

    fn try_write(&self, figures: &KlFigures) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(figures)?;
        if let Some(folder) = self.0.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Another server may read it at this moment.
        let part = self.0.with_extension(format!("{}.part", std::process::id()));
        std::fs::write(&part, json)?;
        std::fs::rename(part, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turboquant::Format;

    const PAIR: KvPair = KvPair::both(Format::Tc4);
    const KEY: FiguresKey<'static> =
        FiguresKey { fingerprint: "weights", centring: "auto", device: "Cpu", codecs: "1" };

    #[test]
    fn figures_are_found_again_by_the_same_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = |key: &FiguresKey<'_>| FiguresFile::new(&folder.path().join("centring"), key);
        assert_eq!(file(&KEY).read(), KlFigures::default());
        let figures = KlFigures::new(2048, [(PAIR, 0.0123), (KvPair::new(Format::Tq8, Format::Tc5), 0.1 + 0.2)]);
        file(&KEY).write(&figures);
        assert_eq!(file(&KEY).read(), figures);
        assert_eq!((figures.of(PAIR), figures.of(KvPair::both(Format::Tq8))), (Some(0.0123), None));
        for other in [
            FiguresKey { fingerprint: "other weights", ..KEY },
            FiguresKey { centring: "off", ..KEY },
            FiguresKey { device: "Metal", ..KEY },
            FiguresKey { codecs: "2", ..KEY },
        ] {
            assert_eq!(file(&other).read(), KlFigures::default(), "{other:?}");
        }
    }

    #[test]
    fn presets_have_the_figures_of_their_pairs() {
        let figures = KlFigures::new(2048, [(PAIR, 0.0123)]);
        let known: Vec<_> = figures.presets().map(|known| (known.preset, known.k, known.v, known.kl)).collect();
        assert!(known.contains(&("balanced", "tc4", "tc4", Some(0.0123))), "{known:?}");
        assert_eq!(known[0], ("bf16", "bf16", "bf16", None));
        assert_eq!(known.len(), 4);
    }

    #[test]
    fn a_broken_file_is_told_of_counts_as_none_and_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = FiguresFile::new(folder.path(), &KEY);
        let figures = KlFigures::new(2048, [(PAIR, 0.0123)]);
        file.write(&figures);
        let whole = std::fs::read(&file.0).unwrap();
        let negative = String::from_utf8(whole.clone()).unwrap().replace("0.0123", "-0.0123").into_bytes();
        for broken in [&whole[..whole.len() / 2], &whole[..0], b"{}", &negative] {
            std::fs::write(&file.0, broken).unwrap();
            assert!(file.try_read().is_err(), "{}", String::from_utf8_lossy(broken));
            assert_eq!(file.read(), KlFigures::default());
        }
        file.write(&figures);
        assert_eq!(file.read(), figures);
    }
}
