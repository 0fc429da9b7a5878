//! The means that centring subtracts: the model's biases, or measured ones, which are kept for the next start.
use super::backend::{most_exact_format, select};
use super::device::DecodeKernel;
use super::kv_plan::{CentreMode, cache_layout};
use crate::error::StartError;
use crate::forward::{ModelRef, PrivateSequences};
use attention::{Centring, HookedBackend, KeyCentring, KvMeans, MeanCalibration, ModelGeometry};
use compute::ComputeDevice;
use models::{Model, WeightFiles};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::{Path, PathBuf};
use text::Tokenizer;
use turboquant::{Format, KvPair};

/// The text over which means are measured. Another one would do: its means change the KL divergence by less than a
/// tenth.
pub const CALIBRATION_TEXT: &str = include_str!("../../../../LICENSE");

/// Tokens of the text that are used. More were measured not to help.
const CALIBRATION_TOKENS: usize = 512;
/// Tokens of one step of the measurement.
const CHUNK: usize = 128;
/// Tokens of a block of the cache that the measurement uses.
const BLOCK_SIZE: usize = 32;
/// Part of the name of a kept result: change it when the measurement changes.
const VERSION: &str = "2";

/// What a calibration needs of a loaded model.
pub struct Calibration<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Names the weights: means are kept for these weights and this text.
    pub fingerprint: &'a str,
    /// The files that its weights lie in.
    pub files: &'a WeightFiles,
    /// The text over which means are measured.
    pub text: &'a str,
    /// What computes the model.
    pub device: &'a dyn ComputeDevice,
}

impl Calibration<'_> {
    /// What is subtracted from the K and V of each layer under `mode`, where they are stored as `pair`.
    ///
    /// Errors: `bias` for a model without biases.
    pub fn centring(&self, mode: CentreMode, pair: KvPair) -> Result<Centring, StartError> {
        let geometry = self.model.geometry();
        let bias = self.model.kv_bias();
        let floats = |format| bias.is_some() && matches!(format, Format::Bf16 | Format::F16);
        let wanted = |format: Format| format.has_one_scale() || floats(format);
        let (k, v) = (wanted(pair.k), wanted(pair.v));
        if mode == CentreMode::Off || !(k || v) {
            return Ok(Centring::none(geometry));
        }
        let means = match (mode, &bias) {
            (CentreMode::Bias, Some(bias)) => {
                tracing::info!("centring: the biases of K and V are subtracted before they are stored");
                bias.clone()
            }
            (CentreMode::Bias, None) => {
                let message = "is bias; this model's K and V projections have none. Use auto or off";
                return Err(StartError::flag("--kv-centre", message));
            }
            _ => self.means()?,
        };
        let keys = if k { KeyCentring::of(pair.k) } else { KeyCentring::Off };
        Ok(Centring::new(geometry, &means, |_| keys, |_| v)?)
    }

    /// The means that an earlier start has kept, or measured ones, which are kept.
    ///
    /// Errors: whatever tokenizer and model refuse.
    pub fn means(&self) -> Result<KvMeans, StartError> {
        let kept = cache_file(self.fingerprint, self.text);
        if let Some(means) = kept.as_deref().and_then(|path| read(path, self.model.geometry())) {
            tracing::info!("centring: means of K and V from {}", kept.unwrap_or_default().display());
            return Ok(means);
        }
        let (means, share) = self.measure()?;
        // Means of other weights must not be kept under these weights' name.
        self.files.check()?;
        tracing::info!(
            "centring: {:.0} % of the keys' energy is constant and subtracted (over {CALIBRATION_TOKENS} tokens)",
            100.0 * share
        );
        if let Some(path) = kept
            && let Err(error) = write(&path, &means)
        {
            tracing::warn!("the means of K and V are not kept: {}: {error}", path.display());
        }
        Ok(means)
    }

    /// The means over the beginning of the text, and the share of the keys' energy that lies in them.
    fn measure(&self) -> Result<(KvMeans, f64), StartError> {
        let geometry = self.model.geometry();
        let mut tokens = self.tokenizer.encode(self.text, true)?;
        tokens.truncate(CALIBRATION_TOKENS);
        // What f16 rounds, too, is far below the means.
        let layout = cache_layout(KvPair::both(most_exact_format(self.device.tensors())), BLOCK_SIZE, geometry)?;
        let exact = select(layout, geometry, Centring::none(geometry), self.device.tensors(), DecodeKernel::Mma)?;
        let mut backend = HookedBackend::new(exact, MeanCalibration::new(geometry));
        let sequence = PrivateSequences::new(self.model, &mut backend, 1, tokens.len())?;
        let model = ModelRef { model: self.model, device: self.device };
        for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
            let start = i * CHUNK;
            tracing::info!("centring: measuring K and V, {start} of {} tokens", tokens.len());
            sequence.fill(model, &mut backend, &[(0, start..start + chunk.len())], chunk)?;
        }
        Ok(backend.into_hook().finish())
    }
}

/// Where this program keeps what can be made again: `TALLOW_CACHE_DIR`, or else `tallow` in the user's cache folder.
/// `None` where there is neither.
pub fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("TALLOW_CACHE_DIR").map(PathBuf::from);
    named.or_else(|| dirs::cache_dir().map(|dir| dir.join("tallow")))
}

/// The file of the means; `None` where there is no folder for it.
fn cache_file(fingerprint: &str, text: &str) -> Option<PathBuf> {
    let text = &blake3::hash(text.as_bytes()).to_hex()[..8];
    Some(cache_folder()?.join("centring").join(format!("{fingerprint}-{text}-{VERSION}.safetensors")))
}

/// Reads means. `None` for a file that is missing, or has no means of this model.
fn read(path: &Path, geometry: &ModelGeometry) -> Option<KvMeans> {
    let bytes = std::fs::read(path).ok()?;
    let file = SafeTensors::deserialize(&bytes).ok()?;
    let list = |side: &str| {
        geometry
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| {
                let view = file.tensor(&format!("{side}.{i}")).ok()?;
                let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                (values.len() == layer.kv_heads * layer.head_dim && values.iter().all(|x| x.is_finite()))
                    .then_some(values)
            })
            .collect::<Option<Vec<_>>>()
    };
    Some(KvMeans { keys: list("keys")?, values: list("values")? })
}

fn write(path: &Path, means: &KvMeans) -> std::io::Result<()> {
    let bytes = |list: &[Vec<f32>]| -> Vec<Vec<u8>> {
        list.iter().map(|layer| layer.iter().flat_map(|x| x.to_le_bytes()).collect()).collect()
    };
    let sides = [("keys", bytes(&means.keys)), ("values", bytes(&means.values))];
    let mut views = Vec::new();
    for (side, layers) in &sides {
        for (i, data) in layers.iter().enumerate() {
            let view = TensorView::new(Dtype::F32, vec![data.len() / 4], data).map_err(std::io::Error::other)?;
            views.push((format!("{side}.{i}"), view));
        }
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Another server may read it at this moment.
    let part = path.with_extension(format!("{}.part", std::process::id()));
    safetensors::serialize_to_file(views, None, &part).map_err(std::io::Error::other)?;
    std::fs::rename(part, path)
}
