//! Text to token ids and back.
mod description;
mod infill;
mod marked;

pub use infill::{FillInTheMiddle, Infill};

use crate::config::TokenizerConfig;
use crate::error::TextError;
use crate::gguf;
use crate::special::SpecialTexts;
use crate::vocabulary::Vocabulary;
use serde_json::Value;
use std::path::Path;

/// Names of tokens that end a turn or a text, after the list in llama.cpp (`llama-vocab.cpp`).
const TURN_ENDS: [&str; 19] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
];
const HARMONY_ENDS: [&str; 2] = ["<|return|>", "<|call|>"];

/// A model's tokenizer, which turns text into token ids and knows the bytes of each token.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    special_texts: SpecialTexts,
    fill_in_the_middle: Option<FillInTheMiddle>,
    /// The special tokens that have a role, such as `bos_token`, by their roles.
    special_token_roles: Vec<(String, String)>,
    bos: Option<String>,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    /// The class of transformers that the model's files name.
    class: Option<String>,
    /// Whether the post-processor of `tokenizer.json` itself puts BOS first.
    processor_adds_bos: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos_id", &self.bos_id)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads `tokenizer.json` and `tokenizer_config.json` from a model's folder.
    ///
    /// Errors: no or a broken `tokenizer.json`; a decoder other than byte-level BPE's and SentencePiece's; an id
    /// that no model has; `add_bos_token` without a BOS token in the vocabulary.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| TextError::Read { path: path.clone(), source })?;
        let parse = |e: tokenizers::Error| TextError::Parse { path: path.clone(), message: e.to_string() };
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(parse)?;
        Self::assemble(inner, &[], &path, &TokenizerConfig::from_dir(dir)?)
    }

    /// Makes the tokenizer that the metadata of the GGUF file at `path` describes.
    ///
    /// Errors: a tokenizer of another kind than byte-level BPE and SentencePiece, an unknown pre-tokenizer, malformed
    /// metadata.
    pub fn from_gguf(metadata: &::gguf::Metadata<'_>, path: &Path) -> Result<Self, TextError> {
        let tokens = gguf::tokens(metadata, path)?;
        Self::assemble(gguf::tokenizer(metadata, path)?, &tokens, path, &gguf::config(metadata, path)?)
    }

    /// `tokens` are the spellings of all ids, for a file in which several ids may have one spelling.
    fn assemble(
        mut inner: tokenizers::Tokenizer,
        tokens: &[&str],
        path: &Path,
        config: &TokenizerConfig,
    ) -> Result<Self, TextError> {
        let parse = |e: tokenizers::Error| TextError::Parse { path: path.to_owned(), message: e.to_string() };
        // Some files carry these limits over from training. A prompt is never cut or filled up here.
        inner.with_truncation(None).map_err(parse)?;
        inner.with_padding(None);
        let vocabulary = Vocabulary::new(&inner, tokens).map_err(|(field, message)| TextError::Field {
            path: path.to_owned(),
            field,
            message,
        })?;
        let id = |role| config.special_token(role).and_then(|token| inner.token_to_id(token));
        let (bos_id, eos_id) = (id("bos_token"), id("eos_token"));
        let empty = inner.encode_fast("", true).map_err(parse)?;
        let processor_adds_bos = bos_id.is_some() && empty.get_ids().first().copied() == bos_id;
        // The configuration wins over the post-processor, as in transformers.
        let adds_bos = config.flag("add_bos_token")?.unwrap_or(processor_adds_bos);
        if adds_bos && bos_id.is_none() {
            let message = match config.special_token("bos_token") {
                Some(token) => format!("{token:?} is not in the vocabulary, but add_bos_token is true"),
                None => "missing, but add_bos_token is true".to_owned(),
            };
            return Err(config.wrong("bos_token", message));
        }
        let added = inner.get_added_tokens_decoder();
        let special = added.values().filter(|token| token.special).map(|token| token.content.as_str());
        let too_many = |e: aho_corasick::BuildError| TextError::Parse { path: path.to_owned(), message: e.to_string() };
        let special_texts = SpecialTexts::new(special).map_err(too_many)?;
        let fill_in_the_middle = FillInTheMiddle::of(&inner).map_err(too_many)?;
        Ok(Tokenizer {
            vocabulary,
            special_texts,
            fill_in_the_middle,
            special_token_roles: config.special_token_roles(),
            bos: config.special_token("bos_token").filter(|bos| !bos.is_empty()).map(str::to_owned),
            bos_id,
            eos_id,
            adds_bos,
            adds_eos: config.flag("add_eos_token")?.unwrap_or(false),
            class: config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned),
            processor_adds_bos,
            inner,
        })
    }

    /// The token ids of `text`. `add_special_tokens` adds what the model expects around a plain text, mostly BOS. A
    /// text that begins with BOS itself, as one from a chat template may, gets no second one. Special tokens that are
    /// written in the text are always recognised.
    ///
    /// Errors: the tokenizer fails at the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding =
            self.inner.encode_fast(text, add_special_tokens).map_err(|e| TextError::Encode(e.to_string()))?;
        Ok(self.with_ends(encoding.get_ids().to_vec(), text, add_special_tokens))
    }

    /// What the post-processor gave for `text`, with BOS and EOS where they are to be added.
    fn with_ends(&self, mut ids: Vec<u32>, text: &str, add_special_tokens: bool) -> Vec<u32> {
        let adds = self.adds_bos_to(text);
        if add_special_tokens && adds != self.processor_adds_bos {
            match self.bos_id {
                Some(bos) if adds => ids.insert(0, bos),
                _ => drop(ids.remove(0)),
            }
        }
        if add_special_tokens && self.adds_eos && ids.last().copied() != self.eos_id {
            ids.extend(self.eos_id);
        }
        ids
    }

    /// Whether [`encode`](Tokenizer::encode) with `add_special_tokens` puts BOS before `text`, which has none of its
    /// own.
    pub fn adds_bos_to(&self, text: &str) -> bool {
        self.adds_bos && !self.bos.as_ref().is_some_and(|bos| text.starts_with(bos.as_str()))
    }

    /// The bytes a token adds to the text; empty for an id that names no token.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.vocabulary.bytes(id).to_vec()
    }

    /// A token's text for display. Bytes that are a part of a character become U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.vocabulary.bytes(id)).into_owned()
    }

    /// A token as the vocabulary spells it, such as `Ġthe`.
    pub fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token that the vocabulary spells so.
    pub fn token_id(&self, spelling: &str) -> Option<u32> {
        self.inner.token_to_id(spelling)
    }

    /// The largest id plus one. A model's logits may be more, because models pad their vocabularies.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether the token is control (BOS, EOS, header marks) rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.is_special(id)
    }

    /// The id of the token that begins a sequence, if the model has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// The id of the token that ends a sequence, if the model has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// The BOS token, if [`encode`](Tokenizer::encode) with `add_special_tokens` puts it first.
    pub fn added_bos(&self) -> Option<u32> {
        self.bos_id.filter(|_| self.adds_bos)
    }

    /// The tokens that end a turn by what the vocabulary calls them: special tokens with the names that published
    /// models give to such a token.
    pub fn turn_ends(&self) -> Vec<u32> {
        let special = |name: &&str| self.inner.token_to_id(name).filter(|id| self.is_special(*id));
        // In the format of gpt-oss a message that goes on ends in <|end|>, and an answer in one of these two.
        let harmony = HARMONY_ENDS.iter().all(|name| special(name).is_some());
        let names = TURN_ENDS.iter().filter(|name| !(harmony && **name == "<|end|>"));
        names.filter_map(special).collect()
    }

    /// How the model is asked to fill in the middle; `None` if it was not trained for it.
    pub fn fill_in_the_middle(&self) -> Option<&FillInTheMiddle> {
        self.fill_in_the_middle.as_ref()
    }

    /// The special tokens that have a role, such as `bos_token`, with their roles.
    pub(crate) fn special_token_roles(&self) -> &[(String, String)] {
        &self.special_token_roles
    }

    pub(crate) fn special_texts(&self) -> &SpecialTexts {
        &self.special_texts
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}
