//! The bytes that each token stands for. Tokenizers spell bytes in ways of their own; that is undone once at load.
//!
//! A text is the concatenation of its tokens' bytes, read as UTF-8. That holds for the two kinds of tokenizers that
//! language models use (byte-level BPE, and SentencePiece with byte fallback), and it makes incremental detokenization
//! exact.
use serde::Deserialize;
use std::collections::HashMap;
use tokenizers::Tokenizer;

/// The bytes of all tokens.
pub(crate) struct Vocabulary {
    /// All tokens' bytes, one token after the other.
    bytes: Vec<u8>,
    /// Where each token's bytes begin, and at last where they end.
    offsets: Vec<u32>,
    special: Vec<bool>,
    /// SentencePiece puts a space before the text's first word, which decoding takes away again.
    pub strips_leading_space: bool,
}

/// More tokens than any model has. A broken file may name any id, and the table takes memory up to the largest.
const MAX_TOKENS: u32 = 1 << 24;

impl Vocabulary {
    /// Undoes the spelling of all of the tokenizer's tokens. `tokens` are the spellings of all ids where a file gives
    /// them in a list, in which one may stand twice: the tokenizer knows the first, and a model may answer with the
    /// other. They may be empty.
    ///
    /// Errors: the field at fault and the reason. A decoder that does more than to concatenate bytes, or an id that no
    /// model has.
    pub fn new(tokenizer: &Tokenizer, tokens: &[&str]) -> Result<Self, (&'static str, String)> {
        let spelling = Spelling::of(tokenizer).map_err(|message| ("decoder", message))?;
        let added = tokenizer.get_added_tokens_decoder();
        let last = tokenizer.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        if let Some((token, id)) = last.as_ref().filter(|(_, id)| *id >= MAX_TOKENS) {
            return Err(("vocab", format!("{token:?} has the id {id}; it must lie below {MAX_TOKENS}")));
        }
        let size = last.map_or(0, |(_, id)| id + 1).max(tokens.len() as u32);
        let (mut bytes, mut offsets, mut special) = (Vec::new(), vec![0], Vec::new());
        for id in 0..size {
            let listed = || tokens.get(id as usize).map(|token| (*token).to_owned());
            let token = tokenizer.id_to_token(id).or_else(listed).unwrap_or_default();
            spelling.undo(&token, &mut bytes);
            offsets.push(bytes.len() as u32);
            let first = tokenizer.token_to_id(&token).unwrap_or(id);
            special.push(added.get(&first).is_some_and(|t| t.special));
        }
        Ok(Vocabulary { bytes, offsets, special, strips_leading_space: spelling.strips_leading_space })
    }

    /// The largest id plus one.
    pub fn len(&self) -> usize {
        self.special.len()
    }

    /// A token's bytes; empty for an id that names no token, since models pad their vocabularies.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        if id >= self.len() {
            return &[];
        }
        &self.bytes[self.offsets[id] as usize..self.offsets[id + 1] as usize]
    }

    /// Whether the token is control rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

/// The steps of a `decoder` in tokenizer.json that work token by token.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum DecoderStep {
    ByteLevel {},
    ByteFallback {},
    Fuse {},
    Metaspace { replacement: char, prepend_scheme: String },
    Replace { pattern: Pattern, content: String },
    Strip { content: char, start: usize, stop: usize },
    Sequence { decoders: Vec<DecoderStep> },
}

#[derive(Deserialize)]
enum Pattern {
    String(String),
    Regex(String),
}

/// How a tokenizer spells bytes.
#[derive(Default)]
struct Spelling {
    /// GPT-2's alphabet, if every byte is written as one printable character.
    byte_level: Option<HashMap<char, u8>>,
    /// Whether bytes without a token of their own are written `<0x0A>`.
    byte_fallback: bool,
    /// Texts to be replaced, such as `▁`, and by what.
    replace: Vec<(String, String)>,
    strips_leading_space: bool,
}

impl Spelling {
    fn of(tokenizer: &Tokenizer) -> Result<Self, String> {
        let decoder = tokenizer.get_decoder().ok_or("there is none; the way from tokens to text is unknown")?;
        let step = serde_json::to_value(decoder).and_then(DecoderStep::deserialize).map_err(|e| e.to_string())?;
        let mut spelling = Spelling::default();
        spelling.add(step)?;
        Ok(spelling)
    }

    fn add(&mut self, step: DecoderStep) -> Result<(), String> {
        match step {
            DecoderStep::ByteLevel {} => self.byte_level = Some(byte_level_alphabet()),
            DecoderStep::ByteFallback {} => self.byte_fallback = true,
            DecoderStep::Fuse {} => {}
            DecoderStep::Metaspace { replacement, prepend_scheme } => {
                self.replace.push((replacement.into(), " ".into()));
                self.strips_leading_space |= prepend_scheme != "never";
            }
            DecoderStep::Replace { pattern: Pattern::String(from), content } => self.replace.push((from, content)),
            DecoderStep::Replace { pattern: Pattern::Regex(from), .. } => {
                return Err(format!("Replace with the regex {from:?} is not supported; a plain string is"));
            }
            DecoderStep::Strip { content: ' ', start: 1, stop: 0 } => self.strips_leading_space = true,
            DecoderStep::Strip { content, start, stop } => {
                return Err(format!(
                    "Strip of {start} and {stop} times {content:?} is not supported; one leading space is"
                ));
            }
            DecoderStep::Sequence { decoders } => decoders.into_iter().try_for_each(|d| self.add(d))?,
        }
        Ok(())
    }

    /// Appends the bytes that `token` stands for.
    fn undo(&self, token: &str, out: &mut Vec<u8>) {
        if self.byte_fallback
            && let Some(byte) = byte_token(token)
        {
            out.push(byte);
            return;
        }
        let mut token = token.to_owned();
        for (from, to) in &self.replace {
            token = token.replace(from, to);
        }
        match &self.byte_level {
            // A token with a character outside of the alphabet is an added one, whose text is its bytes.
            Some(alphabet) => match token.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>() {
                Some(bytes) => out.extend(bytes),
                None => out.extend(token.as_bytes()),
            },
            None => out.extend(token.as_bytes()),
        }
    }
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && !digits.starts_with('+')).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the other bytes for U+0100 onwards in their order.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut moved = ('\u{100}'..).take(256);
    let spell = |b: u8| if printable(b) { Some(char::from(b)) } else { moved.next() };
    let spelled: Vec<Option<char>> = (0..=255).map(spell).collect();
    spelled.into_iter().zip(0..=255).filter_map(|(c, b)| Some((c?, b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_spells_all_bytes_as_gpt2_does() {
        let alphabet = byte_level_alphabet();
        assert_eq!(alphabet.len(), 256);
        // From GPT-2's vocabulary: "Ġ" is the space, "Ċ" the newline, "ł" 0xA0 and "Ń" the last one moved (0xAD).
        for (c, b) in [('Ġ', b' '), ('Ċ', b'\n'), ('ł', 0xA0), ('Ń', 0xAD), ('a', b'a'), ('ÿ', 0xFF), ('Ā', 0)] {
            assert_eq!(alphabet.get(&c), Some(&b), "{c}");
        }
    }

    #[test]
    fn byte_tokens_have_exactly_two_hex_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xFF>"), Some(255));
        for other in ["<0xA>", "<0x00A>", "<0xZZ>", "0x0A", "<0x+A>"] {
            assert_eq!(byte_token(other), None, "{other}");
        }
    }
}
