//! How K and V are stored: what the flags ask for, and what a model and the memory make of it.
use super::memory::{MemoryBudget, MemoryLimits};
use crate::error::StartError;
use attention::ModelGeometry;
use kv::KvLayout;
use turboquant::{Format, KvPair, PRESETS, Preset, Side};

/// What keys go through before they are stored (`--kv-centre`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CentreMode {
    /// Their measured means are subtracted, with one of its own for position 0, and RoPE pairs are scaled. Keys of
    /// 16-bit formats are centred where the model has a K bias, and not scaled.
    #[default]
    Auto,
    /// The bias of the K projections is subtracted.
    Bias,
    /// Nothing is subtracted or scaled.
    Off,
}

impl CentreMode {
    /// The flag's values.
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

/// What the flags say about the cache, parsed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvOptions {
    /// `--kv-preset`; `None` for `auto`.
    preset: Option<&'static Preset>,
    /// `--k-quant`, over the preset.
    k: Option<Format>,
    /// `--v-quant`, over the preset.
    v: Option<Format>,
    /// `--block-size`, tokens.
    pub block_size: usize,
    /// `--kv-centre`.
    pub centre: CentreMode,
}

impl KvOptions {
    /// Parses the flags' values. Errors: an unknown name, with the known ones.
    pub fn parse(
        preset: &str,
        k: Option<&str>,
        v: Option<&str>,
        block_size: usize,
        centre: &str,
    ) -> Result<Self, StartError> {
        let found = PRESETS.iter().find(|known| known.name == preset);
        if found.is_none() && preset != "auto" {
            let names: Vec<&str> = ["auto"].into_iter().chain(PRESETS.iter().map(|p| p.name)).collect();
            return Err(unknown("--kv-preset", preset, &names));
        }
        let format = |flag: &'static str, side, name: Option<&str>| {
            let parse = |name| Format::parse(side, name);
            name.map(parse).transpose().map_err(|e| StartError::flag(flag, e.to_string()))
        };
        let (k, v) = (format("--k-quant", Side::K, k)?, format("--v-quant", Side::V, v)?);
        Ok(KvOptions { preset: found, k, v, block_size, centre: CentreMode::parse(centre)? })
    }

    /// Exactly this pair, centred as by default.
    pub fn pair(pair: KvPair, block_size: usize) -> Self {
        KvOptions { preset: Some(&PRESETS[0]), k: Some(pair.k), v: Some(pair.v), block_size, centre: CentreMode::Auto }
    }

    /// Errors: a block size that there is no layout for.
    pub(super) fn check(&self) -> Result<(), StartError> {
        Ok(KvLayout::check_block_size(self.block_size)?)
    }

    /// The pair that the flags name: a preset's, with what `--k-quant` and `--v-quant` put over it (over bf16, with
    /// `auto`). `None` if none of the three says anything.
    pub fn named_pair(&self) -> Option<KvPair> {
        let named = self.preset.is_some() || self.k.is_some() || self.v.is_some();
        named.then(|| self.over(self.preset.unwrap_or(&PRESETS[0])))
    }

    fn over(&self, preset: &Preset) -> KvPair {
        KvPair { k: self.k.unwrap_or(preset.pair.k), v: self.v.unwrap_or(preset.pair.v) }
    }

    /// Settles formats, layout, number of blocks and context for a model and the memory there is. `auto` takes the
    /// least lossy preset whose blocks hold the asked-for context, and says why.
    ///
    /// Errors: those of [`MemoryBudget::new`], and formats that the model's head size does not allow.
    pub fn plan(&self, geometry: &ModelGeometry, limits: &MemoryLimits) -> Result<KvPlan, StartError> {
        let plan = |preset: &Preset| -> Result<_, StartError> {
            let pair = self.over(preset);
            let layout = cache_layout(pair, self.block_size, geometry)?;
            let budget = MemoryBudget::new(&layout, limits);
            Ok(budget.map(|budget| KvPlan { pair, layout, budget, reason: None }))
        };
        if let Some(preset) = self.preset {
            return plan(preset)?;
        }
        let wanted = limits.max_model_len.unwrap_or(limits.model_limit);
        let mut smallest = &PRESETS[0];
        for preset in PRESETS.iter().filter(|preset| preset.auto) {
            smallest = preset;
            if let Ok(plan) = plan(preset)?
                && plan.budget.max_model_len >= wanted
            {
                let name = preset.name;
                let reason = format!("{name}: the least lossy preset whose pool holds a context of {wanted} tokens");
                return Ok(KvPlan { reason: Some(reason), ..plan });
            }
        }
        let plan = plan(smallest)??;
        let reason = format!(
            "{}: no preset's pool holds the model's {wanted} tokens; this one's context is {}",
            smallest.name, plan.budget.max_model_len
        );
        Ok(KvPlan { reason: Some(reason), ..plan })
    }
}

/// How K and V of a model are stored, in how many blocks, and for how long a context.
#[derive(Debug, Clone, PartialEq)]
pub struct KvPlan {
    /// The formats, of every layer.
    pub pair: KvPair,
    /// The bytes of a block, layer by layer.
    pub layout: KvLayout,
    /// How many blocks there are, and the longest context.
    pub budget: MemoryBudget,
    /// Why `auto` chose this preset; `None` where the flags name the pair.
    pub reason: Option<String>,
}

/// The bytes of a block of `block_size` tokens in each layer of a model that owns a cache.
///
/// Errors: a block size other than 16 or 32; a head size that a format cannot hold, with both named.
pub fn cache_layout(pair: KvPair, block_size: usize, geometry: &ModelGeometry) -> Result<KvLayout, StartError> {
    let layers = geometry.layers.iter().map(|layer| (layer.kv_heads, layer.head_dim, pair.k, pair.v));
    Ok(KvLayout::new(block_size, layers)?)
}

fn unknown(flag: &'static str, name: &str, known: &[&str]) -> StartError {
    StartError::flag(flag, format!("is {name}; it must be one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::memory::MemoryNeeds;
    use attention::LayerGeometry;

    fn geometry(layers: usize) -> ModelGeometry {
        let layer =
            LayerGeometry { num_heads: 8, kv_heads: 2, head_dim: 128, scale: 1.0, sliding_window: None, rope: None };
        ModelGeometry { layers: vec![layer; layers] }
    }

    fn options(preset: &str, k: Option<&str>) -> KvOptions {
        KvOptions::parse(preset, k, None, 32, "auto").unwrap()
    }

    /// Memory for `bf16_tokens` tokens of bf16.
    fn limits(bf16_tokens: u64) -> MemoryLimits {
        MemoryLimits {
            kv_cache_memory: Some(bf16_tokens * 4 * 2 * 512),
            max_model_len: None,
            model_limit: 4096,
            max_num_seqs: 8,
            state_bytes: 0,
            snapshots: true,
            free_memory: None,
            total_memory: None,
            needs: MemoryNeeds::default(),
        }
    }

    #[test]
    fn auto_takes_the_least_lossy_preset_that_holds_the_context() {
        for (tokens, k) in [(4096, Format::Bf16), (2200, Format::Tq8), (1400, Format::Tq5), (1100, Format::Tq4)] {
            let plan = options("auto", None).plan(&geometry(4), &limits(tokens)).unwrap();
            assert_eq!((plan.pair.k, plan.budget.max_model_len), (k, 4096), "{tokens}");
            assert!(plan.reason.unwrap().contains("4096"));
        }
        let plan = options("auto", None).plan(&geometry(4), &limits(500)).unwrap();
        assert_eq!(plan.pair.k, Format::Tq4);
        assert!(plan.budget.max_model_len > 1900 && plan.budget.max_model_len < 4096);
    }

    #[test]
    fn flags_go_over_the_preset() {
        let plan = options("balanced", Some("q8_0")).plan(&geometry(4), &limits(4096)).unwrap();
        assert_eq!((plan.pair.k, plan.pair.v), (Format::Affine8, Format::Tq4));
    }

    #[test]
    fn wrong_names_list_the_right_ones() {
        let error = |preset, k, centre| KvOptions::parse(preset, k, None, 32, centre).unwrap_err().to_string();
        assert!(error("balancd", None, "auto").contains("near-lossless"));
        assert!(error("auto", Some("tq6"), "auto").contains("tq5"));
        assert!(error("auto", None, "on").contains("bias"));
    }
}
