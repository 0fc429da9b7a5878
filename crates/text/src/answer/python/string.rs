//! Python's strings.
use crate::answer::json::{Surrogates, escape_into};

/// Reads a string from its opening quote to its closing one.
#[derive(Debug)]
pub(super) struct PythonStringReader {
    quote: char,
    state: StringState,
    surrogates: Surrogates,
}

#[derive(Debug, Clone, Copy)]
enum StringState {
    /// So far only quotes have been read, one or two.
    Opened { quotes: u8 },
    /// The reader is within a string that single quotes enclose.
    Single { escape: PyEscape },
    /// The reader is within a string that triple quotes enclose. `quotes` of them, which may close it, were read last.
    Triple { escape: PyEscape, quotes: u8 },
}

/// The escape sequence that is being read. `value` is the number of the digits so far.
#[derive(Debug, Clone, Copy)]
enum PyEscape {
    None,
    /// A backslash has been read.
    Begun,
    /// Octal digits are read, of which up to `left` may follow.
    Octal {
        value: u32,
        left: u8,
    },
    /// The hexadecimal digits of `\x` or `\u` are read, of which `left` must follow.
    Hex {
        value: u32,
        left: u8,
    },
    /// The hexadecimal digits of `\U` are read, of which `left` must follow.
    Wide {
        value: u32,
        left: u8,
    },
}

/// How the reading of a value goes on after a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CharProgress {
    /// The value goes on.
    More,
    /// The value is complete with this character.
    Done,
    /// The value was complete before this character.
    DoneBefore,
    /// The value is broken: this character cannot follow.
    Broken,
}

/// The effect of a character within a string.
enum InsideProgress {
    /// The character was read; this is the escape sequence after it.
    Read(PyEscape),
    /// The character ends an octal escape sequence and was not read itself.
    EscapeEnded,
}

impl PythonStringReader {
    /// Returns a reader that has read the opening quote.
    pub fn new(quote: char) -> Self {
        PythonStringReader { quote, state: StringState::Opened { quotes: 1 }, surrogates: Surrogates::default() }
    }

    /// Takes in a character; adds the text that it completes to `json`, without the quotes around the string.
    pub fn push(&mut self, c: char, json: &mut String) -> CharProgress {
        let is_quote = c == self.quote;
        match self.state {
            StringState::Opened { quotes: 1 } if is_quote => self.state = StringState::Opened { quotes: 2 },
            StringState::Opened { quotes: 1 } => {
                self.state = StringState::Single { escape: PyEscape::None };
                return self.push(c, json);
            }
            StringState::Opened { .. } if is_quote => {
                self.state = StringState::Triple { escape: PyEscape::None, quotes: 0 }
            }
            StringState::Opened { .. } => return CharProgress::DoneBefore,
            StringState::Single { escape: PyEscape::None } if is_quote => return self.finish(json),
            StringState::Triple { escape: PyEscape::None, quotes: 2 } if is_quote => return self.finish(json),
            StringState::Triple { escape: PyEscape::None, quotes } if is_quote => {
                self.state = StringState::Triple { escape: PyEscape::None, quotes: quotes + 1 }
            }
            StringState::Single { escape } => match self.read_inside(c, escape, json) {
                Some(InsideProgress::Read(escape)) => self.state = StringState::Single { escape },
                // The character that ends an octal number may end the string too.
                Some(InsideProgress::EscapeEnded) => {
                    self.state = StringState::Single { escape: PyEscape::None };
                    return self.push(c, json);
                }
                None => return CharProgress::Broken,
            },
            StringState::Triple { escape, quotes } => {
                (0..quotes).for_each(|_| escape_into(self.quote, json));
                match self.read_inside(c, escape, json) {
                    Some(InsideProgress::Read(escape)) => self.state = StringState::Triple { escape, quotes: 0 },
                    Some(InsideProgress::EscapeEnded) => {
                        self.state = StringState::Triple { escape: PyEscape::None, quotes: 0 };
                        return self.push(c, json);
                    }
                    None => return CharProgress::Broken,
                }
            }
        }
        CharProgress::More
    }

    fn finish(&mut self, json: &mut String) -> CharProgress {
        self.surrogates.finish(json);
        CharProgress::Done
    }

    /// Takes in a character that is no closing quote; `None` if it cannot follow.
    fn read_inside(&mut self, c: char, escape: PyEscape, json: &mut String) -> Option<InsideProgress> {
        let digit = c.to_digit(16);
        let next = match escape {
            PyEscape::None if c == '\\' => PyEscape::Begun,
            PyEscape::None => self.plain(c, json),
            PyEscape::Begun => self.begun(c, json),
            PyEscape::Octal { value, left } => match c.to_digit(8) {
                Some(digit) if left > 0 => PyEscape::Octal { value: value * 8 + digit, left: left - 1 },
                _ => {
                    self.plain(char::from_u32(value)?, json);
                    return Some(InsideProgress::EscapeEnded);
                }
            },
            PyEscape::Hex { value, left: 1 } => {
                let mut text = String::new();
                self.surrogates.unit(value * 16 + digit?, &mut text);
                text.chars().for_each(|c| escape_into(c, json));
                PyEscape::None
            }
            PyEscape::Hex { value, left } => PyEscape::Hex { value: value * 16 + digit?, left: left - 1 },
            PyEscape::Wide { value, left: 1 } => self.plain(char::from_u32(value.checked_mul(16)? + digit?)?, json),
            PyEscape::Wide { value, left } => PyEscape::Wide { value: value.checked_mul(16)? + digit?, left: left - 1 },
        };
        Some(InsideProgress::Read(next))
    }

    /// Takes in the character after a backslash.
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
            '0'..='7' => PyEscape::Octal { value: c.to_digit(8).unwrap_or(0), left: 2 },
            'x' => PyEscape::Hex { value: 0, left: 2 },
            'u' => PyEscape::Hex { value: 0, left: 4 },
            'U' => PyEscape::Wide { value: 0, left: 8 },
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
