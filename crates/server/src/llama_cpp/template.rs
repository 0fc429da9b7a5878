//! `POST /apply-template`: the prompt that the chat template makes of messages.
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::ServerState;
use crate::openai::chat::tools::ToolFields;
use crate::openai::prompt::MessageFields;
use crate::turn::Turn;
use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const PATH: &str = "/apply-template";

/// The fields beside those of messages and tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct TemplateFields {
    /// The model's name. A server has one model, so that it may be left out.
    model: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct AppliedTemplate {
    prompt: String,
}

pub fn operation() -> Operation {
    Operation::post("Makes the prompt of messages")
        .fields::<TemplateFields>()
        .fields::<MessageFields>()
        .needs(MessageFields::FIELD)
        .fields::<ToolFields>()
        .answers::<AppliedTemplate>()
        .fails(&[ErrorCode::ModelNotFound, ErrorCode::InvalidTemplate])
}

pub async fn apply_template(
    State(state): State<ServerState>,
    request: JsonRequest,
) -> Result<Json<AppliedTemplate>, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let own: TemplateFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    let tools: ToolFields = fields.view()?;
    fields.log_unread(&state, PATH);
    served.name(own.model.as_deref())?;
    let turn = Turn { tools: tools.resolve()?, ..messages.turn()? };
    let prompt = turn.prompt_text(served, MessageFields::FIELD).await?;
    Ok(Json(AppliedTemplate { prompt }))
}
