//! What K/V pairs cost the bundled models.
#![allow(clippy::unwrap_used)] // helpers of tests
use engine::eval::{QualityOptions, Scheme, quality};
use engine::{CentreMode, EngineConfig, Loaded, load};
use turboquant::Format;
use turboquant::Format::Tq4;

fn loaded(model: &str) -> Loaded {
    load(&EngineConfig::new(testkit::repo(model))).unwrap()
}

fn pair(format: Format, centre: CentreMode) -> Scheme {
    Scheme::Pair { k: format, v: format, centre, boundary_layers: 0 }
}

/// A text of another kind gives means as good.
#[test]
fn the_calibration_text_hardly_matters() {
    let mut loaded = loaded("models/demo");
    let text = std::fs::read_to_string(testkit::repo("data/wikitext2-test-sample.txt")).unwrap();
    let tokens = loaded.tokenizer.encode(&text, false).unwrap();
    let options = QualityOptions { window: 1024, schemes: vec![pair(Tq4, CentreMode::Auto)] };
    let kl = |loaded: &Loaded| quality(loaded, "demo", &tokens[..2048], &options, |_, _| {}).unwrap().rows[0].kl;
    let licence = kl(&loaded);
    loaded.calibration_text = std::fs::read_to_string(testkit::repo("docs/ARCHITECTURE.md")).unwrap();
    let other = kl(&loaded);
    println!("KL {licence} with the licence's means, {other} with another text's");
    assert!((other / licence - 1.0).abs() < 0.1, "{licence} against {other}");
}
