//! JSON that arrives in pieces, read once and without recursion.
mod arguments;
mod calls;
mod field;
mod object;
mod scanner;
mod unescape;

pub(super) use arguments::Arguments;
pub(super) use calls::{CallList, JsonCalls};
pub use field::StringField;
pub(super) use scanner::JsonScanner;
pub(super) use unescape::Surrogates;

/// How the reading of a value goes on after a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceProgress {
    /// The value goes on.
    More,
    /// The value is complete with this many bytes of the piece.
    Done(usize),
    /// The value is broken: the byte at this place cannot follow.
    Broken(usize),
}

/// Whether JSON allows this byte between values.
fn is_json_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Adds a character of a string's text to JSON, escaped.
pub(super) fn escape_into(c: char, json: &mut String) {
    match c {
        '"' => json.push_str("\\\""),
        '\\' => json.push_str("\\\\"),
        '\n' => json.push_str("\\n"),
        '\r' => json.push_str("\\r"),
        '\t' => json.push_str("\\t"),
        '\0'..='\u{1F}' => json.push_str(&format!("\\u{:04x}", c as u32)),
        _ => json.push(c),
    }
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    text.chars().for_each(|c| escape_into(c, &mut json));
    json.push('"');
    json
}
