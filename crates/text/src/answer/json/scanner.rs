//! Where a JSON value ends.
use super::{PieceProgress, is_json_space};

/// Reads one JSON value, with whitespace before it, and says where it ends or breaks.
#[derive(Debug, Default)]
pub(in crate::answer) struct JsonScanner {
    state: ScannerState,
    /// The brackets that are open, objects' as `true`.
    open: Vec<bool>,
}

#[derive(Debug, Default, Clone, Copy)]
enum ScannerState {
    /// A value must follow.
    #[default]
    Value,
    /// A value or the end of a list must follow.
    FirstItem,
    /// A key must follow, or the end of an object if it is the first.
    Key { first: bool },
    /// The colon after a key must follow.
    Colon,
    /// A comma or a closing bracket must follow.
    AfterValue,
    /// Within a string.
    Text { key: bool, escape: Escape },
    /// Within a word: what is left of it.
    Word(&'static [u8]),
    /// Within a number.
    Number(NumberState),
}

#[derive(Debug, Clone, Copy)]
enum Escape {
    None,
    /// After a backslash.
    Begun,
    /// So many hexadecimal digits must follow.
    Hex(u8),
}

#[derive(Debug, Clone, Copy)]
enum NumberState {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl NumberState {
    fn next(self, byte: u8) -> Option<Self> {
        use NumberState::*;
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        use NumberState::*;
        matches!(self, Zero | Digits | Fraction | ExponentDigits)
    }
}

/// How the reading of a value goes on after a byte.
enum ByteProgress {
    /// The value goes on.
    More,
    /// The value is complete with this byte.
    Done,
    /// The value was complete before this byte, which is a number's only way to end.
    DoneBefore,
    /// The value is broken: this byte cannot follow.
    Broken,
}

impl JsonScanner {
    /// Takes in a piece of text. Nothing may be given after the end of the value.
    pub fn push(&mut self, text: &str) -> PieceProgress {
        for (i, byte) in text.bytes().enumerate() {
            match self.step(byte) {
                ByteProgress::More => {}
                ByteProgress::Done => return PieceProgress::Done(i + 1),
                ByteProgress::DoneBefore => return PieceProgress::Done(i),
                ByteProgress::Broken => return PieceProgress::Broken(i),
            }
        }
        PieceProgress::More
    }

    /// Whether a text is one JSON value and nothing else.
    pub fn is_value(text: &str) -> bool {
        let mut scanner = JsonScanner::default();
        match scanner.push(text) {
            // A number ends with what follows it.
            PieceProgress::More => scanner.push(" ") == PieceProgress::Done(0),
            PieceProgress::Done(n) => n == text.len(),
            PieceProgress::Broken(_) => false,
        }
    }

    fn step(&mut self, byte: u8) -> ByteProgress {
        match self.state {
            ScannerState::Text { key, escape } => self.in_text(byte, key, escape),
            ScannerState::Word(rest) => match rest.split_first() {
                Some((first, [])) if *first == byte => self.complete(),
                Some((first, rest)) if *first == byte => self.to(ScannerState::Word(rest)),
                _ => ByteProgress::Broken,
            },
            ScannerState::Number(number) => match number.next(byte) {
                Some(number) => self.to(ScannerState::Number(number)),
                None if !number.may_end() => ByteProgress::Broken,
                None if self.open.is_empty() => ByteProgress::DoneBefore,
                None => {
                    self.state = ScannerState::AfterValue;
                    self.step(byte)
                }
            },
            _ if is_json_space(byte) => ByteProgress::More,
            ScannerState::Value => self.begin(byte),
            ScannerState::FirstItem if byte == b']' => self.close(false),
            ScannerState::FirstItem => self.begin(byte),
            ScannerState::Key { first: true } if byte == b'}' => self.close(true),
            ScannerState::Key { .. } if byte == b'"' => self.to(ScannerState::Text { key: true, escape: Escape::None }),
            ScannerState::Colon if byte == b':' => self.to(ScannerState::Value),
            ScannerState::AfterValue => match (byte, self.open.last()) {
                (b',', Some(true)) => self.to(ScannerState::Key { first: false }),
                (b',', Some(false)) => self.to(ScannerState::Value),
                (b'}', _) => self.close(true),
                (b']', _) => self.close(false),
                _ => ByteProgress::Broken,
            },
            ScannerState::Key { .. } | ScannerState::Colon => ByteProgress::Broken,
        }
    }

    fn to(&mut self, state: ScannerState) -> ByteProgress {
        self.state = state;
        ByteProgress::More
    }

    /// Begins a value.
    fn begin(&mut self, byte: u8) -> ByteProgress {
        self.state = match byte {
            b'{' => ScannerState::Key { first: true },
            b'[' => ScannerState::FirstItem,
            b'"' => ScannerState::Text { key: false, escape: Escape::None },
            b't' => ScannerState::Word(b"rue"),
            b'f' => ScannerState::Word(b"alse"),
            b'n' => ScannerState::Word(b"ull"),
            b'-' => ScannerState::Number(NumberState::Minus),
            b'0' => ScannerState::Number(NumberState::Zero),
            b'1'..=b'9' => ScannerState::Number(NumberState::Digits),
            _ => return ByteProgress::Broken,
        };
        if matches!(byte, b'{' | b'[') {
            self.open.push(byte == b'{');
        }
        ByteProgress::More
    }

    fn in_text(&mut self, byte: u8, key: bool, escape: Escape) -> ByteProgress {
        let escape = match (escape, byte) {
            (Escape::None, b'"') if key => return self.to(ScannerState::Colon),
            (Escape::None, b'"') => return self.complete(),
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, 0x20..) => Escape::None,
            (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
            (Escape::Begun, b'u') => Escape::Hex(4),
            (Escape::Hex(1), byte) if byte.is_ascii_hexdigit() => Escape::None,
            (Escape::Hex(n), byte) if byte.is_ascii_hexdigit() => Escape::Hex(n - 1),
            _ => return ByteProgress::Broken,
        };
        self.to(ScannerState::Text { key, escape })
    }

    /// Closes a list or an object.
    fn close(&mut self, object: bool) -> ByteProgress {
        match self.open.pop() {
            Some(open) if open == object => self.complete(),
            _ => ByteProgress::Broken,
        }
    }

    /// Ends a value.
    fn complete(&mut self) -> ByteProgress {
        self.state = ScannerState::AfterValue;
        if self.open.is_empty() { ByteProgress::Done } else { ByteProgress::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What a scanner says of a text in one piece, and in pieces of one character.
    fn scan(text: &str) -> PieceProgress {
        let mut whole = JsonScanner::default();
        let fed = whole.push(text);
        let (mut scanner, mut single) = (JsonScanner::default(), PieceProgress::More);
        for (at, c) in text.char_indices() {
            single = match scanner.push(c.encode_utf8(&mut [0; 4])) {
                PieceProgress::More => continue,
                PieceProgress::Done(n) => PieceProgress::Done(at + n),
                PieceProgress::Broken(n) => PieceProgress::Broken(at + n),
            };
            break;
        }
        assert_eq!(fed, single, "{text}");
        fed
    }

    #[test]
    fn values_end_where_serde_ends_them() {
        for text in [
            "{}",
            "[]",
            " {\"a\" : [1, -0.5e+3, 1E2, 0, true,false , null], \"b\":{\"\":\"\\u00e9\\\"\"}}",
            "\"é\\n\"",
            "[[], [{}]]",
            "true",
            "null",
            "\n\t\"x\"",
        ] {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
            assert_eq!(scan(&format!("{text} x")), PieceProgress::Done(text.len()), "{text}");
        }
        for text in ["1", "-0", "10.25", "1e5", "0.0E-1"] {
            assert_eq!(scan(text), PieceProgress::More, "{text}");
            assert_eq!(scan(&format!("{text},")), PieceProgress::Done(text.len()), "{text}");
        }
    }

    #[test]
    fn broken_values_break_at_the_first_wrong_byte() {
        for (text, at) in [
            ("{,", 1),
            ("{\"a\" 1", 5),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("[}", 1),
            ("{\"a\":1]", 6),
            ("01,", 1),
            ("[01", 2),
            ("-x", 1),
            ("1.,", 2),
            ("1e,", 2),
            ("\"\\x", 2),
            ("\"\\u00g", 5),
            ("\"\n", 1),
            ("trux", 3),
            ("'a'", 0),
            ("é", 0),
            ("{1", 1),
        ] {
            let expected = if text == "01," { PieceProgress::Done(at) } else { PieceProgress::Broken(at) };
            assert_eq!(scan(text), expected, "{text}");
        }
    }
}
