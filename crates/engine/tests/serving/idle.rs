//! What an idle engine measures, and what it must not cost.
use super::wrapped_model::load_wrapped;
use super::{answer, prompt, stop};
use engine::{EngineConfig, EngineHandle, GenerationRequest, KvOptions, launch};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the model of a test does and has done.
#[derive(Clone, Default)]
struct Watched {
    panics: Arc<AtomicBool>,
    steps: Arc<AtomicUsize>,
}

impl Watched {
    /// An engine with `--kv-preset auto` and too little memory for the context in bf16. What it measures is kept in
    /// `folder`.
    fn launch(&self, folder: &Path) -> (EngineHandle, JoinHandle<()>) {
        let kv = KvOptions::parse("auto", None, None, 32, "auto").unwrap();
        let model = testkit::repo("models/demo");
        let config = EngineConfig { kv, kv_cache_memory: Some(4 << 20), ..EngineConfig::new(model) };
        let watched = self.clone();
        let mut loaded = load_wrapped(&config, move |_| {
            let panics = watched.panics.load(SeqCst);
            watched.steps.fetch_add(1, SeqCst);
            assert!(!panics, "the model panics");
            // Many pieces are left when a test has seen the first.
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        });
        loaded.measurements_folder = Some(folder.to_owned());
        let engine = launch(&config, loaded).unwrap();
        assert_ne!(engine.0.info().k_quant, "bf16", "nothing is to be measured");
        engine
    }

    /// Waits until the model has computed something that no request asked for.
    fn wait_for_measurement(&self) {
        let before = self.steps.load(SeqCst);
        while self.steps.load(SeqCst) == before {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn figures_in(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".kl.json")).count()
}

#[test]
fn a_measurement_that_panics_costs_no_request_anything() {
    let (folder, watched) = (tempfile::tempdir().unwrap(), Watched::default());
    let engine = watched.launch(folder.path());
    let want = answer(&engine.0, GenerationRequest::greedy(prompt(3), 10));
    watched.panics.store(true, SeqCst);
    watched.wait_for_measurement();
    watched.panics.store(false, SeqCst);
    assert_eq!(answer(&engine.0, GenerationRequest::greedy(prompt(3), 10)), want);
    assert_eq!(engine.0.failure(), None);
    stop(engine);
    assert_eq!(figures_in(folder.path()), 0);
}

#[test]
fn requests_and_a_shutdown_come_between_the_pieces_of_a_measurement() {
    let (folder, watched) = (tempfile::tempdir().unwrap(), Watched::default());
    let engine = watched.launch(folder.path());
    watched.wait_for_measurement();
    let answered = answer(&engine.0, GenerationRequest::greedy(prompt(3), 4));
    assert_eq!(answered.tokens.len(), 4);
    // It goes on after a quiet time, and ends before its figures are whole.
    watched.wait_for_measurement();
    stop(engine);
    assert_eq!(figures_in(folder.path()), 0);
}
