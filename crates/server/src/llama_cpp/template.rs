//! `POST /apply-template`: the prompt that the chat template makes of messages.
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::ApiError;
use crate::http::state::ServerState;
use crate::openai::prompt::MessageFields;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

pub const PATH: &str = "/apply-template";

/// The fields beside those of the messages.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateFields {
    model: Option<String>,
    tools: Option<Vec<Value>>,
}

pub async fn apply_template(State(state): State<ServerState>, request: JsonRequest) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let own: TemplateFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    fields.log_unread(&state, PATH);
    served.name(own.model.as_deref())?;
    let prompt = messages.render(served, own.tools.filter(|tools| !tools.is_empty())).await?;
    Ok(Json(json!({"prompt": prompt})))
}
