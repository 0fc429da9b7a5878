//! The tools of a turn.
use crate::http::error::ApiError;
use serde_json::{Value, json};
use text::Tool;

/// The tools of a turn and how they may be called.
#[derive(Debug, Default)]
pub struct ToolUse {
    /// The tools that the prompt tells of, in OpenAI's form; `None` where there are none.
    pub offered: Option<Value>,
    /// The tools that may be called.
    pub callable: Vec<Tool>,
    /// Whether one must be called.
    pub must_call: bool,
    /// Whether an answer may have several calls.
    pub parallel: bool,
    /// Schemas are held to the letter, and one that cannot be is refused.
    pub strict: bool,
}

/// A client's choice of the tools that may or must be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// None is called.
    None,
    /// At least one is called.
    Required,
    /// The tool of this name is called.
    Named(String),
    /// No tools but those of these names are called, and at least one of them if `required`.
    Allowed {
        /// The names of the tools.
        names: Vec<String>,
        /// Whether one of them must be called.
        required: bool,
    },
}

impl ToolUse {
    /// The tools `functions`, each in OpenAI's form (`{"name": .., "description": .., "parameters": ..}`), called as
    /// `choice` says.
    ///
    /// Errors: a choice of tools that are not there.
    pub fn new(functions: Vec<Value>, choice: ToolChoice, parallel: bool) -> Result<Self, ApiError> {
        let tools = parse_tools(&functions);
        let known = |name: &str| match tools.iter().find(|tool| tool.name == name) {
            Some(tool) => Ok(tool.clone()),
            None => {
                let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
                let message = format!("tool_choice names {name:?}; the tools are {}", names.join(", "));
                Err(ApiError::invalid("tool_choice", message))
            }
        };
        let (callable, must_call) = match choice {
            ToolChoice::None => return Ok(ToolUse::default()),
            ToolChoice::Auto => (tools, false),
            ToolChoice::Required if tools.is_empty() => {
                return Err(ApiError::invalid("tool_choice", "tool_choice asks for a call, but there are no tools"));
            }
            ToolChoice::Required => (tools, true),
            ToolChoice::Named(name) => (vec![known(&name)?], true),
            ToolChoice::Allowed { names, required } => {
                (names.iter().map(|name| known(name)).collect::<Result<_, _>>()?, required)
            }
        };
        let strict = functions.iter().any(|function| function.get("strict") == Some(&json!(true)));
        // A template is given what clients of OpenAI send, whatever the protocol.
        let as_sent: Vec<Value> =
            functions.into_iter().map(|function| json!({"type": "function", "function": function})).collect();
        let offered = (!as_sent.is_empty()).then_some(Value::Array(as_sent));
        Ok(ToolUse { offered, callable, must_call, parallel, strict })
    }
}

/// What is needed of each function to read and hold its calls.
fn parse_tools(functions: &[Value]) -> Vec<Tool> {
    let tool = |function: &Value| Tool {
        name: function.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        parameters: function.get("parameters").filter(|p| !p.is_null()).cloned().unwrap_or_else(|| json!({})),
    };
    functions.iter().map(tool).collect()
}

/// Checks one function in OpenAI's form, which stands at `path`.
///
/// Errors: no name, or parameters that are no schema.
pub fn check_function(function: &Value, path: &str) -> Result<(), ApiError> {
    let wrong = |field: &str, allowed: &str| {
        let path = format!("{path}.{field}");
        let message = format!("{path} is {}; it must be {allowed}", function.get(field).unwrap_or(&Value::Null));
        Err(ApiError::invalid(path, message))
    };
    match function.get("name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        _ => return wrong("name", "the tool's name"),
    }
    match function.get("parameters") {
        None | Some(Value::Null | Value::Object(_)) => Ok(()),
        Some(_) => wrong("parameters", "a JSON schema of an object"),
    }
}
