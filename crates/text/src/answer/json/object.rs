//! One call as a JSON object.
use super::arguments::Arguments;
use super::scanner::JsonScanner;
use super::{PieceProgress, is_json_space};
use crate::answer::output::Output;
use crate::answer::schema::KnownTools;

/// The keys that hold arguments.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
/// The keys that calls have beside the name and the arguments.
const HARMLESS: [&str; 2] = ["type", "id"];

/// Reads an object `{"name": .., "arguments": {..}}`, whatever the order of its keys.
///
/// Where nothing but its own form tells that it is a call, it is given the tools: then it is broken as soon as its name
/// is that of no tool, or it has a key that calls have not; and the call is opened when its arguments begin.
/// Elsewhere it is opened as soon as its name is known.
#[derive(Debug)]
pub(super) struct CallObject {
    only: Option<KnownTools>,
    state: ObjectState,
    name: Option<String>,
    /// Arguments that came before the name.
    held: Option<String>,
    has_arguments: bool,
    opened: bool,
}

#[derive(Debug)]
enum ObjectState {
    /// The opening brace must follow.
    Start,
    /// A key must follow, or the end of the object if it is the first.
    Key { first: bool },
    /// A colon must follow.
    Colon(Slot),
    /// A value must follow.
    Value(Slot),
    /// Within a string that is kept: a key or the name.
    Word { slot: Slot, scanner: JsonScanner, raw: String },
    /// Within the arguments.
    Arguments(Arguments),
    /// Within a value that nobody reads.
    Other(JsonScanner),
    /// A comma or the end of the object must follow.
    AfterValue,
}

/// The role of a string or a value in a call's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Key,
    Name,
    Arguments,
    Other,
}

impl CallObject {
    pub fn new(only: Option<KnownTools>) -> Self {
        CallObject { only, state: ObjectState::Start, name: None, held: None, has_arguments: false, opened: false }
    }

    /// Whether the call was opened.
    pub fn is_opened(&self) -> bool {
        self.opened
    }

    /// Takes in a piece of text.
    pub fn push(&mut self, text: &str, out: &mut Output) -> PieceProgress {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            match self.advance(rest, out) {
                (PieceProgress::More, n) => at += n,
                (PieceProgress::Done(n), _) => return PieceProgress::Done(at + n),
                (PieceProgress::Broken(n), _) => return PieceProgress::Broken(at + n),
            }
        }
        PieceProgress::More
    }

    /// Reads some of the text: how it goes on, and how many bytes were read.
    fn advance(&mut self, rest: &str, out: &mut Output) -> (PieceProgress, usize) {
        let fed = match &mut self.state {
            ObjectState::Word { scanner, raw, .. } => {
                let fed = scanner.push(rest);
                let read = if let PieceProgress::Done(n) = fed { n } else { rest.len() };
                raw.push_str(rest.get(..read).unwrap_or_default());
                fed
            }
            ObjectState::Arguments(arguments) => {
                let (opened, held) = (self.opened, &mut self.held);
                arguments.push(rest, |piece| match held {
                    Some(held) if !opened => held.push_str(piece),
                    _ => out.arguments(piece),
                })
            }
            ObjectState::Other(scanner) => scanner.push(rest),
            _ => return self.between(rest, out),
        };
        match fed {
            PieceProgress::More => (fed, rest.len()),
            PieceProgress::Broken(_) => (fed, 0),
            PieceProgress::Done(n) if self.value_ended(out) => (PieceProgress::More, n),
            PieceProgress::Done(n) => (PieceProgress::Broken(n.saturating_sub(1)), 0),
        }
    }

    /// Goes on after a key or a value. Returns false if the object is no call.
    fn value_ended(&mut self, out: &mut Output) -> bool {
        let ObjectState::Word { slot, raw, .. } = std::mem::replace(&mut self.state, ObjectState::AfterValue) else {
            return true;
        };
        let Ok(word) = serde_json::from_str::<String>(&raw) else { return false };
        if slot == Slot::Key {
            let slot = match word.as_str() {
                "name" if self.name.is_none() => Slot::Name,
                key if ARGUMENTS.contains(&key) && !self.has_arguments => Slot::Arguments,
                key if self.only.is_some() && !self.opened && !HARMLESS.contains(&key) => return false,
                _ => Slot::Other,
            };
            self.state = ObjectState::Colon(slot);
            return true;
        }
        if word.is_empty() || self.only.as_ref().is_some_and(|tools| !tools.has(&word)) {
            return false;
        }
        self.name = Some(word);
        if self.only.is_none() || self.has_arguments {
            self.open(out);
        }
        true
    }

    /// Opens the call, if its name is known.
    fn open(&mut self, out: &mut Output) {
        if let Some(name) = self.name.clone().filter(|_| !self.opened) {
            self.opened = true;
            out.open_call(name);
            out.arguments(&self.held.take().unwrap_or_default());
        }
    }

    /// Reads what stands between keys and values.
    fn between(&mut self, rest: &str, out: &mut Output) -> (PieceProgress, usize) {
        let Some(at) = rest.bytes().position(|byte| !is_json_space(byte)) else {
            return (PieceProgress::More, rest.len());
        };
        let byte = rest.as_bytes().get(at).copied().unwrap_or_default();
        let broken = (PieceProgress::Broken(at), 0);
        let (state, read) = match (&self.state, byte) {
            (ObjectState::Start, b'{') => (ObjectState::Key { first: true }, at + 1),
            (ObjectState::Key { .. }, b'"') => (word(Slot::Key), at),
            (ObjectState::Colon(slot), b':') => (ObjectState::Value(*slot), at + 1),
            (ObjectState::Value(Slot::Name), b'"') => (word(Slot::Name), at),
            (ObjectState::Value(Slot::Arguments), b'{' | b'"' | b'n') => {
                self.has_arguments = true;
                self.open(out);
                self.held = (!self.opened).then(String::new);
                (ObjectState::Arguments(Arguments::default()), at)
            }
            (ObjectState::Value(Slot::Other), _) => (ObjectState::Other(JsonScanner::default()), at),
            (ObjectState::AfterValue, b',') => (ObjectState::Key { first: false }, at + 1),
            (ObjectState::AfterValue | ObjectState::Key { first: true }, b'}') if self.name.is_some() => {
                self.open(out);
                if !self.has_arguments {
                    out.arguments("{}");
                }
                out.close_call();
                return (PieceProgress::Done(at + 1), 0);
            }
            _ => return broken,
        };
        self.state = state;
        (PieceProgress::More, read)
    }
}

fn word(slot: Slot) -> ObjectState {
    ObjectState::Word { slot, scanner: JsonScanner::default(), raw: String::new() }
}
