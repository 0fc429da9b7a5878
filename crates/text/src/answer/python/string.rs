//! Python's strings.
use crate::answer::json::{Surrogates, escape_into};

/// Reads a string from its opening quote to its closing one.
#[derive(Debug)]
pub(super) struct PythonText {
    quote: char,
    place: TextPlace,
    surrogates: Surrogates,
}

#[derive(Debug, Clone, Copy)]
enum TextPlace {
    /// Behind so many quotes, one or two, and nothing else.
    Opened(u8),
    /// Within a string in single quotes.
    Within(PyEscape),
    /// Within a string in triple quotes, behind so many of them.
    Triple(PyEscape, u8),
}

#[derive(Debug, Clone, Copy)]
enum PyEscape {
    None,
    /// Behind a backslash.
    Begun,
    /// The digits so far, and how many may follow.
    Octal(u32, u8),
    /// The digits so far, and how many must follow.
    Hex(u32, u8),
    /// The digits so far of a character by its number, and how many must follow.
    Wide(u32, u8),
}

/// What one character brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextStep {
    More,
    /// The string is complete with this character.
    Done,
    /// The string was complete before this character.
    DoneBefore,
    Broken,
}

impl PythonText {
    /// Begins behind the opening quote.
    pub fn new(quote: char) -> Self {
        PythonText { quote, place: TextPlace::Opened(1), surrogates: Surrogates::default() }
    }

    /// Takes in a character; adds what it brings to `json`, without the quotes around the string.
    pub fn push(&mut self, c: char, json: &mut String) -> TextStep {
        let is_quote = c == self.quote;
        match self.place {
            TextPlace::Opened(1) if is_quote => self.place = TextPlace::Opened(2),
            TextPlace::Opened(1) => {
                self.place = TextPlace::Within(PyEscape::None);
                return self.push(c, json);
            }
            TextPlace::Opened(_) if is_quote => self.place = TextPlace::Triple(PyEscape::None, 0),
            TextPlace::Opened(_) => return TextStep::DoneBefore,
            TextPlace::Within(PyEscape::None) if is_quote => return self.finish(json),
            TextPlace::Triple(PyEscape::None, 2) if is_quote => return self.finish(json),
            TextPlace::Triple(PyEscape::None, quotes) if is_quote => {
                self.place = TextPlace::Triple(PyEscape::None, quotes + 1)
            }
            TextPlace::Within(escape) => match self.within(c, escape, json) {
                // What ends an octal number may end the string too.
                Some((escape, false)) => {
                    self.place = TextPlace::Within(escape);
                    return self.push(c, json);
                }
                Some((escape, true)) => self.place = TextPlace::Within(escape),
                None => return TextStep::Broken,
            },
            TextPlace::Triple(escape, quotes) => {
                (0..quotes).for_each(|_| escape_into(self.quote, json));
                match self.within(c, escape, json) {
                    Some((escape, false)) => {
                        self.place = TextPlace::Triple(escape, 0);
                        return self.push(c, json);
                    }
                    Some((escape, true)) => self.place = TextPlace::Triple(escape, 0),
                    None => return TextStep::Broken,
                }
            }
        }
        TextStep::More
    }

    fn finish(&mut self, json: &mut String) -> TextStep {
        self.surrogates.finish(json);
        TextStep::Done
    }

    /// Takes in a character that is no closing quote: the escape that follows, and whether the character was read.
    fn within(&mut self, c: char, escape: PyEscape, json: &mut String) -> Option<(PyEscape, bool)> {
        let digit = c.to_digit(16);
        let next = match escape {
            PyEscape::None if c == '\\' => PyEscape::Begun,
            PyEscape::None => self.plain(c, json),
            PyEscape::Begun => self.begun(c, json),
            PyEscape::Octal(value, left) => match c.to_digit(8) {
                Some(digit) if left > 0 => PyEscape::Octal(value * 8 + digit, left - 1),
                _ => return Some((self.plain(char::from_u32(value)?, json), false)),
            },
            PyEscape::Hex(value, 1) => {
                let mut text = String::new();
                self.surrogates.unit(value * 16 + digit?, &mut text);
                text.chars().for_each(|c| escape_into(c, json));
                PyEscape::None
            }
            PyEscape::Hex(value, left) => PyEscape::Hex(value * 16 + digit?, left - 1),
            PyEscape::Wide(value, 1) => self.plain(char::from_u32(value.checked_mul(16)? + digit?)?, json),
            PyEscape::Wide(value, left) => PyEscape::Wide(value.checked_mul(16)? + digit?, left - 1),
        };
        Some((next, true))
    }

    /// Takes in the character behind a backslash.
    fn begun(&mut self, c: char, json: &mut String) -> PyEscape {
        match c {
            '\n' => PyEscape::None,
            '\\' | '\'' | '"' => self.plain(c, json),
            'a' => self.plain('\u{7}', json),
            'b' => self.plain('\u{8}', json),
            'f' => self.plain('\u{C}', json),
            'n' => self.plain('\n', json),
            'r' => self.plain('\r', json),
            't' => self.plain('\t', json),
            'v' => self.plain('\u{B}', json),
            '0'..='7' => PyEscape::Octal(c.to_digit(8).unwrap_or(0), 2),
            'x' => PyEscape::Hex(0, 2),
            'u' => PyEscape::Hex(0, 4),
            'U' => PyEscape::Wide(0, 8),
            // Python leaves an unknown escape as it is.
            _ => {
                self.plain('\\', json);
                self.plain(c, json)
            }
        }
    }

    fn plain(&mut self, c: char, json: &mut String) -> PyEscape {
        self.surrogates.finish(json);
        escape_into(c, json);
        PyEscape::None
    }
}
