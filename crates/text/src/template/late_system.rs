//! System messages after other messages, for templates that take one at the beginning alone.
use serde_json::Value;

/// Moves such messages into what the template takes: those at the beginning become one, and each later one becomes the
/// user's, in its place. Users' messages that then follow each other become one, since such templates mostly insist on
/// turns that alternate. Returns the messages, and where each of the given ones is among them.
pub(super) fn settled(messages: Vec<Value>) -> (Vec<Value>, Vec<usize>) {
    let mut settled: Vec<Value> = Vec::with_capacity(messages.len());
    let mut places = Vec::with_capacity(messages.len());
    let mut last_has_late = false;
    for mut message in messages {
        let behind_others = settled.last().is_some_and(|last| last["role"] != "system");
        let is_late = message["role"] == "system" && behind_others;
        if is_late {
            message["role"] = "user".into();
        }
        let joins = match settled.last() {
            Some(last) if last["role"] == "user" => message["role"] == "user" && (is_late || last_has_late),
            Some(last) => last["role"] == "system" && message["role"] == "system",
            None => false,
        };
        match settled.last_mut().filter(|_| joins) {
            Some(last) => {
                join(&mut last["content"], message["content"].take());
                last_has_late |= is_late;
            }
            None => {
                settled.push(message);
                last_has_late = is_late;
            }
        }
        places.push(settled.len() - 1);
    }
    (settled, places)
}

/// Appends a content to another, which has the same form.
fn join(content: &mut Value, more: Value) {
    match (content, more) {
        (Value::String(text), Value::String(more)) => *text += &format!("\n{more}"),
        (Value::Array(parts), Value::Array(more)) => parts.extend(more),
        // A content that is missing has been refused for these roles.
        _ => {}
    }
}
