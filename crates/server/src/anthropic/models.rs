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
    /// The longest context; missing where it is not known before the model is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
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
        ModelEntry::described(name, served.created, Some(served.engine.info().max_model_len))
    }

    /// A model of which no more is known than this. `created`: when it was loaded, in seconds since the epoch.
    pub fn described(name: &str, created: u64, context: Option<usize>) -> Self {
        let created = DateTime::from_timestamp(created.try_into().unwrap_or(0), 0).unwrap_or_default();
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
        ModelPage::of(served.names.iter().map(|name| ModelEntry::new(name, served)).collect())
    }

    /// The page of these entries.
    pub fn of(data: Vec<ModelEntry>) -> Self {
        let id = |entry: Option<&ModelEntry>| entry.map(|entry| entry.id.clone());
        ModelPage { has_more: false, first_id: id(data.first()), last_id: id(data.last()), data }
    }
}
