//! Tokenizers and tokenizer configurations from the metadata of GGUF files.
mod pre;

use crate::config::TokenizerConfig;
use crate::error::TextError;
use gguf::{GgufError, Metadata};
use serde_json::{Map, json};
use std::path::Path;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NFC, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// The value of `tokenizer.ggml.token_type` for control tokens.
const CONTROL: u64 = 3;
/// The value of `tokenizer.ggml.token_type` for tokens of text that were added to the vocabulary.
const USER_DEFINED: u64 = 4;

/// SentencePiece's spelling of a space.
const SPACE: &str = "▁";

/// The metadata of one file.
struct TokenizerMetadata<'a> {
    metadata: &'a Metadata<'a>,
    path: &'a Path,
}

/// The configuration that a model's folder has in `tokenizer_config.json`.
///
/// Errors: malformed metadata.
pub(crate) fn config(metadata: &Metadata<'_>, path: &Path) -> Result<TokenizerConfig, TextError> {
    let source = TokenizerMetadata { metadata, path };
    let tokens = source.tokens()?;
    let mut fields = Map::new();
    for role in ["bos", "eos", "unknown", "padding"] {
        if let Some(token) = source.token(role, &tokens) {
            let role = match role {
                "unknown" => "unk",
                "padding" => "pad",
                other => other,
            };
            fields.insert(format!("{role}_token"), json!(token));
        }
    }
    let adds_bos = match source.optional("tokenizer.ggml.add_bos_token", Metadata::flag)? {
        Some(adds) => adds,
        // These are llama.cpp's defaults for files that do not say.
        None => source.model()? == "llama" || source.pre()?.is_some_and(pre::adds_bos),
    };
    fields.insert("add_bos_token".into(), json!(adds_bos && fields.contains_key("bos_token")));
    let adds_eos = source.optional("tokenizer.ggml.add_eos_token", Metadata::flag)?.unwrap_or(false);
    fields.insert("add_eos_token".into(), json!(adds_eos));
    if let Some(template) = source.optional("tokenizer.chat_template", Metadata::string)? {
        // Conversations with tools may have a template of their own.
        let with_tools = source.optional("tokenizer.chat_template.tool_use", Metadata::string)?;
        let named = |name: &str, template: &str| json!({"name": name, "template": template});
        let templates = match with_tools {
            Some(with_tools) => json!([named("default", template), named("tool_use", with_tools)]),
            None => json!(template),
        };
        fields.insert("chat_template".into(), templates);
    }
    Ok(TokenizerConfig::new(path.to_owned(), fields))
}

/// The spellings of all ids.
///
/// Errors: missing or malformed metadata.
pub(crate) fn tokens<'a>(metadata: &'a Metadata<'a>, path: &'a Path) -> Result<Vec<&'a str>, TextError> {
    TokenizerMetadata { metadata, path }.tokens()
}

/// Makes the tokenizer: byte-level BPE (`gpt2`) or SentencePiece (`llama`).
///
/// Errors: a tokenizer of another kind, an unknown pre-tokenizer (the known ones are named), missing or malformed
/// metadata.
pub(crate) fn tokenizer(metadata: &Metadata<'_>, path: &Path) -> Result<Tokenizer, TextError> {
    let source = TokenizerMetadata { metadata, path };
    let tokens = source.tokens()?;
    let mut tokenizer = match source.model()? {
        "gpt2" => source.byte_level(&tokens)?,
        "llama" => source.sentencepiece(&tokens)?,
        other => {
            return Err(source.wrong("tokenizer.ggml.model", format!("is {other}; known are gpt2 and llama")));
        }
    };
    let types = source.numbers("tokenizer.ggml.token_type", tokens.len())?;
    let types = types.unwrap_or_default();
    let of_type = |wanted: u64, special| {
        let found = tokens.iter().zip(&types).filter(move |(_, kind)| **kind as u64 == wanted);
        found.map(move |(token, _)| AddedToken::from(*token, special).normalized(false))
    };
    tokenizer.add_special_tokens(of_type(CONTROL, true)).map_err(|e| source.parse(e))?;
    tokenizer.add_tokens(of_type(USER_DEFINED, false)).map_err(|e| source.parse(e))?;
    Ok(tokenizer)
}

impl<'a> TokenizerMetadata<'a> {
    fn parse(&self, message: impl ToString) -> TextError {
        TextError::Parse { path: self.path.to_owned(), message: message.to_string() }
    }

    fn wrong(&self, key: &str, message: impl Into<String>) -> TextError {
        self.parse(GgufError::Metadata { key: key.to_owned(), message: message.into() })
    }

    fn optional<T>(
        &self,
        key: &str,
        read: impl Fn(&Metadata<'a>, &str) -> Result<T, GgufError>,
    ) -> Result<Option<T>, TextError> {
        self.metadata.optional(key, read).map_err(|e| self.parse(e))
    }

    fn model(&self) -> Result<&'a str, TextError> {
        self.metadata.string("tokenizer.ggml.model").map_err(|e| self.parse(e))
    }

    fn pre(&self) -> Result<Option<&'a str>, TextError> {
        self.optional("tokenizer.ggml.pre", Metadata::string)
    }

    /// The token whose id the file gives for `role`. Some files write -1, or an id beyond the vocabulary, where there
    /// is no such token.
    fn token(&self, role: &str, tokens: &[&'a str]) -> Option<&'a str> {
        let id = self.metadata.get(&format!("tokenizer.ggml.{role}_token_id"))?.as_u64()?;
        tokens.get(usize::try_from(id).ok()?).copied()
    }

    fn strings(&self, key: &str) -> Result<Vec<&'a str>, TextError> {
        let array = self.metadata.array(key).map_err(|e| self.parse(e))?;
        array.strings().ok_or_else(|| self.wrong(key, "must be an array of strings"))
    }

    fn tokens(&self) -> Result<Vec<&'a str>, TextError> {
        self.strings("tokenizer.ggml.tokens")
    }

    /// One number for each token; `None` if the file has none.
    fn numbers(&self, key: &str, count: usize) -> Result<Option<Vec<f64>>, TextError> {
        let Some(array) = self.optional(key, Metadata::array)? else { return Ok(None) };
        let numbers: Option<Vec<f64>> = array.values().map(|v| v.as_f64()).collect();
        match numbers.filter(|numbers| numbers.len() == count) {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(self.wrong(key, format!("must be an array of {count} numbers, one for each token"))),
        }
    }

    /// The ids of all tokens. Some files have a token twice, or several that are empty: then the first id stands for
    /// it.
    fn vocabulary(tokens: &[&str]) -> Vocab {
        let mut vocab = Vocab::default();
        for (token, id) in tokens.iter().zip(0u32..) {
            vocab.entry((*token).to_owned()).or_insert(id);
        }
        vocab
    }

    /// A byte-level BPE tokenizer.
    fn byte_level(&self, tokens: &[&str]) -> Result<Tokenizer, TextError> {
        const MERGES: &str = "tokenizer.ggml.merges";
        let name = self.pre()?.unwrap_or("default");
        let pre = pre::find(name).ok_or_else(|| {
            self.wrong("tokenizer.ggml.pre", format!("is {name}; known are {}", pre::known().join(", ")))
        })?;
        let pair = |merge: &&str| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        let merges: Option<Vec<_>> = self.strings(MERGES)?.iter().map(pair).collect();
        let mut merges = merges.ok_or_else(|| self.wrong(MERGES, "must be pairs of tokens with a space between"))?;
        let vocab = Self::vocabulary(tokens);
        // Some files have a placeholder among the merges, whose parts are no tokens.
        merges.retain(|(a, b)| [a, b, &format!("{a}{b}")].into_iter().all(|token| vocab.contains_key(token)));
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(pre.ignore_merges);
        let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| self.parse(e))?);
        if pre.nfc {
            tokenizer.with_normalizer(Some(NFC)).map_err(|e| self.parse(e))?;
        }
        tokenizer.with_pre_tokenizer(Some(pre.pre_tokenizer().map_err(|e| self.parse(e))?));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, false)));
        Ok(tokenizer)
    }

    /// A SentencePiece tokenizer. SentencePiece merges the pair whose concatenation has the best score, which is BPE
    /// with the merges in the order of scores.
    fn sentencepiece(&self, tokens: &[&'a str]) -> Result<Tokenizer, TextError> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let vocab = Self::vocabulary(tokens);
        let scores = self.numbers(SCORES, tokens.len())?;
        let scores = scores.ok_or_else(|| self.wrong(SCORES, "is missing; a llama tokenizer needs it"))?;
        let mut merges = Vec::new();
        // SentencePiece's own limit is 16 characters. Looking up all cuts of a token takes time quadratic in its
        // length.
        const MAX_BYTES: usize = 512;
        // A token that stands in the list twice is merged once.
        let first = |(id, token): &(u32, &&str)| vocab.get(**token) == Some(id) && token.len() <= MAX_BYTES;
        for ((_, token), score) in (0..).zip(tokens).zip(&scores).filter(|(entry, _)| first(entry)) {
            let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let mut pairs: Vec<_> =
                cuts.filter_map(|(a, b)| Some((*vocab.get(a)?, *vocab.get(b)?, a.to_owned(), b.to_owned()))).collect();
            pairs.sort();
            merges.extend(pairs.into_iter().map(|(.., a, b)| (*score, (a, b))));
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let unknown = self.token("unknown", tokens).or(tokens.first().copied());
        let unknown = unknown.ok_or_else(|| self.wrong("tokenizer.ggml.tokens", "is empty"))?;
        let merges = merges.into_iter().map(|(_, pair)| pair).collect();
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
        let bpe = bpe.unk_token(unknown.to_owned()).build().map_err(|e| self.parse(e))?;
        let mut tokenizer = Tokenizer::new(bpe);
        let prefix = self.optional("tokenizer.ggml.add_space_prefix", Metadata::flag)?.unwrap_or(true);
        let spaces = Replace::new(" ", SPACE).map_err(|e| self.parse(e))?;
        let mut normalizers = vec![spaces.into()];
        let mut decoders = vec![
            Replace::new(SPACE, " ").map_err(|e| self.parse(e))?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ];
        if prefix {
            normalizers.insert(0, Prepend::new(SPACE.to_owned()).into());
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(|e| self.parse(e))?;
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }
}
