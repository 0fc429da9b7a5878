//! Anthropic's messages become OpenAI's, which chat templates read.
use crate::http::error::{ApiError, ErrorCode};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use text::PromptEnd;

/// The field that errors of the messages are about.
pub const FIELD: &str = "messages";
/// What the text block begins with that Claude Code puts before its system prompt. It changes with every request, so
/// that no prefix of the prompt would be found in the cache.
const BILLING: &str = "x-anthropic-billing-header:";

/// A conversation in OpenAI's form.
#[derive(Debug, Default)]
pub struct GivenConversation {
    /// The messages.
    pub messages: Vec<Value>,
    /// How the prompt ends: an assistant's message that comes last is continued.
    pub end: PromptEnd,
    /// The names of tools by the ids of their calls.
    called: HashMap<String, String>,
}

/// A content block of a request, and its path.
struct GivenBlock<'a> {
    path: String,
    /// Its type; a content that is a string is one block of text.
    kind: &'a str,
    value: &'a Value,
}

impl GivenBlock<'_> {
    fn text(&self) -> Result<&str, ApiError> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => self.string("text"),
        }
    }

    /// A field that is a string.
    fn string(&self, field: &str) -> Result<&str, ApiError> {
        self.value.get(field).and_then(Value::as_str).ok_or_else(|| {
            let given = self.value.get(field).unwrap_or(&Value::Null);
            let path = format!("{}.{field}", self.path);
            ApiError::invalid(path.clone(), format!("{path} is {given}; it must be a string"))
        })
    }

    /// The error for a block whose type has no place where it stands.
    fn refused(&self, allowed: &str) -> ApiError {
        let (path, kind) = (&self.path, self.kind);
        let message = format!("{path} is a block of the type {kind:?}; this server takes {allowed} there");
        ApiError::new(ErrorCode::UnsupportedParameter, message).at(path.clone())
    }
}

/// The blocks of a content, which is a string or a list of them.
fn blocks_of<'a>(content: &'a Value, path: &str) -> Result<Vec<GivenBlock<'a>>, ApiError> {
    let list = match content {
        Value::String(_) => return Ok(vec![GivenBlock { path: path.to_owned(), kind: "text", value: content }]),
        Value::Array(list) => list,
        other => {
            let message = format!("{path} is {other}; it must be a string or a list of content blocks");
            return Err(ApiError::invalid(path, message));
        }
    };
    let block = |(i, value): (usize, &'a Value)| {
        let path = format!("{path}[{i}]");
        let kind = value.get("type").and_then(Value::as_str).ok_or_else(|| {
            let message = format!("{path} is no content block; it must be an object with a type");
            ApiError::invalid(path.clone(), message)
        })?;
        Ok(GivenBlock { path, kind, value })
    };
    list.iter().enumerate().map(block).collect()
}

/// The texts of a content that is text alone.
fn texts_of<'a>(content: &'a Value, path: &str) -> Result<Vec<String>, ApiError> {
    let text = |block: GivenBlock<'a>| match block.kind {
        "text" => Ok(block.text()?.to_owned()),
        _ => Err(block.refused("text")),
    };
    blocks_of(content, path)?.into_iter().map(text).collect()
}

impl GivenConversation {
    /// Reads the fields `system` and `messages`.
    ///
    /// Errors: a value that is no message or block, or a block that is not supported, with its path.
    pub fn read(system: &Value, messages: &Value) -> Result<Self, ApiError> {
        let mut conversation = GivenConversation::default();
        if !system.is_null() {
            let mut texts = texts_of(system, "system")?;
            texts.retain(|text| !text.starts_with(BILLING));
            if !texts.is_empty() {
                conversation.push("system", json!({"content": texts.join("\n")}));
            }
        }
        let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
            let given = if messages.is_null() { "missing".into() } else { messages.to_string() };
            ApiError::invalid(FIELD, format!("messages is {given}; it must be a list with at least one message"))
        })?;
        for (i, message) in list.iter().enumerate() {
            conversation.read_message(message, &format!("{FIELD}[{i}]"))?;
        }
        if list.last().is_some_and(|last| last["role"] == "assistant") {
            conversation.open_last(&format!("{FIELD}[{}]", list.len() - 1))?;
        }
        Ok(conversation)
    }

    fn read_message(&mut self, message: &Value, path: &str) -> Result<(), ApiError> {
        let (role, content) = (message.get("role").unwrap_or(&Value::Null), message.get("content"));
        let content_path = format!("{path}.content");
        let blocks = blocks_of(content.unwrap_or(&Value::Null), &content_path);
        match role.as_str() {
            Some("user") => self.read_user(blocks?),
            Some("assistant") => self.read_assistant(blocks?),
            Some("system") => {
                let texts = texts_of(content.unwrap_or(&Value::Null), &content_path)?;
                self.push("system", json!({"content": texts.join("\n")}));
                Ok(())
            }
            _ => {
                let path = format!("{path}.role");
                let message = format!("{path} is {role}; it must be \"user\", \"assistant\" or \"system\"");
                Err(ApiError::invalid(path, message))
            }
        }
    }

    /// Reads a user's message: each result of a tool becomes a message of its own, in its place.
    fn read_user(&mut self, blocks: Vec<GivenBlock<'_>>) -> Result<(), ApiError> {
        for block in blocks {
            match block.kind {
                "text" => self.add_text("user", block.text()?),
                "tool_result" => {
                    let result = tool_result(&block)?;
                    let id = block.string("tool_use_id")?;
                    let mut message = json!({"tool_call_id": id, "content": result});
                    if let Some(name) = self.called.get(id) {
                        // Some templates show it.
                        message["name"] = name.as_str().into();
                    }
                    self.push("tool", message);
                }
                _ => return Err(block.refused("text and tool_result")),
            }
        }
        Ok(())
    }

    /// Reads an assistant's message: its thoughts, its text and its calls each become a field.
    fn read_assistant(&mut self, blocks: Vec<GivenBlock<'_>>) -> Result<(), ApiError> {
        if self.messages.last().is_none_or(|last| last["role"] != "assistant") {
            self.push("assistant", json!({}));
        }
        for block in blocks {
            match block.kind {
                "text" => self.add_text("assistant", block.text()?),
                "thinking" => self.append("reasoning_content", block.string("thinking")?),
                // Only the server that made it can read it.
                "redacted_thinking" => {}
                "tool_use" => {
                    let (id, name) = (block.string("id")?, block.string("name")?);
                    let input = block.value.get("input").unwrap_or(&Value::Null);
                    if !(input.is_null() || input.is_object()) {
                        let path = format!("{}.input", block.path);
                        let message = format!("{path} is {input}; it must be an object");
                        return Err(ApiError::invalid(path, message));
                    }
                    self.called.insert(id.to_owned(), name.to_owned());
                    let function = json!({"name": name, "arguments": input});
                    self.add_call(json!({"id": id, "type": "function", "function": function}));
                }
                _ => return Err(block.refused("text, thinking, redacted_thinking and tool_use")),
            }
        }
        if let Some(Value::Object(last)) =
            self.messages.last_mut().filter(|last| last.as_object().is_some_and(|m| m.len() == 1))
        {
            // It holds nothing but its role, and was said all the same.
            last.insert("content".to_owned(), "".into());
        }
        Ok(())
    }

    /// Leaves the last message, which is an assistant's, open for the answer.
    ///
    /// Errors: it has no text that could be continued, or calls after it.
    fn open_last(&mut self, path: &str) -> Result<(), ApiError> {
        let last = self.messages.last().cloned().unwrap_or_default();
        let wrong = |problem: &str| {
            let message = format!("{path} comes last, so that the answer continues it, but {problem}");
            Err(ApiError::invalid(path, message))
        };
        if last.get("tool_calls").is_some() {
            return wrong("it calls tools; their results must follow it as a user's message");
        }
        if last["content"].as_str().is_none_or(str::is_empty) {
            return wrong("it has no text; end with a user's message, or with the text that is to be continued");
        }
        self.end = PromptEnd::OpenMessage;
        Ok(())
    }

    fn push(&mut self, role: &str, fields: Value) {
        let mut message = Map::from_iter([("role".to_owned(), Value::from(role))]);
        if let Value::Object(fields) = fields {
            message.extend(fields);
        }
        self.messages.push(Value::Object(message));
    }

    /// Adds a text to the last message if it has this role, since messages of one role in a row are one turn.
    fn add_text(&mut self, role: &str, text: &str) {
        if self.messages.last().is_none_or(|last| last["role"] != role) {
            self.push(role, json!({"content": text}));
        } else {
            self.append("content", text);
        }
    }

    /// Appends a text to a field of the last message.
    fn append(&mut self, field: &str, text: &str) {
        let Some(Value::Object(last)) = self.messages.last_mut() else { return };
        if text.is_empty() {
            return;
        }
        let joined = match last.get(field).and_then(Value::as_str) {
            Some(before) if !before.is_empty() => format!("{before}\n{text}"),
            _ => text.to_owned(),
        };
        last.insert(field.to_owned(), joined.into());
    }

    fn add_call(&mut self, call: Value) {
        let Some(Value::Object(last)) = self.messages.last_mut() else { return };
        match last.get_mut("tool_calls") {
            Some(Value::Array(calls)) => calls.push(call),
            _ => {
                last.insert("tool_calls".to_owned(), json!([call]));
            }
        }
    }
}

/// The text of a tool's result. Templates know no errors, so that the text says it.
fn tool_result(block: &GivenBlock<'_>) -> Result<String, ApiError> {
    let text = match block.value.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(content) => texts_of(content, &format!("{}.content", block.path))?.join("\n"),
    };
    let failed = block.value.get("is_error").and_then(Value::as_bool).unwrap_or(false);
    let says_so = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
    Ok(match (failed && !says_so, text.is_empty()) {
        (false, _) => text,
        (true, true) => "Error".to_owned(),
        (true, false) => format!("Error: {text}"),
    })
}
