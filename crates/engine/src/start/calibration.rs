//! What keys go through before they are stored: the constants of a model, measured or its biases. Measured ones are
//! kept for the next start.
use super::backend::{most_exact_format, select};
use super::config::{StartPhase, StartProgress};
use super::device::DecodeKernel;
use super::kv_plan::{CentreMode, cache_layout};
use crate::error::StartError;
use crate::forward::{ModelRef, PrivateSequences};
use attention::{CalibrationReport, Centring, HookedBackend, KeyCalibration, KeyCentring, KeyConstants, ModelGeometry};
use compute::ComputeDevice;
use models::{Model, WeightFiles};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::{Path, PathBuf};
use text::Tokenizer;
use turboquant::{Format, KvPair};

/// The text over which keys are measured. Another one would do: its constants change the KL divergence by less than a
/// tenth.
pub const CALIBRATION_TEXT: &str = include_str!("../../../../LICENSE");

/// Tokens of the text that are used for what holds at all positions. More were measured not to help.
const CALIBRATION_TOKENS: usize = 512;
/// Starts of texts that are used for what holds at position 0, and tokens of each: as many as a start's first keys may
/// be sinks, to be told in the log.
const STARTS: usize = 64;
const START_TOKENS: usize = 8;
/// Starts of one step of the measurement.
const STARTS_AT_ONCE: usize = 8;
/// Tokens of one step of the measurement.
const CHUNK: usize = 128;
/// Tokens of a block of the cache that the measurement uses.
const BLOCK_SIZE: usize = 32;
/// How many times as far from the mean as later keys, in squares, those of a position lie that the log names as a sink.
const SINK: f64 = 2.0;
/// Part of the name of a kept result: change it when the measurement changes.
const VERSION: &str = "3";

/// What a calibration needs of a loaded model.
pub struct Calibration<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Names the weights: constants are kept for these weights and this text.
    pub fingerprint: &'a str,
    /// The files that its weights lie in.
    pub files: &'a WeightFiles,
    /// The text over which keys are measured.
    pub text: &'a str,
    /// What computes the model.
    pub device: &'a dyn ComputeDevice,
    /// The folder in which constants are kept; `None`: they are measured at each start.
    pub folder: Option<&'a Path>,
    /// Told how a measurement gets on.
    pub progress: Option<&'a StartProgress>,
}

impl Calibration<'_> {
    /// What the keys of each layer go through under `mode`, where they are stored as `pair` says.
    ///
    /// Errors: `bias` for a model without biases.
    pub fn centring(&self, mode: CentreMode, pair: KvPair) -> Result<Centring, StartError> {
        Ok(self.centrings(mode, &[pair])?.remove(0))
    }

    /// What [`Self::centring`] gives for each of `pairs`. Constants are read or measured once.
    ///
    /// Errors: `bias` for a model without biases.
    pub(super) fn centrings(&self, mode: CentreMode, pairs: &[KvPair]) -> Result<Vec<Centring>, StartError> {
        let geometry = self.model.geometry();
        let bias = self.model.key_bias();
        let has_bias = bias.is_some();
        let is_centred = |pair: &KvPair| {
            let float = has_bias && matches!(pair.k, Format::Bf16 | Format::F16);
            mode != CentreMode::Off && (pair.k.is_rotated() || float)
        };
        if !pairs.iter().any(is_centred) {
            return Ok(pairs.iter().map(|_| Centring::none(geometry)).collect());
        }
        let constants = match (mode, bias) {
            (CentreMode::Bias, Some(bias)) => {
                tracing::info!("centring: the bias of K is subtracted before keys are stored");
                KeyConstants::of_bias(bias)
            }
            (CentreMode::Bias, None) => {
                let message = "is bias; this model's K projections have none. Use auto or off";
                return Err(StartError::flag("--kv-centre", message));
            }
            _ => self.constants()?,
        };
        let centring = |pair: &KvPair| match is_centred(pair) {
            true => Ok(Centring::new(geometry, &constants, |_| KeyCentring::of(pair.k))?),
            false => Ok(Centring::none(geometry)),
        };
        pairs.iter().map(centring).collect()
    }

    /// The constants that an earlier start has kept, or measured ones, which are kept.
    ///
    /// Errors: whatever tokenizer and model refuse.
    pub fn constants(&self) -> Result<KeyConstants, StartError> {
        let kept = self.folder.map(|folder| folder.join(file_name(self.fingerprint, self.text)));
        if let Some(constants) = kept.as_deref().and_then(|path| read(path, self.model.geometry())) {
            tracing::info!("centring: what is known of the keys from {}", kept.unwrap_or_default().display());
            return Ok(constants);
        }
        let (constants, report) = self.measure()?;
        // Constants of other weights must not be kept under these weights' name.
        self.files.check()?;
        log_report(&report);
        if let Some(path) = kept
            && let Err(error) = write(&path, &constants)
        {
            tracing::warn!("what was measured of the keys is not kept: {}: {error}", path.display());
        }
        Ok(constants)
    }

    /// Measures keys and queries over the beginning of the text, and keys over starts from all of it.
    fn measure(&self) -> Result<(KeyConstants, CalibrationReport), StartError> {
        let geometry = self.model.geometry();
        let body = self.tokenizer.encode(self.text, false)?;
        let bos: Vec<u32> = self.tokenizer.added_bos().into_iter().collect();
        let mut tokens = [&bos[..], &body].concat();
        tokens.truncate(CALIBRATION_TOKENS);
        let starts = starts(&body, &bos);
        // What f16 rounds, too, is far below the constants.
        let layout = cache_layout(KvPair::both(most_exact_format(self.device.tensors())), BLOCK_SIZE, geometry)?;
        let exact = select(layout, geometry, Centring::none(geometry), self.device.tensors(), DecodeKernel::Mma)?;
        let mut backend = HookedBackend::new(exact, KeyCalibration::new(geometry, START_TOKENS));
        let model = ModelRef { model: self.model, device: self.device };
        let total = tokens.len() + starts.iter().map(Vec::len).sum::<usize>();
        let tell = |done| self.progress.iter().for_each(|progress| progress.at(StartPhase::Calibration, done, total));
        let sequence = PrivateSequences::new(model, &mut backend, 1, tokens.len())?;
        for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
            let start = i * CHUNK;
            tell(start);
            tracing::info!("centring: measuring keys and queries, {start} of {} tokens", tokens.len());
            sequence.fill(model, &mut backend, &[(0, start..start + chunk.len())], chunk)?;
        }
        backend.hook().begin_starts();
        tell(tokens.len());
        let sequences = PrivateSequences::new(model, &mut backend, STARTS_AT_ONCE, START_TOKENS)?;
        for starts in starts.chunks(STARTS_AT_ONCE) {
            let ranges: Vec<_> = starts.iter().enumerate().map(|(i, start)| (i, 0..start.len())).collect();
            sequences.fill(model, &mut backend, &ranges, &starts.concat())?;
        }
        tell(total);
        Ok(backend.hook().finish()?)
    }
}

/// Starts of texts, spread evenly over one text, each after `bos`.
fn starts(text: &[u32], bos: &[u32]) -> Vec<Vec<u32>> {
    let pieces: Vec<&[u32]> = text.chunks(START_TOKENS - bos.len()).collect();
    let count = pieces.len().min(STARTS);
    (0..count).map(|i| [bos, pieces[i * pieces.len() / count]].concat()).collect()
}

fn log_report(report: &CalibrationReport) {
    let CalibrationReport { share, scales: [low, high], distances } = report;
    tracing::info!(
        "centring: {:.0} % of the keys' energy is constant and subtracted; RoPE pairs are scaled by {low:.2} to \
         {high:.2} (over {CALIBRATION_TOKENS} tokens and {STARTS} starts)",
        100.0 * share
    );
    let Some((first, others)) = distances.split_first() else { return };
    let sinks = others.iter().enumerate().filter(|(_, distance)| **distance > SINK);
    let sinks: Vec<String> = sinks.map(|(i, distance)| format!("{} ({distance:.1})", i + 1)).collect();
    let sinks = match &sinks[..] {
        [] => format!("those at positions 1 to {} do not", others.len()),
        _ => format!("and those at positions {}", sinks.join(", ")),
    };
    tracing::info!(
        "centring: keys at position 0 lie {first:.1} times as far from the mean as later ones (squared), {sinks}"
    );
}

/// Where this program keeps what can be made again: `TALLOW_CACHE_DIR`, or else `tallow` in the user's cache folder.
/// `None` where there is neither.
pub fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("TALLOW_CACHE_DIR").map(PathBuf::from);
    named.or_else(|| dirs::cache_dir().map(|dir| dir.join("tallow")))
}

/// The folder in which what is measured of models is kept; `None` where there is none.
pub(super) fn measurements_folder() -> Option<PathBuf> {
    Some(cache_folder()?.join("centring"))
}

/// The name of the file of a model's constants.
fn file_name(fingerprint: &str, text: &str) -> String {
    format!("{fingerprint}-{}.safetensors", method(text))
}

/// Names how constants are measured: the text and the version of the measurement.
pub(super) fn method(text: &str) -> String {
    format!("{}-{VERSION}", &blake3::hash(text.as_bytes()).to_hex()[..8])
}

/// Reads constants. `None` for a file that is missing, or has no constants of this model.
fn read(path: &Path, geometry: &ModelGeometry) -> Option<KeyConstants> {
    let bytes = std::fs::read(path).ok()?;
    let file = SafeTensors::deserialize(&bytes).ok()?;
    let list = |what: &str| {
        geometry
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| {
                let view = file.tensor(&format!("{what}.{i}")).ok()?;
                let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                (values.len() == layer.kv_heads * layer.head_dim && values.iter().all(|x| x.is_finite()))
                    .then_some(values)
            })
            .collect::<Option<Vec<_>>>()
    };
    Some(KeyConstants { means: list("means")?, first_means: list("first_means")?, scales: list("scales")? })
}

fn write(path: &Path, constants: &KeyConstants) -> std::io::Result<()> {
    let bytes = |list: &[Vec<f32>]| -> Vec<Vec<u8>> {
        list.iter().map(|layer| layer.iter().flat_map(|x| x.to_le_bytes()).collect()).collect()
    };
    let KeyConstants { means, first_means, scales } = constants;
    let lists = [("means", bytes(means)), ("first_means", bytes(first_means)), ("scales", bytes(scales))];
    let mut views = Vec::new();
    for (what, layers) in &lists {
        for (i, data) in layers.iter().enumerate() {
            let view = TensorView::new(Dtype::F32, vec![data.len() / 4], data).map_err(std::io::Error::other)?;
            views.push((format!("{what}.{i}"), view));
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
