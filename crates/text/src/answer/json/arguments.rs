//! The arguments of a call: a JSON object, or a JSON string that holds one.
use super::scanner::JsonScanner;
use super::unescape::Unescaper;
use super::{PieceProgress, is_json_space};

/// Reads arguments and gives the text of the JSON object, as it was generated. Nothing else but `null` and an empty
/// string, which stand for no arguments, is taken.
#[derive(Debug, Default)]
pub(in crate::answer) struct Arguments {
    kind: Kind,
    scanner: JsonScanner,
    /// Some of the object has been given.
    given: bool,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Unknown,
    Object,
    Null,
    Text(InnerObject),
}

impl Arguments {
    /// Takes in a piece of text. Whitespace before the object is left out.
    pub fn push(&mut self, text: &str, mut emit: impl FnMut(&str)) -> PieceProgress {
        let mut from = 0;
        if matches!(self.kind, Kind::Unknown) {
            let Some(first) = text.bytes().position(|byte| !is_json_space(byte)) else { return PieceProgress::More };
            from = first;
            self.kind = match text.as_bytes().get(first) {
                Some(b'{') => Kind::Object,
                Some(b'n') => Kind::Null,
                Some(b'"') => Kind::Text(InnerObject::default()),
                _ => return PieceProgress::Broken(first),
            };
        }
        let rest = text.get(from..).unwrap_or_default();
        let fed = self.scanner.push(rest);
        let read = match fed {
            PieceProgress::More => rest.len(),
            PieceProgress::Done(n) | PieceProgress::Broken(n) => n,
        };
        let piece = rest.get(..read).unwrap_or_default();
        let mut give = |piece: &str| {
            self.given |= !piece.is_empty();
            emit(piece);
        };
        match &mut self.kind {
            Kind::Object => give(piece),
            Kind::Text(inner) => {
                if let Some(at) = inner.push(piece, matches!(fed, PieceProgress::Done(_)), give) {
                    return PieceProgress::Broken(from + at);
                }
            }
            Kind::Unknown | Kind::Null => {}
        }
        match fed {
            PieceProgress::More => PieceProgress::More,
            PieceProgress::Done(n) => {
                if !self.given {
                    emit("{}");
                }
                PieceProgress::Done(from + n)
            }
            PieceProgress::Broken(n) => PieceProgress::Broken(from + n),
        }
    }
}

/// The JSON object within a JSON string.
#[derive(Debug, Default)]
struct InnerObject {
    unescaper: Unescaper,
    scanner: JsonScanner,
    /// The opening quote has come.
    quoted: bool,
    /// The object has begun.
    begun: bool,
    /// The object is complete.
    complete: bool,
}

impl InnerObject {
    /// Takes in a piece of the string, its quotes included; `last` says that it ends with the closing quote. Returns
    /// the place where the text cannot be an object, if there is one.
    fn push(&mut self, piece: &str, last: bool, mut give: impl FnMut(&str)) -> Option<usize> {
        let (mut text, mut ready) = (String::new(), String::new());
        let mut broken = None;
        for (at, c) in piece.char_indices() {
            let closes = last && at + 1 == piece.len();
            if !std::mem::replace(&mut self.quoted, true) {
                continue;
            }
            text.clear();
            if closes {
                self.unescaper.finish(&mut text);
            } else {
                self.unescaper.push(c, &mut text);
            }
            let fits = text.chars().all(|c| self.take(c, &mut ready));
            if !fits || (closes && self.begun && !self.complete) {
                broken = Some(at);
                break;
            }
        }
        give(&ready);
        broken
    }

    /// Takes in a character of the string's text, and adds it to `ready` if it is part of the object. Returns whether
    /// it may stand here.
    fn take(&mut self, c: char, ready: &mut String) -> bool {
        if !self.begun || self.complete {
            let begins = c == '{' && !self.begun;
            if !begins {
                return c.is_ascii() && is_json_space(c as u8);
            }
            self.begun = true;
        }
        match self.scanner.push(c.encode_utf8(&mut [0; 4])) {
            PieceProgress::More => {}
            PieceProgress::Done(_) => self.complete = true,
            PieceProgress::Broken(_) => return false,
        }
        ready.push(c);
        true
    }
}
