//! Prompts that are cut because the request asks for it (vLLM's `truncate_prompt_tokens`).
use crate::http::error::ApiError;
use crate::openai::prompt::Prompt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use text::Tokenizer;

/// The fields that ask for a cut.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TruncationFields {
    /// The most tokens of a prompt that are kept; -1 keeps what leaves place for the answer. Without it no prompt is
    /// cut.
    #[schemars(schema_with = "most_tokens_schema")]
    truncate_prompt_tokens: Option<i64>,
    /// The end at which a prompt is cut; `left` keeps its last tokens.
    truncation_side: Option<TruncationSide>,
}

fn most_tokens_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "integer", "minimum": 1}, {"const": -1}, {"type": "null"}]})
}

/// The end of a prompt at which tokens are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TruncationSide {
    #[default]
    Left,
    Right,
}

/// How prompts are cut.
#[derive(Debug, Clone, Copy)]
pub struct Truncation {
    /// The most tokens that are kept; `None`: all.
    keep: Option<usize>,
    side: TruncationSide,
}

impl TruncationFields {
    /// `max_tokens` is the limit of the answer, for which a prompt must leave place in `max_model_len` tokens. Without
    /// a limit it leaves place for one.
    ///
    /// Errors: fewer tokens to keep than one or more than there is place for, other than -1.
    pub fn resolve(self, max_model_len: usize, max_tokens: Option<usize>) -> Result<Truncation, ApiError> {
        const FIELD: &str = "truncate_prompt_tokens";
        let side = self.truncation_side.unwrap_or_default();
        let Some(asked) = self.truncate_prompt_tokens else { return Ok(Truncation { keep: None, side }) };
        let most = max_model_len.saturating_sub(max_tokens.unwrap_or(1).max(1));
        let keep = match usize::try_from(asked) {
            Err(_) if asked == -1 => most,
            Ok(keep) if (1..=most).contains(&keep) => keep,
            _ => {
                let message = format!(
                    "{FIELD} is {asked}; it must lie in [1, {most}], which leaves place for the answer, or be -1 for \
                     {most}"
                );
                return Err(ApiError::invalid(FIELD, message));
            }
        };
        if keep == 0 {
            let message = format!("{FIELD} is {asked}; the answer's limit leaves no place for a prompt");
            return Err(ApiError::invalid(FIELD, message));
        }
        Ok(Truncation { keep: Some(keep), side })
    }
}

impl Truncation {
    /// Whether the request asks for a cut.
    pub fn is_asked_for(&self) -> bool {
        self.keep.is_some()
    }

    /// Leaves out what is too much of a prompt, and returns how many of its first and of its last tokens that are.
    pub fn cut(&self, ids: &mut Vec<u32>) -> (usize, usize) {
        let excess = ids.len().saturating_sub(self.keep.unwrap_or(usize::MAX));
        match self.side {
            TruncationSide::Left => {
                ids.drain(..excess);
                (excess, 0)
            }
            TruncationSide::Right => {
                ids.truncate(ids.len() - excess);
                (0, excess)
            }
        }
    }

    /// Cuts a prompt with its text.
    pub fn cut_prompt(&self, prompt: &mut Prompt, tokenizer: &Tokenizer) {
        let (first, last) = self.cut(&mut prompt.ids);
        if first + last > 0 {
            prompt.num_added = prompt.num_added.saturating_sub(first).min(prompt.ids.len());
            prompt.text = tokenizer.decode(&prompt.ids[prompt.num_added..], false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(tokens: i64, side: Option<TruncationSide>, max_tokens: Option<usize>) -> Result<Truncation, ApiError> {
        let fields = TruncationFields { truncate_prompt_tokens: Some(tokens), truncation_side: side };
        fields.resolve(10, max_tokens)
    }

    #[test]
    fn what_is_kept_leaves_place_for_the_answer() {
        for (tokens, max_tokens, kept) in [(3, None, 3), (9, None, 9), (-1, None, 9), (-1, Some(4), 6), (6, Some(4), 6)]
        {
            let mut ids: Vec<u32> = (0..20).collect();
            let cut = resolve(tokens, None, max_tokens).unwrap().cut(&mut ids);
            assert_eq!((ids.as_slice(), cut), (&(0..20).collect::<Vec<_>>()[20 - kept..], (20 - kept, 0)));
        }
        for (tokens, max_tokens) in [(0, None), (-2, None), (10, None), (7, Some(4)), (-1, Some(10)), (i64::MAX, None)]
        {
            assert!(resolve(tokens, None, max_tokens).is_err(), "{tokens} {max_tokens:?}");
        }
    }

    #[test]
    fn the_beginning_is_kept_where_the_right_side_is_cut() {
        let mut ids = vec![5, 6, 7];
        let truncation = resolve(2, Some(TruncationSide::Right), None).unwrap();
        assert_eq!((truncation.cut(&mut ids), ids.as_slice()), ((0, 1), &[5, 6][..]));
        assert_eq!((truncation.cut(&mut ids), ids.as_slice()), ((0, 0), &[5, 6][..]));
    }
}
