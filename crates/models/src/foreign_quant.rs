//! Model folders whose weights another program has quantised: they are named, with what to take instead.
use crate::config::ConfigJson;
use crate::error::ModelError;
use serde_json::{Map, Value};

/// What `quant_method` calls them, and their usual names.
const METHODS: [(&str, &str); 20] = [
    ("aqlm", "AQLM"),
    ("auto-round", "AutoRound"),
    ("awq", "AWQ"),
    ("bitnet", "BitNet"),
    ("bitsandbytes", "bitsandbytes"),
    ("compressed-tensors", "compressed-tensors"),
    ("eetq", "EETQ"),
    ("exl2", "EXL2"),
    ("exl3", "EXL3"),
    ("fbgemm_fp8", "FP8"),
    ("finegrained_fp8", "FP8"),
    ("fp8", "FP8"),
    ("gptq", "GPTQ"),
    ("higgs", "HIGGS"),
    ("hqq", "HQQ"),
    ("modelopt", "ModelOpt"),
    ("mxfp4", "MXFP4"),
    ("quanto", "Quanto"),
    ("torchao", "torchao"),
    ("vptq", "VPTQ"),
];

/// Files in which older programs keep what is `quantization_config` today.
const FILES: [(&str, &str); 2] = [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")];

/// Errors: the weights are quantised, by whichever method.
pub(crate) fn check(json: &ConfigJson) -> Result<(), ModelError> {
    let found = match method(json)? {
        None => FILES
            .into_iter()
            .find(|(file, _)| json.path.with_file_name(file).exists())
            .map(|(file, method)| (method.to_owned(), file)),
        found => found,
    };
    let Some((method, place)) = found else { return Ok(()) };
    let model_type = json.get::<&str>("model_type")?.unwrap_or("unknown").to_owned();
    let reason = format!(
        "its weights are quantised by {method} ({place}), which is not read. Take its float weights, which \
         --weight-quant q8_0 or q4_k makes small at load, or a GGUF file of it, such as Q4_K_M"
    );
    Err(ModelError::Refused { path: json.path.clone(), model_type, reason })
}

/// The method that a configuration names, and the field.
fn method(json: &ConfigJson) -> Result<Option<(String, &'static str)>, ModelError> {
    // MLX writes both fields; the second is there for transformers.
    if json.get::<Map<String, Value>>("quantization")?.is_some_and(|fields| !fields.is_empty()) {
        return Ok(Some(("MLX".into(), "quantization")));
    }
    let field = "quantization_config";
    let Some(fields) = json.get::<Map<String, Value>>(field)?.filter(|fields| !fields.is_empty()) else {
        return Ok(None);
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let named = text("quant_method").or(text("quant_algo")).map(|name| {
        METHODS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map_or(name, |(_, usual)| usual)
    });
    let bitsandbytes = ["load_in_4bit", "load_in_8bit"].iter().any(|name| fields.contains_key(*name));
    let method = match named {
        Some(name) => name.to_owned(),
        None if bitsandbytes => "bitsandbytes".into(),
        None if fields.contains_key("bits") && fields.contains_key("group_size") => "MLX".into(),
        None => "a method that is not named".into(),
    };
    Ok(Some((method, field)))
}
