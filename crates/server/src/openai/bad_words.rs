//! Words that an answer must not have (vLLM's `bad_words`).
use crate::http::error::ApiError;
use std::sync::Arc;
use text::Tokenizer;

/// The field of the words.
const FIELD: &str = "bad_words";
/// Words of a request at most.
const MAX_WORDS: usize = 1000;
/// Bytes of a word at most.
const MAX_BYTES: usize = 1000;

/// The token sequences that write the words, each at the beginning of a text and after a space.
///
/// Errors: too many words, a word that is too long or that is nothing but spaces.
pub fn token_sequences(words: &[String], tokenizer: &Tokenizer) -> Result<Arc<[Vec<u32>]>, ApiError> {
    if words.len() > MAX_WORDS {
        let message = format!("{FIELD} has {} words; at most {MAX_WORDS} are allowed", words.len());
        return Err(ApiError::invalid(FIELD, message));
    }
    let mut sequences = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let path = format!("{FIELD}[{i}]");
        let trimmed = word.trim_start();
        if trimmed.is_empty() {
            return Err(ApiError::invalid(path.clone(), format!("{path} is {word:?}; a word has more than spaces")));
        }
        if word.len() > MAX_BYTES {
            let message = format!("{path} has {} bytes; at most {MAX_BYTES} are allowed", word.len());
            return Err(ApiError::invalid(path, message));
        }
        for text in [trimmed.to_owned(), format!(" {trimmed}")] {
            let sequence = tokenizer.encode(&text, false).map_err(|e| ApiError::from_text(e, FIELD))?;
            // Where the space is a token of its own, the word alone says it all.
            let known = |known: &Vec<u32>| sequence.ends_with(known);
            if !sequence.is_empty() && !sequences.iter().any(known) {
                sequences.push(sequence);
            }
        }
    }
    Ok(sequences.into())
}
