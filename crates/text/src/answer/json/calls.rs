//! Calls as JSON objects, one after the other or in a list.
use super::object::CallObject;
use super::{Fed, is_json_space};
use crate::answer::output::Output;
use crate::answer::section::KnownTools;

/// How calls follow each other outside of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::answer) enum CallList {
    /// With whitespace between them.
    Spaced,
}

/// How a series of calls goes on after a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::answer) enum JsonFlow {
    /// It goes on.
    More,
    /// It ended; so many bytes of the piece belong to it.
    Ended(usize),
    /// It broke: the byte at this place cannot follow. What is in no call has been given as text, unless the call that
    /// broke had been opened.
    Broken { at: usize, opened: bool },
}

/// Reads a series of calls.
#[derive(Debug)]
pub(in crate::answer) struct JsonCalls {
    list: CallList,
    only: Option<KnownTools>,
    state: CallsState,
    in_brackets: bool,
    /// What has been read since the last call, or since the beginning.
    residue: String,
}

#[derive(Debug)]
enum CallsState {
    /// A call must follow; a list may, if it is the beginning.
    Start { first: bool },
    /// Within a call.
    Call(CallObject),
    /// What separates calls may follow.
    AfterCall,
}

impl JsonCalls {
    /// Begins a series. With `only`, nothing but calls of these tools is taken for a call.
    pub fn new(list: CallList, only: Option<KnownTools>) -> Self {
        JsonCalls { list, only, state: CallsState::Start { first: true }, in_brackets: false, residue: String::new() }
    }

    /// Takes in a piece of text.
    pub fn push(&mut self, text: &str, out: &mut Output) -> JsonFlow {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let CallsState::Call(call) = &mut self.state else {
                match self.between(rest, out) {
                    (JsonFlow::More, n) => {
                        self.residue.push_str(rest.get(..n).unwrap_or_default());
                        at += n;
                        continue;
                    }
                    (JsonFlow::Ended(n), _) => return JsonFlow::Ended(at + n),
                    (broken, _) => return broken,
                }
            };
            let fed = call.push(rest, out);
            let read = match fed {
                Fed::More => rest.len(),
                Fed::Done(n) | Fed::Broken(n) => n,
            };
            let opened = call.is_opened();
            if opened {
                self.residue.clear();
            } else {
                self.residue.push_str(rest.get(..read).unwrap_or_default());
            }
            at += read;
            match fed {
                Fed::More => {}
                Fed::Done(_) => self.state = CallsState::AfterCall,
                Fed::Broken(_) => {
                    out.text(&std::mem::take(&mut self.residue));
                    return JsonFlow::Broken { at, opened };
                }
            }
        }
        JsonFlow::More
    }

    /// Reads what stands between calls: how it goes on, and how many bytes are read if it does.
    fn between(&mut self, rest: &str, out: &mut Output) -> (JsonFlow, usize) {
        let Some(at) = rest.bytes().position(|byte| !is_json_space(byte)) else { return (JsonFlow::More, rest.len()) };
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
                self.residue.clear();
                return (JsonFlow::Ended(at + 1), 0);
            }
            (CallsState::AfterCall, b'{') if !self.in_brackets && self.list == CallList::Spaced => (call(), at),
            _ => {
                self.residue.push_str(rest.get(..at).unwrap_or_default());
                self.finish(out);
                return (JsonFlow::Ended(at), 0);
            }
        };
        self.state = state;
        (JsonFlow::More, read)
    }

    /// Ends the series: what is in no call is text.
    pub fn finish(&mut self, out: &mut Output) {
        out.text(&std::mem::take(&mut self.residue));
    }
}
