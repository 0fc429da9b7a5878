//! Token ids to text, one at a time.
use crate::tokenizer::Tokenizer;

/// The state of one growing text. Every call of `push` costs O(bytes of the token).
///
/// What all calls return, joined, is `Tokenizer::decode` of all ids. An incomplete character is held back (at most three
/// bytes) and becomes U+FFFD only at `flush`, or as soon as a following byte shows that it cannot be completed.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    skip_special: bool,
    /// Nothing of the text has been seen yet.
    at_start: bool,
    pending: Vec<u8>,
}

impl Detokenizer {
    /// For a text of its own: the space that SentencePiece puts before the first word is left out.
    pub fn new(skip_special: bool) -> Self {
        Detokenizer { skip_special, at_start: true, pending: Vec::new() }
    }

    /// For a text that continues a prompt: a leading space belongs to it.
    pub fn after_prompt(skip_special: bool) -> Self {
        Detokenizer { at_start: false, ..Detokenizer::new(skip_special) }
    }

    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let vocabulary = tokenizer.vocabulary();
        if self.skip_special && vocabulary.is_special(id) {
            return String::new();
        }
        let mut bytes = vocabulary.bytes(id);
        if self.at_start && !bytes.is_empty() {
            self.at_start = false;
            if vocabulary.strips_leading_space {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        self.take_complete()
    }

    /// What was held back to the end of the text.
    pub fn flush(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    /// Moves everything out of `pending` but a last character that may still be completed.
    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, after) = rest.split_at(error.valid_up_to());
            text += &String::from_utf8_lossy(valid);
            rest = after;
            let Some(bad) = error.error_len() else {
                break;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[bad..];
        }
        if let Ok(valid) = std::str::from_utf8(rest) {
            text += valid;
            rest = &[];
        }
        self.pending.drain(..self.pending.len() - rest.len());
        text
    }
}
