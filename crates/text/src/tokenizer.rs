//! Text to token ids and back.
use crate::config::TokenizerConfig;
use crate::error::TextError;
use crate::gguf;
use crate::vocabulary::Vocabulary;
use std::path::Path;

/// A model's tokenizer, which turns text into token ids and knows the bytes of each token.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    adds_bos: bool,
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
        Self::assemble(inner, &path, &TokenizerConfig::from_dir(dir)?)
    }

    /// Makes the tokenizer that the metadata of the GGUF file at `path` describes.
    ///
    /// Errors: a tokenizer of another kind than byte-level BPE and SentencePiece, an unknown pre-tokenizer, malformed
    /// metadata.
    pub fn from_gguf(metadata: &::gguf::Metadata<'_>, path: &Path) -> Result<Self, TextError> {
        Self::assemble(gguf::tokenizer(metadata, path)?, path, &gguf::config(metadata, path)?)
    }

    fn assemble(mut inner: tokenizers::Tokenizer, path: &Path, config: &TokenizerConfig) -> Result<Self, TextError> {
        let parse = |e: tokenizers::Error| TextError::Parse { path: path.to_owned(), message: e.to_string() };
        // Some files carry these limits over from training. A prompt is never cut or filled up here.
        inner.with_truncation(None).map_err(parse)?;
        inner.with_padding(None);
        let vocabulary = Vocabulary::new(&inner).map_err(|(field, message)| TextError::Field {
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
        Ok(Tokenizer { inner, vocabulary, bos_id, eos_id, adds_bos, processor_adds_bos })
    }

    /// The token ids of `text`. `add_special_tokens` adds what the model expects around a plain text, mostly BOS; the
    /// text of a chat template brings its own. Special tokens that are written in the text are always recognised.
    ///
    /// Errors: the tokenizer fails at the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding =
            self.inner.encode_fast(text, add_special_tokens).map_err(|e| TextError::Encode(e.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        if add_special_tokens && self.adds_bos != self.processor_adds_bos {
            match self.bos_id {
                Some(bos) if self.adds_bos => ids.insert(0, bos),
                _ => drop(ids.remove(0)),
            }
        }
        Ok(ids)
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

    /// Whether [`encode`](Tokenizer::encode) with `add_special_tokens` puts BOS first.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}
