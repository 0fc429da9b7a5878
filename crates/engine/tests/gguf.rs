//! GGUF files, written by the `gguf` package (`scripts/goldens/to_gguf.py`), against the safetensors they were made
//! from.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Setup, alone, emulated};
use compute::{ComputeDevice, CpuDevice};
use conformance::weights::stored_within;
use engine::{EngineConfig, WeightQuant, load};
use matmul::WeightType::{self, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS, Mxfp4, TQ1_0, TQ2_0};
use models::{Checkpoint, LoadOptions, Reading};
use msl_emu::{Emulator, EmulatorExecutor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::{Golden, repo};
use turboquant::Format::F32;

/// A folder's model with its first `layers` layers.
fn shortened(model: &str, layers: usize) -> tempfile::TempDir {
    let (from, to) = (repo(&format!("models/{model}")), tempfile::tempdir().unwrap());
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["num_hidden_layers"] = layers.into();
    if config["layer_types"].is_array() {
        config["layer_types"] = vec!["full_attention"; layers].into();
    }
    if let Some(rotates) = config.get_mut("no_rope_layers").and_then(|value| value.as_array_mut()) {
        rotates.truncate(layers);
    }
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    to
}

fn setup(path: &Path, weight_quant: Option<WeightQuant>) -> Setup {
    Setup { weight_quant, ..Setup::new(path.to_str().unwrap(), F32, F32) }
}

/// Equal weights in equal form give equal bits, however they were stored: bf16 as it is, and Q8_0 because the quantiser
/// here makes ggml's blocks. Files of Llama's and SmolLM3's architectures have the rows of q and k in another order;
/// shards are one model.
#[test]
fn logits_are_those_of_the_safetensors_model() {
    for (model, layers, file, quant) in [
        ("tiny-smollm3", 1, "tiny-smollm3-bf16.gguf", None),
        ("tiny-mistral", 2, "tiny-mistral-q8_0-00001-of-00002.gguf", Some(WeightQuant::Q8_0)),
        ("tiny-mistral", 2, "tiny-mistral-q8_0-00002-of-00002.gguf", Some(WeightQuant::Q8_0)),
        ("tiny-qwen3moe", 1, "tiny-qwen3moe-q8_0.gguf", Some(WeightQuant::Q8_0)),
    ] {
        let folder = shortened(model, layers);
        let prompt = &Golden::read(model).prompts[1].ids;
        let want = alone(&setup(folder.path(), quant), prompt, 16);
        let got = alone(&setup(&repo(&format!("fixtures/gguf/{file}")), None), prompt, 16);
        assert_eq!(want, got, "{file}");
    }
}

/// What every block type stands for, by `gguf`'s own reading of the file; then the logits of the file against those of
/// a float model of the same values.
#[test]
fn every_block_type_is_kept_and_multiplied() {
    let path = repo("fixtures/gguf/tiny-qwen2-mixed.gguf");
    let golden = std::fs::read_to_string(repo("fixtures/gguf/tiny-qwen2-mixed.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    is_a_model_of_its_values(&path, |name, kind, last_row| {
        let Some(want) = golden["tensors"].get(name) else { return };
        assert_eq!(want["type"], kind.name());
        let want: Vec<f32> = serde_json::from_value(want["row"].clone()).unwrap();
        assert_eq!(last_row[..want.len()], want, "{name}, {kind}");
    });
}

/// The matrices of the same file in other types, whose blocks are not larger than those in their places.
#[test]
fn types_of_small_files_are_kept_and_multiplied() {
    let old = std::fs::read(repo("fixtures/gguf/tiny-qwen2-mixed.gguf")).unwrap();
    for types in [
        [IQ4_NL, IQ4_XS, IQ3_S, IQ3_XXS, IQ2_XXS, IQ2_XS, IQ2_S, Mxfp4],
        [Mxfp4, TQ1_0, TQ2_0, IQ2_S, IQ3_XXS, IQ2_XXS, IQ4_XS, IQ4_NL],
    ] {
        let parts = ["attn_q", "attn_k", "attn_output", "attn_v", "ffn_gate", "ffn_up", "ffn_down"];
        let names = parts.map(|part| format!("blk.0.{part}.weight"));
        let mut bytes = old.clone();
        for (name, kind) in std::iter::once("token_embd.weight").chain(names.iter().map(String::as_str)).zip(types) {
            let info = gguf::Gguf::parse(&old).unwrap().tensors[name].clone();
            let stored = stored_within(0.2, kind, info.shape.iter().product(), name.len() as u64);
            assert!(stored.len() <= info.range.len(), "{kind} in place of {}", info.kind.name);
            bytes[info.range.start..][..stored.len()].copy_from_slice(&stored);
            // The tensor's name, the number of its dimensions, these, and its type.
            let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
            let id = (0..64).find(|id| gguf::TensorType::of(*id).is_ok_and(|of| of.name == kind.name())).unwrap();
            bytes[at + name.len() + 4 + 2 * 8..][..4].copy_from_slice(&id.to_le_bytes());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, &bytes).unwrap();
        let mut seen = Vec::new();
        is_a_model_of_its_values(&path, |_, kind, _| seen.push(kind));
        assert!(types.iter().all(|kind| seen.contains(kind)), "{seen:?}");
    }
}

/// Compares the logits of a file of tiny-qwen2's shape with those of a float model of the same values, on the CPU and
/// on a GPU. `see` is told each tensor's name, type and last row.
fn is_a_model_of_its_values(path: &Path, mut see: impl FnMut(&str, WeightType, &[f32])) {
    let bytes = std::fs::read(path).unwrap();
    let header = gguf::Gguf::parse(&bytes).unwrap();
    let mut floats = Vec::new();
    for (name, info) in &header.tensors {
        let kind = WeightType::ALL.into_iter().find(|k| k.name() == info.kind.name).unwrap();
        let (n, k) = (info.shape[..info.shape.len() - 1].iter().product(), info.shape[info.shape.len() - 1]);
        let weight = matmul::Weight::new(kind, n, k, &bytes[info.range.clone()]).unwrap();
        let mut values = vec![0f32; n * k];
        values.chunks_exact_mut(k).enumerate().for_each(|(row, out)| matmul::dequantize_row(weight, row, out));
        see(name, kind, &values[(n - 1) * k..]);
        floats.push((hf_name(name), info.shape.clone(), values));
    }
    let folder = shortened("tiny-qwen2", 1);
    let views = floats.iter().map(|(name, shape, values)| {
        let bytes: &[u8] = Box::leak(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Box<[u8]>>());
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();

    // One token sees itself alone, so that no softmax stands between: this model's would magnify small differences.
    for token in [3, 77, 200, 511] {
        let want = alone(&setup(folder.path(), None), &[token], 1).logits_at(0);
        let got = alone(&setup(path, None), &[token], 1).logits_at(0);
        // Weights are the same; what differs is that their inputs are rounded to int8 by blocks of 32: by a uniform
        // error of up to 1/254 of a block's largest element, which is at most sqrt(32) times the block's root mean
        // square. So a product is off by at most sqrt(32) / 254 / sqrt(3) = 1.29 % of its spread. Five lie in a row (v,
        // o, gate and up, down, the head).
        let rms = |x: &mut dyn Iterator<Item = f32>| (x.map(|x| x * x).sum::<f32>() / want.len() as f32).sqrt();
        let bound = 5f32.sqrt() * 0.0129 * rms(&mut want.iter().copied());
        let error = rms(&mut want.iter().zip(&got).map(|(a, b)| a - b));
        println!("{token}: logits differ by {error} (root mean square), {bound} is allowed");
        assert!(error > 0.0 && error <= bound, "{token}: logits differ by {error}, at most {bound} is allowed");

        // A GPU rounds inputs to halves: by up to 2^-11 of an element and, if that is uniform, 1 / sqrt(3) of it.
        let Some(emulator) = Emulator::fast() else { continue };
        let gpu = Setup { compute: Some(emulated(EmulatorExecutor { emulator, order: 0 })), ..setup(path, None) };
        let got = alone(&gpu, &[token], 1).logits_at(0);
        let bound = 5f32.sqrt() * 2f32.powi(-11) / 3f32.sqrt() * rms(&mut want.iter().copied());
        let error = rms(&mut want.iter().zip(&got).map(|(a, b)| a - b));
        println!("{token}: on a GPU, {error}, {bound} is allowed");
        assert!(error > 0.0 && error <= bound, "{token}: logits of a GPU differ by {error}, not {bound}");
    }
}

fn hf_name(name: &str) -> String {
    let part = |part: &str| match part {
        "token_embd" => "model.embed_tokens".to_owned(),
        "output_norm" => "model.norm".to_owned(),
        "attn_norm" => "input_layernorm".to_owned(),
        "ffn_norm" => "post_attention_layernorm".to_owned(),
        "attn_output" => "self_attn.o_proj".to_owned(),
        other => match other.split_once('_') {
            Some(("attn", p)) => format!("self_attn.{p}_proj"),
            Some(("ffn", p)) => format!("mlp.{p}_proj"),
            _ => panic!("{other}"),
        },
    };
    match name.strip_prefix("blk.0.") {
        Some(rest) => {
            let (stem, kind) = rest.split_once('.').unwrap();
            format!("model.layers.0.{}.{kind}", part(stem))
        }
        None => {
            let (stem, kind) = name.split_once('.').unwrap();
            format!("{}.{kind}", part(stem))
        }
    }
}

/// One file serves: tokenizer and end of text come from it too.
#[test]
fn a_file_brings_its_tokenizer() {
    let file = load(&EngineConfig::new(repo("fixtures/gguf/tiny-smollm3-bf16.gguf"))).unwrap();
    let folder = load(&EngineConfig::new(repo("models/tiny-smollm3"))).unwrap();
    for text in ["hello", "Zürich — naïve 東京 🙂\n", "<bos>a<eos>"] {
        let ids = file.tokenizer.encode(text, true).unwrap();
        assert_eq!(ids, folder.tokenizer.encode(text, true).unwrap());
        assert_eq!(file.tokenizer.decode(&ids, false), text);
    }
    assert_eq!(file.generation.eos_token_ids, folder.generation.eos_token_ids);
    assert!(file.mapped_bytes > 0 && file.mapped_bytes < folder.mapped_bytes);
}

/// A changed copy of a fixture.
fn broken(file: &str, change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = std::fs::read(repo(&format!("fixtures/gguf/{file}"))).unwrap();
    change(&mut bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn error(path: &Path) -> String {
    let checkpoint = match Checkpoint::open(path, Reading::Mapped) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return error.to_string(),
    };
    let device: Arc<dyn ComputeDevice> = Arc::new(CpuDevice);
    match models::open(&checkpoint).and_then(|model| model.load(&device, &LoadOptions::default())) {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_broken_file_is_named_with_what_is_wrong() {
    const FILE: &str = "tiny-smollm3-bf16.gguf";
    let says = |path: &Path, words: &[&str]| {
        let message = error(path);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(message.contains(name) && words.iter().all(|w| message.contains(w)), "{message}");
    };
    let (_folder, path) = broken(FILE, |bytes| bytes.truncate(bytes.len() - 1));
    says(&path, &["tensor", "past the file"]);
    let replace = |bytes: &mut Vec<u8>, from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
    };
    let (_folder, path) = broken(FILE, |bytes| replace(bytes, b"blk.0.attn_v.weight", b"blk.0.attn_x.weight"));
    says(&path, &["self_attn.v_proj.weight is missing"]);
    // `general.architecture` is the first entry.
    let (_folder, path) =
        broken(FILE, |bytes| replace(bytes, b"\x07\0\0\0\0\0\0\0smollm3", b"\x07\0\0\0\0\0\0\0smallm3"));
    says(&path, &["smallm3", "qwen3moe"]);
    let set = |bytes: &mut Vec<u8>, key: &str, value: u32| {
        let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len() + 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    let (_folder, path) = broken(FILE, |bytes| set(bytes, "smollm3.block_count", 0x0fff_ffff));
    says(&path, &["smollm3.block_count", "268435455"]);
    // No tensor is cut into more experts than any model has, or into others than the metadata says.
    for count in [1 << 24, 4] {
        let (_folder, path) = broken("tiny-qwen3moe-q8_0.gguf", |bytes| set(bytes, "qwen3moe.expert_count", count));
        says(&path, &["expert_count", &count.to_string()]);
    }
    // A shard without its sister.
    let (_folder, path) = broken("tiny-mistral-q8_0-00001-of-00002.gguf", |_| {});
    let message = error(&path);
    assert!(message.contains("00002-of-00002"), "{message}");
}
