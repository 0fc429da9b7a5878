//! The served names as Anthropic lists models.
use crate::http::state::ServedModel;
use chrono::DateTime;
use schemars::JsonSchema;
use serde::Serialize;

/// A model in Anthropic's form.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelEntry {
    r#type: &'static str,
    id: String,
    display_name: String,
    /// When it was loaded.
    created_at: String,
    lifecycle: &'static str,
    /// The longest context.
    max_input_tokens: usize,
    max_tokens: usize,
}

/// All models. There is one page of them, whatever page is asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelPage {
    data: Vec<ModelEntry>,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

impl ModelEntry {
    /// The model by one of its names.
    pub fn new(name: &str, served: &ServedModel) -> Self {
        let created = DateTime::from_timestamp(served.created.try_into().unwrap_or(0), 0).unwrap_or_default();
        let context = served.engine.info().max_model_len;
        ModelEntry {
            r#type: "model",
            id: name.to_owned(),
            display_name: name.to_owned(),
            created_at: created.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            lifecycle: "active",
            max_input_tokens: context,
            max_tokens: context,
        }
    }
}

impl ModelPage {
    /// All names by which the model is served.
    pub fn new(served: &ServedModel) -> Self {
        ModelPage {
            data: served.names.iter().map(|name| ModelEntry::new(name, served)).collect(),
            has_more: false,
            first_id: served.names.first().cloned(),
            last_id: served.names.last().cloned(),
        }
    }
}
