//! `GET /slots`: how many more sequences could run. Where llama.cpp has slots, this server has sequences that share one
//! cache: as many slots are busy as sequences run, and which of them has no meaning.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::ServerState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
pub struct SlotsQuery {
    /// Asks for status 503 if no slot is free.
    fail_on_no_slot: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct LlamaCppSlot {
    id: usize,
    /// The longest context of any sequence, which is not set aside for this one.
    n_ctx: usize,
    speculative: bool,
    is_processing: bool,
}

pub fn operation() -> Operation {
    let slots = Operation::get("Tells how many more sequences could run");
    slots.query::<SlotsQuery>().answers::<Vec<LlamaCppSlot>>().fails(&[ErrorCode::NoSlot])
}

pub async fn slots(
    State(state): State<ServerState>,
    query: Result<Query<SlotsQuery>, QueryRejection>,
) -> Result<Json<Vec<LlamaCppSlot>>, ApiError> {
    let served = state.served()?;
    let (info, running) = (served.engine.info(), served.engine.stats().running);
    let asked = query.ok().and_then(|query| query.0.fail_on_no_slot);
    if asked.is_some_and(|asked| !asked.is_empty()) && running >= info.max_num_seqs {
        let message = format!("{running} sequences run, as many as --max-num-seqs allows; more would wait");
        return Err(ApiError::new(ErrorCode::NoSlot, message));
    }
    let slot = |id| LlamaCppSlot { id, n_ctx: info.max_model_len, speculative: false, is_processing: id < running };
    Ok(Json((0..info.max_num_seqs).map(slot).collect()))
}
