//! Messages in OpenAI's form become what templates read.
use crate::error::TextError;
use serde_json::{Value, json};

/// The form in which a template reads a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentFormat {
    /// A string.
    Text,
    /// A list of `{"type": "text", "text": ..}`, as templates of multimodal models may insist on.
    Parts,
}

/// Brings each content into `format`, and the arguments of each tool call, which clients send as JSON text, into
/// objects.
///
/// Errors: [`TextError::Messages`] with the path of the first wrong value.
pub(super) fn normalize(messages: &Value, format: ContentFormat) -> Result<Value, TextError> {
    let wrong = |path: String, message: &str| TextError::Messages { path, message: message.to_owned() };
    let list = messages.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("messages".into(), "it must be a list with at least one message"))?;
    let mut out = list.clone();
    for (i, message) in out.iter_mut().enumerate() {
        let path = format!("messages[{i}]");
        let Some(message) = message.as_object_mut() else {
            return Err(wrong(path, "it must be an object with a role and a content"));
        };
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(wrong(format!("{path}.role"), "it must be a string such as \"user\""));
        }
        if let Some(content) = message.get_mut("content") {
            normalize_content(content, format, &format!("{path}.content"))?;
        }
        if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
            for (j, call) in calls.iter_mut().enumerate() {
                parse_arguments(call, &format!("{path}.tool_calls[{j}].function.arguments"))?;
            }
        }
    }
    Ok(Value::Array(out))
}

fn normalize_content(content: &mut Value, format: ContentFormat, path: &str) -> Result<(), TextError> {
    let wrong = |path: String, message: String| TextError::Messages { path, message };
    match content {
        Value::Null => {}
        Value::String(text) if format == ContentFormat::Parts => *content = json!([{"type": "text", "text": text}]),
        Value::String(_) => {}
        Value::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for (i, part) in parts.iter().enumerate() {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or("none");
                let text = part.get("text").and_then(Value::as_str).filter(|_| kind == "text");
                texts.push(text.ok_or_else(|| {
                    let message = format!("its type is {kind}; only parts of type text, with a text, are supported");
                    wrong(format!("{path}[{i}]"), message)
                })?);
            }
            if format == ContentFormat::Text {
                *content = Value::String(texts.join("\n"));
            }
        }
        other => return Err(wrong(path.to_owned(), format!("{other}; it must be a string, a list of parts or null"))),
    }
    Ok(())
}

fn parse_arguments(call: &mut Value, path: &str) -> Result<(), TextError> {
    let Some(arguments) = call.pointer_mut("/function/arguments") else {
        return Ok(());
    };
    let Value::String(text) = arguments else {
        return Ok(());
    };
    // Some clients send an empty text for a call without arguments.
    let source = if text.trim().is_empty() { "{}" } else { text.as_str() };
    *arguments = serde_json::from_str(source)
        .map_err(|e| TextError::Messages { path: path.to_owned(), message: format!("it is not JSON: {e}") })?;
    Ok(())
}
