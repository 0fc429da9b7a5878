//! The text of a JSON string.

/// Undoes the escapes of a JSON string that arrives character by character and is known to be well-formed. Half of a
/// surrogate pair becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Unescaper {
    state: Escaped,
    surrogates: Surrogates,
}

/// Joins the halves of surrogate pairs. Half of one becomes U+FFFD.
#[derive(Debug, Default)]
pub(in crate::answer) struct Surrogates {
    /// The first half of a pair.
    high: Option<u32>,
}

impl Surrogates {
    /// Takes in a unit of UTF-16.
    pub fn unit(&mut self, unit: u32, out: &mut String) {
        match (self.high, unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                self.high = None;
                let code = 0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00);
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (_, 0xD800..=0xDBFF) => {
                self.finish(out);
                self.high = Some(unit);
            }
            _ => {
                self.finish(out);
                out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }

    /// Something else than a unit follows, or nothing.
    pub fn finish(&mut self, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
enum Escaped {
    #[default]
    No,
    /// After a backslash.
    Begun,
    /// After `\u`: the digits so far, and how many are missing.
    Hex { value: u32, missing: u8 },
}

impl Unescaper {
    /// Takes in a character of what is between the quotes, and adds its text to `out`.
    pub fn push(&mut self, c: char, out: &mut String) {
        self.state = match self.state {
            Escaped::No if c == '\\' => Escaped::Begun,
            Escaped::Begun if c == 'u' => Escaped::Hex { value: 0, missing: 4 },
            Escaped::No => self.plain(c, out),
            Escaped::Begun => self.plain(named(c), out),
            Escaped::Hex { value, missing } => {
                let value = value << 4 | c.to_digit(16).unwrap_or(0);
                if missing > 1 {
                    Escaped::Hex { value, missing: missing - 1 }
                } else {
                    self.surrogates.unit(value, out);
                    Escaped::No
                }
            }
        };
    }

    /// Ends the string.
    pub fn finish(&mut self, out: &mut String) {
        self.surrogates.finish(out);
    }

    fn plain(&mut self, c: char, out: &mut String) -> Escaped {
        self.surrogates.finish(out);
        out.push(c);
        Escaped::No
    }
}

/// The character that a letter after a backslash stands for.
fn named(c: char) -> char {
    match c {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let escaped = r#"a\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00\ud83dx\ude00\ud83d\ud83d\ude00\ud83d"#;
        let expected = "a\"\\/\u{8}\u{c}\n\r\té\u{e9}😀\u{fffd}x\u{fffd}\u{fffd}😀\u{fffd}";
        let (mut unescaper, mut out) = (Unescaper::default(), String::new());
        escaped.chars().for_each(|c| unescaper.push(c, &mut out));
        unescaper.finish(&mut out);
        assert_eq!(out, expected);
    }
}
