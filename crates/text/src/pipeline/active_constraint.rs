//! The constraint that the next token is held to: the answer's, the open call's, or none.
use crate::answer::AnswerParser;
use crate::constraint::{AnswerConstraint, Constraint, ConstraintError, TokenMask};

/// The constraints of an answer, and which of them the next token is held to.
pub(super) struct ActiveConstraint {
    phase: ConstraintPhase,
    /// The constraint on the answer after its thought.
    after_thought: Option<Constraint>,
    /// The constraint on each call, from where it opens.
    call: Option<Constraint>,
}

/// The constraint that the next token is held to, if there is one.
enum ConstraintPhase {
    /// No constraint is active.
    Unconstrained,
    /// A thought is open, which is left unconstrained.
    Thought,
    /// The answer is held to its constraint.
    Answer(Constraint),
    /// A call is open, which is held to its constraint.
    Call(Constraint),
    /// A call is open whose first text its constraint did not accept. The call is left unconstrained until it is
    /// closed.
    UnconstrainedCall,
}

impl ActiveConstraint {
    pub fn new(answer: Option<AnswerConstraint>, call: Option<Constraint>, in_thought: bool) -> Self {
        let (first, after_thought) = match answer {
            None => (None, None),
            Some(constraint) => (Some(constraint.from_start), constraint.after_thought),
        };
        let phase = match first {
            _ if in_thought && after_thought.is_some() => ConstraintPhase::Thought,
            Some(constraint) => ConstraintPhase::Answer(constraint),
            None => ConstraintPhase::Unconstrained,
        };
        ActiveConstraint { phase, after_thought, call }
    }

    /// Whether the next token is held to a constraint.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, ConstraintPhase::Answer(_) | ConstraintPhase::Call(_))
    }

    /// The tokens that may come next; `None`: all.
    ///
    /// Errors: [`ConstraintError::Failed`].
    pub fn mask(&mut self) -> Result<Option<TokenMask>, ConstraintError> {
        match &mut self.phase {
            ConstraintPhase::Answer(constraint) | ConstraintPhase::Call(constraint) => constraint.mask().map(Some),
            ConstraintPhase::Unconstrained | ConstraintPhase::Thought | ConstraintPhase::UnconstrainedCall => Ok(None),
        }
    }

    /// Takes in a token that `parser` has read. `calls` is how many calls are complete, this token included. Returns
    /// true if the answer must end here.
    ///
    /// Errors: [`ConstraintError::Failed`].
    pub fn push(&mut self, token: u32, parser: Option<&AnswerParser>, calls: usize) -> Result<bool, ConstraintError> {
        let in_thought = parser.is_some_and(AnswerParser::in_thought);
        let open_call = parser.and_then(AnswerParser::open_call);
        if let ConstraintPhase::Answer(constraint) | ConstraintPhase::Call(constraint) = &mut self.phase {
            constraint.consume(token)?;
        }
        self.phase = match std::mem::replace(&mut self.phase, ConstraintPhase::Unconstrained) {
            ConstraintPhase::Thought if !in_thought => {
                self.after_thought.take().map_or(ConstraintPhase::Unconstrained, ConstraintPhase::Answer)
            }
            ConstraintPhase::Answer(constraint) if constraint.is_complete() => {
                // The grammar of an answer that may begin with a thought ends with the tag that opens one.
                match self.after_thought {
                    Some(_) if in_thought => ConstraintPhase::Thought,
                    _ if calls > 0 => ConstraintPhase::Unconstrained,
                    _ => return Ok(true),
                }
            }
            ConstraintPhase::Call(constraint) if constraint.is_complete() || open_call.is_none() => {
                ConstraintPhase::Unconstrained
            }
            ConstraintPhase::UnconstrainedCall if open_call.is_none() => ConstraintPhase::Unconstrained,
            ConstraintPhase::Unconstrained => self.after_unconstrained(open_call),
            phase => phase,
        };
        Ok(false)
    }

    /// Returns the next phase, after a token that was unconstrained. `open_call` is the text so far of the call that is
    /// open, if one is.
    fn after_unconstrained(&self, open_call: Option<&str>) -> ConstraintPhase {
        let (Some(text), Some(constraint)) = (open_call, &self.call) else { return ConstraintPhase::Unconstrained };
        let mut constraint = constraint.clone();
        if constraint.consume_text(text) && !constraint.is_complete() {
            ConstraintPhase::Call(constraint)
        } else {
            ConstraintPhase::UnconstrainedCall
        }
    }
}
