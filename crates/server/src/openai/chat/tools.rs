//! The fields of a chat request that are about tools.
use crate::http::error::ApiError;
use crate::turn::{ToolChoice, ToolUse, check_function};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The fields of a chat request that are about tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ToolFields {
    /// The functions that the model may call.
    tools: Option<Vec<Value>>,
    /// Whether the model may call tools, must, or must call one by name: `auto`, `none`, `required`, or a function.
    tool_choice: Option<Value>,
    /// The answer may have several tool calls, as it may by default.
    parallel_tool_calls: Option<bool>,
}

impl ToolFields {
    /// The tools and how they may be called.
    ///
    /// Errors: a tool that is no function with a name, a choice that is not known or names no tool.
    pub fn resolve(self) -> Result<ToolUse, ApiError> {
        let mut functions = Vec::new();
        for (i, tool) in self.tools.unwrap_or_default().into_iter().enumerate() {
            let kind = tool.get("type").and_then(Value::as_str).unwrap_or("function");
            if kind != "function" {
                let path = format!("tools[{i}].type");
                return Err(ApiError::invalid(path.clone(), format!("{path} is {kind:?}; it must be \"function\"")));
            }
            let path = format!("tools[{i}].function");
            let function = tool.get("function").cloned().unwrap_or_default();
            check_function(&function, &path)?;
            functions.push(function);
        }
        let choice = self.tool_choice.filter(|choice| !choice.is_null());
        let choice = choice.map_or(Ok(ToolChoice::Auto), |choice| parse_choice(&choice))?;
        ToolUse::new(functions, choice, self.parallel_tool_calls.unwrap_or(true))
    }
}

/// Reads OpenAI's `tool_choice`.
fn parse_choice(choice: &Value) -> Result<ToolChoice, ApiError> {
    let wrong = || {
        let message = format!(
            "tool_choice is {choice}; it must be \"auto\", \"none\", \"required\" or \
             {{\"type\": \"function\", \"function\": {{\"name\": ..}}}}"
        );
        ApiError::invalid("tool_choice", message)
    };
    let name = |value: &Value| {
        let function = value.get("function").unwrap_or(value);
        function.get("name").and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong)
    };
    match choice.as_str().or_else(|| choice.get("type").and_then(Value::as_str)) {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        // Some clients know this one by Anthropic's word.
        Some("required" | "any") => Ok(ToolChoice::Required),
        Some("function") => Ok(ToolChoice::Named(name(choice)?)),
        Some("allowed_tools") => {
            let allowed = choice.get("allowed_tools").unwrap_or(choice);
            let tools = allowed.get("tools").and_then(Value::as_array).ok_or_else(wrong)?;
            Ok(ToolChoice::Allowed {
                names: tools.iter().map(name).collect::<Result<_, _>>()?,
                required: allowed.get("mode").and_then(Value::as_str) == Some("required"),
            })
        }
        _ => Err(wrong()),
    }
}
