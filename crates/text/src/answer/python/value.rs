//! Python's values.
use super::number;
use super::string::{CharProgress, PythonStringReader};
use crate::answer::json::PieceProgress;

/// Reads one value (a string, a number, `True`, `False`, `None`, a list, a tuple or a dictionary with strings as keys)
/// and writes it as JSON. JSON's own words are known too.
#[derive(Debug, Default)]
pub(in crate::answer) struct PythonValue {
    state: ValueState,
    open: Vec<Brackets>,
}

#[derive(Debug, Default)]
enum ValueState {
    /// A value must follow, or a closing bracket within brackets.
    #[default]
    Value,
    /// The colon after a key must follow.
    Colon,
    /// A comma or a closing bracket must follow.
    AfterValue,
    /// Within a string.
    Text(PythonStringReader),
    /// Within a word or a number.
    Word(String),
}

/// Brackets that are open.
#[derive(Debug, Clone, Copy)]
struct Brackets {
    close: char,
    /// Something has come in them.
    begun: bool,
    /// A key must follow, or is being read.
    at_key: bool,
}

impl PythonValue {
    /// Takes in a piece of text, and adds its JSON to `json`.
    pub fn push(&mut self, text: &str, json: &mut String) -> PieceProgress {
        for (at, c) in text.char_indices() {
            match self.step(c, json) {
                CharProgress::More => {}
                CharProgress::Done => return PieceProgress::Done(at + c.len_utf8()),
                CharProgress::DoneBefore => return PieceProgress::Done(at),
                CharProgress::Broken => return PieceProgress::Broken(at),
            }
        }
        PieceProgress::More
    }

    fn step(&mut self, c: char, json: &mut String) -> CharProgress {
        match &mut self.state {
            ValueState::Text(text) => match text.push(c, json) {
                progress @ (CharProgress::More | CharProgress::Broken) => progress,
                CharProgress::Done => {
                    json.push('"');
                    self.complete()
                }
                CharProgress::DoneBefore => {
                    json.push('"');
                    self.complete_before(c, json)
                }
            },
            ValueState::Word(word) => {
                let in_exponent = word.ends_with(['e', 'E']) && !word.starts_with(|c: char| c.is_ascii_alphabetic());
                if c.is_ascii_alphanumeric() || c == '.' || c == '_' || (in_exponent && matches!(c, '+' | '-')) {
                    word.push(c);
                    return CharProgress::More;
                }
                let Some(value) = word_to_json(word) else { return CharProgress::Broken };
                json.push_str(&value);
                self.complete_before(c, json)
            }
            _ if c.is_ascii_whitespace() => CharProgress::More,
            ValueState::Value => self.begin(c, json),
            ValueState::Colon if c == ':' => {
                json.push_str(": ");
                self.to(ValueState::Value)
            }
            ValueState::Colon => CharProgress::Broken,
            ValueState::AfterValue => match self.open.last_mut() {
                Some(brackets) if c == ',' => {
                    brackets.at_key = brackets.close == '}';
                    self.to(ValueState::Value)
                }
                Some(brackets) if c == brackets.close => self.close(json),
                _ => CharProgress::Broken,
            },
        }
    }

    fn to(&mut self, state: ValueState) -> CharProgress {
        self.state = state;
        CharProgress::More
    }

    /// Begins a value or a key, or closes brackets.
    fn begin(&mut self, c: char, json: &mut String) -> CharProgress {
        let is_key = self.open.last().is_some_and(|brackets| brackets.at_key);
        let after_colon = self.open.last().is_some_and(|brackets| brackets.close == '}' && !brackets.at_key);
        if let Some(brackets) = self.open.last_mut().filter(|_| !after_colon) {
            if c == brackets.close {
                return self.close(json);
            }
            if brackets.begun {
                json.push_str(", ");
            }
            brackets.begun = true;
        }
        match c {
            '"' | '\'' => {
                json.push('"');
                self.to(ValueState::Text(PythonStringReader::new(c)))
            }
            _ if is_key => CharProgress::Broken,
            '[' | '(' | '{' => {
                json.push(if c == '{' { '{' } else { '[' });
                let close = [']', ')', '}'][usize::from(c == '(') + 2 * usize::from(c == '{')];
                self.open.push(Brackets { close, begun: false, at_key: c == '{' });
                self.to(ValueState::Value)
            }
            c if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') => self.to(ValueState::Word(c.into())),
            _ => CharProgress::Broken,
        }
    }

    fn close(&mut self, json: &mut String) -> CharProgress {
        let close = self.open.pop().map_or(']', |brackets| brackets.close);
        json.push(if close == '}' { '}' } else { ']' });
        self.complete()
    }

    /// Ends a value or a key.
    fn complete(&mut self) -> CharProgress {
        let Some(brackets) = self.open.last_mut() else { return CharProgress::Done };
        let is_key = std::mem::take(&mut brackets.at_key);
        self.to(if is_key { ValueState::Colon } else { ValueState::AfterValue })
    }

    /// Ends a value or a key before a character.
    fn complete_before(&mut self, c: char, json: &mut String) -> CharProgress {
        match self.complete() {
            CharProgress::Done => CharProgress::DoneBefore,
            _ => self.step(c, json),
        }
    }
}

/// A word or a number as JSON.
fn word_to_json(word: &str) -> Option<String> {
    match word {
        "True" | "true" => Some("true".into()),
        "False" | "false" => Some("false".into()),
        "None" | "null" => Some("null".into()),
        _ => number::to_json(word),
    }
}

/// A whole Python value as JSON. `None` if the text is none.
pub(in crate::answer) fn literal_to_json(text: &str) -> Option<String> {
    let (mut value, mut json) = (PythonValue::default(), String::new());
    match value.push(text, &mut json) {
        PieceProgress::Done(n) => (n == text.len()).then_some(json),
        // A number or a word ends with what follows it.
        PieceProgress::More => (value.push(" ", &mut json) == PieceProgress::Done(0)).then_some(json),
        PieceProgress::Broken(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values: json.dumps of what Python's ast.literal_eval reads, with ensure_ascii=False.
    #[test]
    fn values_are_pythons() {
        for (python, json) in [
            ("True", "true"),
            ("[1, -2.5, None, False,]", "[1, -2.5, null, false]"),
            ("()", "[]"),
            ("(1, 'a')", "[1, \"a\"]"),
            ("{'a': {\"b\": []}, 'c' :1 , }", "{\"a\": {\"b\": []}, \"c\": 1}"),
            ("''", "\"\""),
            (
                "'it\\'s \"x\" \\\\ \\n\\t\\x41\\u00e9\\U0001F600\\101\\0 \\d'",
                "\"it's \\\"x\\\" \\\\ \\n\\tAé😀A\\u0000 \\\\d\"",
            ),
            ("'\\ud83d\\ude00 \\ud83d'", "\"😀 \u{fffd}\""),
            ("\"\"\"a \"b\" \"\"c\n\"\"\"", "\"a \\\"b\\\" \\\"\\\"c\\n\""),
            ("'a\\\nb'", "\"ab\""),
            ("'\\1'", "\"\\u0001\""),
            ("true", "true"),
            ("1e5", "1e5"),
        ] {
            assert_eq!(literal_to_json(python).as_deref(), Some(json), "{python}");
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
        }
        for broken in [
            "",
            "x",
            "[1 2]",
            "{1: 2}",
            "{'a'}",
            "{'a': }",
            "[,]",
            "[1,,]",
            "'a",
            "'\\xg0'",
            "nan",
            "1 2",
            "[}",
            "'\\U00110000'",
        ] {
            assert_eq!(literal_to_json(broken), None, "{broken}");
        }
    }

    #[test]
    fn values_are_read_in_any_pieces() {
        let python =
            "{'a': [1, -2.5e+3, 'it\\'s \\x41\\ud83d\\ude00\\101', ''], \"b\": (True, None), 'c': '''x''y'''} ";
        let whole = literal_to_json(python.trim_end()).unwrap_or_default();
        assert!(whole.len() > 40);
        for cut in (0..=python.len()).filter(|at| python.is_char_boundary(*at)) {
            let (mut value, mut json) = (PythonValue::default(), String::new());
            if value.push(&python[..cut], &mut json) == PieceProgress::More {
                value.push(&python[cut..], &mut json);
            }
            assert_eq!(json, whole, "cut at {cut}");
        }
    }
}
