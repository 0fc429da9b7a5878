//! The served names as OpenAI lists models.
use crate::http::state::ServedModel;
use engine::ModelInfo;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// OpenAI's model object with what vLLM and llama.cpp add.
#[derive(Serialize, JsonSchema)]
pub struct ServedModelObject {
    id: String,
    object: &'static str,
    /// When it was loaded, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// vLLM's name for the model's folder or file.
    root: String,
    /// vLLM's name for the longest context.
    max_model_len: usize,
    meta: ModelMeta,
}

/// What llama.cpp tells of a model.
#[derive(Serialize, JsonSchema)]
struct ModelMeta {
    n_vocab: usize,
    /// The longest context that is served.
    n_ctx: usize,
    /// The longest context that the model was made for.
    n_ctx_train: usize,
    /// Bytes of the weights.
    size: u64,
    /// Whether the chat template takes tools, which agents need. No other server has this field.
    supports_tools: bool,
}

impl ServedModelObject {
    /// The model by one of its names.
    pub fn new(name: &str, served: &ServedModel) -> Self {
        let info = served.engine.info();
        let meta = ModelMeta {
            n_vocab: info.vocab_size,
            n_ctx: info.max_model_len,
            n_ctx_train: info.trained_len,
            size: info.weight_bytes,
            supports_tools: served.template.as_ref().is_some_and(|template| template.takes_tools()),
        };
        ServedModelObject {
            id: name.to_owned(),
            object: "model",
            created: served.created,
            owned_by: "tallow",
            root: info.path.display().to_string(),
            max_model_len: info.max_model_len,
            meta,
        }
    }
}

/// A model as llama.cpp lists it beside OpenAI's list. Texts that it leaves empty are empty here too.
fn llama_cpp_entry(name: &str, info: &ModelInfo) -> Value {
    let can = [("completion", info.has_head), ("embedding", info.pooling.is_ok())];
    let capabilities: Vec<&str> = can.iter().filter(|(_, can)| *can).map(|(name, _)| *name).collect();
    json!({
        "name": name,
        "model": name,
        "modified_at": "",
        "size": "",
        "digest": "",
        "type": "model",
        "description": "",
        "tags": [""],
        "capabilities": capabilities,
        "parameters": "",
        "details": {},
    })
}

/// The list of what is served.
#[derive(Serialize, JsonSchema)]
pub struct ServedModels {
    object: &'static str,
    data: Vec<ServedModelObject>,
    /// What llama.cpp lists; it is empty for Codex, which takes such a list for its own.
    models: Vec<Value>,
}

impl ServedModels {
    /// The served names. Codex asks for a list of another form, whose entries bring its instructions. It keeps its own
    /// where the list is empty, and reports an error where it is missing.
    pub fn new(served: &ServedModel, for_codex: bool) -> Self {
        let data = served.names.iter().map(|name| ServedModelObject::new(name, served)).collect();
        let names = served.names.iter().filter(|_| !for_codex);
        ServedModels {
            object: "list",
            data,
            models: names.map(|name| llama_cpp_entry(name, served.engine.info())).collect(),
        }
    }
}
