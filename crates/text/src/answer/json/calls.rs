//! Calls as JSON objects, one after the other or in a list.
use super::object::CallObject;
use super::{PieceProgress, is_json_space};
use crate::answer::output::Output;
use crate::answer::schema::KnownTools;
use crate::answer::section::{CallReader, ReadFlow};

/// How calls follow each other outside of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::answer) enum CallList {
    /// With whitespace between them.
    Spaced,
    /// With semicolons or whitespace between them.
    Semicolons,
    /// There is one.
    Single,
}

/// Reads a series of calls.
#[derive(Debug)]
pub(in crate::answer) struct JsonCalls {
    list: CallList,
    only: Option<KnownTools>,
    state: CallsState,
    in_brackets: bool,
    /// A call is complete.
    has_calls: bool,
    /// The text since the last call, or since the beginning, without the separators of calls.
    residue: String,
}

#[derive(Debug)]
enum CallsState {
    /// A call must follow; a list may, if it is the beginning.
    Start { first: bool },
    /// Within a call.
    Call(CallObject),
    /// A separator of calls may follow.
    AfterCall,
}

impl JsonCalls {
    /// Begins a series. With `only`, nothing but calls of these tools is taken for a call.
    pub fn new(list: CallList, only: Option<KnownTools>) -> Self {
        let (state, residue) = (CallsState::Start { first: true }, String::new());
        JsonCalls { list, only, state, in_brackets: false, has_calls: false, residue }
    }

    /// Reads what stands between calls. Returns how many bytes were read, or as the error, where the calls end.
    fn between(&mut self, rest: &str) -> Result<usize, usize> {
        let Some(at) = rest.bytes().position(|byte| !is_json_space(byte)) else { return Ok(rest.len()) };
        let byte = rest.as_bytes().get(at).copied().unwrap_or_default();
        let call = || CallsState::Call(CallObject::new(self.only.clone()));
        let (state, read) = match (&self.state, byte) {
            (CallsState::Start { first: true }, b'[') => {
                self.in_brackets = true;
                (CallsState::Start { first: false }, at + 1)
            }
            (CallsState::Start { .. }, b'{') => (call(), at),
            (CallsState::AfterCall, b',') if self.in_brackets => (CallsState::Start { first: false }, at + 1),
            (CallsState::AfterCall, b']') if self.in_brackets => {
                return Err(at + 1);
            }
            (CallsState::AfterCall, b'{') if !self.in_brackets => (call(), at),
            (CallsState::AfterCall, b';') if !self.in_brackets && self.list == CallList::Semicolons => {
                (CallsState::Start { first: false }, at + 1)
            }
            _ => return Err(at),
        };
        self.state = state;
        Ok(read)
    }

    /// Keeps what is in no call so far. What follows calls and is in no further one only separates them.
    fn keep(&mut self, text: Option<&str>) {
        if !self.has_calls {
            self.residue.push_str(text.unwrap_or_default());
        }
    }
}

impl CallReader for JsonCalls {
    fn push(&mut self, text: &str, out: &mut Output) -> ReadFlow {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let CallsState::Call(call) = &mut self.state else {
                let read = self.between(rest);
                let (Ok(n) | Err(n)) = read;
                self.keep(rest.get(..n));
                at += n;
                if read.is_ok() {
                    continue;
                }
                self.finish(out);
                return ReadFlow::Ended(at);
            };
            let fed = call.push(rest, out);
            let read = match fed {
                PieceProgress::More => rest.len(),
                PieceProgress::Done(n) | PieceProgress::Broken(n) => n,
            };
            let opened = call.is_opened();
            if opened {
                self.residue.clear();
            } else {
                self.residue.push_str(rest.get(..read).unwrap_or_default());
            }
            at += read;
            match fed {
                PieceProgress::More => {}
                PieceProgress::Done(_) if self.list == CallList::Single && !self.in_brackets => {
                    return ReadFlow::Ended(at);
                }
                PieceProgress::Done(_) => {
                    self.has_calls = true;
                    self.state = CallsState::AfterCall;
                }
                PieceProgress::Broken(_) => {
                    out.text(&std::mem::take(&mut self.residue));
                    return ReadFlow::Broken { at, opened };
                }
            }
        }
        ReadFlow::More
    }

    fn finish(&mut self, out: &mut Output) {
        out.text(&std::mem::take(&mut self.residue));
    }

    fn has_opened(&self) -> bool {
        self.has_calls || matches!(&self.state, CallsState::Call(call) if call.is_opened())
    }
}
