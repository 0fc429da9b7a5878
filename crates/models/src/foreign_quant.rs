//! Model folders whose weights another program has quantised: MLX's, compressed-tensors' and FP8 are read, others are
//! named, with what to take instead.
use crate::checkpoint::{MlxModes, Quantization, ScaledWeights};
use crate::config::ConfigJson;
use crate::error::ModelError;
use serde_json::{Map, Value};

/// Methods whose folders are read.
const COMPRESSED: &str = "compressed-tensors";
const FP8: &str = "FP8";

/// What `quant_method` calls them, and their usual names.
const METHODS: [(&str, &str); 20] = [
    ("aqlm", "AQLM"),
    ("auto-round", "AutoRound"),
    ("awq", "AWQ"),
    ("bitnet", "BitNet"),
    ("bitsandbytes", "bitsandbytes"),
    ("compressed-tensors", COMPRESSED),
    ("eetq", "EETQ"),
    ("exl2", "EXL2"),
    ("exl3", "EXL3"),
    ("fbgemm_fp8", "FBGEMM's FP8"),
    ("finegrained_fp8", FP8),
    ("fp8", FP8),
    ("gptq", "GPTQ"),
    ("higgs", "HIGGS"),
    ("hqq", "HQQ"),
    ("modelopt", "ModelOpt"),
    ("mxfp4", "MXFP4"),
    ("quanto", "Quanto"),
    ("torchao", "torchao"),
    ("vptq", "VPTQ"),
];

/// The field of `config.json` in which most programs tell of quantised weights.
const FIELD: &str = "quantization_config";

/// The field of MLX's.
const MLX_FIELD: &str = "quantization";

/// Files in which older programs keep what is `quantization_config` today.
const FILES: [(&str, &str); 2] = [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")];

/// How the weights are quantised; `None` if they are not.
///
/// Errors: they are quantised by a method that is not read, or in a way that is none of the method's.
pub(crate) fn quantization(json: &ConfigJson) -> Result<Option<Quantization>, ModelError> {
    let read = |field, quantization: Result<Quantization, String>| {
        quantization.map(Some).map_err(|message| json.error(field, message))
    };
    let mlx = |fields: &Map<String, Value>| MlxModes::of_fields(fields).map(Quantization::Mlx);
    // MLX writes both fields; the second is there for transformers.
    if let Some(fields) = object(json, MLX_FIELD)? {
        return read(MLX_FIELD, mlx(&fields));
    }
    let (method, place) = match object(json, FIELD)? {
        Some(fields) => match method(&fields) {
            None => return read(FIELD, mlx(&fields)),
            Some(COMPRESSED) => return read(FIELD, ScaledWeights::of_compressed(&fields).map(Quantization::Scaled)),
            Some(FP8) => return read(FIELD, ScaledWeights::of_fp8(&fields).map(Quantization::Scaled)),
            Some(method) => (method.to_owned(), FIELD),
        },
        None => match FILES.iter().find(|(file, _)| json.path.with_file_name(file).exists()) {
            Some((file, method)) => ((*method).to_owned(), *file),
            None => return Ok(None),
        },
    };
    let model_type = json.get::<&str>("model_type")?.unwrap_or("unknown").to_owned();
    let reason = format!(
        "its weights are quantised by {method} ({place}), which is not read. Take its float weights, which \
         --weight-quant q8_0 or q4_k makes small at load, a GGUF file of it, such as Q4_K_M, or a folder of \
         mlx-community's"
    );
    Err(ModelError::Refused { path: json.path.clone(), model_type, reason })
}

/// The fields of an object; `None` if there is none, or an empty one.
fn object(json: &ConfigJson, field: &'static str) -> Result<Option<Map<String, Value>>, ModelError> {
    Ok(json.get::<Map<String, Value>>(field)?.filter(|fields| !fields.is_empty()))
}

/// The method that the fields of a configuration name; `None` for MLX's, which do not name it.
fn method(fields: &Map<String, Value>) -> Option<&str> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let named = text("quant_method").or(text("quant_algo")).map(|name| {
        METHODS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map_or(name, |(_, usual)| usual)
    });
    let bitsandbytes = ["load_in_4bit", "load_in_8bit"].iter().any(|name| fields.contains_key(*name));
    match named {
        None if bitsandbytes => Some("bitsandbytes"),
        None if fields.contains_key("bits") && fields.contains_key("group_size") => None,
        None => Some("a method that is not named"),
        named => named,
    }
}
