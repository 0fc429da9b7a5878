//! Messages in OpenAI's form become what templates read.
use super::python_json::PythonJson;
use super::{call_ids, late_system};
use crate::error::TextError;
use serde_json::{Map, Value, json};

/// The forms in which a template reads messages. [`probe`](super::probe) finds them out when a template is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageForms {
    pub content: ContentForm,
    pub arguments: ArgumentsForm,
    /// The content that a template is given for one that is null.
    pub null_content: MissingContent,
    /// The content that a template is given for one that is absent.
    pub absent_content: MissingContent,
    /// Whether the template names the role `developer`; otherwise such a message becomes a system message.
    pub has_developer: bool,
    /// Whether the template shows system messages where they stand; otherwise [`late_system`](super::late_system) moves
    /// those after others.
    pub late_system: bool,
    /// Whether the template insists on short ids of tool calls.
    pub short_call_ids: bool,
}

impl Default for MessageForms {
    fn default() -> Self {
        MessageForms {
            content: ContentForm::Text,
            arguments: ArgumentsForm::Object,
            null_content: MissingContent::Kept,
            absent_content: MissingContent::Kept,
            has_developer: true,
            late_system: true,
            short_call_ids: false,
        }
    }
}

/// The form in which a template reads a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// A string.
    Text,
    /// A list of `{"type": "text", "text": ..}`, as templates of multimodal models may insist on.
    Parts,
}

/// The form in which a template reads a tool call's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgumentsForm {
    Object,
    /// JSON text, as OpenAI's clients send it.
    Text,
}

/// The content that a template is given for a message without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingContent {
    /// The content as the client sent it: null or absent.
    Kept,
    /// An empty text.
    Empty,
}

/// Roles that every template is given; a template may name others.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
/// Fields of an assistant's message of which one may stand in for the content.
const IN_PLACE_OF_CONTENT: [&str; 5] = ["tool_calls", "function_call", "reasoning_content", "reasoning", "refusal"];

/// Messages as a template is given them.
pub(super) struct NormalMessages {
    pub messages: Value,
    /// Whether a content is missing and was kept so.
    pub kept_missing: bool,
    /// Arguments that became objects, as they were written.
    pub written: Vec<WrittenArguments>,
}

/// The arguments of a tool call as they were written.
pub(super) struct WrittenArguments {
    /// The path of the object in the messages (RFC 6901).
    pub pointer: String,
    /// The text in which they came.
    pub text: String,
}

/// Brings the messages into `forms`. `names_role` tells whether the template names a role.
///
/// Errors: [`TextError::Messages`] with the path of the first wrong value.
pub(super) fn normalize(
    messages: &Value,
    forms: MessageForms,
    names_role: impl Fn(&str) -> bool,
) -> Result<NormalMessages, TextError> {
    let list = messages.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("messages", "it must be a list with at least one message"))?;
    let mut out = list.clone();
    let (mut kept_missing, mut written) = (false, Vec::new());
    for (i, message) in out.iter_mut().enumerate() {
        let path = format!("messages[{i}]");
        let Some(message) = message.as_object_mut() else {
            return Err(wrong(path, "it must be an object with a role and a content"));
        };
        // A field that is null is a field that is left out, but for the content, whose null templates ask for.
        let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        message.retain(|field, value| match field.as_str() {
            "content" => true,
            "tool_calls" => !nothing(value),
            _ => !value.is_null(),
        });
        let role = normalize_role(message, forms, &names_role, &path)?;
        kept_missing |= normalize_content(message, &role, forms, &format!("{path}.content"))?;
        let texts = normalize_calls(message, forms.arguments, &path)?;
        written.extend(texts.into_iter().map(|(call, text)| (i, call, text)));
    }
    if forms.short_call_ids {
        call_ids::shorten(&mut out);
    }
    let (out, places) = match forms.late_system {
        true => (out, (0..list.len()).collect()),
        false => late_system::settled(out),
    };
    let pointer = |i: usize, call| format!("/{}/tool_calls/{call}/function/arguments", places[i]);
    let written = written.into_iter().map(|(i, call, text)| WrittenArguments { pointer: pointer(i, call), text });
    Ok(NormalMessages { messages: Value::Array(out), kept_missing, written: written.collect() })
}

fn wrong(path: impl Into<String>, message: impl Into<String>) -> TextError {
    TextError::Messages { path: path.into(), message: message.into() }
}

/// Checks a message's role, and returns it.
fn normalize_role(
    message: &mut Map<String, Value>,
    forms: MessageForms,
    names_role: impl Fn(&str) -> bool,
    path: &str,
) -> Result<String, TextError> {
    let Some(Value::String(role)) = message.get_mut("role") else {
        return Err(wrong(format!("{path}.role"), "it must be a string such as \"user\""));
    };
    let is_word = role.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let known = ROLES.contains(&role.as_str()) || (is_word && names_role(role));
    if !known {
        let message =
            format!("it is {role:?}; it must be one of {}, or a role that the chat template names", ROLES.join(", "));
        return Err(wrong(format!("{path}.role"), message));
    }
    if role == "developer" && !forms.has_developer {
        *role = "system".into();
    }
    Ok(role.clone())
}

/// Brings a message's content into the form that the template reads. True if it is missing and was kept so.
fn normalize_content(
    message: &mut Map<String, Value>,
    role: &str,
    forms: MessageForms,
    path: &str,
) -> Result<bool, TextError> {
    let missing = match message.get("content") {
        None => forms.absent_content,
        Some(Value::Null) => forms.null_content,
        Some(_) => {
            let content = message.get_mut("content").map_or(Value::Null, Value::take);
            message.insert("content".into(), content_in_form(content, forms.content, path)?);
            return Ok(false);
        }
    };
    let has_other = IN_PLACE_OF_CONTENT.iter().any(|field| message.contains_key(*field));
    let missing = match role {
        "assistant" if has_other => missing,
        // A tool that returns nothing has no result to show.
        "tool" | "function" => MissingContent::Empty,
        "assistant" => return Err(wrong(path, "it is missing; an assistant's message needs a content or tool_calls")),
        _ => return Err(wrong(path, format!("it is missing; a message of the role {role} needs a content"))),
    };
    if missing == MissingContent::Empty {
        message.insert("content".into(), content_in_form("".into(), forms.content, path)?);
    }
    Ok(missing == MissingContent::Kept)
}

fn content_in_form(content: Value, form: ContentForm, path: &str) -> Result<Value, TextError> {
    match content {
        Value::String(text) if form == ContentForm::Parts => Ok(json!([{"type": "text", "text": text}])),
        Value::String(_) => Ok(content),
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
            match form {
                ContentForm::Text => Ok(Value::String(texts.join("\n"))),
                ContentForm::Parts => Ok(Value::Array(parts)),
            }
        }
        other => Err(wrong(path, format!("{other}; it must be a string, a list of parts or null"))),
    }
}

/// Brings the arguments of each tool call, which clients send as JSON text, into `form`. Returns the texts of those
/// that became objects, with the numbers of their calls.
fn normalize_calls(
    message: &mut Map<String, Value>,
    form: ArgumentsForm,
    path: &str,
) -> Result<Vec<(usize, String)>, TextError> {
    let path = format!("{path}.tool_calls");
    let mut written = Vec::new();
    let calls = match message.get_mut("tool_calls") {
        None => return Ok(written),
        Some(Value::Array(calls)) => calls,
        Some(other) => return Err(wrong(path, format!("{other}; it must be a list of calls"))),
    };
    for (j, call) in calls.iter_mut().enumerate() {
        let path = format!("{path}[{j}]");
        let Some(call) = call.as_object_mut() else {
            return Err(wrong(path, format!("{call}; it must be an object with a function")));
        };
        let Some(Value::Object(function)) = call.get_mut("function") else {
            return Err(wrong(format!("{path}.function"), "it must be an object with a name and arguments"));
        };
        let arguments = function.get_mut("arguments").map_or(Value::Null, Value::take);
        if let (Value::String(text), ArgumentsForm::Object) = (&arguments, form)
            && !text.trim().is_empty()
        {
            written.push((j, text.trim().to_owned()));
        }
        let arguments = arguments_in_form(arguments, form, &format!("{path}.function.arguments"))?;
        function.insert("arguments".into(), arguments);
    }
    Ok(written)
}

fn arguments_in_form(arguments: Value, form: ArgumentsForm, path: &str) -> Result<Value, TextError> {
    let arguments = match arguments {
        // Some clients send nothing, or an empty text, for a call without arguments.
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        other => other,
    };
    match (form, arguments) {
        (ArgumentsForm::Object, Value::String(text)) => {
            serde_json::from_str(&text).map_err(|e| wrong(path, format!("it is not JSON: {e}")))
        }
        (ArgumentsForm::Text, Value::String(text)) => Ok(Value::String(text)),
        (ArgumentsForm::Object, arguments) => Ok(arguments),
        (ArgumentsForm::Text, arguments) => {
            let text = PythonJson::new(None, false).dump(&arguments);
            text.map(Value::String).map_err(|e| wrong(path, e.to_string()))
        }
    }
}
