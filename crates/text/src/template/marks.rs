//! Characters that mark places in what clients send, so that they are found again in the text of a prompt.
use super::Given;
use crate::error::TextError;
use crate::special::{SpecialTexts, free_characters, taken_characters};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Puts a mark into each special token's text that a client wrote, after the token's first character. `None` if there
/// is none, which is nearly always so.
///
/// Errors: a conversation that leaves no character to mark with.
pub(super) fn mark_special_tokens(given: &mut Given, special: &SpecialTexts) -> Result<Option<char>, TextError> {
    let mut found = false;
    given.each_text(&mut |text| found |= special.occur_in(text));
    if !found {
        return Ok(None);
    }
    let mark = free_character(given)?;
    let mut marked = |text: &str| special.marked(text, mark);
    replace_texts(&mut given.messages, &mut marked);
    if let Some(tools) = &mut given.tools {
        replace_texts(tools, &mut marked);
    }
    given.kwargs.values_mut().for_each(|value| replace_texts(value, &mut marked));
    Ok(Some(mark))
}

/// A character that no text of the conversation holds.
///
/// Errors: there is none.
pub(super) fn free_character(given: &Given) -> Result<char, TextError> {
    let mut taken = HashSet::new();
    given.each_text(&mut |text| taken.extend(taken_characters(text)));
    free_characters(&taken).next().ok_or_else(|| TextError::Messages {
        path: "messages".into(),
        message: "they hold every character of private use; at least one must be left out".into(),
    })
}

impl Given {
    /// Shows `look` every text that comes from the client.
    fn each_text(&self, look: &mut impl FnMut(&str)) {
        let kwargs = self.kwargs.values();
        [&self.messages].into_iter().chain(&self.tools).chain(kwargs).for_each(|value| each_text(value, look));
    }
}

fn each_text(value: &Value, look: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(list) => list.iter().for_each(|value| each_text(value, look)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            look(key);
            each_text(value, look);
        }),
        _ => {}
    }
}

/// Replaces every text for which `replace` has another.
fn replace_texts(value: &mut Value, replace: &mut impl FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(other) = replace(text) {
                *text = other;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| replace_texts(value, replace)),
        Value::Object(map) => {
            let replaced: Map<String, Value> = std::mem::take(map)
                .into_iter()
                .map(|(key, mut value)| {
                    replace_texts(&mut value, replace);
                    (replace(&key).unwrap_or(key), value)
                })
                .collect();
            *map = replaced;
        }
        _ => {}
    }
}
