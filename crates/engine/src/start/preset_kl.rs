//! The KL of presets on the model at hand, by which `--kv-preset auto` goes: read, measured before the start, or left
//! to the engine's idle time.
use super::backend::{most_exact_format, select};
use super::calibration::method;
use super::config::{EngineConfig, StartPhase};
use super::identity::version;
use super::kv_plan::{KvPlan, cache_layout};
use super::loading::ModelBundle;
use super::memory::MemoryLimits;
use super::preset_choice::{LOSSIEST_UNMEASURED, measured_pairs};
use crate::error::StartError;
use crate::forward::ModelRef;
use crate::kl::{FiguresFile, FiguresKey, KlFigures, KlSetup};
use crate::serve::IdleMeasurement;
use attention::{AttentionBackend, Centring};
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;
use turboquant::KvPair;

/// Tokens of a block of the caches that are measured.
const BLOCK_SIZE: usize = 32;

/// The file of the presets' figures in `folder`. `text`: the one over which keys are measured.
pub(super) fn figures_file(
    config: &EngineConfig,
    folder: &Path,
    fingerprint: &str,
    text: &str,
    device: &Device,
) -> FiguresFile {
    let centring = format!("{:?} {}", config.kv.centre, method(text));
    let device = format!("{:?}", device.location());
    FiguresFile::new(folder, &FiguresKey { fingerprint, centring: &centring, device: &device, codecs: &version() })
}

/// The file of a loaded model's figures; `None` where there is no folder for it.
pub(super) fn figures_file_of(config: &EngineConfig, bundle: &ModelBundle) -> Option<FiguresFile> {
    let folder = bundle.measurements_folder.as_deref()?;
    Some(figures_file(config, folder, &bundle.fingerprint, &bundle.calibration_text, bundle.device.tensors()))
}

/// Measures before the start, and keeps the figures.
///
/// Errors: too little memory, whatever model or backend refuse.
pub(super) fn measure_now(
    config: &EngineConfig,
    bundle: &ModelBundle,
    limits: &MemoryLimits,
) -> Result<KlFigures, StartError> {
    let measured = || {
        let setup = setup(config, bundle)?;
        check_room(&setup, limits, 0)?;
        let model = ModelRef { model: &*bundle.model, device: &*bundle.device };
        let tell = |done, total| {
            bundle.progress.iter().for_each(|progress| progress.at(StartPhase::PresetKl, done, total));
        };
        let figures = setup.begin(model)?.finish(model, tell)?;
        // Figures of other weights must not be kept under these weights' name.
        bundle.files.check()?;
        Ok(figures)
    };
    let figures = measured().map_err(|error: StartError| {
        let message = format!("is auto, which cannot tell how lossy presets are on this model: {error}; name a preset");
        StartError::flag("--kv-preset", message)
    })?;
    figures_file_of(config, bundle).iter().for_each(|file| file.write(&figures));
    Ok(figures)
}

/// What an idle engine measures for later starts; `None`, with the reason in the log, where it cannot.
pub(super) fn when_idle(
    config: &EngineConfig,
    bundle: &ModelBundle,
    limits: &MemoryLimits,
    plan: &KvPlan,
) -> Option<IdleMeasurement> {
    let planned = || {
        if !bundle.model.has_head() {
            return Err("the model has no head".to_owned());
        }
        let file = figures_file_of(config, bundle).ok_or("there is no folder to keep it in")?;
        let setup = setup(config, bundle).map_err(|e| e.to_string())?;
        let blocks = plan.budget.num_blocks * plan.layout.bytes_per_block();
        let states = limits.state_bytes * (limits.max_num_seqs + plan.budget.num_snapshots) as u64;
        check_room(&setup, limits, blocks as u64 + states).map_err(|e| e.to_string())?;
        Ok((setup, file))
    };
    match planned() {
        Ok((setup, file)) => {
            tracing::info!(
                "kv presets: their KL on this model is measured while nothing is asked for, for later starts"
            );
            Some(IdleMeasurement::new(setup, file))
        }
        Err(problem) => {
            tracing::info!(
                "kv presets: their KL on this model is not measured: {problem}; auto takes none that is lossier than \
                 {LOSSIEST_UNMEASURED}"
            );
            None
        }
    }
}

/// What a measurement of all presets that `auto` may take needs.
fn setup(config: &EngineConfig, bundle: &ModelBundle) -> Result<KlSetup, StartError> {
    let (geometry, device, pairs) = (bundle.model.geometry(), bundle.device.tensors(), measured_pairs());
    let backend = |pair, centring| -> Result<Box<dyn AttentionBackend>, StartError> {
        let layout = cache_layout(pair, BLOCK_SIZE, geometry)?;
        select(layout, geometry, centring, device, bundle.decode_kernel)
    };
    let centrings = bundle.calibration().centrings(config.kv.centre, &pairs)?;
    let backends = pairs.into_iter().zip(centrings).map(|(pair, centring)| Ok((pair, backend(pair, centring)?)));
    Ok(KlSetup {
        tokenizer: Arc::clone(&bundle.tokenizer),
        config: bundle.model_config.clone(),
        exact: backend(KvPair::both(most_exact_format(device)), Centring::none(geometry))?,
        pairs: backends.collect::<Result<_, StartError>>()?,
    })
}

/// Errors: less memory than the measurement takes beside `cache` bytes of cache.
fn check_room(setup: &KlSetup, limits: &MemoryLimits, cache: u64) -> Result<(), StartError> {
    let (needed, room) = (setup.bytes(), limits.room_beside(cache));
    match room.filter(|room| *room < needed) {
        None => Ok(()),
        Some(room) => {
            let message = format!(
                "the measurement takes {} MiB, and {} MiB are left of memory",
                needed.div_ceil(1 << 20),
                room >> 20
            );
            Err(candle_core::Error::Msg(message).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::kv_plan::KvOptions;
    use crate::start::loading::load;
    use crate::start::plan;
    use models::WeightBytes;

    fn config(centre: &str) -> EngineConfig {
        let kv = KvOptions::parse("auto", None, None, 32, centre).unwrap();
        EngineConfig { kv, kv_cache_memory: Some(4 << 20), ..EngineConfig::new(testkit::repo("models/demo")) }
    }

    /// Other centring means other figures, and so do other weights.
    #[test]
    fn figures_are_of_one_calibration_and_of_one_models_weights() {
        let folder = tempfile::tempdir().unwrap();
        let file =
            |centre, fingerprint, text| figures_file(&config(centre), folder.path(), fingerprint, text, &Device::Cpu);
        let figures = KlFigures::new(2048, measured_pairs().into_iter().map(|pair| (pair, 0.01)));
        file("auto", "weights", "text").write(&figures);
        assert_eq!(file("auto", "weights", "text").read(), figures);
        for other in [file("off", "weights", "text"), file("auto", "others", "text"), file("auto", "weights", "texts")]
        {
            assert_eq!(other.read(), KlFigures::default(), "{other:?}");
        }
    }

    /// A start with a cache of 4 MiB, with so many bytes of memory left beside it.
    fn has_room(bytes: u64) -> bool {
        let (folder, config) = (tempfile::tempdir().unwrap(), config("auto"));
        let mut bundle = load(&config).unwrap();
        bundle.measurements_folder = Some(folder.path().to_owned());
        let limits = plan::limits(&config, &bundle.model_config, WeightBytes { mapped: 0, owned: 0 }, None);
        let kv = config.kv.plan(bundle.model.geometry(), &limits, &KlFigures::default()).unwrap();
        let cache = (kv.budget.num_blocks * kv.layout.bytes_per_block()) as u64;
        let free_memory = Some(limits.needs.beside_weights() + cache + bytes);
        when_idle(&config, &bundle, &MemoryLimits { free_memory, ..limits }, &kv).is_some()
    }

    #[test]
    fn what_a_measurement_takes_must_be_left_beside_the_cache() {
        let config = config("auto");
        let bundle = load(&config).unwrap();
        let setup = setup(&config, &bundle).unwrap();
        let bytes = |pair| cache_layout(pair, 32, bundle.model.geometry()).unwrap().bytes_per_token();
        let pairs = measured_pairs().into_iter().chain([KvPair::both(turboquant::Format::F32)]);
        let caches = 2048.0 * pairs.map(bytes).sum::<f64>();
        assert!(setup.bytes() as f64 > caches, "{} bytes for {caches} of caches", setup.bytes());
        assert!(has_room(setup.bytes()) && !has_room(setup.bytes() - 1));
    }

    /// Four windows are filled of 2048 tokens, each with a BOS token before 499 others.
    #[test]
    fn a_short_context_is_measured_in_windows_that_it_holds() {
        let config = config("auto");
        let bundle = load(&config).unwrap();
        let mut setup = setup(&config, &bundle).unwrap();
        setup.config.max_position_embeddings = 500;
        let model = ModelRef { model: &*bundle.model, device: &*bundle.device };
        assert_eq!(setup.begin(model).unwrap().progress(), (0, 4 * 500));
    }
}
