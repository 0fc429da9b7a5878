//! How K and V are stored: formats by name, presets, and the choice between them.
use crate::error::StartError;
use crate::memory::{Demand, MemoryBudget};
use attention::ModelGeometry;
use kv::KvLayout;
use turboquant::{Format, Side};

/// Pairs of formats by name, from exact to small.
pub const PRESETS: [(&str, Format, Format); 6] = [
    ("bf16", Format::Bf16, Format::Bf16),
    ("transparent", Format::Tq8, Format::Tq8),
    ("near-lossless", Format::Tq5, Format::Tq5),
    ("balanced", Format::Tq4, Format::Tq4),
    ("compact", Format::Tq4, Format::Tq3),
    // Experimental: a quarter of the answers change their most likely token.
    ("extreme", Format::Tq3, Format::Tq3),
];

/// Presets that `auto` chooses from, least lossy first.
const AUTO: usize = 4;

/// What is taken out of K and V before they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CentreMode {
    /// The means measured over a bundled text: of tq formats always, of 16-bit ones where the model has a K bias.
    #[default]
    Auto,
    /// The biases of the K and V projections.
    Bias,
    Off,
}

impl CentreMode {
    pub const NAMES: [&str; 3] = ["auto", "bias", "off"];

    /// Errors: an unknown name, with the known ones.
    pub fn parse(name: &str) -> Result<Self, StartError> {
        match name {
            "auto" => Ok(CentreMode::Auto),
            "bias" => Ok(CentreMode::Bias),
            "off" => Ok(CentreMode::Off),
            other => Err(unknown("--kv-centre", other, &Self::NAMES)),
        }
    }
}

/// Which formats the flags ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvFlags {
    /// `--kv-preset`: an index of [`PRESETS`], `None` for `auto`.
    preset: Option<usize>,
    /// `--k-quant` and `--v-quant`, over the preset.
    k: Option<Format>,
    v: Option<Format>,
    pub(crate) block_size: usize,
    pub centre: CentreMode,
}

impl KvFlags {
    /// Reads the flags' values. Errors: an unknown name, with the known ones.
    pub fn parse(
        preset: &str,
        k: Option<&str>,
        v: Option<&str>,
        block_size: usize,
        centre: &str,
    ) -> Result<Self, StartError> {
        let names: Vec<&str> = ["auto"].into_iter().chain(PRESETS.iter().map(|p| p.0)).collect();
        let preset = match names.iter().position(|name| *name == preset) {
            Some(at) => at.checked_sub(1),
            None => return Err(unknown("--kv-preset", preset, &names)),
        };
        let format = |flag: &'static str, side, name: Option<&str>| {
            let parse = |name| Format::parse(side, name);
            name.map(parse).transpose().map_err(|e| StartError::flag(flag, e.to_string()))
        };
        let (k, v) = (format("--k-quant", Side::K, k)?, format("--v-quant", Side::V, v)?);
        Ok(KvFlags { preset, k, v, block_size, centre: CentreMode::parse(centre)? })
    }

    /// Errors: a block size that there is no layout for.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        Ok(KvLayout::check_block_size(self.block_size)?)
    }

    /// Exactly this pair.
    pub fn pair(k: Format, v: Format, block_size: usize) -> Self {
        KvFlags { preset: Some(0), k: Some(k), v: Some(v), block_size, centre: CentreMode::Auto }
    }

    /// The pair that the flags name: a preset's, with what `--k-quant` and `--v-quant` put over it (over bf16, with `auto`). `None`
    /// if none of the three says anything.
    pub fn named_pair(&self) -> Option<(Format, Format)> {
        if self.preset.is_none() && self.k.is_none() && self.v.is_none() {
            return None;
        }
        let config = self.with(self.preset.unwrap_or(0));
        Some((config.k, config.v))
    }

    fn with(&self, preset: usize) -> KvConfig {
        let (_, k, v) = PRESETS[preset];
        KvConfig { k: self.k.unwrap_or(k), v: self.v.unwrap_or(v), block_size: self.block_size }
    }

    /// Settles formats, pool and context for a model and what memory there is. `auto` takes the least lossy preset whose pool
    /// holds the asked-for context, and says why.
    ///
    /// Errors: as [`MemoryBudget::settle`], and formats that the model's head size does not allow.
    pub fn settle(&self, geometry: &ModelGeometry, demand: &Demand) -> Result<Settled, StartError> {
        let budget = |config: KvConfig| {
            let layout = config.layout(geometry)?;
            Ok::<_, StartError>((config, MemoryBudget::settle(&layout, demand)))
        };
        if let Some(preset) = self.preset {
            let (config, budget) = budget(self.with(preset))?;
            return Ok(Settled { config, budget: budget?, reason: None });
        }
        let wanted = demand.max_model_len.unwrap_or(demand.model_limit);
        for (i, (name, ..)) in PRESETS.iter().enumerate().take(AUTO) {
            let (config, budget) = budget(self.with(i))?;
            if let Ok(budget) = budget
                && budget.max_model_len >= wanted
            {
                let reason = format!("{name}: the least lossy preset whose pool holds a context of {wanted} tokens");
                return Ok(Settled { config, budget, reason: Some(reason) });
            }
        }
        let (config, budget) = budget(self.with(AUTO - 1))?;
        let budget = budget?;
        let reason = format!(
            "{}: no preset's pool holds the model's {wanted} tokens; this one's context is {}",
            PRESETS[AUTO - 1].0,
            budget.max_model_len
        );
        Ok(Settled { config, budget, reason: Some(reason) })
    }
}

/// What [`KvFlags::settle`] came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub config: KvConfig,
    pub budget: MemoryBudget,
    /// Why `auto` chose what it chose.
    pub reason: Option<String>,
}

/// How K and V are stored, settled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvConfig {
    pub k: Format,
    pub v: Format,
    /// Tokens of a block: 16 or 32.
    pub block_size: usize,
}

impl KvConfig {
    pub fn new(k: Format, v: Format, block_size: usize) -> Self {
        KvConfig { k, v, block_size }
    }

    /// Bytes, layer by layer. Errors: a head size that a format cannot hold, with both named.
    pub fn layout(&self, geometry: &ModelGeometry) -> Result<KvLayout, StartError> {
        let layers = geometry.layers.iter().map(|layer| (layer.kv_heads, layer.head_dim, self.k, self.v));
        Ok(KvLayout::new(self.block_size, layers)?)
    }
}

fn unknown(flag: &'static str, name: &str, known: &[&str]) -> StartError {
    StartError::flag(flag, format!("is {name}; it must be one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use attention::{LayerGeometry, Rope, RopeConvention};

    fn geometry(layers: usize) -> ModelGeometry {
        let layer = LayerGeometry { num_heads: 8, kv_heads: 2, head_dim: 128, scale: 1.0, sliding_window: None };
        let rope = Rope { inv_freq: vec![1.0; 64], convention: RopeConvention::Half, attention_factor: 1.0 };
        ModelGeometry { layers: vec![layer; layers], rope }
    }

    fn flags(preset: &str, k: Option<&str>) -> KvFlags {
        KvFlags::parse(preset, k, None, 32, "auto").unwrap()
    }

    /// Memory for `bf16_tokens` tokens of bf16.
    fn demand(bf16_tokens: u64) -> Demand {
        Demand {
            kv_cache_memory: Some(bf16_tokens * 4 * 2 * 512),
            max_model_len: None,
            model_limit: 4096,
            max_num_seqs: 8,
            state_bytes: 0,
            free_memory: None,
        }
    }

    #[test]
    fn auto_takes_the_least_lossy_preset_that_holds_the_context() {
        for (tokens, k) in [(4096, Format::Bf16), (2200, Format::Tq8), (1400, Format::Tq5), (1100, Format::Tq4)] {
            let settled = flags("auto", None).settle(&geometry(4), &demand(tokens)).unwrap();
            assert_eq!((settled.config.k, settled.budget.max_model_len), (k, 4096), "{tokens}");
            assert!(settled.reason.unwrap().contains("4096"));
        }
        let settled = flags("auto", None).settle(&geometry(4), &demand(500)).unwrap();
        assert_eq!(settled.config.k, Format::Tq4);
        assert!(settled.budget.max_model_len > 1900 && settled.budget.max_model_len < 4096);
    }

    #[test]
    fn flags_go_over_the_preset() {
        let settled = flags("balanced", Some("q8_0")).settle(&geometry(4), &demand(4096)).unwrap();
        assert_eq!((settled.config.k, settled.config.v), (Format::Affine8, Format::Tq4));
    }

    #[test]
    fn wrong_names_list_the_right_ones() {
        let error = |preset, k, centre| KvFlags::parse(preset, k, None, 32, centre).unwrap_err().to_string();
        assert!(error("balancd", None, "auto").contains("near-lossless"));
        assert!(error("auto", Some("tq6"), "auto").contains("tq5"));
        assert!(error("auto", None, "on").contains("bias"));
    }
}
