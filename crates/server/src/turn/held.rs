//! What an answer is held to.
use super::Turn;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::state::ServedModel;
use text::{AnswerConstraint, AnswerSyntax, CallGrammar, Constraint, ConstraintError, Grammar};

/// A grammar that a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldTo {
    /// The grammar.
    pub grammar: Grammar,
    /// The field that it comes from, which errors name.
    pub field: &'static str,
}

impl HeldTo {
    /// The constraint on an answer that is no turn of a conversation.
    ///
    /// Errors: a schema or grammar that cannot be held.
    pub fn constraint(&self, served: &ServedModel) -> Result<AnswerConstraint, ApiError> {
        let factory = served.constraints()?;
        factory.answer(Some(&self.grammar), None, None).map_err(|e| refused(&e, self.field))
    }
}

/// The constraint on each call, and that on the answer.
///
/// Errors: a schema or grammar that cannot be held.
pub fn constraints(
    turn: &Turn,
    syntax: AnswerSyntax,
    served: &ServedModel,
) -> Result<(Option<Constraint>, Option<AnswerConstraint>), ApiError> {
    let tools = &turn.tools;
    let Some(format) = syntax.calls else {
        let answer = turn.held_to.as_ref().map(|held| {
            let factory = served.constraints()?;
            factory.answer(Some(&held.grammar), None, syntax.thought).map_err(|e| refused(&e, held.field))
        });
        return Ok((None, answer.transpose()?));
    };
    let factory = served.constraints()?;
    let with_tools = |exact: bool| {
        let calls = CallGrammar { format, tools: &tools.callable, single: !tools.parallel, exact };
        let call = factory.calls(&calls)?;
        let grammar = turn.held_to.as_ref().map(|held| &held.grammar).filter(|_| !tools.must_call);
        let held = tools.must_call || grammar.is_some();
        let answer = held.then(|| factory.answer(grammar, Some(&calls), syntax.thought)).transpose()?;
        Ok((Some(call), answer))
    };
    let field = turn.held_to.as_ref().map_or("tools", |held| held.field);
    match with_tools(true) {
        // A schema with keywords that cannot be held still says most of what the arguments are.
        Err(ConstraintError::Grammar(problem)) if !tools.strict => {
            tracing::debug!(problem, "a tool's schema is held in part");
            with_tools(false).map_err(|e| refused(&e, field))
        }
        made => made.map_err(|e| refused(&e, field)),
    }
}

fn refused(error: &ConstraintError, field: &'static str) -> ApiError {
    ApiError::new(ErrorCode::InvalidSchema, format!("{field} cannot be held: {error}")).at(field)
}
