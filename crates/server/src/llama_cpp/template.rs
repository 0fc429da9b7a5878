//! `POST /apply-template`: the prompt that the chat template makes of messages.
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::ApiError;
use crate::http::state::ServerState;
use crate::openai::chat::tools::ToolFields;
use crate::openai::prompt::MessageFields;
use crate::turn::Turn;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

pub const PATH: &str = "/apply-template";

/// The fields beside those of messages and tools.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateFields {
    model: Option<String>,
}

pub async fn apply_template(State(state): State<ServerState>, request: JsonRequest) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let own: TemplateFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    let tools: ToolFields = fields.view()?;
    fields.log_unread(&state, PATH);
    served.name(own.model.as_deref())?;
    let turn = Turn { tools: tools.resolve()?, ..messages.turn()? };
    let prompt = turn.prompt_text(served, MessageFields::FIELD).await?;
    Ok(Json(json!({"prompt": prompt})))
}
