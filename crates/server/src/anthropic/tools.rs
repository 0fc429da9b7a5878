//! Anthropic's tools become OpenAI's functions.
use crate::http::error::{ApiError, ErrorCode};
use crate::turn::{ToolChoice, ToolUse};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of a request that are about tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GivenTools {
    /// The tools that the model may call, each with a `name`, a `description` and an `input_schema`.
    tools: Option<Vec<Value>>,
    /// Whether the model may call tools, must, or must call one by name.
    tool_choice: Option<GivenChoice>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
struct GivenChoice {
    /// `auto`, `any`, `tool` or `none`.
    r#type: String,
    /// The tool that must be called.
    name: Option<String>,
    /// The answer has one tool call at most.
    disable_parallel_tool_use: Option<bool>,
}

impl GivenTools {
    /// The tools and how they may be called. Tools that only Anthropic's servers run are left out where there are
    /// others.
    ///
    /// Errors: a tool without a name or with a schema that is none, tools of which this server can run none, a choice
    /// that is not known or names no tool.
    pub fn resolve(self) -> Result<ToolUse, ApiError> {
        let tools = self.tools.unwrap_or_default();
        let mut functions = Vec::new();
        let mut left_out = Vec::new();
        for (i, tool) in tools.iter().enumerate() {
            match tool.get("type").filter(|kind| !kind.is_null()) {
                None => functions.push(function_of(tool, &format!("tools[{i}]"))?),
                Some(kind) if kind == "custom" => functions.push(function_of(tool, &format!("tools[{i}]"))?),
                Some(kind) => left_out.push((i, kind)),
            }
        }
        if let (Some((i, kind)), true) = (left_out.first(), functions.is_empty()) {
            let path = format!("tools[{i}].type");
            let message = format!(
                "{path} is {kind}; this server has tools with an input_schema alone, which the client runs, and none \
                 of Anthropic's own"
            );
            return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at(path));
        }
        if !left_out.is_empty() {
            let kinds: Vec<String> = left_out.iter().map(|(_, kind)| kind.to_string()).collect();
            tracing::warn!(tools = kinds.join(", "), "tools that this server does not have are left out");
        }
        let (choice, parallel) = match self.tool_choice {
            None => (ToolChoice::Auto, true),
            Some(given) => (given.choice()?, !given.disable_parallel_tool_use.unwrap_or(false)),
        };
        ToolUse::new(functions, choice, parallel)
    }
}

impl GivenChoice {
    fn choice(&self) -> Result<ToolChoice, ApiError> {
        match (self.r#type.as_str(), &self.name) {
            ("auto", _) => Ok(ToolChoice::Auto),
            ("none", _) => Ok(ToolChoice::None),
            ("any", _) => Ok(ToolChoice::Required),
            ("tool", Some(name)) => Ok(ToolChoice::Named(name.clone())),
            ("tool", None) => {
                let message = "tool_choice.name is missing; it must be the name of a tool";
                Err(ApiError::invalid("tool_choice.name", message))
            }
            (other, _) => {
                let message = format!("tool_choice.type is {other:?}; it must be auto, any, tool or none");
                Err(ApiError::invalid("tool_choice.type", message))
            }
        }
    }
}

/// The tool at `path` as a function in OpenAI's form.
///
/// Errors: no name, or an input_schema that is none.
fn function_of(tool: &Value, path: &str) -> Result<Value, ApiError> {
    let wrong = |field: &str, allowed: &str| {
        let path = format!("{path}.{field}");
        let message = format!("{path} is {}; it must be {allowed}", tool.get(field).unwrap_or(&Value::Null));
        Err(ApiError::invalid(path, message))
    };
    let mut function = Map::new();
    match tool.get("name") {
        Some(Value::String(name)) if !name.is_empty() => function.insert("name".into(), name.as_str().into()),
        _ => return wrong("name", "the tool's name"),
    };
    for field in ["description", "strict"] {
        function.extend(tool.get(field).filter(|value| !value.is_null()).map(|v| (field.to_owned(), v.clone())));
    }
    match tool.get("input_schema") {
        None | Some(Value::Null) => {}
        Some(schema @ Value::Object(_)) => {
            function.insert("parameters".into(), schema.clone());
        }
        Some(_) => return wrong("input_schema", "a JSON schema of an object"),
    }
    Ok(Value::Object(function))
}
