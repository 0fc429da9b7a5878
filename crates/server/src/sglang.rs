//! `/v1/loads`, `/server_info` and `/model_info` in SGLang's form, by which routers learn what a server serves and how
//! much it has to do. What is not known here is left out.
use crate::http::error::ApiError;
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::{ServedModel, ServerState};
use axum::Json;
use axum::extract::State;
use axum::routing::get;
use chrono::{SecondsFormat, Utc};
use engine::{KL_LIMIT, KlFigures, PresetKl};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

/// The routes of SGLang's endpoints.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/loads", get(loads))
        .described(Operation::get("Tells how much the engine has to do").answers::<Loads>())
        .route("/server_info", get(server_info))
        .described(Operation::get("Tells the limits of the server").answers::<Map<String, Value>>())
        .route("/model_info", get(model_info))
        .described(Operation::get("Tells what model is served").answers::<Map<String, Value>>())
}

#[derive(Serialize, JsonSchema)]
struct Loads {
    timestamp: String,
    version: &'static str,
    dp_rank_count: usize,
    loads: [Load; 1],
    aggregate: LoadSums,
}

/// What the engine has to do. This server has one, so it is rank 0 of 1.
#[derive(Serialize, JsonSchema)]
struct Load {
    dp_rank: usize,
    num_running_reqs: usize,
    num_waiting_reqs: usize,
    num_total_reqs: usize,
    /// Tokens in blocks that sequences hold, which may not be full.
    num_used_tokens: usize,
    max_total_num_tokens: usize,
    /// The share of the cache that is held.
    token_usage: f64,
    /// The share of the prompts' tokens since the start that were in the cache.
    cache_hit_rate: f64,
    /// The share of the sequences that can run at once which do run.
    utilization: f64,
    max_running_requests: usize,
}

#[derive(Serialize, JsonSchema)]
struct LoadSums {
    total_running_reqs: usize,
    total_waiting_reqs: usize,
    total_reqs: usize,
    avg_token_usage: f64,
    avg_utilization: f64,
}

impl Load {
    fn of(served: &ServedModel) -> Self {
        let (info, stats, found) = (served.engine.info(), served.engine.stats(), served.engine.prefixes());
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Load {
            dp_rank: 0,
            num_running_reqs: stats.running,
            num_waiting_reqs: stats.waiting,
            num_total_reqs: stats.running + stats.waiting,
            num_used_tokens: stats.blocks_held * info.block_size,
            max_total_num_tokens: info.num_blocks * info.block_size,
            token_usage: share(stats.blocks_held, info.num_blocks),
            cache_hit_rate: (found.from_memory + found.from_archive) as f64 / found.queried.max(1) as f64,
            utilization: share(stats.running, info.max_num_seqs),
            max_running_requests: info.max_num_seqs,
        }
    }
}

async fn loads(State(state): State<ServerState>) -> Result<Json<Loads>, ApiError> {
    let load = Load::of(state.served()?);
    let aggregate = LoadSums {
        total_running_reqs: load.num_running_reqs,
        total_waiting_reqs: load.num_waiting_reqs,
        total_reqs: load.num_total_reqs,
        avg_token_usage: load.token_usage,
        avg_utilization: load.utilization,
    };
    Ok(Json(Loads {
        timestamp: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, false),
        version: env!("CARGO_PKG_VERSION"),
        dp_rank_count: 1,
        loads: [load],
        aggregate,
    }))
}

async fn server_info(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    let info = served.engine.info();
    let memory = spawn_blocking(engine::machine_memory).await?;
    Ok(Json(json!({
        "model_path": info.path.display().to_string(),
        "served_model_name": served.names[0],
        "version": env!("CARGO_PKG_VERSION"),
        "tp_size": 1,
        "dp_size": 1,
        "context_length": info.max_model_len,
        "max_total_tokens": info.num_blocks * info.block_size,
        "max_total_num_tokens": info.num_blocks * info.block_size,
        "max_running_requests": info.max_num_seqs,
        "max_num_reqs": info.max_num_seqs,
        "max_queued_requests": served.engine.queue_limit(),
        "kv_cache_dtype": info.cache_dtype(),
        "page_size": info.block_size,
        "disable_radix_cache": !info.prefix_cache,
        "memory_pressure": served.engine.stats().pressure.name(),
        "memory": {
            "total": memory.map(|memory| memory.total),
            "free": memory.map(|memory| memory.free),
            "resident": memory.map(|memory| memory.resident),
            "weights": info.weight_bytes,
        },
        "kv_divergence": kv_divergence(&served.engine.kl_figures()),
    })))
}

/// What the presets cost the model: the KL of the next token's distribution, nats.
fn kv_divergence(figures: &KlFigures) -> Value {
    let preset = |PresetKl { preset, k, v, kl }| json!({"name": preset, "k": k, "v": v, "kl": kl});
    json!({"limit": KL_LIMIT, "tokens": figures.tokens, "presets": figures.presets().map(preset).collect::<Vec<_>>()})
}

async fn model_info(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    let info = state.served()?.engine.info();
    let path = info.path.display().to_string();
    Ok(Json(json!({
        "model_path": path,
        "tokenizer_path": path,
        "is_generation": true,
        "model_type": info.model_type,
    })))
}
