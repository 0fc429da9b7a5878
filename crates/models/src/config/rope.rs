//! Frequencies of the RoPE pairs with context scaling, as `transformers` computes them (`modeling_rope_utils`).
use super::json::ConfigJson;
use crate::error::ModelError;
use attention::Rope;
use serde_json::Value;
use std::f64::consts::PI;

/// The scaling of frequencies for a longer context.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    None,
    Linear {
        factor: f64,
    },
    /// Llama 3.1: slow frequencies divided by `factor`, fast ones kept, a blend between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    Yarn(Yarn),
}

/// YaRN (Peng et al., arXiv:2309.00071).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Yarn {
    pub factor: f64,
    pub original: f64,
    pub beta_fast: f64,
    pub beta_slow: f64,
    /// Whether the ends of the ramp are whole pairs.
    pub truncate: bool,
    pub attention_factor: f64,
}

impl Yarn {
    /// The paper's factor of the logits for a context `scale` times as long.
    pub fn magnitude(scale: f64, weight: f64) -> f64 {
        if scale <= 1.0 { 1.0 } else { 0.1 * weight * scale.ln() + 1.0 }
    }

    /// The share of the unscaled frequency that each pair keeps.
    fn kept(&self, pairs: usize, theta: f64) -> Vec<f32> {
        let dim = (2 * pairs) as f64;
        let pair_of = |turns: f64| dim * (self.original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0) as f32, high.min(dim - 1.0) as f32);
        if low == high {
            high += 0.001;
        }
        (0..pairs).map(|i| 1.0 - ((i as f32 - low) / (high - low)).clamp(0.0, 1.0)).collect()
    }
}

/// Frequencies of `pairs` pairs, and the attention factor. f32 throughout, as the models were trained: the angle of a
/// far position differs otherwise.
pub(crate) fn frequencies(theta: f64, pairs: usize, scaling: &Scaling) -> (Vec<f32>, f32) {
    let powers = (0..pairs).map(|i| (theta as f32).powf((2 * i) as f32 / (2 * pairs) as f32));
    let mut inv_freq: Vec<f32> = powers.map(|power| 1.0 / power).collect();
    let mut attention_factor = 1.0;
    match scaling {
        Scaling::None => {}
        Scaling::Linear { factor } => inv_freq.iter_mut().for_each(|f| *f /= *factor as f32),
        Scaling::Llama3 { factor, low, high, original } => {
            let (factor, low, high, original) = (*factor as f32, *low as f32, *high as f32, *original as f32);
            for f in &mut inv_freq {
                let wavelen = 2.0 * std::f32::consts::PI / *f;
                if wavelen > original / low {
                    *f /= factor;
                } else if wavelen >= original / high {
                    let smooth = (original / wavelen - low) / (high - low);
                    *f = (1.0 - smooth) * *f / factor + smooth * *f;
                }
            }
        }
        Scaling::Yarn(yarn) => {
            attention_factor = yarn.attention_factor as f32;
            for (f, kept) in inv_freq.iter_mut().zip(yarn.kept(pairs, theta)) {
                *f = *f / yarn.factor as f32 * (1.0 - kept) + *f * kept;
            }
        }
    }
    (inv_freq, attention_factor)
}

/// RoPE as `config.json` describes it, and the factor by which scaling lengthens a context beyond
/// `max_position_embeddings`.
pub(super) fn rope_of_json(json: &ConfigJson, head_dim: usize) -> Result<(Rope, f64), ModelError> {
    // transformers 5 writes theta and scaling into `rope_parameters`.
    let value = json.get::<Value>("rope_parameters")?.or(json.get("rope_scaling")?).unwrap_or(Value::Null);
    let parameters = Parameters { value: &value, json };
    let theta = json.get("rope_theta")?.or_else(|| parameters.number("rope_theta")).unwrap_or(10_000.0);
    if !(theta.is_finite() && theta > 1.0) {
        return Err(json.error("rope_theta", format!("is {theta}; it must be larger than 1")));
    }
    let part = parameters.number("partial_rotary_factor").or(json.get("partial_rotary_factor")?).unwrap_or(1.0);
    let rotary = (head_dim as f64 * part) as usize;
    if !(part > 0.0 && part <= 1.0) || rotary == 0 || !rotary.is_multiple_of(2) {
        let message = format!("is {part} of head_dim {head_dim}; RoPE needs an even number of elements");
        return Err(json.error("partial_rotary_factor", message));
    }
    let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str).unwrap_or("default");
    let mut context_factor = 1.0;
    let scaling = match kind {
        // Multimodal RoPE gives a text the same position in all three of its sections.
        "default" | "mrope" => Scaling::None,
        "linear" => Scaling::Linear { factor: parameters.need("factor")? },
        "llama3" => Scaling::Llama3 {
            factor: parameters.need("factor")?,
            low: parameters.need("low_freq_factor")?,
            high: parameters.need("high_freq_factor")?,
            original: parameters.need("original_max_position_embeddings")?,
        },
        "yarn" => {
            let positions = json.get::<usize>("max_position_embeddings")?;
            let yarn = parameters.yarn(positions)?;
            if let Some(limit) = positions {
                context_factor = (yarn.factor * yarn.original / limit as f64).max(1.0);
            }
            Scaling::Yarn(yarn)
        }
        other => {
            let message = format!("is of type {other}; known are default, linear, llama3, yarn");
            return Err(json.error("rope_scaling", message));
        }
    };
    let (inv_freq, attention_factor) = frequencies(theta, rotary / 2, &scaling);
    let error = |e| json.error("rope_scaling", format!("gives no RoPE: {e}"));
    let rope = Rope::new(inv_freq, attention_factor).map_err(error)?;
    Ok((rope, context_factor))
}

/// The object that describes RoPE: `rope_parameters`, or `rope_scaling` in older files.
struct Parameters<'a> {
    value: &'a Value,
    json: &'a ConfigJson,
}

impl Parameters<'_> {
    fn number(&self, name: &str) -> Option<f64> {
        self.value.get(name).and_then(Value::as_f64)
    }

    fn need(&self, name: &str) -> Result<f64, ModelError> {
        let value = self.number(name).filter(|v| v.is_finite() && *v > 0.0);
        value.ok_or_else(|| self.json.error("rope_scaling", format!("needs a positive {name}")))
    }

    fn yarn(&self, positions: Option<usize>) -> Result<Yarn, ModelError> {
        let factor = self.need("factor")?;
        let original = self.number("original_max_position_embeddings");
        let original = original.or(positions.map(|n| n as f64));
        let all = |name| self.number(name).filter(|m| *m != 0.0);
        let attention_factor = match (self.number("attention_factor"), all("mscale"), all("mscale_all_dim")) {
            (Some(factor), ..) => factor,
            (None, Some(mscale), Some(all)) => Yarn::magnitude(factor, mscale) / Yarn::magnitude(factor, all),
            _ => Yarn::magnitude(factor, 1.0),
        };
        Ok(Yarn {
            factor,
            original: original
                .filter(|n| *n > 0.0)
                .ok_or_else(|| self.json.error("rope_scaling", "needs original_max_position_embeddings"))?,
            beta_fast: self.number("beta_fast").unwrap_or(32.0),
            beta_slow: self.number("beta_slow").unwrap_or(1.0),
            truncate: self.value.get("truncate").and_then(Value::as_bool).unwrap_or(true),
            attention_factor,
        })
    }
}
