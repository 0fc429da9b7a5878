//! Reference outputs and the bundled models, for tests. What is missing or wrong is a panic: a test cannot go on without.
use serde::Deserialize;
use std::path::PathBuf;

/// A folder or file of the repository.
pub fn repo(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// What `transformers` answered in fp32 (`scripts/goldens/make_fixtures.py`).
#[derive(Debug, Deserialize)]
pub struct Golden {
    pub by: String,
    pub prompts: Vec<GoldenPrompt>,
}

#[derive(Debug, Deserialize)]
pub struct GoldenPrompt {
    pub ids: Vec<u32>,
    /// Greedy continuation, run on past EOS.
    pub greedy_32_ignore_eos: Vec<u32>,
    pub top20: Vec<GoldenLogits>,
}

/// The 20 largest logits after the token at `position`.
#[derive(Debug, Deserialize)]
pub struct GoldenLogits {
    pub position: usize,
    pub ids: Vec<u32>,
    pub logits: Vec<f32>,
}

impl Golden {
    /// `fixtures/NAME.json`.
    pub fn read(name: &str) -> Self {
        let path = repo(&format!("fixtures/{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

/// All logits of the first prompt, `[tokens][vocab]`, from `fixtures/NAME.safetensors`.
pub fn golden_logits(name: &str) -> Vec<Vec<f32>> {
    let path = repo(&format!("fixtures/{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let view = file.tensor("prompt0.logits").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values.chunks_exact(view.shape()[1]).map(<[f32]>::to_vec).collect()
}
