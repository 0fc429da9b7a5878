//! Reference outputs and the bundled models, for tests. A file that is missing or wrong is a panic, since a test cannot
//! go on without it.
#![warn(missing_docs)]
use serde::Deserialize;
use std::path::PathBuf;

/// Returns the path of a folder or file of the repository; `path` is relative to its root.
pub fn repo(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// How many cases a test with random inputs runs: `usual`, or what the variable `FUZZ_CASES` says
/// (`scripts/fuzz.sh`).
pub fn cases(usual: u32) -> u32 {
    std::env::var("FUZZ_CASES").map_or(usual, |text| match text.parse() {
        Ok(cases) => cases,
        Err(error) => panic!("FUZZ_CASES is {text}: {error}"),
    })
}

/// What `transformers` computed in fp32 for one model (`scripts/goldens/make_fixtures.py`).
#[derive(Debug, Deserialize)]
pub struct Golden {
    /// The versions that computed it.
    pub by: String,
    /// The prompts and what followed them.
    pub prompts: Vec<GoldenPrompt>,
}

/// One prompt and its answer.
#[derive(Debug, Deserialize)]
pub struct GoldenPrompt {
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// The 32 tokens of a greedy continuation, which does not stop at an end-of-sequence token.
    pub greedy_32_ignore_eos: Vec<u32>,
    /// The largest logits after some of the positions.
    pub top20: Vec<GoldenLogits>,
}

/// The 20 largest logits after the token at `position`.
#[derive(Debug, Deserialize)]
pub struct GoldenLogits {
    /// The position of the last token that the model saw.
    pub position: usize,
    /// The tokens, by falling logit.
    pub ids: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
}

impl Golden {
    /// Reads `fixtures/NAME.json`.
    ///
    /// # Panics
    /// If the file is missing or has another form.
    pub fn read(name: &str) -> Self {
        let path = repo(&format!("fixtures/{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// `len` tokens of all prompts, one after the other and again from the first, from the token number `skip` on.
    pub fn text(&self, skip: usize, len: usize) -> Vec<u32> {
        self.prompts.iter().flat_map(|prompt| &prompt.ids).cycle().skip(skip).take(len).copied().collect()
    }
}

/// Returns the logits after each of the first tokens of the first prompt, `[tokens][vocab]`, from
/// `fixtures/NAME.safetensors`; of a large vocabulary, those of its first 1,024 tokens.
///
/// # Panics
/// If the file is missing or has another form.
pub fn golden_logits(name: &str) -> Vec<Vec<f32>> {
    let path = repo(&format!("fixtures/{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let view = file.tensor("prompt0.logits").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values.chunks_exact(view.shape()[1]).map(<[f32]>::to_vec).collect()
}
