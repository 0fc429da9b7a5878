//! Constraints, to which answers are held while they are sampled: JSON of a schema, a regular expression, one of some
//! texts, a grammar.
//!
//! A constraint reads the tokens of an answer as they are drawn, and tells before each which of them may come next. The
//! work is done by `llguidance`, which knows the bytes of each token.
mod calls;
mod factory;
mod gbnf;
mod grammar;
mod mask;

pub use calls::CallGrammar;
pub use factory::ConstraintFactory;
pub use grammar::Grammar;
pub use mask::TokenMask;

use llguidance::Matcher;
use llguidance::toktrie::TokEnv;
use thiserror::Error;

/// Why a constraint cannot be made or has ended by a fault.
#[derive(Debug, Clone, Error)]
pub enum ConstraintError {
    /// The schema or grammar is wrong, or has a part that cannot be held.
    #[error("{0}")]
    Grammar(String),
    /// Following the answer took more work or memory than it may.
    #[error("the constraint on the answer cannot be followed any further: {0}")]
    Failed(String),
}

/// Holds one answer, or a part of one, to a grammar.
pub struct Constraint {
    matcher: Matcher,
    tokens: TokEnv,
}

/// The constraint that an answer is held to.
#[derive(Debug, Clone)]
pub struct AnswerConstraint {
    /// From its first token on, unless the prompt has opened a thought. If the answer may have a thought, this lets the
    /// tag that opens one stand in place of all else.
    pub from_start: Constraint,
    /// From the end of its thought on; `None` for a model that writes none.
    pub after_thought: Option<Constraint>,
}

impl Clone for Constraint {
    /// An independent constraint in the same state. What the other has found out about its grammar is copied.
    fn clone(&self) -> Self {
        Constraint { matcher: self.matcher.deep_clone(), tokens: self.tokens.clone() }
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("stop_reason", &self.matcher.stop_reason()).finish_non_exhaustive()
    }
}

impl Constraint {
    /// The tokens that may come next. A turn end is among them where the grammar may end.
    ///
    /// Errors: [`ConstraintError::Failed`].
    pub fn mask(&mut self) -> Result<TokenMask, ConstraintError> {
        self.matcher.compute_mask_or_eos().map(TokenMask::new).map_err(|e| self.failed(&e))
    }

    /// Takes in the next token of the answer, which must be one that [`mask`](Self::mask) allows.
    ///
    /// Errors: [`ConstraintError::Failed`], also for a token that is not allowed.
    pub fn consume(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.matcher.consume_token(token).map_err(|e| self.failed(&e))
    }

    /// Takes in text that the answer begins with. False if the grammar does not allow it; then the constraint is of no
    /// use any more.
    pub fn consume_text(&mut self, text: &str) -> bool {
        let tokens = self.tokens.tok_trie().greedy_tokenize(text.as_bytes());
        self.matcher.try_consume_tokens(&tokens).is_ok_and(|consumed| consumed == tokens.len())
    }

    /// Whether nothing may follow what the answer holds.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }

    /// The library's message tells all that the parser knows after its first line.
    fn failed(&self, error: &anyhow::Error) -> ConstraintError {
        ConstraintError::Failed(first_line(&error.to_string()))
    }
}

/// The first line of a message.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}
