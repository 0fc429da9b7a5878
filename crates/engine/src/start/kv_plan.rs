//! How K and V are stored: what the flags ask for, and what a model and the memory make of it.
use super::memory::{MemoryBudget, MemoryLimits};
use super::preset_choice::{Verdict, auto_presets, is_lossy, kl_in_words, verdict};
use crate::error::StartError;
use crate::kl::{KL_LIMIT, KlFigures};
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

    /// These options with a preset and nothing over it.
    pub(super) fn with_preset(&self, preset: &'static Preset) -> Self {
        KvOptions { preset: Some(preset), k: None, v: None, ..*self }
    }

    fn over(&self, preset: &Preset) -> KvPair {
        KvPair { k: self.k.unwrap_or(preset.pair.k), v: self.v.unwrap_or(preset.pair.v) }
    }

    /// Whether presets are chosen by their KL: nothing says how K and V are stored.
    pub(super) fn is_auto(&self) -> bool {
        self.named_pair().is_none()
    }

    /// Settles formats, layout, number of blocks and context for a model and the memory there is. `auto` takes the
    /// least lossy preset whose blocks hold the asked-for context, if its KL in `figures` allows it, and says why.
    /// Beside a format that is named, memory alone decides.
    ///
    /// Errors: those of [`MemoryBudget::new`], and formats that the model's head size does not allow.
    pub fn plan(
        &self,
        geometry: &ModelGeometry,
        limits: &MemoryLimits,
        figures: &KlFigures,
    ) -> Result<KvPlan, StartError> {
        match self.preset {
            Some(preset) => self.preset_plan(preset, geometry, limits)?,
            None => self.auto_plan(geometry, limits, figures),
        }
    }

    /// The plan with a preset; the inner error is that the memory does not hold the asked-for context.
    fn preset_plan(
        &self,
        preset: &Preset,
        geometry: &ModelGeometry,
        limits: &MemoryLimits,
    ) -> Result<Result<KvPlan, StartError>, StartError> {
        let pair = self.over(preset);
        let layout = cache_layout(pair, self.block_size, geometry)?;
        let budget = MemoryBudget::new(&layout, limits);
        Ok(budget.map(|budget| KvPlan { pair, layout, budget, reason: None, kl_need: KlNeed::None }))
    }

    fn auto_plan(
        &self,
        geometry: &ModelGeometry,
        limits: &MemoryLimits,
        figures: &KlFigures,
    ) -> Result<KvPlan, StartError> {
        let wanted = limits.max_model_len.unwrap_or(limits.model_limit);
        let judges = self.is_auto();
        let about = |preset: &Preset| match kl_in_words(preset, figures).filter(|_| judges) {
            Some(kl) => format!("{}: {kl}; ", preset.name),
            None => format!("{}: ", preset.name),
        };
        let (mut smallest, mut left_out, mut kl_need) = (&PRESETS[0], Vec::new(), KlNeed::None);
        for preset in auto_presets() {
            if judges && is_lossy(preset) && figures.of(preset.pair).is_none() {
                kl_need = KlNeed::WhenIdle;
            }
            let plan = self.preset_plan(preset, geometry, limits)?.ok();
            let holds = plan.filter(|plan| plan.budget.max_model_len >= wanted);
            match if judges { verdict(preset, figures) } else { Verdict::Allowed } {
                Verdict::Allowed => {
                    smallest = preset;
                    if let Some(plan) = holds {
                        let why = format!("the least lossy whose pool holds a context of {wanted} tokens");
                        let reason = [vec![about(preset) + &why], left_out].concat().join("; ");
                        return Ok(KvPlan { reason: Some(reason), kl_need, ..plan });
                    }
                }
                Verdict::TooLossy(kl) => {
                    left_out.push(format!("{} is passed over, KL {kl:.4} nats is above {KL_LIMIT}", preset.name));
                }
                Verdict::Unmeasured => {
                    if let (Some(plan), Some(wanted)) = (holds, limits.max_model_len) {
                        // Without it there would be no start.
                        let why = format!("no other holds the asked-for context of {wanted} tokens");
                        let reason = Some(about(preset) + &why);
                        return Ok(KvPlan { reason, kl_need: KlNeed::BeforeStart, ..plan });
                    }
                    left_out.push(format!("{} is not taken before its KL is measured", preset.name));
                }
            }
        }
        // A lossier preset would help where the memory is too small, not where the model is.
        let hints = if wanted > limits.model_limit { &[][..] } else { &left_out };
        let plan = self.preset_plan(smallest, geometry, limits)?.map_err(|error| error.with_hint(hints))?;
        let why = format!(
            "no preset that may be taken holds the model's {wanted} tokens, this one's context is {}",
            plan.budget.max_model_len
        );
        let reason = [vec![about(smallest) + &why], left_out].concat().join("; ");
        Ok(KvPlan { reason: Some(reason), kl_need, ..plan })
    }
}

/// When the KL of presets has to be measured on a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlNeed {
    /// Not at all: nothing depends on it, or it is known.
    None,
    /// When the server is idle, for later starts.
    WhenIdle,
    /// Before the cache is settled: the planned preset may turn out to be too lossy.
    BeforeStart,
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
    /// The preset that `auto` chose and why; `None` where the flags name the pair.
    pub reason: Option<String>,
    /// When the KL of presets has to be measured.
    pub kl_need: KlNeed,
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
    use crate::start::preset_choice::measured_pairs;
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
            share_of_free: 1.0,
            total_memory: None,
            is_named: false,
            needs: MemoryNeeds::default(),
        }
    }

    /// Figures of all presets that must be measured, `balanced` with this one.
    fn figures(balanced: f64) -> KlFigures {
        let balanced = (preset("balanced").pair, balanced);
        let others = measured_pairs().into_iter().filter(|pair| *pair != balanced.0).map(|pair| (pair, 0.001));
        KlFigures::new(2048, others.chain([balanced]))
    }

    fn preset(name: &str) -> &'static Preset {
        PRESETS.iter().find(|preset| preset.name == name).unwrap()
    }

    fn auto_plan(tokens: u64, figures: &KlFigures) -> KvPlan {
        options("auto", None).plan(&geometry(4), &limits(tokens), figures).unwrap()
    }

    /// Tokens of bf16 whose memory holds 4096 tokens of each preset and of no less lossy one, with room for blocks.
    fn memory_of(name: &str) -> u64 {
        let bytes = |pair| cache_layout(pair, 32, &geometry(4)).unwrap().bytes_per_token();
        let bf16 = bytes(KvPair::both(Format::Bf16));
        (4096.0 * bytes(preset(name).pair) / bf16).ceil() as u64
    }

    #[test]
    fn auto_takes_the_least_lossy_preset_that_holds_the_context() {
        for preset in auto_presets() {
            let plan = auto_plan(memory_of(preset.name), &figures(0.01));
            assert_eq!((plan.pair, plan.budget.max_model_len), (preset.pair, 4096), "{}", preset.name);
            assert_eq!(plan.kl_need, KlNeed::None);
            let reason = plan.reason.unwrap();
            assert!(reason.starts_with(preset.name) && reason.contains("4096"), "{reason}");
        }
        let plan = auto_plan(500, &figures(0.01));
        assert_eq!(plan.pair, preset("balanced").pair);
        assert!(plan.budget.max_model_len > 1900 && plan.budget.max_model_len < 4096);
        assert!(plan.reason.unwrap().starts_with("balanced: KL 0.0100 nats on 2048 tokens (limit 0.05)"));
    }

    /// The memory holds the context with `balanced` alone, whose KL is above the limit.
    #[test]
    fn auto_takes_a_shorter_context_rather_than_a_preset_above_the_limit() {
        let tokens = memory_of("balanced");
        let plan = auto_plan(tokens, &figures(0.0501));
        assert_eq!((plan.pair, plan.kl_need), (preset("near-lossless").pair, KlNeed::None));
        assert!(plan.budget.max_model_len < 4096);
        let reason = plan.reason.unwrap();
        assert!(reason.contains("balanced is passed over, KL 0.0501 nats is above 0.05"), "{reason}");
        // Where the context is asked for, there is no start, and the refusal names the way out.
        let limits = MemoryLimits { max_model_len: Some(4096), ..limits(tokens) };
        let error = options("auto", None).plan(&geometry(4), &limits, &figures(0.0501)).unwrap_err().to_string();
        assert!(error.contains("balanced is passed over") && error.contains("--kv-preset"), "{error}");
    }

    #[test]
    fn auto_measures_where_a_figure_is_missing_that_it_would_go_by() {
        let none = KlFigures::default();
        assert_eq!(auto_plan(memory_of("bf16"), &none).kl_need, KlNeed::None);
        let plan = auto_plan(memory_of("near-lossless"), &none);
        assert_eq!((plan.pair, plan.kl_need), (preset("near-lossless").pair, KlNeed::WhenIdle));
        let plan = auto_plan(memory_of("balanced"), &none);
        assert_eq!((plan.pair, plan.kl_need), (preset("near-lossless").pair, KlNeed::WhenIdle));
        assert!(plan.reason.unwrap().contains("balanced is not taken before its KL is measured"));
        // Without balanced there would be no start with this context.
        let limits = MemoryLimits { max_model_len: Some(4096), ..limits(memory_of("balanced")) };
        let plan = options("auto", None).plan(&geometry(4), &limits, &none).unwrap();
        assert_eq!((plan.pair, plan.kl_need), (preset("balanced").pair, KlNeed::BeforeStart));
    }

    #[test]
    fn flags_go_over_the_preset_and_are_never_measured() {
        let plan = |preset, k| options(preset, k).plan(&geometry(4), &limits(500), &KlFigures::default()).unwrap();
        let named = plan("balanced", Some("q8_0"));
        assert_eq!((named.pair.k, named.pair.v), (Format::Affine8, preset("balanced").pair.v));
        let beside_auto = plan("auto", Some("q8_0"));
        assert_eq!(beside_auto.pair, named.pair);
        for plan in [named, beside_auto, plan("extreme", None)] {
            assert_eq!(plan.kl_need, KlNeed::None);
        }
    }

    #[test]
    fn wrong_names_list_the_right_ones() {
        let error = |preset, k, centre| KvOptions::parse(preset, k, None, 32, centre).unwrap_err().to_string();
        assert!(error("balancd", None, "auto").contains("near-lossless"));
        assert!(error("auto", Some("tc6"), "auto").contains("tc5"));
        assert!(error("auto", None, "on").contains("bias"));
    }
}
