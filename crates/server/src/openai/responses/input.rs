//! Input items become messages in OpenAI's form, which chat templates read.
use super::tools::{INPUT_FIELD, model_name};
use crate::http::error::{ApiError, ErrorCode};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Items of tools that this server does not offer, most of which a server runs by itself. They are passed over: their
/// outcome is in the answer that followed.
const PASSED_OVER: &[&str] = &[
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "tool_search_call",
    "tool_search_output",
    "compaction",
];

/// The items of an input, whatever its form: a text is the message of a user.
///
/// Errors: anything else than a text and a list.
pub fn items_of(input: Option<&Value>) -> Result<Vec<Value>, ApiError> {
    match input {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => {
            Ok(vec![json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})])
        }
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(other) => {
            Err(ApiError::invalid("input", format!("input is {other}; it must be a text or a list of items")))
        }
    }
}

/// The type of an item. One that has a role is a message, and one that has an id alone refers to another.
///
/// Errors: an item without any of these.
pub fn type_of<'a>(item: &'a Value, path: &str) -> Result<&'a str, ApiError> {
    match item.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        None | Some(Value::Null) if item.get("role").is_some() => Ok("message"),
        None | Some(Value::Null) if item.get("id").is_some() => Ok("item_reference"),
        other => {
            let path = format!("{path}.type");
            let message = format!("{path} is {}; it must be the type of an item", other.unwrap_or(&Value::Null));
            Err(ApiError::invalid(path, message))
        }
    }
}

/// Puts messages together from items. Neighbouring thoughts, texts and calls of the assistant are one message.
#[derive(Debug, Default)]
pub struct InputFold {
    messages: Vec<Value>,
    turn: AssistantTurn,
    /// An item has come.
    begun: bool,
    /// The ids of calls that were cut off, which were therefore never made.
    cut_off: HashSet<String>,
    /// The types of the items that were passed over.
    pub passed_over: Vec<String>,
}

/// The assistant's message that is being put together.
#[derive(Debug, Default)]
struct AssistantTurn {
    thoughts: Vec<String>,
    texts: Vec<String>,
    calls: Vec<Value>,
}

impl AssistantTurn {
    /// The message; `None` if it holds nothing.
    fn message(self) -> Option<Value> {
        if self.thoughts.is_empty() && self.texts.is_empty() && self.calls.is_empty() {
            return None;
        }
        let joined = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join("\n\n"));
        Some(json!({
            "role": "assistant",
            "content": joined(self.texts),
            "reasoning_content": joined(self.thoughts),
            "tool_calls": self.calls,
        }))
    }
}

impl InputFold {
    /// Begins with the message of a system.
    pub fn instruct(&mut self, instructions: &str) {
        self.messages.push(json!({"role": "system", "content": instructions}));
    }

    /// The messages. Without any item they are an empty message of the user, by which clients try whether a server
    /// answers.
    pub fn finish(mut self) -> Value {
        self.end_turn();
        if !self.begun {
            self.messages.push(json!({"role": "user", "content": ""}));
        }
        Value::Array(self.messages)
    }

    /// Takes in an item, which is no reference to another one. `path` is its place in the request.
    ///
    /// Errors: an item of an unknown type or without what its type needs, with the path of what is wrong.
    pub fn take(&mut self, item: &Value, path: &str) -> Result<(), ApiError> {
        self.begun = true;
        match type_of(item, path)? {
            "message" => self.take_message(item, path)?,
            "reasoning" => {
                // A thought is sent as content or, where summaries are asked for, as one.
                let text = |field: &str| item.get(field).and_then(Value::as_array).map(|parts| joined_texts(parts));
                let thought = text("content").filter(|text| !text.is_empty()).or_else(|| text("summary"));
                self.turn.thoughts.extend(thought.filter(|text| !text.is_empty()));
            }
            "function_call" | "custom_tool_call" if item.get("status") == Some(&json!("incomplete")) => {
                self.cut_off.insert(text_at(item, "call_id", path)?.to_owned());
            }
            "function_call" => {
                let arguments = text_at(item, "arguments", path)?;
                let is_json = arguments.trim().is_empty() || serde_json::from_str::<Value>(arguments).is_ok();
                if !is_json {
                    let path = format!("{path}.arguments");
                    return Err(ApiError::invalid(path.clone(), format!("{path} is not JSON")));
                }
                self.call(item, arguments.to_owned(), path)?;
            }
            "custom_tool_call" => {
                let arguments = format!("{{\"{INPUT_FIELD}\": {}}}", Value::from(text_at(item, "input", path)?));
                self.call(item, arguments, path)?;
            }
            "function_call_output" | "custom_tool_call_output" => {
                let content = content_at(item, "output", path)?;
                let id = text_at(item, "call_id", path)?;
                if self.cut_off.contains(id) {
                    return Ok(());
                }
                self.end_turn();
                self.messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            kind if PASSED_OVER.contains(&kind) => self.passed_over.push(kind.to_owned()),
            kind => {
                let path = format!("{path}.type");
                let message = format!("{path} is {kind:?}; items of this type are not supported");
                return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at(path));
            }
        }
        Ok(())
    }

    fn take_message(&mut self, item: &Value, path: &str) -> Result<(), ApiError> {
        let role = text_at(item, "role", path)?;
        let content = content_at(item, "content", path)?;
        match role {
            "assistant" => self.turn.texts.push(match &content {
                Value::Array(parts) => joined_texts(parts),
                other => other.as_str().unwrap_or_default().to_owned(),
            }),
            "user" | "system" | "developer" => {
                self.end_turn();
                self.messages.push(json!({"role": role, "content": content}));
            }
            _ => {
                let path = format!("{path}.role");
                let message = format!("{path} is {role:?}; it must be user, assistant, system or developer");
                return Err(ApiError::invalid(path, message));
            }
        }
        Ok(())
    }

    fn call(&mut self, item: &Value, arguments: String, path: &str) -> Result<(), ApiError> {
        let name = model_name(item.get("namespace").and_then(Value::as_str), text_at(item, "name", path)?);
        let function = json!({"name": name, "arguments": arguments});
        let call = json!({"id": text_at(item, "call_id", path)?, "type": "function", "function": function});
        self.turn.calls.push(call);
        Ok(())
    }

    fn end_turn(&mut self) {
        self.messages.extend(std::mem::take(&mut self.turn).message());
    }
}

/// A field of an item that is a text.
fn text_at<'a>(item: &'a Value, field: &str, path: &str) -> Result<&'a str, ApiError> {
    item.get(field).and_then(Value::as_str).ok_or_else(|| {
        let path = format!("{path}.{field}");
        let message = format!("{path} is {}; it must be a text", item.get(field).unwrap_or(&Value::Null));
        ApiError::invalid(path, message)
    })
}

/// The texts of parts, joined.
fn joined_texts(parts: &[Value]) -> String {
    parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join("\n")
}

/// A content: a text as it is, and parts as messages have them.
///
/// Errors: neither a text nor a list of parts with texts.
fn content_at(item: &Value, field: &str, path: &str) -> Result<Value, ApiError> {
    let path = format!("{path}.{field}");
    let parts = match item.get(field) {
        Some(Value::String(text)) => return Ok(Value::from(text.as_str())),
        Some(Value::Array(parts)) => parts,
        other => {
            let found = other.unwrap_or(&Value::Null);
            return Err(ApiError::invalid(
                path.clone(),
                format!("{path} is {found}; it must be a text or a list of parts"),
            ));
        }
    };
    let part = |(i, part): (usize, &Value)| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("none");
        let text = match kind {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => part.get("text"),
            "refusal" => part.get("refusal"),
            _ => None,
        };
        let Some(text) = text.and_then(Value::as_str) else {
            let path = format!("{path}[{i}]");
            let message = format!("{path} is of the type {kind}; only parts that are a text are supported");
            return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at(path));
        };
        Ok(json!({"type": "text", "text": text}))
    };
    parts.iter().enumerate().map(part).collect::<Result<Vec<_>, _>>().map(Value::Array)
}
