//! Model folders with something wrong: an error that names file and tensor, never a panic.
#![allow(clippy::unwrap_used)] // helpers of tests
use engine::{EngineConfig, KvOptions, load, start};
use std::path::Path;
use testkit::repo;
use turboquant::{Format, KvPair};

const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// A changed copy of the tiny model.
fn changed(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        std::fs::copy(repo("models/tiny-mistral").join(file), folder.path().join(file)).unwrap();
    }
    change(folder.path());
    folder
}

/// What loading it says.
fn error(change: impl FnOnce(&Path)) -> String {
    let folder = changed(change);
    match load(&EngineConfig::new(folder.path())) {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    }
}

fn rewrite(folder: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(folder.join(file)).unwrap();
    change(&mut bytes);
    std::fs::write(folder.join(file), bytes).unwrap();
}

fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

fn says(message: &str, words: &[&str]) {
    assert!(words.iter().all(|w| message.contains(w)), "{message}");
}

#[test]
fn safetensors_that_are_not_whole() {
    for keep in [0, 7, 8, 100, 200_000] {
        says(&error(|f| rewrite(f, "model.safetensors", |b| b.truncate(keep))), &["model.safetensors"]);
    }
    let message = error(|f| rewrite(f, "model.safetensors", |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())));
    says(&message, &["model.safetensors", "it is no safetensors file, or is damaged"]);
    says(&error(|f| std::fs::remove_file(f.join("model.safetensors")).unwrap()), &["model.safetensors"]);
}

#[test]
fn tensors_that_are_missing_or_of_another_shape() {
    let message =
        error(|f| rewrite(f, "model.safetensors", |b| replace(b, "layers.1.mlp.up_proj", "layers.1.mlp.xp_proj")));
    says(&message, &["model.layers.1.mlp.up_proj.weight", "missing"]);
    let message = error(|f| rewrite(f, "config.json", |b| replace(b, "\"hidden_size\": 64", "\"hidden_size\": 48")));
    says(&message, &["model.safetensors", "model.layers.0.input_layernorm.weight", "[64]", "[48]"]);
    let message = error(|f| rewrite(f, "model.safetensors", |b| replace(b, "\"BF16\"", "\"I16\" ")));
    says(&message, &["is of type I16", "BF16"]);
}

#[test]
fn an_index_that_names_what_is_not_there_or_elsewhere() {
    let index = |name: &str| format!(r#"{{"weight_map": {{"x": "{name}"}}}}"#);
    let with = |name: &str| error(|f| std::fs::write(f.join("model.safetensors.index.json"), index(name)).unwrap());
    says(&with("model-00001-of-00001.safetensors"), &["model-00001-of-00001.safetensors"]);
    says(&with("../model.safetensors"), &["model.safetensors.index.json", "../model.safetensors"]);
}

#[test]
fn folders_without_tokenizer_or_configuration() {
    says(&error(|f| std::fs::remove_file(f.join("tokenizer.json")).unwrap()), &["tokenizer.json"]);
    says(&error(|f| std::fs::remove_file(f.join("config.json")).unwrap()), &["config.json"]);
    says(&error(|f| rewrite(f, "tokenizer.json", |b| b.truncate(300))), &["tokenizer.json"]);
    let Err(message) = load(&EngineConfig::new("/no/such/model")) else { panic!("a model was loaded") };
    says(&message.to_string(), &["/no/such/model", "No such file"]);
}

/// Heads of 8 in place of 32, four times as many: tensors of the same shapes.
#[test]
fn a_head_size_that_the_format_does_not_hold() {
    let folder = changed(|f| {
        rewrite(f, "config.json", |b| {
            let text = String::from_utf8(std::mem::take(b)).unwrap();
            let text = text.replace("\"head_dim\": 32", "\"head_dim\": 8");
            let text = text.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 16");
            *b = text.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 8").into_bytes();
        })
    });
    let kv = KvOptions::pair(KvPair::both(Format::Tc4), 32);
    let Err(error) = start(&EngineConfig { kv, ..EngineConfig::new(folder.path()) }) else { panic!("it started") };
    says(&error.to_string(), &["type mistral", "head_dim 8", "tc4", "16, 32, 64"]);
}

fn write(folder: &Path, file: &str, json: &str) {
    std::fs::write(folder.join(file), json).unwrap();
}

/// Values that some files have where they mean none, or a whole number.
#[test]
fn odd_defaults_are_repaired() {
    let odd = |generation: &str| {
        let folder = changed(|f| {
            write(f, "generation_config.json", generation);
            rewrite(f, "config.json", |b| {
                let text = String::from_utf8(std::mem::take(b)).unwrap();
                let window = text.find("\"sliding_window\": ").unwrap() + 18;
                let end = window + text[window..].find([',', '\n']).unwrap();
                let text = format!("{}0{}", &text[..window], &text[end..]);
                let text = text.replace("\"hidden_size\": 64", "\"hidden_size\": 64.0, \"mlp_bias\": null");
                *b = format!("\u{feff}{text}").into_bytes();
            });
        });
        load(&EngineConfig::new(folder.path())).map(|model| model.generation).map_err(|e| e.to_string())
    };
    let eos = load(&EngineConfig::new(repo("models/tiny-mistral"))).unwrap().generation.eos_token_ids;
    assert!(!eos.is_empty());
    for ids in ["-1", "null", "[null]", "[-1, null]"] {
        let defaults = odd(&format!(r#"{{"eos_token_id": {ids}, "top_k": -1, "temperature": null}}"#)).unwrap();
        assert_eq!((defaults.top_k, defaults.temperature), (None, None), "{ids}");
        assert_eq!(defaults.eos_token_ids, eos, "{ids}");
    }
    let defaults = odd(r#"{"eos_token_id": [1, null], "top_k": 50.0, "temperature": NaN, "top_p": 0.5}"#).unwrap();
    assert_eq!((defaults.top_k, defaults.temperature, defaults.top_p), (Some(50), None, Some(0.5)));
    assert!(defaults.eos_token_ids.contains(&1));
    for (wrong, field) in [
        (r#"{"temperature": "hot"}"#, "temperature is \"hot\""),
        (r#"{"top_k": 1.5}"#, "top_k is 1.5"),
        (r#"{"eos_token_id": "</s>"}"#, "eos_token_id is \"</s>\"; it must be a token id"),
        (r#"{"do_sample": 3}"#, "do_sample is 3"),
        ("[]", "is not a JSON object"),
    ] {
        says(&odd(wrong).unwrap_err(), &["generation_config.json", field]);
    }
}

/// The files name EOS as of the base model; the template of the tuned one closes turns with another token.
#[test]
fn turns_end_where_the_template_closes_them() {
    let ends = |template: &str| {
        let folder = changed(|f| {
            write(f, "generation_config.json", r#"{"eos_token_id": 2}"#);
            write(f, "chat_template.jinja", template);
        });
        load(&EngineConfig::new(folder.path())).unwrap().generation.eos_token_ids
    };
    let plain = ends("{% for m in messages %}{{ m.content }}\n{% endfor %}");
    assert!(plain.contains(&2) && !plain.contains(&0), "{plain:?}");
    let closed = ends("{% for m in messages %}{{ m.role }}: {{ m.content }} <pad>\n{% endfor %}");
    assert!(closed.contains(&2) && closed.contains(&0), "{closed:?}");
}

#[test]
fn a_named_template_takes_the_place_of_the_models() {
    let folder = changed(|f| {
        write(f, "chat_template.jinja", "{% if %}");
        write(f, "named.jinja", "named {{ bos_token }}");
        write(f, "empty.jinja", "\n");
    });
    let with = |name: Option<&str>| {
        let chat_template = name.map(|name| folder.path().join(name));
        load(&EngineConfig { chat_template, ..EngineConfig::new(folder.path()) })
    };
    let messages = serde_json::json!([{"role": "user", "content": "x"}]);
    let rendered = |name| with(name).unwrap().template.unwrap().render(&text::Conversation::of(&messages));
    assert_eq!(rendered(Some("named.jinja")).unwrap(), "named <bos>");
    says(&rendered(None).unwrap_err().to_string(), &["chat_template.jinja", "does not compile"]);
    for (name, words) in
        [("none.jinja", "cannot read"), ("chat_template.jinja", "does not compile"), ("empty.jinja", "empty")]
    {
        let Err(error) = with(Some(name)) else { panic!("{name} was taken") };
        says(&error.to_string(), &["--chat-template", name, words]);
    }
}
