//! What holds the next token: the constraint on the answer, that on the open call, or nothing.
use crate::answer::AnswerParser;
use crate::constraint::{AnswerConstraint, Constraint, ConstraintError, TokenMask};

/// What holds an answer's tokens, and when.
pub(super) struct Hold {
    now: Now,
    /// Holds the answer from where its thought is closed.
    after_thought: Option<Constraint>,
    /// Holds each call from where it opens.
    call: Option<Constraint>,
}

/// What holds the next token.
enum Now {
    /// Nothing.
    Free,
    /// Nothing until the thought is closed.
    Thought,
    /// The constraint on the answer.
    Answer(Constraint),
    /// The constraint on the call that is open.
    Call(Constraint),
    /// Nothing until the open call is closed, whose beginning its constraint did not take.
    LooseCall,
}

impl Hold {
    pub fn new(answer: Option<AnswerConstraint>, call: Option<Constraint>, in_thought: bool) -> Self {
        let (first, after_thought) = match answer {
            None => (None, None),
            Some(constraint) => (Some(constraint.from_start), constraint.after_thought),
        };
        let now = match first {
            _ if in_thought && after_thought.is_some() => Now::Thought,
            Some(constraint) => Now::Answer(constraint),
            None => Now::Free,
        };
        Hold { now, after_thought, call }
    }

    pub fn is_held(&self) -> bool {
        matches!(self.now, Now::Answer(_) | Now::Call(_))
    }

    pub fn mask(&mut self) -> Result<Option<TokenMask>, ConstraintError> {
        match &mut self.now {
            Now::Answer(constraint) | Now::Call(constraint) => constraint.mask().map(Some),
            Now::Free | Now::Thought | Now::LooseCall => Ok(None),
        }
    }

    /// Takes in a token that `parser` has read already; `calls` have been closed by then. True if nothing may follow.
    pub fn push(&mut self, token: u32, parser: Option<&AnswerParser>, calls: usize) -> Result<bool, ConstraintError> {
        let in_thought = parser.is_some_and(AnswerParser::in_thought);
        let open_call = parser.and_then(AnswerParser::open_call);
        if let Now::Answer(constraint) | Now::Call(constraint) = &mut self.now {
            constraint.consume(token)?;
        }
        self.now = match std::mem::replace(&mut self.now, Now::Free) {
            Now::Thought if !in_thought => self.after_thought.take().map_or(Now::Free, Now::Answer),
            Now::Answer(constraint) if constraint.is_complete() => {
                // The grammar of an answer that may begin with a thought ends with the tag that opens one.
                match self.after_thought {
                    Some(_) if in_thought => Now::Thought,
                    _ if calls > 0 => Now::Free,
                    _ => return Ok(true),
                }
            }
            Now::Call(constraint) if constraint.is_complete() || open_call.is_none() => Now::Free,
            Now::LooseCall if open_call.is_none() => Now::Free,
            Now::Free => self.open(open_call),
            now => now,
        };
        Ok(false)
    }

    /// What holds the next token where nothing held this one, and `open_call` is what the open call has of text.
    fn open(&self, open_call: Option<&str>) -> Now {
        let (Some(text), Some(constraint)) = (open_call, &self.call) else { return Now::Free };
        let mut constraint = constraint.clone();
        if constraint.consume_text(text) && !constraint.is_complete() { Now::Call(constraint) } else { Now::LooseCall }
    }
}
