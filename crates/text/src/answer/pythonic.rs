//! Calls as a Python list of function calls, which is all of the answer.
use super::json::{PieceProgress, quoted};
use super::output::{Output, is_space};
use super::python::PythonValue;
use super::schema::KnownTools;
use super::section::{CallReader, CallSyntax, Opening, ReadFlow};

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    openings: &[Opening::First('[')],
    close: None,
    inner_tags: &[],
    is_in_template,
    begin: |tools, _| Box::new(Pythonic::new(tools)),
};

/// Templates show the form by this example.
pub(super) fn is_in_template(source: &str) -> bool {
    source.contains("[func_name1(")
}

/// Reads a list of calls. A call is opened as soon as an argument has a name, since one without is nothing that could
/// be passed on.
#[derive(Debug)]
struct Pythonic {
    tools: KnownTools,
    place: PythonicPlace,
    /// The name of the call or of the argument that is being read.
    word: String,
    /// The name was followed by whitespace.
    word_ended: bool,
    /// The name of the call that is being read.
    function: String,
    /// The call was opened.
    opened: bool,
    /// The text since the last call, without the separators of calls.
    residue: String,
}

/// Where the reading of the list is.
#[derive(Debug)]
enum PythonicPlace {
    /// Before the list.
    Start,
    /// Within the name of a call; the list may end where none has begun, if it is not the first.
    Function { first: bool },
    /// Within the name of an argument, or before the call's end.
    Key,
    /// Within a value.
    Value(PythonValue),
    /// After a value.
    AfterValue,
    /// After a call.
    AfterCall,
}

/// How the reading of calls goes on after a character.
enum CallProgress {
    More,
    /// The list is complete with this character.
    Done,
    Broken,
}

impl Pythonic {
    fn new(tools: &KnownTools) -> Self {
        Pythonic {
            tools: tools.clone(),
            place: PythonicPlace::Start,
            word: String::new(),
            word_ended: false,
            function: String::new(),
            opened: false,
            residue: String::new(),
        }
    }

    /// Takes in a character outside of values; adds what it brings of the arguments to `json`.
    fn step(&mut self, c: char, json: &mut String, out: &mut Output) -> CallProgress {
        if is_space(c) {
            self.word_ended |= !self.word.is_empty();
            return CallProgress::More;
        }
        let has_word = !self.word.is_empty();
        match (&self.place, c) {
            (PythonicPlace::Start, '[') => self.place = PythonicPlace::Function { first: true },
            (PythonicPlace::Function { .. }, '(') if self.tools.has(&self.word) => {
                self.function = self.take_word();
                self.place = PythonicPlace::Key;
            }
            (PythonicPlace::Function { first: false }, ']') if !has_word => return CallProgress::Done,
            (PythonicPlace::Key, '=') if has_word => {
                let key = self.take_word();
                json.push_str(if self.opened { ", " } else { "{" });
                self.open(out);
                json.push_str(&(quoted(&key) + ": "));
                self.place = PythonicPlace::Value(PythonValue::default());
            }
            (PythonicPlace::Function { .. } | PythonicPlace::Key, c) if is_name(c, has_word) && !self.word_ended => {
                self.word.push(c)
            }
            (PythonicPlace::Key | PythonicPlace::AfterValue, ')') if !has_word => {
                json.push_str(if self.opened { "}" } else { "{}" });
                self.open(out);
                out.arguments(json);
                json.clear();
                out.close_call();
                self.opened = false;
                self.place = PythonicPlace::AfterCall;
            }
            (PythonicPlace::AfterValue, ',') => self.place = PythonicPlace::Key,
            (PythonicPlace::AfterCall, ',') => self.place = PythonicPlace::Function { first: false },
            (PythonicPlace::AfterCall, ']') => return CallProgress::Done,
            _ => return CallProgress::Broken,
        }
        CallProgress::More
    }

    fn take_word(&mut self) -> String {
        self.word_ended = false;
        std::mem::take(&mut self.word)
    }

    fn open(&mut self, out: &mut Output) {
        if !self.opened {
            self.opened = true;
            self.residue.clear();
            out.open_call(std::mem::take(&mut self.function));
        }
    }
}

/// Whether a name may begin with a character, or go on with it.
fn is_name(c: char, begun: bool) -> bool {
    c.is_alphabetic() || c == '_' || (begun && (c.is_numeric() || matches!(c, '.' | '-')))
}

impl CallReader for Pythonic {
    fn push(&mut self, text: &str, out: &mut Output) -> ReadFlow {
        let mut json = String::new();
        let (mut at, mut flow) = (0, ReadFlow::More);
        while let Some(rest) = text.get(at..)
            && let Some(c) = rest.chars().next()
        {
            let read = if let PythonicPlace::Value(value) = &mut self.place {
                match value.push(rest, &mut json) {
                    PieceProgress::More => Some(rest.len()),
                    PieceProgress::Done(n) => {
                        self.place = PythonicPlace::AfterValue;
                        Some(n)
                    }
                    PieceProgress::Broken(n) => {
                        at += n;
                        None
                    }
                }
            } else {
                let step = self.step(c, &mut json, out);
                let in_no_call = !self.opened && !matches!(self.place, PythonicPlace::AfterCall);
                if in_no_call && (c != ',' || !self.residue.is_empty()) && matches!(step, CallProgress::More) {
                    self.residue.push(c);
                }
                match step {
                    CallProgress::More => Some(c.len_utf8()),
                    CallProgress::Done => {
                        self.residue.clear();
                        flow = ReadFlow::Ended(at + c.len_utf8());
                        break;
                    }
                    CallProgress::Broken => None,
                }
            };
            let Some(read) = read else {
                flow = ReadFlow::Broken { at, opened: self.opened };
                break;
            };
            at += read;
        }
        out.arguments(&json);
        if matches!(flow, ReadFlow::Broken { opened: false, .. }) {
            self.finish(out);
        }
        flow
    }

    fn finish(&mut self, out: &mut Output) {
        out.text(&std::mem::take(&mut self.residue));
    }

    fn has_opened(&self) -> bool {
        self.opened || matches!(self.place, PythonicPlace::AfterCall | PythonicPlace::Function { first: false })
    }
}
