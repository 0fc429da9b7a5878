//! Folders as mlx-lm writes them (`scripts/goldens/make_mlx.py`), against mlx-lm's own models of the same numbers.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, emulated};
use engine::{EngineConfig, WeightQuant, load, plan};
use msl_emu::{Emulator, EmulatorExecutor};
use std::path::Path;
use testkit::{Golden, golden_logits, repo};
use turboquant::Format::F32;

/// The folders, and how many products lie in a row from the embedding to the logits of a token that sees itself alone:
/// a layer has one for v (or a delta net's inputs), one for the output, one for gate and up, and one for down.
const MODELS: [(&str, usize); 2] = [("mlx-qwen3", 5), ("mlx-qwen35moe", 9)];

fn setup(name: &str) -> Setup {
    Setup::new(&format!("models/{name}"), F32, F32)
}

fn gpu(name: &str, emulator: &'static Emulator) -> Setup {
    Setup { compute: Some(emulated(EmulatorExecutor { emulator, order: 0 })), ..setup(name) }
}

fn rms(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, n) = values.fold((0f32, 0), |(sum, n), x| (sum + x * x, n + 1));
    (sum / n as f32).sqrt()
}

/// The logits after the first token, which sees itself alone, so that no softmax over positions magnifies differences:
/// the root mean square of what differs from mlx-lm's, and that of the logits.
fn error_of_first(setup: &Setup, name: &str) -> (f32, f32) {
    let mut driver = Driver::new(setup);
    driver.whole = true;
    driver.add(0, &Golden::read(name).prompts[0].ids, 1);
    driver.run();
    let (got, want) = (driver.trace(0).logits_at(0), golden_logits(name).remove(0));
    (rms(got.iter().zip(&want).map(|(a, b)| a - b)), rms(want.into_iter()))
}

/// Weights are the same numbers; what differs is that the CPU rounds their inputs to int8 by blocks of 32: by a uniform
/// error of up to 1/254 of a block's largest element, which is at most sqrt(32) times the block's root mean square. So
/// a product is off by at most sqrt(32) / 254 / sqrt(3) = 1.29 % of its spread.
#[test]
fn logits_are_within_the_rounding_of_activations() {
    for (name, products) in MODELS {
        let (error, size) = error_of_first(&setup(name), name);
        let bound = (products as f32).sqrt() * 0.0129 * size;
        println!("{name}: logits differ by {error} (root mean square), {bound} is allowed");
        assert!(error > 0.0 && error <= bound, "{name}: logits differ by {error}, at most {bound} is allowed");
    }
}

/// A GPU rounds inputs to halves: by up to 2^-11 of an element and, if that is uniform, 1 / sqrt(3) of it. So close,
/// the greedy tokens of all prompts are mlx-lm's.
#[test]
fn a_gpu_gives_the_logits_and_tokens_of_mlx() {
    let Some(emulator) = Emulator::fast() else { return };
    for (name, products) in MODELS {
        let (error, size) = error_of_first(&gpu(name, emulator), name);
        let bound = (products as f32).sqrt() * 2f32.powi(-11) / 3f32.sqrt() * size;
        println!("{name}: logits of a GPU differ by {error} (root mean square), {bound} is allowed");
        assert!(error > 0.0 && error <= bound, "{name}: logits differ by {error}, at most {bound} is allowed");
        for (i, prompt) in Golden::read(name).prompts.iter().enumerate() {
            let mut driver = Driver::new(&gpu(name, emulator));
            driver.add(0, &prompt.ids, prompt.greedy_32_ignore_eos.len());
            driver.run();
            assert_eq!(driver.trace(0).tokens, prompt.greedy_32_ignore_eos, "{name}, prompt {i}");
        }
    }
}

/// A plan by headers alone takes what loading takes; weights are not larger than in the file.
#[test]
fn a_plan_counts_the_weights_as_they_are_in_memory() {
    for (name, _) in MODELS {
        let config = EngineConfig::new(repo(&format!("models/{name}")));
        let bundle = load(&config).unwrap();
        let terms = plan(&config).unwrap().terms;
        let planned: u64 = terms.iter().filter(|term| term.name.contains("weights")).map(|term| term.bytes).sum();
        assert_eq!(planned, bundle.mapped_bytes + bundle.owned_bytes, "{name}");
        let file = std::fs::metadata(config.model.join("model.safetensors")).unwrap().len();
        // FP8 becomes bf16, routers and vectors become f32.
        assert!(name == "mlx-qwen35moe" || planned <= file, "{name}: {planned} bytes of a file of {file}");
    }
}

const FILES: [&str; 5] =
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];

/// A changed copy of a folder.
fn changed(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        std::fs::copy(repo("models/mlx-qwen3").join(file), folder.path().join(file)).unwrap();
    }
    change(folder.path());
    folder
}

/// What loading it says.
fn error(folder: &Path, weight_quant: Option<WeightQuant>) -> String {
    match load(&EngineConfig { weight_quant, ..EngineConfig::new(folder) }) {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    }
}

/// What loading says where the file's header has other words, as long, in place of the first ones behind `tensor`.
fn error_of_header(tensor: &str, from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let folder = changed(|folder| {
        let path = folder.join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let find = |from: usize, word: &str| {
            from + bytes[from..].windows(word.len()).position(|window| window == word.as_bytes()).unwrap()
        };
        let at = find(find(0, tensor), from);
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(path, bytes).unwrap();
    });
    error(folder.path(), None)
}

/// What loading says where fields of `quantization` are others.
fn error_of_fields(fields: serde_json::Value) -> String {
    let folder = changed(|folder| {
        let path = folder.join("config.json");
        let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config["quantization"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        std::fs::write(path, config.to_string()).unwrap();
    });
    error(folder.path(), None)
}

fn says(message: &str, words: &[&str]) {
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[test]
fn fields_that_mlx_does_not_have_are_named_with_what_is_allowed() {
    let json = |text: &str| serde_json::from_str(text).unwrap();
    let layer = "model.layers.0.mlp.gate_proj";
    for (fields, words) in [
        (r#"{"bits": 7}"#, &["config.json", "quantization", "bits 7", "2, 3, 4, 5, 6, 8"][..]),
        (r#"{"bits": "four"}"#, &["quantization", "bits \"four\""]),
        (r#"{"group_size": 16}"#, &["quantization", "group_size 16", "32, 64, 128"]),
        (r#"{"mode": "int4"}"#, &["quantization", "\"int4\"", "affine, mxfp4, mxfp8 and nvfp4"]),
        (r#"{"mode": "mxfp4", "group_size": 64}"#, &["group_size 64", "allowed are 32"]),
        (r#"{"model.layers.0.mlp.gate_proj": {"bits": 9, "group_size": 64}}"#, &["bits 9", layer]),
        (r#"{"model.layers.0.mlp.gate_proj": {"global_scale": true}}"#, &["global_scale true", layer]),
        // Other numbers than the tensors have.
        (r#"{"bits": 8}"#, &["model.safetensors", "rows of 8 words", "codes of 8 bits in groups of 64"]),
        (r#"{"model.layers.0.mlp.gate_proj": {"bits": 4, "group_size": 32}}"#, &[layer, "[128, 1]", "[128, 2]"]),
        (r#"{"model.layers.0.mlp.gate_proj": {"mode": "mxfp4", "bits": 4, "group_size": 32}}"#, &[layer, "[128, 2]"]),
        (r#"{"model.layers.0.mlp.gate_proj": false}"#, &[layer, "not quantised"]),
    ] {
        says(&error_of_fields(json(fields)), words);
    }
}

#[test]
fn layers_that_are_not_whole_are_named() {
    let q = "model.layers.0.self_attn.q_proj";
    let renamed = |from: &str, to: &str| error_of_header(&format!("{q}.{from}"), from, to);
    says(&renamed("weight", "wright"), &["q_proj.scales", "codes", "q_proj.weight are missing"]);
    says(&renamed("biases", "biasse"), &["q_proj.scales", "has no biases"]);
    says(&renamed("scales", "scalse"), &["q_proj.weight", "U32", "scales"]);
    let of_type = |part: &str, from: &str, to: &str| error_of_header(&format!("embed_tokens.{part}"), from, to);
    says(&of_type("scales", "\"BF16\"", "\"F16\" "), &["biases", "BF16", "must be F16"]);
    says(&of_type("weight", "\"U32\"", "\"I32\""), &["weight", "I32", "must be U32"]);
}

#[test]
fn quantised_weights_are_not_quantised_again() {
    let folder = repo("models/mlx-qwen3");
    let message = error(&folder, Some(WeightQuant::Q4K));
    says(&message, &["--weight-quant is q4_k", "AFFINE", "leave it out"]);
    let config = EngineConfig { weight_quant: Some(WeightQuant::Q8_0), ..EngineConfig::new(folder) };
    says(&plan(&config).unwrap_err().to_string(), &["--weight-quant is q8_0"]);
}
