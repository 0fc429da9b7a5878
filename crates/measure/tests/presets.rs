//! `--kv-preset auto` goes by the KL that `tallow eval` tells.
#![allow(clippy::unwrap_used)] // helpers of tests
use engine::{CentreMode, EngineConfig, KL_LIMIT, KlFigures, KvOptions, ModelBundle, launch, load, wikitext};
use measure::{Scheme, quality, windows};
use std::path::{Path, PathBuf};
use std::time::Duration;
use turboquant::{KvPair, PRESETS};

/// An auto start of `model`.
fn auto(model: &str, centre: &str) -> EngineConfig {
    let kv = KvOptions::parse("auto", None, None, 32, centre).unwrap();
    EngineConfig { kv, ..EngineConfig::new(testkit::repo(model)) }
}

fn loaded(config: &EngineConfig, folder: &Path) -> ModelBundle {
    let mut bundle = load(config).unwrap();
    bundle.measurements_folder = Some(folder.to_owned());
    bundle
}

fn pair(preset: &str) -> KvPair {
    PRESETS.iter().find(|known| known.name == preset).unwrap().pair
}

fn figures_file(folder: &Path) -> Option<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.into_iter().find(|path| path.to_string_lossy().ends_with(".kl.json"))
}

fn figures(path: &Path) -> KlFigures {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The formats that a start takes and its context, and the figures that its clients are told. If `waits`, it is idle
/// until these have been measured.
fn started(config: &EngineConfig, folder: &Path, waits: bool) -> ((String, usize), KlFigures) {
    let (engine, thread) = launch(config, loaded(config, folder)).unwrap();
    while waits && engine.kl_figures() == KlFigures::default() {
        std::thread::sleep(Duration::from_millis(20));
    }
    engine.shutdown(Duration::ZERO);
    thread.join().unwrap();
    let formats = format!("{}/{}", engine.info().k_quant, engine.info().v_quant);
    ((formats, engine.info().max_model_len), engine.kl_figures())
}

/// Bytes of cache for the model's whole context with `balanced` alone of the presets that auto chooses from.
fn memory_for_balanced(bundle: &ModelBundle) -> u64 {
    let layout = engine::cache_layout(pair("balanced"), 32, bundle.model.geometry()).unwrap();
    (bundle.model_config.max_position_embeddings.div_ceil(32) * layout.bytes_per_block()) as u64
}

/// What `tallow eval --texts wikitext --tokens 2048 --window 2048` tells of presets.
fn judged(bundle: &ModelBundle, presets: &[&str], centre: CentreMode) -> Vec<f64> {
    let sequences = windows(bundle, wikitext(), 2048, 2048).unwrap();
    let schemes: Vec<_> = presets.iter().map(|preset| Scheme::Pair { pair: pair(preset), centre }).collect();
    let report = quality(bundle, &sequences, &schemes, |_, _| {}).unwrap();
    report.rows.iter().map(|row| row.kl).collect()
}

/// A pass of 32 tokens gives the bits of one of 512, and both sum up the same numbers in the same order.
#[test]
fn an_idle_engine_measures_what_eval_tells_and_the_next_start_goes_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = auto("models/eval", "auto");
    let bundle = loaded(&config, folder);
    let config = EngineConfig { kv_cache_memory: Some(memory_for_balanced(&bundle)), ..config };

    let ((first, shorter), told) = started(&config, folder, true);
    assert_eq!(first, pair("near-lossless").to_string());
    let path = figures_file(folder).unwrap();
    let measured = figures(&path);
    assert_eq!((measured.tokens, told.tokens), (2048, 2048));
    let presets = ["transparent", "near-lossless", "balanced"];
    let judged = judged(&bundle, &presets, CentreMode::Auto);
    for (preset, kl) in presets.iter().zip(&judged) {
        // The file's numbers are read to a unit in the last place.
        for figure in [&measured, &told].map(|figures| figures.of(pair(preset)).unwrap()) {
            assert!((figure - kl).abs() <= f64::EPSILON * kl, "{preset}: {figure} for {kl}");
        }
    }
    assert!(measured.of(pair("balanced")).unwrap() <= KL_LIMIT);
    assert_eq!(started(&config, folder, false), ((pair("balanced").to_string(), 4096), measured));
    assert!(shorter < 4096);

    // A preset whose figure is above the limit is not taken, and a file that was cut counts for nothing.
    let text = std::fs::read_to_string(&path).unwrap();
    let balanced = judged[2].to_string();
    assert!(text.contains(&balanced), "{text}");
    std::fs::write(&path, text.replace(&balanced, "0.06")).unwrap();
    let without_balanced = (pair("near-lossless").to_string(), shorter);
    assert_eq!(started(&config, folder, false), (without_balanced.clone(), figures(&path)));
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert_eq!(started(&config, folder, false), (without_balanced, KlFigures::default()));
}

/// The asked-for context needs `balanced`, so that the start has to know its KL. The second model has a large bias of
/// K, which costs much where it is stored with the keys.
#[test]
fn a_context_that_only_an_unmeasured_preset_holds_is_measured_for_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (model, centre, is_within) in [("models/eval", "auto", true), ("models/tiny-qwen2", "off", false)] {
        let config = auto(model, centre);
        let bundle = loaded(&config, folder);
        let kv_cache_memory = Some(memory_for_balanced(&bundle));
        let config = EngineConfig { kv_cache_memory, max_model_len: Some(4096), ..config };
        let kl = judged(&bundle, &["balanced"], config.kv.centre)[0];
        assert_eq!(kl <= KL_LIMIT, is_within, "{model}: {kl}");
        let start = launch(&config, bundle);
        match start {
            Ok((engine, thread)) => {
                assert!(is_within, "{model}");
                assert_eq!(engine.info().max_model_len, 4096);
                engine.shutdown(Duration::ZERO);
                thread.join().unwrap();
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!is_within, "{model}: {error}");
                let passed = format!("balanced is passed over, KL {kl:.4} nats is above {KL_LIMIT}");
                assert!(error.contains(&passed) && error.contains("--kv-preset"), "{error}");
            }
        }
    }
}
