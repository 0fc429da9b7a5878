//! `GET /props`: what the server is and how it samples where a request does not say.
use crate::http::error::ApiError;
use crate::http::state::ServerState;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

pub async fn props(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    let (info, tokenizer) = (served.engine.info(), served.engine.tokenizer());
    let sampling = &info.default_sampling;
    let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.spelling(id)).unwrap_or_default();
    let takes_tools = served.template.as_ref().is_some_and(|template| template.takes_tools());
    // llama.cpp's way to say that there is no limit.
    let max_tokens = state.config().max_tokens_default.map_or(json!(-1), |limit| json!(limit));
    Ok(Json(json!({
        "default_generation_settings": {
            "n_ctx": info.max_model_len,
            "speculative": false,
            "params": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repetition_penalty,
                "presence_penalty": sampling.presence_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "max_tokens": max_tokens,
                "n_predict": max_tokens,
                "stop": [],
                "ignore_eos": false,
            },
        },
        "total_slots": info.max_num_seqs,
        "model_alias": served.names[0],
        "model_path": info.path.display().to_string(),
        "chat_template": served.template.as_ref().map_or("", |template| template.source()),
        "chat_template_caps": {"supports_tools": takes_tools, "supports_tool_calls": takes_tools},
        "bos_token": spelling(tokenizer.bos_id()),
        "eos_token": spelling(tokenizer.eos_id()),
        "modalities": {"vision": false, "audio": false},
        "build_info": concat!("tallow ", env!("CARGO_PKG_VERSION")),
    })))
}
