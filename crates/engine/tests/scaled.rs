//! Folders of integers and FP8 with scales, as compressed-tensors and transformers write them: the projections of
//! tiny-mistral in these forms, against folders of the same numbers in a form that is held against other programs.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Setup, alone};
use compute::{ComputeDevice, CpuDevice};
use conformance::noise;
use engine::{EngineConfig, WeightQuant, load, plan};
use matmul::WeightType;
use models::{Checkpoint, LoadOptions, Reading};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use testkit::{Golden, repo};
use turboquant::Format::F32;

/// A tensor of a folder: its name, type, shape and bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// A matrix of tiny-mistral: the name of its layer, and its rows.
struct Matrix<'a> {
    layer: &'a str,
    n: usize,
    k: usize,
    values: Vec<f32>,
}

/// Writes a copy of tiny-mistral in which `store` has replaced the projections.
fn folder(fields: Value, store: impl Fn(&Matrix<'_>) -> Vec<Tensor>) -> tempfile::TempDir {
    let (from, to) = (repo("models/tiny-mistral"), tempfile::tempdir().unwrap());
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        match name.strip_suffix(".weight").filter(|layer| layer.ends_with("_proj")) {
            Some(layer) => {
                let (n, k) = (view.shape()[0], view.shape()[1]);
                tensors.extend(store(&Matrix { layer, n, k, values: floats(view.data()) }));
            }
            None => tensors.push((name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())),
        }
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &to.path().join("model.safetensors")).unwrap();
    to
}

/// What the elements of a bf16 tensor, given by its bytes, are as f32.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|[low, high]| f32::from_le_bytes([0, 0, *low, *high])).collect()
}

fn bf16(values: &[f32]) -> Vec<u8> {
    matmul::quantize(WeightType::Bf16, values).unwrap()
}

/// Unsigned codes of a matrix, `bits` each, and the scales of its groups as bf16 holds them.
fn codes(matrix: &Matrix<'_>, bits: u32, group: usize) -> (Vec<u8>, Vec<f32>) {
    let half = (1 << (bits - 1)) as f32;
    let largest = |group: &[f32]| group.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let scales: Vec<f32> = matrix.values.chunks(group).map(|group| largest(group) / (half - 1.0)).collect();
    let scales = floats(&bf16(&scales));
    let scaled =
        matrix.values.chunks(group).zip(&scales).flat_map(|(group, scale)| group.iter().map(move |x| x / scale));
    (scaled.map(|x| (x.round().clamp(-half, half - 1.0) + half) as u8).collect(), scales)
}

/// Codes as a string of bits.
fn packed(codes: &[u8], bits: u32) -> Vec<u8> {
    if bits == 8 { codes.to_vec() } else { codes.chunks(2).map(|two| two[0] | two[1] << 4).collect() }
}

fn tensor(matrix: &Matrix<'_>, part: &str, dtype: Dtype, columns: usize, bytes: Vec<u8>) -> Tensor {
    (format!("{}.{part}", matrix.layer), dtype, vec![matrix.n, columns], bytes)
}

/// Integers of some bits as MLX would have them: with the bias that makes a code of half stand for 0.
fn as_mlx(bits: u32, group: usize) -> tempfile::TempDir {
    folder(json!({"quantization": {"bits": bits, "group_size": group}}), |matrix| {
        let (codes, scales) = codes(matrix, bits, group);
        let (bytes, half) = (packed(&codes, bits), -((1 << (bits - 1)) as f32));
        let biases: Vec<f32> = scales.iter().map(|scale| half * scale).collect();
        let per_row = matrix.k / group;
        vec![
            tensor(matrix, "weight", Dtype::U32, matrix.k * bits as usize / 32, bytes),
            tensor(matrix, "scales", Dtype::BF16, per_row, bf16(&scales)),
            tensor(matrix, "biases", Dtype::BF16, per_row, bf16(&biases)),
        ]
    })
}

/// Integers as compressed-tensors packs them.
fn as_packed(bits: u32, group: usize, fields: Value) -> tempfile::TempDir {
    folder(fields, |matrix| {
        let (codes, scales) = codes(matrix, bits, group);
        let shape = [matrix.n as i64, matrix.k as i64].iter().flat_map(|n| n.to_le_bytes()).collect();
        vec![
            tensor(matrix, "weight_packed", Dtype::I32, matrix.k * bits as usize / 32, packed(&codes, bits)),
            tensor(matrix, "weight_scale", Dtype::BF16, matrix.k / group, bf16(&scales)),
            (format!("{}.weight_shape", matrix.layer), Dtype::I64, vec![2], shape),
        ]
    })
}

fn compressed(format: &str, bits: u32) -> Value {
    let weights = json!({"num_bits": bits, "type": "int", "symmetric": true, "strategy": "group"});
    let groups = json!({"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": null}});
    json!({"quantization_config": {"quant_method": "compressed-tensors", "format": format, "config_groups": groups}})
}

fn logits(folder: &Path) -> common::Trace {
    let prompt = &Golden::read("tiny-mistral").prompts[1].ids;
    alone(&Setup::new(folder.to_str().unwrap(), F32, F32), prompt, 12)
}

/// Equal numbers in equal form give equal bits, whoever wrote them.
#[test]
fn integers_are_what_mlx_would_make_of_them() {
    for (bits, group) in [(4, 32), (4, 64), (8, 64)] {
        let (mlx, other) = (as_mlx(bits, group), as_packed(bits, group, compressed("pack-quantized", bits)));
        assert_eq!(logits(mlx.path()), logits(other.path()), "{bits} bits in groups of {group}");
    }
    // Signed bytes with one scale a row, which lie in groups of 64 and 128 here: rows have 64 or 128 elements.
    let signed = folder(compressed("int-quantized", 8), |matrix| {
        let (codes, scales) = codes(matrix, 8, matrix.k);
        let signed = codes.iter().map(|code| code ^ 0x80).collect();
        vec![
            tensor(matrix, "weight", Dtype::I8, matrix.k, signed),
            tensor(matrix, "weight_scale", Dtype::BF16, 1, bf16(&scales)),
        ]
    });
    let mlx = folder(json!({"quantization": {"bits": 8, "group_size": 64}}), |matrix| {
        let (codes, scales) = codes(matrix, 8, matrix.k);
        let scales: Vec<f32> = scales.iter().flat_map(|scale| vec![*scale; matrix.k / 64]).collect();
        let biases: Vec<f32> = scales.iter().map(|scale| -128.0 * scale).collect();
        vec![
            tensor(matrix, "weight", Dtype::U32, matrix.k / 4, codes),
            tensor(matrix, "scales", Dtype::BF16, matrix.k / 64, bf16(&scales)),
            tensor(matrix, "biases", Dtype::BF16, matrix.k / 64, bf16(&biases)),
        ]
    });
    assert_eq!(logits(mlx.path()), logits(signed.path()));
}

/// The number of a byte of E4M3, by the definition of its fields.
fn e4m3(byte: u8) -> f32 {
    let (sign, exponent, fraction) = (byte >> 7, i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
    let magnitude = if exponent == 0 { fraction / 64.0 } else { (1.0 + fraction) * 2f32.powi(exponent - 7) };
    if sign == 0 { magnitude } else { -magnitude }
}

/// FP8 with scales of blocks, and what they stand for.
fn fp8(matrix: &Matrix<'_>, [rows, columns]: [usize; 2]) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let per_row = matrix.k.div_ceil(columns);
    let scales: Vec<f32> = (0..matrix.n.div_ceil(rows) * per_row).map(|i| 0.001 + 0.0003 * (i % 7) as f32).collect();
    let mut codes = Vec::new();
    let mut numbers = Vec::new();
    for (i, x) in matrix.values.iter().enumerate() {
        let scale = scales[i / matrix.k / rows * per_row + i % matrix.k / columns];
        let near = |code: &u8| (e4m3(*code) * scale - x).abs();
        let code = (0..=255u8).filter(|code| code & 127 != 127).min_by(|a, b| near(a).total_cmp(&near(b))).unwrap();
        codes.push(code);
        numbers.push(e4m3(code) * scale);
    }
    (codes, scales, numbers)
}

/// FP8 becomes f32, bit by bit what the product of number and scale is in f32.
#[test]
fn fp8_is_the_product_of_numbers_and_scales() {
    let le = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let block = [32, 48];
    let fields = json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": block}});
    let blocks = folder(fields, |matrix| {
        let (codes, scales, _) = fp8(matrix, block);
        let shape = vec![matrix.n.div_ceil(block[0]), matrix.k.div_ceil(block[1])];
        vec![
            tensor(matrix, "weight", Dtype::F8_E4M3, matrix.k, codes),
            (format!("{}.weight_scale_inv", matrix.layer), Dtype::F32, shape, le(&scales)),
        ]
    });
    let as_floats = |block: [usize; 2]| {
        folder(json!({}), |matrix| vec![tensor(matrix, "weight", Dtype::F32, matrix.k, le(&fp8(matrix, block).2))])
    };
    assert_eq!(logits(blocks.path()), logits(as_floats(block).path()));
    let rows = folder(compressed("float-quantized", 8), |matrix| {
        let (codes, scales, _) = fp8(matrix, [1, matrix.k]);
        vec![
            tensor(matrix, "weight", Dtype::F8_E4M3, matrix.k, codes),
            tensor(matrix, "weight_scale", Dtype::F32, 1, le(&scales)),
        ]
    });
    assert_eq!(logits(rows.path()), logits(as_floats([1, 1 << 20]).path()));

    // They are floats, which can be quantised further, and a plan counts what becomes of them.
    for weight_quant in [None, Some(WeightQuant::Q8_0)] {
        let config = EngineConfig { weight_quant, ..EngineConfig::new(blocks.path()) };
        let (bundle, terms) = (load(&config).unwrap(), plan(&config).unwrap().terms);
        let planned: u64 = terms.iter().filter(|term| term.name.contains("weights")).map(|term| term.bytes).sum();
        assert_eq!(planned, bundle.mapped_bytes + bundle.owned_bytes, "{weight_quant:?}");
    }
}

/// Bytes of the header and of the configuration that are others end in an error or in a model, never in a panic.
#[test]
fn damaged_folders_never_panic() {
    let block = json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [32, 64]}});
    let fp8 = folder(block, |matrix| {
        let (codes, scales, _) = fp8(matrix, [32, 64]);
        let shape = vec![matrix.n.div_ceil(32), matrix.k.div_ceil(64)];
        vec![
            tensor(matrix, "weight", Dtype::F8_E4M3, matrix.k, codes),
            (format!("{}.weight_scale_inv", matrix.layer), Dtype::BF16, shape, bf16(&scales)),
        ]
    });
    let device: Arc<dyn ComputeDevice> = Arc::new(CpuDevice);
    let open = |folder: &Path| {
        let checkpoint = Checkpoint::open(folder, Reading::InMemory)?;
        models::open(&checkpoint)?.load(&device, &LoadOptions::default()).map(|_| ())
    };
    for folder in [as_packed(4, 32, compressed("pack-quantized", 4)), fp8] {
        open(folder.path()).unwrap();
        for (file, head) in [("model.safetensors", 5000), ("config.json", 1000)] {
            let whole = std::fs::read(folder.path().join(file)).unwrap();
            for case in 0..testkit::cases(200) as u64 {
                let mut bytes = whole.clone();
                for change in 0..1 + case % 4 {
                    let random = |seed: u64| (noise(case, 2 * change + seed) + 1.0) / 2.0;
                    let at = (random(0) * head.min(whole.len()) as f32) as usize;
                    bytes[at.min(whole.len() - 1)] =
                        [b'0', b'1', b'9', b'"', (random(1) * 255.0) as u8][case as usize % 5];
                }
                std::fs::write(folder.path().join(file), bytes).unwrap();
                let _ = open(folder.path());
            }
            std::fs::write(folder.path().join(file), whole).unwrap();
        }
    }
}

#[test]
fn what_is_not_read_is_named() {
    let error = |folder: tempfile::TempDir| match load(&EngineConfig::new(folder.path())) {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    };
    let says = |message: String, words: &[&str]| {
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    says(
        error(as_packed(4, 32, compressed("nvfp4-pack-quantized", 4))),
        &["nvfp4-pack-quantized", "known are", "GGUF"],
    );
    says(error(as_packed(4, 32, compressed("pack-quantized", 3))), &["num_bits 3", "4 or 8"]);
    let mut asymmetric = compressed("pack-quantized", 4);
    asymmetric["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = false.into();
    says(error(as_packed(4, 32, asymmetric)), &["symmetric false"]);
    says(error(as_packed(4, 16, compressed("pack-quantized", 4))), &["weight_scale", "groups of 32, 64, 128"]);
    let ordered = folder(compressed("pack-quantized", 4), |matrix| {
        let (codes, scales) = codes(matrix, 4, 32);
        vec![
            tensor(matrix, "weight_packed", Dtype::I32, matrix.k / 8, packed(&codes, 4)),
            tensor(matrix, "weight_scale", Dtype::BF16, matrix.k / 32, bf16(&scales)),
            tensor(matrix, "weight_g_idx", Dtype::I32, 1, vec![0; 4 * matrix.n]),
        ]
    });
    says(error(ordered), &["weight_g_idx", "not read"]);
    let no_number = folder(json!({"quantization_config": {"quant_method": "fp8"}}), |matrix| {
        vec![
            tensor(matrix, "weight", Dtype::F8_E4M3, matrix.k, vec![0x7f; matrix.n * matrix.k]),
            (format!("{}.weight_scale", matrix.layer), Dtype::BF16, vec![1], bf16(&[1.0])),
        ]
    });
    says(error(no_number), &["_proj.weight", "row 0", "code 127", "E4M3"]);
}
