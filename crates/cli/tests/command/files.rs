//! Files of models: what is served, and what is said of everything else.
use crate::common::{
    Process, answer, completion, copy_model, free_port, refused, repo, run, says, serve, spawn, tallow, tiny_model,
    wait_until_healthy,
};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

const GGUF: &str = "fixtures/gguf/tiny-smollm3-bf16.gguf";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 988097824\n";
const PAGE: &str = "<!doctype html>\n<html class=\"\"><head><title>Log in</title></head></html>\n";

/// What `tallow serve` says of a model that it does not serve.
fn refusal(model: &Path) -> String {
    let home = TempDir::new().unwrap();
    refused(tallow(home.path()).args(serve(model, "0")))
}

/// Serves a model, asks it for a completion, and ends it.
fn is_served(model: &Path) {
    let port = free_port();
    let _server = spawn(&serve(model, &port.to_string()), |_| {});
    wait_until_healthy(port);
    let (status, text) = answer(port, "POST", "/v1/completions", &completion(4, false)).unwrap();
    assert_eq!(status, 200, "{text}");
}

/// The tiny model with more fields in its `config.json`.
fn configured(fields: &str) -> TempDir {
    let folder = tiny_model();
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text.replacen('{', &format!("{{{fields},"), 1)).unwrap();
    folder
}

#[test]
fn weights_that_another_program_has_quantised_are_named_by_method() {
    for (fields, method) in [
        (r#""quantization_config": {"quant_method": "awq", "bits": 4}"#, "quantised by AWQ (quantization_config)"),
        (r#""quantization_config": {"quant_method": "gptq", "bits": 4}"#, "quantised by GPTQ"),
        (r#""quantization_config": {"quant_method": "bitsandbytes"}"#, "quantised by bitsandbytes"),
        (r#""quantization_config": {"load_in_4bit": true}"#, "quantised by bitsandbytes"),
        (r#""quantization_config": {"quant_method": "fbgemm_fp8"}"#, "quantised by FBGEMM's FP8"),
        (r#""quantization_config": {"quant_algo": "NVFP4"}"#, "quantised by NVFP4"),
        (r#""quantization_config": {"quant_method": "new-one"}"#, "quantised by new-one"),
    ] {
        let folder = configured(fields);
        // The tensors are not looked for.
        std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        says(&refusal(folder.path()), &["config.json", method, "--weight-quant", "GGUF"]);
    }
    let folder = tiny_model();
    std::fs::write(folder.path().join("quantize_config.json"), r#"{"bits": 4}"#).unwrap();
    says(&refusal(folder.path()), &["quantised by GPTQ (quantize_config.json)"]);
    is_served(configured(r#""quantization_config": null, "quantization": {}"#).path());
}

#[test]
fn types_of_gguf_that_are_not_served_are_named_with_what_to_take() {
    // The name of a matrix with rows of 256, then its number of dimensions, two sizes, and its type.
    let name: &[u8] = b"blk.0.attn_q.weight";
    let bytes = std::fs::read(repo("fixtures/gguf/tiny-qwen2-mixed.gguf")).unwrap();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 2 * 8;
    assert_eq!(bytes[at..at + 4], 12u32.to_le_bytes(), "Q4_K");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.gguf");
    for (kind, told) in [
        (19u32, "is of type IQ1_S; known are F32"),
        (29, "take an IQ2_XXS file"),
        (40, "is of type NVFP4; known are F32"),
        (40, "take a Q4_K_M file of this model, or an MXFP4 file"),
        (31, "is of type Q4_0_4_4, which is not read; take a Q4_0 file"),
        (4, "is of type Q4_2, which is not read; take a Q4_K_M file"),
        (99, "is of type 99, which is not known"),
    ] {
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        std::fs::write(&path, changed).unwrap();
        says(&refusal(&path), &["m.gguf", told]);
    }
}

#[test]
fn what_a_failed_download_leaves_is_recognised_whatever_the_file() {
    for (content, told) in [(POINTER, "git lfs pull"), (PAGE, "is a web page"), ("", "is empty; fetch it again")] {
        for name in ["config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"] {
            let folder = tiny_model();
            std::fs::write(folder.path().join(name), content).unwrap();
            says(&refusal(folder.path()), &[&format!("{name}: is "), told]);
        }
        for name in ["m.gguf", "sha256-4d7a214614ab2935"] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            says(&refusal(&path), &[name, told]);
        }
    }
}

#[test]
fn files_that_end_too_early_are_said_to() {
    for (name, keep, told) in [
        ("config.json", 100, "ends too early"),
        ("tokenizer.json", 3000, "ends too early"),
        ("tokenizer_config.json", 50, "ends too early"),
        ("model.safetensors", 5, "has 5 of 8 bytes"),
        ("model.safetensors", 100, "it is not whole, fetch it again"),
        ("model.safetensors", 100_000, "has 100000 of 267000 bytes"),
    ] {
        let folder = tiny_model();
        File::options().write(true).open(folder.path().join(name)).unwrap().set_len(keep).unwrap();
        says(&refusal(folder.path()), &[name, told]);
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.gguf");
    let bytes = std::fs::read(repo(GGUF)).unwrap();
    for (keep, told) in [(3, "ends"), (1000, "ends inside"), (bytes.len() - 1000, "the file is not whole")] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        says(&refusal(&path), &["m.gguf", told]);
    }
}

#[test]
fn a_gguf_file_is_known_by_its_content_and_found_in_its_folder() {
    let folder = TempDir::new().unwrap();
    let blob = folder.path().join("sha256-4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393");
    std::fs::copy(repo(GGUF), &blob).unwrap();
    is_served(&blob);
    says(&refusal(folder.path()), &["GGUF files under other names (Ollama's blobs are such)", "sha256-4d7a"]);
    std::fs::remove_file(blob).unwrap();

    std::fs::copy(repo(GGUF), folder.path().join("one.GGUF")).unwrap();
    std::fs::write(folder.path().join("mmproj-f16.gguf"), "a projector").unwrap();
    is_served(folder.path());
    std::fs::copy(repo(GGUF), folder.path().join("two.gguf")).unwrap();
    says(&refusal(folder.path()), &["has several GGUF files; name one", "one.GGUF", "two.gguf"]);
}

#[test]
fn folders_of_other_programs_are_told_apart() {
    let folder = |files: &[&str]| {
        let folder = TempDir::new().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match file.contains("gguf") || file.contains("sha256") {
                true => drop(std::fs::copy(repo(GGUF), path).unwrap()),
                false => std::fs::write(path, "{}").unwrap(),
            }
        }
        folder
    };
    for (files, told) in [
        (&["manifests/registry.ollama.ai/library/x/latest", "blobs/sha256-12"][..], "blobs/sha256-12"),
        (&["publisher/model/model-Q8_0.gguf"], "publisher/model/model-Q8_0.gguf"),
        (&["refs/main", "snapshots/0123/config.json", "blobs/x"], "is a model in the cache of the hub"),
        (&["tokenizer.json", "model.safetensors"], "has weights and no config.json"),
        (&["pytorch_model.bin", "tokenizer.json"], "PyTorch's files alone are not read"),
        (&["tokenizer.json"], "has neither a config.json nor a GGUF file"),
    ] {
        says(&refusal(folder(files).path()), &[told]);
    }
    says(&refusal(&repo("models/tiny-mistral/model.safetensors")), &["is a file of safetensors; name the folder"]);
    says(&refusal(&repo("LICENSE")), &["LICENSE: is neither a model folder nor a GGUF file"]);
}

#[test]
fn a_mistyped_path_is_not_asked_of_the_hub() {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    hub.set_nonblocking(true).unwrap();
    let here = TempDir::new().unwrap();
    std::fs::create_dir_all(here.path().join("models/demo")).unwrap();
    for path in ["models/dmo", "models/x.gguf", "other/x.gguf", "./models/dmo", "a/b/c"] {
        let mut command = tallow(here.path());
        let endpoint = format!("http://{}", hub.local_addr().unwrap());
        command.args(["serve", path, "--port", "0"]).current_dir(here.path()).env("HF_ENDPOINT", endpoint);
        says(&refused(&mut command), &[path, "no such file or folder here", "models"]);
    }
    assert_eq!(hub.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the hub was asked");
}

/// A copy of the demo model that is served; the path of its weights.
fn serve_copy(port: u16, flag: Option<&str>) -> (TempDir, Process) {
    let folder = TempDir::new().unwrap();
    copy_model("models/demo", folder.path());
    let mut arguments = serve(folder.path(), &port.to_string());
    arguments.extend(flag.map(str::to_owned));
    let server = spawn(&arguments, |_| {});
    wait_until_healthy(port);
    (folder, server)
}

fn cut(folder: &Path) {
    let weights = File::options().write(true).open(folder.join("model.safetensors")).unwrap();
    weights.set_len(1 << 20).unwrap();
}

#[test]
fn a_file_that_is_cut_under_the_server_is_an_error_and_not_a_bus_error() {
    let port = free_port();
    let (folder, mut server) = serve_copy(port, None);
    cut(folder.path());
    // Either the request's own step finds it, or the idle engine has found it before.
    match answer(port, "POST", "/v1/completions", &completion(8, false)) {
        Ok((status, text)) => {
            assert!(status >= 500, "{text}");
            says(&text, &["was cut from", "bytes while its weights were in use"]);
        }
        Err(error) => assert!(server.child.try_wait().unwrap().is_some(), "{error}"),
    }
    assert_eq!(server.wait_for_end().code(), Some(1), "{}", server.stderr());
    says(&server.stderr(), &["tallow: ", "model.safetensors: was cut from", "--no-mmap"]);
}

#[test]
fn an_idle_server_finds_that_its_file_was_written_anew() {
    let port = free_port();
    let (folder, mut server) = serve_copy(port, None);
    let len = repo("models/demo/model.safetensors").metadata().unwrap().len() as usize;
    let mut file = File::create(folder.path().join("model.safetensors")).unwrap();
    file.write_all(&vec![7; len]).unwrap();
    assert_eq!(server.wait_for_end().code(), Some(1), "{}", server.stderr());
    says(&server.stderr(), &["model.safetensors: ", "while its weights were in use"]);
}

#[test]
fn with_no_mmap_the_files_do_not_matter_after_the_start() {
    let port = free_port();
    let (folder, _server) = serve_copy(port, Some("--no-mmap"));
    let ask = || answer(port, "POST", "/v1/completions", &completion(8, false)).unwrap();
    let text = |(status, answer): (u16, String)| {
        assert_eq!(status, 200, "{answer}");
        let (_, text) = answer.split_once("\"text\":\"").unwrap();
        text.split_once("\",\"").unwrap().0.to_owned()
    };
    let before = text(ask());
    cut(folder.path());
    assert!(!before.is_empty());
    assert_eq!(text(ask()), before);
}

#[test]
fn a_pool_that_is_larger_than_the_machine_is_refused_with_the_numbers() {
    let home = TempDir::new().unwrap();
    let model = repo("models/tiny-mistral");
    let text = refused(tallow(home.path()).args(["serve", "--port", "0", "--kv-cache-memory", "900TiB"]).arg(model));
    says(&text, &["--kv-cache-memory: is 989560464998400 bytes", "weights in their files", "bytes in all", "at most"]);
}

#[test]
fn a_plan_has_every_term_and_loads_nothing() {
    let home = TempDir::new().unwrap();
    let ended = run(tallow(home.path()).args(["plan", "--kv-cache-memory", "1MiB"]).arg(repo("models/tiny-mistral")));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    says(
        &ended.stdout,
        &[
            "preset",
            "KL on this model not measured yet",
            "blocks",
            "weights in their files",
            "activations",
            "KV cache",
            "tokenizer",
            "in all",
            "MiB",
        ],
    );
}

#[test]
fn a_proxy_does_not_stand_before_this_machine() {
    let port = free_port();
    let _server = spawn(&serve(&repo("models/tiny-mistral"), &port.to_string()), |_| {});
    wait_until_healthy(port);
    let home = TempDir::new().unwrap();
    let mut chat = tallow(home.path());
    // Nobody listens at port 1.
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        chat.env(name, "http://127.0.0.1:1");
    }
    let ended = run(chat.args(["chat", "--url", &format!("http://127.0.0.1:{port}")]).stdin(Stdio::null()));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    says(&ended.stdout, &["tiny-mistral"]);
}
