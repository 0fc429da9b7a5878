use super::*;
use crate::config::ModelConfig;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A folder with this `config.json`.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, config: &Value) -> Self {
        let path = std::env::temp_dir().join(format!("tallow-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        Folder(path)
    }

    fn read(&self) -> Result<ModelConfig, ModelError> {
        self.family_and_config().map(|found| found.1)
    }

    fn family_and_config(&self) -> Result<(&'static Family, ModelConfig), ModelError> {
        let json = ConfigJson::read(&self.0)?;
        let family = family_of_json(&json)?;
        Ok((family, family.config_of_json(&json)?))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 128,
        "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
    })
}

fn with(mut config: Value, fields: Value) -> Value {
    let (Value::Object(config), Value::Object(fields)) = (&mut config, fields) else { panic!("objects") };
    config.extend(fields);
    Value::Object(config.clone())
}

fn error(name: &str, fields: Value) -> String {
    Folder::new(name, &with(llama(), fields)).read().unwrap_err().to_string()
}

/// Theta and scaling as transformers 4 writes them and as 5 does.
#[test]
fn both_ways_of_writing_rope_are_one() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024});
    let four = Folder::new("four", &with(llama(), json!({"rope_theta": 5e5, "rope_scaling": scaling}))).read().unwrap();
    let mut five = with(llama(), json!({"rope_parameters": with(scaling, json!({"rope_theta": 5e5}))}));
    five.as_object_mut().unwrap().remove("rope_theta");
    let five = Folder::new("five", &five).read().unwrap();
    assert_eq!(four.rope, five.rope);
    assert!(four.rope.frequencies()[15] < 1.0 / 5e5f32.powf(30.0 / 32.0) / 7.9);
}

/// Frequencies that `transformers` computes; `scripts/goldens/rope.py` writes the file.
#[test]
fn scaled_frequencies_are_those_of_transformers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../tests/goldens/rope.json")).unwrap();
    assert!(cases.len() >= 6);
    for (i, case) in cases.iter().enumerate() {
        let config = with(llama(), case["config"].clone());
        let rope = Folder::new(&format!("rope{i}"), &config).read().unwrap().rope;
        let want: Vec<f32> = serde_json::from_value(case["inv_freq"].clone()).unwrap();
        assert_eq!(rope.pairs(), want.len(), "{case}");
        for (got, want) in rope.frequencies().iter().zip(&want) {
            // Two powers and a few products, each rounded once.
            assert!((got / want - 1.0).abs() < 1e-6, "{got} {want} {case}");
        }
        let factor = case["attention_factor"].as_f64().unwrap();
        assert!((f64::from(rope.attention_factor()) - factor).abs() < 1e-6, "{case}");
    }
}

#[test]
fn a_yarn_context_is_as_long_as_its_factor_makes_it() {
    let yarn = json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}});
    assert_eq!(Folder::new("yarn", &with(llama(), yarn)).read().unwrap().max_position_embeddings, 16384);
}

#[test]
fn a_wrapper_gives_its_text_part() {
    let text = with(llama(), json!({"model_type": "mistral"}));
    let wrapper = json!({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
        "tie_word_embeddings": true, "text_config": text, "vision_config": {}});
    let (family, config) = Folder::new("wrapper", &wrapper).family_and_config().unwrap();
    assert_eq!((family.model_type(), config.tie_word_embeddings), ("llama", true));
}

#[test]
fn layers_are_windowed_as_the_configuration_says() {
    let windows = |name, fields| {
        let config = Folder::new(name, &with(llama(), fields)).read().unwrap();
        config.geometry().layers.iter().map(|l| l.sliding_window).collect::<Vec<_>>()
    };
    assert_eq!(windows("w1", json!({"sliding_window": 8})), [Some(8), Some(8)]);
    assert_eq!(windows("w2", json!({"sliding_window": 8, "use_sliding_window": false})), [None, None]);
    let above = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1});
    assert_eq!(windows("w3", above), [None, Some(8)]);
    let listed = json!({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(windows("w4", listed), [Some(8), None]);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    for kind in ["deepseek_v3", "minicpm3", "glm4_moe_lite"] {
        let message = error(kind, json!({"model_type": kind, "architectures": ["X"]}));
        assert!(message.contains(kind) && message.contains("latent attention"), "{message}");
    }
    let message = error("lora", json!({"model_type": "new_thing", "kv_lora_rank": 512}));
    assert!(message.contains("new_thing") && message.contains("latent attention"), "{message}");
    let message = error("gpt", json!({"architectures": ["GPTNeoXForCausalLM"]}));
    assert!(message.contains("GPTNeoXForCausalLM") && message.contains("Qwen3MoeForCausalLM"), "{message}");
}

#[test]
fn wrong_values_name_file_field_and_value() {
    for (name, fields, field, value) in [
        ("e1", json!({"num_key_value_heads": 3}), "num_key_value_heads", "3"),
        ("e2", json!({"hidden_size": 0}), "hidden_size", "0"),
        ("e3", json!({"vocab_size": null}), "vocab_size", "missing"),
        ("e4", json!({"hidden_act": "gelu"}), "hidden_act", "gelu"),
        ("e5", json!({"rope_scaling": {"type": "dynamic"}}), "rope_scaling", "dynamic"),
        ("e6", json!({"rope_scaling": {"type": "linear"}}), "rope_scaling", "factor"),
        ("e7", json!({"layer_types": ["full_attention"]}), "layer_types", "1 entries"),
        ("e8", json!({"layer_types": ["full_attention", "linear_attention"]}), "layer_types", "linear_attention"),
        ("e9", json!({"partial_rotary_factor": 2.0}), "partial_rotary_factor", "2"),
    ] {
        let message = error(name, fields);
        assert!(message.contains("config.json") && message.contains(field) && message.contains(value), "{message}");
    }
}
