//! Token ids to text, one by one or all at once.
use crate::tokenizer::Tokenizer;

/// The state of one growing text. A call of [`push`](Detokenizer::push) takes time in proportion to the token's bytes.
///
/// What all calls return, joined, is [`Tokenizer::decode`] of all ids. An incomplete character, which is at most three
/// bytes, is held back. It becomes U+FFFD at [`flush`](Detokenizer::flush), or as soon as a following byte shows that
/// it cannot be completed.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    skip_special: bool,
    /// Special tokens that are not left out.
    kept: Vec<u32>,
    /// No byte of the text has come yet.
    at_start: bool,
    /// Bytes of an incomplete character.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Begins a text of its own: the space that SentencePiece puts before the first word is left out. `skip_special`
    /// leaves special tokens out.
    pub fn new(skip_special: bool) -> Self {
        Detokenizer { skip_special, kept: Vec::new(), at_start: true, pending: Vec::new() }
    }

    /// Begins a text that continues a prompt: a leading space belongs to the text.
    pub fn after_prompt(skip_special: bool) -> Self {
        Detokenizer { at_start: false, ..Detokenizer::new(skip_special) }
    }

    /// Leaves the special tokens with these texts in the text, whatever is done with others.
    pub fn keeping(mut self, tokenizer: &Tokenizer, texts: &[&str]) -> Self {
        self.kept.extend(texts.iter().filter_map(|text| tokenizer.token_id(text)));
        self
    }

    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let vocabulary = tokenizer.vocabulary();
        if self.skip_special && vocabulary.is_special(id) && !self.kept.contains(&id) {
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

    /// Ends the text and returns what was held back.
    pub fn flush(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    /// Takes everything out of `pending` but a last character that may still be completed.
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

impl Tokenizer {
    /// The text of a whole sequence of ids. Bytes that are not UTF-8 become U+FFFD. `skip_special` leaves special
    /// tokens out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::new(skip_special);
        let mut text: String = ids.iter().map(|id| detokenizer.push(self, *id)).collect();
        text += &detokenizer.flush();
        text
    }
}
