//! Makes constraints for one tokenizer.
use super::calls::{CallGrammar, tag};
use super::grammar::{Grammar, refused};
use super::{AnswerConstraint, Constraint, ConstraintError};
use crate::answer::ThoughtTags;
use crate::tokenizer::Tokenizer;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use std::sync::Arc;

/// States of the automaton that one constraint may make, about 2 kB each.
const MAX_LEXER_STATES: usize = 30_000;

/// Makes constraints for one tokenizer. Making the factory takes a part of a second and as many bytes as the
/// vocabulary has, a few times over; it serves all requests.
pub struct ConstraintFactory {
    inner: ParserFactory,
    tokenizer: Arc<Tokenizer>,
}

impl std::fmt::Debug for ConstraintFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConstraintFactory").finish_non_exhaustive()
    }
}

impl ConstraintFactory {
    /// A factory for a model that has `vocab_size` logits and ends its answers with one of `turn_ends`.
    ///
    /// Errors: a vocabulary that the library does not take.
    pub fn new(tokenizer: &Arc<Tokenizer>, turn_ends: &[u32], vocab_size: usize) -> Result<Self, ConstraintError> {
        let words: Vec<Vec<u8>> = (0..vocab_size as u32).map(|id| word(tokenizer, id)).collect();
        let ends: Vec<u32> = turn_ends.iter().copied().filter(|id| (*id as usize) < vocab_size).collect();
        // Without a turn end an answer ends where its grammar does.
        let first = ends.first().copied().unwrap_or(u32::MAX);
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, first), &words);
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) };
        let tokens: TokEnv = Arc::new(Tokens(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut inner =
            ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices).map_err(|e| refused(&e))?;
        *inner.limits_mut() =
            ParserLimits { max_lexer_states: MAX_LEXER_STATES, verbose_errors: false, ..ParserLimits::default() };
        inner.quiet();
        Ok(ConstraintFactory { inner, tokenizer: tokenizer.clone() })
    }

    /// A constraint on an answer that is `grammar`, a section of `calls`, or one of the two if both are given.
    /// `thought` are the tags of the model's thoughts, if it may write one first.
    ///
    /// Errors: [`ConstraintError::Grammar`].
    pub fn answer(
        &self,
        grammar: Option<&Grammar>,
        calls: Option<&CallGrammar<'_>>,
        thought: Option<ThoughtTags>,
    ) -> Result<AnswerConstraint, ConstraintError> {
        let tokenizer = &*self.tokenizer;
        let (mut body, mut rules) = (Vec::new(), String::new());
        if let Some(calls) = calls {
            body.push(format!("{} calls", calls.opening(tokenizer)));
            rules += &calls.rules(tokenizer);
        }
        if let Some(grammar) = grammar {
            body.push("content".into());
            rules += &grammar.rules("content")?;
        }
        let body = body.join(" | ");
        let Some(thought) = thought else {
            let from_start = self.compile(TopLevelGrammar::from_lark(format!("start: {body}\n{rules}")))?;
            return Ok(AnswerConstraint { from_start, after_thought: None });
        };
        let open = tag(tokenizer, thought.open);
        let after = format!("start: after_thought? ({body})\nafter_thought: /[ \\n]{{1,4}}/\n{rules}");
        Ok(AnswerConstraint {
            from_start: self.compile(TopLevelGrammar::from_lark(format!("start: {open} | {body}\n{rules}")))?,
            after_thought: Some(self.compile(TopLevelGrammar::from_lark(after))?),
        })
    }

    /// A constraint on a section of tool calls from after the tag that opens it.
    ///
    /// Errors: [`ConstraintError::Grammar`].
    pub fn calls(&self, calls: &CallGrammar<'_>) -> Result<Constraint, ConstraintError> {
        let rules = calls.rules(&self.tokenizer);
        self.compile(TopLevelGrammar::from_lark(format!("start: calls\n{rules}")))
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Constraint, ConstraintError> {
        let parser = self.inner.create_parser(grammar).map_err(|e| refused(&e))?;
        let matcher = Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(ConstraintError::Grammar(super::first_line(&error)));
        }
        let mut constraint = Constraint { matcher, tokens: self.inner.tok_env().clone() };
        // A grammar that no text is of, or that cannot be followed, shows it at the first token at the latest.
        match constraint.mask() {
            Ok(_) => Ok(constraint),
            Err(ConstraintError::Failed(problem) | ConstraintError::Grammar(problem)) => {
                Err(ConstraintError::Grammar(format!("no answer can be held to it: {problem}")))
            }
        }
    }
}

/// The bytes of a token as the library takes them: a special token has a mark before its name, so that no text matches
/// it.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_special(id) && !bytes.is_empty() {
        let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        word.extend_from_slice(&bytes);
        return word;
    }
    bytes
}

/// The tokens as the library asks for them. No token is ever forced, so that any way to write a text in tokens will do.
struct Tokens(TokTrie);

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(bytes)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
