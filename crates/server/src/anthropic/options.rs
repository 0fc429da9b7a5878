//! The fields by which a request says how much is thought and what form the answer has.
use crate::http::error::ApiError;
use crate::turn::{HeldTo, Thinking};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::Value;
use text::Grammar;

/// The fields by which a request says how much is thought and what form the answer has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OptionFields {
    /// Whether the model thinks, where its template knows that.
    thinking: Option<GivenThinking>,
    /// How hard the model thinks, and what its answer is held to.
    output_config: Option<OutputConfig>,
    /// The older place of `output_config.format`.
    output_format: Option<GivenFormat>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
struct GivenThinking {
    /// `enabled`, `adaptive` or `disabled`.
    r#type: String,
    /// The most tokens of a thought.
    budget_tokens: Option<usize>,
    /// With `omitted` the answer tells of thoughts, but does not show them.
    display: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, expecting = "an object")]
struct OutputConfig {
    /// `low`, `medium`, `high`, `xhigh` or `max`, where the model's template knows that.
    effort: Option<String>,
    /// What the answer's text is held to.
    format: Option<GivenFormat>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
struct GivenFormat {
    /// `json_schema`.
    #[schemars(extend("const" = "json_schema"))]
    r#type: String,
    /// The JSON schema.
    #[schemars(with = "Option<Schema>")]
    schema: Option<Value>,
}

/// Levels of effort, and what they are in OpenAI's words, which templates know.
const EFFORTS: [(&str, &str); 5] =
    [("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh"), ("max", "xhigh")];

impl OptionFields {
    /// Whether and how long the model may think.
    ///
    /// Errors: a type of thinking or an effort that is not known.
    pub fn thinking(&self) -> Result<Thinking, ApiError> {
        let effort = self.output_config.as_ref().and_then(|config| config.effort.as_deref());
        let effort = effort.map(|given| match EFFORTS.iter().find(|(name, _)| *name == given) {
            Some((_, effort)) => Ok((*effort).to_owned()),
            None => {
                let names = EFFORTS.map(|(name, _)| name).join(", ");
                let message = format!("output_config.effort is {given:?}; it must be one of {names}");
                Err(ApiError::invalid("output_config.effort", message))
            }
        });
        let effort = effort.transpose()?;
        let Some(thinking) = &self.thinking else { return Ok(Thinking { effort, ..Thinking::default() }) };
        let (enabled, budget) = match thinking.r#type.as_str() {
            "enabled" => (true, thinking.budget_tokens),
            // The model decides how long, which is what no budget means.
            "adaptive" => (true, None),
            "disabled" => (false, None),
            other => {
                let message = format!("thinking.type is {other:?}; it must be enabled, adaptive or disabled");
                return Err(ApiError::invalid("thinking.type", message));
            }
        };
        Ok(Thinking { effort, enabled: Some(enabled), budget })
    }

    /// Whether the answer tells of thoughts without showing them.
    pub fn omits_thoughts(&self) -> bool {
        self.thinking.as_ref().is_some_and(|thinking| thinking.display.as_deref() == Some("omitted"))
    }

    /// What the answer's text is held to; `None` leaves it free.
    ///
    /// Errors: a format that is not known, or has no schema.
    pub fn held_to(self) -> Result<Option<HeldTo>, ApiError> {
        let newer = self.output_config.and_then(|config| config.format).map(|format| ("output_config.format", format));
        let older = self.output_format.map(|format| ("output_format", format));
        let Some((field, format)) = newer.or(older) else { return Ok(None) };
        let wrong = |name: &str, problem: String| {
            let path = format!("{field}.{name}");
            Err(ApiError::invalid(path.clone(), format!("{path} {problem}")))
        };
        if format.r#type != "json_schema" {
            return wrong("type", format!("is {:?}; it must be json_schema", format.r#type));
        }
        match format.schema {
            Some(schema @ Value::Object(_)) => Ok(Some(HeldTo { grammar: Grammar::Json(schema), field })),
            other => wrong("schema", format!("is {}; it must be a JSON schema", other.unwrap_or_default())),
        }
    }
}
