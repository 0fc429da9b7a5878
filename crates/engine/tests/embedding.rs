//! Vectors of texts: against `transformers` in fp32, and the same whatever else the engine does.
#![allow(clippy::unwrap_used)] // helpers of tests
use engine::{
    EmbeddingParams, EngineConfig, EngineHandle, Event, GenerationRequest, KvOptions, RequestField, SubmitError, start,
};
use safetensors::SafeTensors;
use serde_json::json;
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::{Golden, golden_logits, repo};
use turboquant::{Format, KvPair};

const MODEL: &str = "tiny-qwen3";

/// The model as a folder of sentence-transformers, which pools by `mode`.
fn folder(mode: &str) -> tempfile::TempDir {
    let (from, to) = (repo(&format!("models/{MODEL}")), tempfile::tempdir().unwrap());
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let class = |name: &str| format!("sentence_transformers.models.{name}");
    let module = |name: &str, path: &str| json!({"name": path, "path": path, "type": class(name)});
    let modules =
        json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]);
    std::fs::write(to.path().join("modules.json"), modules.to_string()).unwrap();
    std::fs::create_dir(to.path().join("1_Pooling")).unwrap();
    let pooling = json!({"word_embedding_dimension": 64, "pooling_mode_max_tokens": false, mode: true});
    std::fs::write(to.path().join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    to
}

/// A folder of [`folder`] as published embedding models are: without a head, and without the names that the tensors of
/// a model with one begin with.
fn headless(mode: &str) -> tempfile::TempDir {
    let to = folder(mode);
    let path = to.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> =
        file.iter().filter_map(|(name, view)| Some((name.strip_prefix("model.")?.to_owned(), view))).collect();
    safetensors::serialize_to_file(tensors.iter().map(|(name, view)| (name, view)), None, &path).unwrap();
    let config = to.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("Qwen3ForCausalLM", "Qwen3Model");
    std::fs::write(&config, text).unwrap();
    to
}

fn config(folder: &tempfile::TempDir) -> EngineConfig {
    let kv = KvOptions::pair(KvPair::both(Format::F32), 16);
    EngineConfig { kv, max_model_len: Some(256), ..EngineConfig::new(folder.path()) }
}

fn stop((handle, thread): (EngineHandle, JoinHandle<()>)) {
    handle.shutdown(Duration::from_secs(5));
    thread.join().unwrap();
}

/// The vector of a prompt; the tokens of an answer where none is asked for.
fn ask(handle: &EngineHandle, request: GenerationRequest) -> JoinHandle<(Vec<f32>, Vec<u32>)> {
    let mut stream = handle.submit(request).unwrap();
    std::thread::spawn(move || {
        let (mut vector, mut tokens) = (Vec::new(), Vec::new());
        while let Some(event) = stream.blocking_next() {
            match event {
                Event::Embedded { vector: whole } => vector = whole,
                Event::Delta { token, .. } => tokens.push(token),
                Event::Failed(error) => panic!("{error}"),
                Event::Admitted(_) | Event::Prompt { .. } | Event::Finished { .. } => {}
            }
        }
        (vector, tokens)
    })
}

fn embed(prompt: &[u32], dimensions: Option<usize>) -> GenerationRequest {
    GenerationRequest::embed(prompt.to_vec(), EmbeddingParams { dimensions })
}

fn normalised(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.into_iter().collect();
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    values.iter().map(|x| x / length).collect()
}

/// The head, `[512][64]`, which is stored as bf16.
fn head() -> Vec<Vec<f64>> {
    let bytes = std::fs::read(repo(&format!("models/{MODEL}/model.safetensors"))).unwrap();
    let tensor = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensor.tensor("lm_head.weight").unwrap();
    let float = |x: &[u8; 2]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(*x)) << 16));
    let values: Vec<f64> = tensor.data().as_chunks::<2>().0.iter().map(float).collect();
    values.chunks(tensor.shape()[1]).map(<[f64]>::to_vec).collect()
}

/// The reference has the logits of a prompt's first tokens, which are a prompt here. The head is linear: what it makes
/// of a vector points where the reference's pooled logits do, and only one direction of 64 gives those 512.
#[test]
fn vectors_are_those_of_the_reference() {
    let (logits, head) = (golden_logits(MODEL), head());
    let prompt = &Golden::read(MODEL).prompts[0].ids[..logits.len()];
    assert!(prompt.len() >= 4);
    for (mode, from) in [
        ("pooling_mode_lasttoken", prompt.len() - 1..prompt.len()),
        ("pooling_mode_mean_tokens", 0..prompt.len()),
        ("pooling_mode_cls_token", 0..1),
    ] {
        let engine = start(&config(&folder(mode))).unwrap();
        let (vector, _) = ask(&engine.0, embed(prompt, None)).join().unwrap();
        stop(engine);
        let length: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!(vector.len() == 64 && (length - 1.0).abs() < 1e-6, "{mode}: {length}");
        let product = |row: &Vec<f64>| row.iter().zip(&vector).map(|(w, x)| w * f64::from(*x)).sum();
        let got = normalised(head.iter().map(product));
        let pooled = |id: usize| logits[from.clone()].iter().map(|row| f64::from(row[id])).sum();
        let want = normalised((0..512).map(pooled));
        let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
        println!("{mode}: {worst:e}");
        assert!(worst < 1e-5, "{mode}: {worst}");
    }
}

/// Chunks, preemption and requests that generate do not show in a vector, nor vectors in what those answer.
#[test]
fn a_vector_depends_on_its_prompt_alone() {
    let base: Vec<u32> = Golden::read(MODEL).prompts.iter().flat_map(|p| p.ids.clone()).collect();
    let prompt = |i: usize| -> Vec<u32> { base.iter().cycle().skip(i * 7).take(1 + i * 61 % 150).copied().collect() };
    let request = |i: usize| match i % 2 {
        0 => GenerationRequest::greedy(prompt(i), 60),
        _ => embed(&prompt(i), None),
    };
    for mode in ["pooling_mode_lasttoken", "pooling_mode_mean_tokens", "pooling_mode_cls_token"] {
        let folder = folder(mode);
        let wide = start(&config(&folder)).unwrap();
        let alone: Vec<_> = (0..16).map(|i| ask(&wide.0, request(i)).join().unwrap()).collect();
        let block = wide.0.info().bytes_per_block as u64;
        stop(wide);
        let tight = EngineConfig {
            kv_cache_memory: Some(18 * block),
            max_num_batched_tokens: 24,
            max_num_seqs: Some(8),
            ..config(&folder)
        };
        let tight = start(&tight).unwrap();
        let running: Vec<_> = (0..16).map(|i| ask(&tight.0, request(i))).collect();
        for (i, (running, want)) in running.into_iter().zip(&alone).enumerate() {
            let (vector, tokens) = running.join().unwrap();
            assert_eq!((vector.len(), tokens.is_empty()), if i % 2 == 0 { (0, false) } else { (64, true) });
            let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!((bits(&vector), &tokens), (bits(&want.0), &want.1), "{mode}, request {i}");
        }
        assert!(tight.0.stats().preemptions > 0, "the pool was not too small: {:?}", tight.0.stats());
        stop(tight);
    }
}

#[test]
fn a_model_without_a_head_embeds_and_does_not_generate() {
    let prompt = Golden::read(MODEL).prompts[0].ids.clone();
    let engines = [folder("pooling_mode_lasttoken"), headless("pooling_mode_lasttoken")]
        .map(|folder| start(&config(&folder)).unwrap());
    let [whole, other] =
        [&engines[0], &engines[1]].map(|engine| ask(&engine.0, embed(&prompt, None)).join().unwrap().0);
    assert_eq!(whole, other);
    let (short, _) = ask(&engines[1].0, embed(&prompt, Some(16))).join().unwrap();
    let want = normalised(whole[..16].iter().map(|x| f64::from(*x)));
    assert_eq!(short.len(), 16);
    assert!(short.iter().zip(want).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-6));
    let error = engines[1].0.submit(GenerationRequest::greedy(prompt.clone(), 1)).err().unwrap();
    assert!(matches!(error, SubmitError::Unsupported { field: RequestField::Model, .. }), "{error}");
    // The compressed cache's means are measured without a head too.
    let compressed = KvOptions::pair(KvPair::both(Format::Tq8), 16);
    let headless = headless("pooling_mode_lasttoken");
    let engine = start(&EngineConfig { kv: compressed, ..config(&headless) }).unwrap();
    let (near, _) = ask(&engine.0, embed(&prompt, None)).join().unwrap();
    let cosine: f32 = near.iter().zip(&whole).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.99, "{cosine}");
    engines.into_iter().chain([engine]).for_each(stop);
}

#[test]
fn models_that_do_not_say_how_they_pool_do_not_embed() {
    let refusal = |folder: &tempfile::TempDir| {
        let engine = start(&config(folder)).unwrap();
        let error = engine.0.submit(embed(&[5, 6], None)).err().unwrap();
        assert!(matches!(error, SubmitError::Unsupported { field: RequestField::Model, .. }), "{error}");
        stop(engine);
        error.to_string()
    };
    let max = refusal(&folder("pooling_mode_weightedmean_tokens"));
    assert!(max.contains("pools by weightedmean_tokens"), "{max}");
    let bare = folder("pooling_mode_lasttoken");
    std::fs::remove_file(bare.path().join("modules.json")).unwrap();
    assert!(refusal(&bare).contains("has no modules.json"));
    let both_ways = folder("pooling_mode_lasttoken");
    let path = both_ways.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap().replacen('{', r#"{"is_causal": false,"#, 1);
    std::fs::write(&path, text).unwrap();
    assert!(refusal(&both_ways).contains("is_causal is false"));
}
