//! One string of a JSON object that arrives in pieces.
use super::is_json_space;
use super::unescape::Unescaper;

/// Reads the text of one string among the fields of a JSON object that arrives in pieces and is well-formed, though it
/// may end early. A call whose only argument is a text is read so while it comes.
#[derive(Debug)]
pub struct StringField {
    name: String,
    state: FieldState,
    /// The string has begun.
    found: bool,
}

#[derive(Debug)]
enum FieldState {
    /// Before the object, or before one of its keys.
    Outside,
    /// In a key.
    Key { key: String, text: QuotedText },
    /// After a key that is the wanted one, or is not.
    AfterKey { wanted: bool },
    /// In the wanted string.
    Wanted(QuotedText),
    /// In another value: brackets that are open, and the string that is.
    Other { open: usize, text: Option<QuotedText> },
    /// After the wanted string.
    Done,
}

/// A string from after its opening quote.
#[derive(Debug, Default)]
struct QuotedText {
    unescaper: Unescaper,
    /// The next character follows a backslash.
    escaped: bool,
}

impl QuotedText {
    /// Takes in a character, and adds its text to `out`. True if it is the closing quote.
    fn push(&mut self, c: char, out: &mut String) -> bool {
        if c == '"' && !self.escaped {
            self.unescaper.finish(out);
            return true;
        }
        self.escaped = c == '\\' && !self.escaped;
        self.unescaper.push(c, out);
        false
    }
}

impl StringField {
    /// Reads the string of the field `name`; the first one, if there are several.
    pub fn new(name: &str) -> Self {
        StringField { name: name.to_owned(), state: FieldState::Outside, found: false }
    }

    /// Takes in a piece of the object, and adds what it brings of the string's text to `out`.
    pub fn push(&mut self, piece: &str, out: &mut String) {
        for c in piece.chars() {
            let state = std::mem::replace(&mut self.state, FieldState::Done);
            self.state = self.next(state, c, out);
        }
    }

    /// Whether the object has the string, as far as it has come.
    pub fn is_found(&self) -> bool {
        self.found
    }

    fn next(&mut self, state: FieldState, c: char, out: &mut String) -> FieldState {
        match state {
            FieldState::Outside if c == '"' => FieldState::Key { key: String::new(), text: QuotedText::default() },
            FieldState::Outside => FieldState::Outside,
            FieldState::Key { mut key, mut text } => match text.push(c, &mut key) {
                true => FieldState::AfterKey { wanted: key == self.name },
                false => FieldState::Key { key, text },
            },
            FieldState::AfterKey { wanted } if c == ':' || (c.is_ascii() && is_json_space(c as u8)) => {
                FieldState::AfterKey { wanted }
            }
            FieldState::AfterKey { wanted: true } if c == '"' => {
                self.found = true;
                FieldState::Wanted(QuotedText::default())
            }
            FieldState::AfterKey { .. } => other(0, None, c),
            FieldState::Wanted(mut text) => match text.push(c, out) {
                true => FieldState::Done,
                false => FieldState::Wanted(text),
            },
            FieldState::Other { open, text } => other(open, text, c),
            FieldState::Done => FieldState::Done,
        }
    }
}

/// Takes in a character of a value that is not the wanted one.
fn other(open: usize, text: Option<QuotedText>, c: char) -> FieldState {
    if let Some(mut text) = text {
        let closed = text.push(c, &mut String::new());
        return match (closed, open) {
            (true, 0) => FieldState::Outside,
            (true, _) => FieldState::Other { open, text: None },
            (false, _) => FieldState::Other { open, text: Some(text) },
        };
    }
    match (c, open) {
        ('"', _) => FieldState::Other { open, text: Some(QuotedText::default()) },
        ('{' | '[', _) => FieldState::Other { open: open + 1, text: None },
        ('}' | ']', 0 | 1) | (',', 0) => FieldState::Outside,
        ('}' | ']', _) => FieldState::Other { open: open - 1, text: None },
        _ => FieldState::Other { open, text: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_same_in_every_cut() {
        for (json, text) in [
            (r#"{"input": "a\n\"b\" \\ \u00e9\ud83d\ude00 漢"}"#, Some("a\n\"b\" \\ é😀 漢")),
            (r#"{ "x" : {"input": "no", "l": [1, "]}"]}, "input" : "yes" }"#, Some("yes")),
            (r#"{"a": -1.5e3, "b": true, "c": "in\"put", "d": [], "in\u0070ut": "yes", "input": "late"}"#, Some("yes")),
            (r#"{"input": "", "x": "y"}"#, Some("")),
            (r#"{"input": "\ud83d"}"#, Some("\u{FFFD}")),
            (r#"{"input": "cut of"#, Some("cut of")),
            (r#"{"input": 3, "other": "input"}"#, None),
            ("{}", None),
        ] {
            for (at, _) in json.char_indices() {
                let (mut field, mut out) = (StringField::new("input"), String::new());
                field.push(&json[..at], &mut out);
                field.push(&json[at..], &mut out);
                assert_eq!(field.is_found().then_some(out.as_str()), text, "{json} cut at {at}");
            }
        }
    }
}
