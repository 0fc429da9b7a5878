//! The tools of a response: functions, custom tools, and both in namespaces.
use crate::http::error::{ApiError, ErrorCode};
use crate::turn::{ToolChoice, ToolUse, check_function};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The parameter that holds a custom tool's input in the function that stands for the tool.
pub const INPUT_FIELD: &str = "input";

/// The fields of a request that are about tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResponseToolFields {
    /// The tools: functions, custom tools, and namespaces of both.
    pub tools: Option<Vec<Value>>,
    /// The choice of the tools that may or must be called.
    pub tool_choice: Option<Value>,
    /// False ends the answer after its first call.
    pub parallel_tool_calls: Option<bool>,
}

/// A tool as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledTool {
    /// Its name in its namespace.
    pub name: String,
    /// The namespace that the client gave it in.
    pub namespace: Option<String>,
    /// It takes a text and is called by a `custom_tool_call`.
    pub is_custom: bool,
}

/// The client's tools by the names under which the model calls them.
#[derive(Debug, Clone, Default)]
pub struct CalledTools(BTreeMap<String, CalledTool>);

impl CalledTools {
    /// The tool that the model calls `name`; a function of that name, if there is none.
    pub fn get(&self, name: &str) -> CalledTool {
        let function = || CalledTool { name: name.to_owned(), namespace: None, is_custom: false };
        self.0.get(name).cloned().unwrap_or_else(function)
    }
}

/// The tools of a request as they are offered to the model.
#[derive(Debug, Default)]
pub struct OfferedTools {
    pub tools: ToolUse,
    pub called: CalledTools,
    /// The types of the tools that nobody can run here, which are passed over.
    pub passed_over: Vec<String>,
}

/// The name under which a model calls a tool: its namespace stands before it. Namespaces of MCP servers may end with
/// the underscores already.
pub fn model_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        None => name.to_owned(),
        Some(namespace) if namespace.ends_with("__") => format!("{namespace}{name}"),
        Some(namespace) => format!("{namespace}__{name}"),
    }
}

impl ResponseToolFields {
    /// The tools and how they may be called.
    ///
    /// Errors: a tool without a type or a name, an unknown format, an unknown choice or one that names no tool.
    pub fn resolve(&self) -> Result<OfferedTools, ApiError> {
        let (mut offered, mut functions) = (OfferedTools::default(), Vec::new());
        for (i, tool) in self.tools.iter().flatten().enumerate() {
            let path = format!("tools[{i}]");
            if kind_of(tool, &path)? != "namespace" {
                offered.add(tool, None, &path, &mut functions)?;
                continue;
            }
            let namespace = text_of(tool, "name", &path)?;
            let Some(inner) = tool.get("tools").and_then(Value::as_array) else {
                let path = format!("{path}.tools");
                return Err(ApiError::invalid(path.clone(), format!("{path} must be a list of tools")));
            };
            for (j, tool) in inner.iter().enumerate() {
                offered.add(tool, Some(namespace), &format!("{path}.tools[{j}]"), &mut functions)?;
            }
        }
        let choice = self.tool_choice.as_ref().filter(|choice| !choice.is_null());
        let choice = choice.map_or(Ok(ToolChoice::Auto), parse_choice)?;
        offered.tools = ToolUse::new(functions, choice, self.parallel_tool_calls.unwrap_or(true))?;
        Ok(offered)
    }
}

impl OfferedTools {
    /// Adds the function that stands for a tool to `functions`.
    fn add(
        &mut self,
        tool: &Value,
        namespace: Option<&str>,
        path: &str,
        functions: &mut Vec<Value>,
    ) -> Result<(), ApiError> {
        let is_custom = match kind_of(tool, path)? {
            "function" => false,
            "custom" => true,
            other => {
                self.passed_over.push(other.to_owned());
                return Ok(());
            }
        };
        let name = text_of(tool, "name", path)?;
        let called = CalledTool { name: name.to_owned(), namespace: namespace.map(str::to_owned), is_custom };
        let model_name = model_name(namespace, name);
        let function = if is_custom { custom_function(tool, &model_name, path)? } else { function(tool, &model_name) };
        check_function(&function, path)?;
        if self.called.0.get(&model_name).is_some_and(|other| *other != called) {
            let message = format!("{path}.name: another tool is called {model_name:?} as well");
            return Err(ApiError::invalid(format!("{path}.name"), message));
        }
        self.called.0.insert(model_name, called);
        functions.push(function);
        Ok(())
    }
}

fn kind_of<'a>(tool: &'a Value, path: &str) -> Result<&'a str, ApiError> {
    text_of(tool, "type", path)
}

/// A field of a tool that is a text.
fn text_of<'a>(tool: &'a Value, field: &str, path: &str) -> Result<&'a str, ApiError> {
    tool.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(|| {
        let path = format!("{path}.{field}");
        let message = format!("{path} is {}; it must be a text", tool.get(field).unwrap_or(&Value::Null));
        ApiError::invalid(path, message)
    })
}

/// A function as the chat endpoint takes it.
fn function(tool: &Value, name: &str) -> Value {
    let fields = tool.as_object().cloned().unwrap_or_default();
    let fields = fields.into_iter().filter(|(field, _)| field != "type");
    let named = fields.map(|(field, value)| if field == "name" { (field, Value::from(name)) } else { (field, value) });
    Value::Object(named.collect())
}

/// The function that stands for a custom tool: its one parameter is the text.
///
/// Errors: a format that is not known.
fn custom_function(tool: &Value, name: &str, path: &str) -> Result<Value, ApiError> {
    let mut description = tool.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut input = json!({"type": "string"});
    if let Some((syntax, definition)) = grammar_of(tool, path)? {
        let gap = if description.is_empty() { "" } else { "\n\n" };
        description += &format!("{gap}The input is a text of this {syntax} grammar:\n{definition}");
        if syntax == "regex" {
            // A schema's pattern may match anywhere in a text.
            input["pattern"] = format!("^(?:{definition})$").into();
        }
    }
    let properties: Map<String, Value> = [(INPUT_FIELD.to_owned(), input)].into_iter().collect();
    let parameters = json!({
        "type": "object",
        "properties": properties,
        "required": [INPUT_FIELD],
        "additionalProperties": false,
    });
    Ok(json!({"name": name, "description": description, "parameters": parameters}))
}

/// The grammar that a custom tool's input is of, as its notation and its text.
fn grammar_of<'a>(tool: &'a Value, path: &str) -> Result<Option<(&'a str, &'a str)>, ApiError> {
    let path = format!("{path}.format");
    let Some(format) = tool.get("format").filter(|format| !format.is_null()) else { return Ok(None) };
    let text = |field: &str| format.get(field).and_then(Value::as_str);
    match (text("type"), text("syntax"), text("definition")) {
        (Some("text"), ..) => Ok(None),
        (Some("grammar"), Some(syntax @ ("lark" | "regex")), Some(definition)) => Ok(Some((syntax, definition))),
        _ => {
            let message = format!(
                "{path} is {format}; it must be {{\"type\": \"text\"}} or {{\"type\": \"grammar\", \"syntax\": \
                 \"lark\" or \"regex\", \"definition\": ..}}"
            );
            Err(ApiError::invalid(path, message))
        }
    }
}

/// Reads `tool_choice`.
fn parse_choice(choice: &Value) -> Result<ToolChoice, ApiError> {
    let wrong = || {
        let message = format!(
            "tool_choice is {choice}; it must be \"auto\", \"none\", \"required\", {{\"type\": \"function\" or \
             \"custom\", \"name\": ..}} or {{\"type\": \"allowed_tools\", \"mode\": .., \"tools\": [..]}}"
        );
        ApiError::invalid("tool_choice", message)
    };
    let name = |tool: &Value| {
        let name = tool.get("name").and_then(Value::as_str).ok_or_else(wrong)?;
        Ok::<_, ApiError>(model_name(tool.get("namespace").and_then(Value::as_str), name))
    };
    let is_callable = |tool: &&Value| matches!(tool.get("type").and_then(Value::as_str), Some("function" | "custom"));
    match choice.as_str().or_else(|| choice.get("type").and_then(Value::as_str)) {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") => Ok(ToolChoice::Required),
        Some("function" | "custom") => Ok(ToolChoice::Named(name(choice)?)),
        Some("allowed_tools") => {
            let tools = choice.get("tools").and_then(Value::as_array).ok_or_else(wrong)?;
            let required = match choice.get("mode").and_then(Value::as_str) {
                None | Some("auto") => false,
                Some("required") => true,
                Some(_) => return Err(wrong()),
            };
            // Tools that nobody can run here are passed over, as among the tools themselves.
            let names = tools.iter().filter(is_callable).map(name).collect::<Result<_, _>>()?;
            Ok(ToolChoice::Allowed { names, required })
        }
        Some(other) if choice.is_object() => {
            let message = format!("tool_choice asks for {other:?}, which this server cannot run");
            Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at("tool_choice"))
        }
        _ => Err(wrong()),
    }
}
