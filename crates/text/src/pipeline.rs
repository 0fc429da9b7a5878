//! The stages between the tokens that a choice's sampler draws and the parts of its answer: constraint, detokenizer,
//! stop strings, parser.
mod active_constraint;

use crate::answer::{AnswerParser, AnswerPart, AnswerSyntax, Tool};
use crate::constraint::{AnswerConstraint, Constraint, ConstraintError, TokenMask};
use crate::detokenizer::Detokenizer;
use crate::stop::{StopMatcher, Stopped};
use crate::tokenizer::Tokenizer;
use active_constraint::ActiveConstraint;
use std::collections::VecDeque;
use std::sync::Arc;

/// The options of an answer, beside how its tokens are drawn.
#[derive(Debug, Clone, Default)]
pub struct AnswerOptions {
    /// Whether the answer is a text of its own, as in a chat, and does not continue the prompt's text. SentencePiece's
    /// space before the first word of a text is then left out.
    pub begins_text: bool,
    /// Leave special tokens in the text.
    pub keep_special_tokens: bool,
    /// Strings that end the text; they are found across token boundaries.
    pub stop: Vec<String>,
    /// Leave the matched stop string in the text.
    pub include_stop_str_in_output: bool,
    /// Tokens in whose text no stop string is looked for.
    pub min_tokens: usize,
    /// How thoughts and tool calls are told from text; `None` leaves them in it.
    pub reading: Option<AnswerReading>,
    /// The constraint that the answer is held to.
    pub constraint: Option<AnswerConstraint>,
}

/// How an answer is read.
#[derive(Debug, Clone, Default)]
pub struct AnswerReading {
    /// How the model writes thoughts and calls.
    pub syntax: AnswerSyntax,
    /// Whether the prompt has opened a thought.
    pub in_thought: bool,
    /// The tools that may be called.
    pub tools: Arc<[Tool]>,
    /// The constraint that a tool call is held to from where it opens; `None` leaves it free.
    pub call_constraint: Option<Constraint>,
    /// End the answer after its first call.
    pub single_call: bool,
    /// Close the thought once it has so many tokens.
    pub thought_budget: Option<usize>,
}

/// The results of one token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pushed {
    /// The parts that the token completes; none while a part of a character, of a stop string or of a tag is held back.
    pub parts: Vec<AnswerPart>,
    /// Whether the token belongs to a thought.
    pub in_thought: bool,
    /// Why the answer ends with this token, if it does by itself.
    pub end: Option<AnswerEnd>,
}

/// The reason why an answer ends before the model ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerEnd {
    /// A stop string.
    StopString(String),
    /// Nothing may follow: its constraint has ended, or its only call is complete.
    Complete,
}

/// The stages of one choice.
pub struct AnswerPipeline {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens to come in whose text no stop string is looked for.
    unsearched: usize,
    parser: Option<AnswerParser>,
    constraint: ActiveConstraint,
    single_call: bool,
    /// Calls that have been closed.
    calls: usize,
    /// Tokens that the thought may still have; `None` without a budget.
    thought_left: Option<usize>,
    /// The tag that closes a thought.
    thought_close: Option<&'static str>,
    /// Tokens that come next, whatever the model says.
    forced: VecDeque<u32>,
}

impl AnswerPipeline {
    /// The stages of an answer that has no token yet.
    pub fn new(tokenizer: &Arc<Tokenizer>, options: AnswerOptions) -> Self {
        let begin = if options.begins_text { Detokenizer::new } else { Detokenizer::after_prompt };
        let mut detokenizer = begin(!options.keep_special_tokens);
        let reading = options.reading;
        if let Some(reading) = &reading {
            detokenizer = detokenizer.keeping(tokenizer, &reading.syntax.special_tags());
        }
        let parser = reading.as_ref().map(|r| AnswerParser::new(&r.syntax, r.in_thought, &r.tools));
        let in_thought = parser.as_ref().is_some_and(AnswerParser::in_thought);
        AnswerPipeline {
            tokenizer: tokenizer.clone(),
            detokenizer,
            stops: StopMatcher::new(options.stop, options.include_stop_str_in_output),
            unsearched: options.min_tokens,
            single_call: reading.as_ref().is_some_and(|r| r.single_call),
            calls: 0,
            thought_left: reading.as_ref().and_then(|r| r.thought_budget),
            thought_close: reading.as_ref().and_then(|r| r.syntax.thought).map(|tags| tags.close),
            constraint: ActiveConstraint::new(options.constraint, reading.and_then(|r| r.call_constraint), in_thought),
            forced: VecDeque::new(),
            parser,
        }
    }

    /// Whether the next token is held to a constraint.
    pub fn is_held(&self) -> bool {
        self.constraint.is_held()
    }

    /// The tokens that may come next; `None`: all.
    ///
    /// Errors: [`ConstraintError::Failed`].
    pub fn mask(&mut self) -> Result<Option<TokenMask>, ConstraintError> {
        self.constraint.mask()
    }

    /// The next token, if it does not depend on the model.
    pub fn forced(&mut self) -> Option<u32> {
        self.forced.pop_front()
    }

    /// Whether a tool call has been made.
    pub fn has_calls(&self) -> bool {
        self.calls > 0
    }

    /// Takes in the next token, which is no turn end.
    ///
    /// Errors: [`ConstraintError::Failed`].
    pub fn push(&mut self, token: u32) -> Result<Pushed, ConstraintError> {
        let in_thought = self.parser.as_ref().is_some_and(AnswerParser::in_thought);
        let text = self.detokenizer.push(&self.tokenizer, token);
        let stopped = match self.unsearched.checked_sub(1) {
            Some(left) => {
                self.unsearched = left;
                Stopped { text: self.stops.pass(&text), matched: None }
            }
            None => self.stops.push(&text),
        };
        let mut parts = Vec::new();
        self.parse(&stopped.text, &mut parts);
        let complete = self.constraint.push(token, self.parser.as_ref(), self.calls)?;
        self.watch_thought();
        let end = match stopped.matched {
            Some(stop) => Some(AnswerEnd::StopString(stop)),
            None if complete || (self.single_call && self.calls > 0) => Some(AnswerEnd::Complete),
            None => None,
        };
        Ok(Pushed { parts, in_thought, end })
    }

    /// Ends the answer. Returns the parts that were held back, and the stop string that they complete, if they do.
    pub fn finish(&mut self) -> (Vec<AnswerPart>, Option<String>) {
        let rest = self.detokenizer.flush();
        let stopped = self.stops.push(&rest);
        let mut parts = Vec::new();
        self.parse(&stopped.text, &mut parts);
        if stopped.matched.is_none() {
            let held = self.stops.flush();
            self.parse(&held, &mut parts);
        }
        if let Some(parser) = &mut self.parser {
            parser.finish(&mut parts);
        }
        (parts, stopped.matched)
    }

    fn parse(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        match &mut self.parser {
            Some(parser) if !text.is_empty() => parser.push(text, parts),
            None if !text.is_empty() => parts.push(AnswerPart::Text(text.to_owned())),
            _ => {}
        }
        self.calls += parts.iter().filter(|part| **part == AnswerPart::CallClosed).count();
    }

    /// Closes a thought that has used up its budget.
    fn watch_thought(&mut self) {
        let in_thought = self.parser.as_ref().is_some_and(AnswerParser::in_thought);
        let (Some(left), Some(close), true) = (&mut self.thought_left, self.thought_close, in_thought) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 && self.forced.is_empty() {
            self.thought_left = None;
            // A tokenizer that fails at its own tag leaves the thought to the model.
            self.forced.extend(self.tokenizer.encode(&format!("\n{close}\n\n"), false).unwrap_or_default());
        }
    }
}
