//! Pre-tokenizers of byte-level BPE by the names that `tokenizer.ggml.pre` gives them (`llama-vocab.cpp` in llama.cpp).
//! Their expressions are those of the models' own `tokenizer.json`.
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

/// A pre-tokenizer: how a text is split before its parts are tokenized.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    /// The expressions that split the text, each applied to the pieces that the one before it left.
    expressions: &'static [&'static str],
    /// Whether a piece that is a token as a whole is taken as that token, without merges.
    pub ignore_merges: bool,
    /// Whether the text is brought to Unicode's normal form NFC first.
    pub nfc: bool,
    /// Whether BOS is put first where a file does not say.
    adds_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|",
    r"\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const PLAIN: PreTokenizer =
    PreTokenizer { names: &[], expressions: &[], ignore_merges: false, nfc: false, adds_bos: false };

static KNOWN: [PreTokenizer; 7] = [
    PreTokenizer {
        names: &["default"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    PreTokenizer { names: &["gpt-2", "mpt", "olmo", "jais"], expressions: &[GPT2], ..PLAIN },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "dbrx", "smaug-bpe"],
        expressions: &[LLAMA3],
        ignore_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["qwen2", "deepseek-r1-qwen", "megrez"], expressions: &[QWEN2], nfc: true, ..PLAIN },
    PreTokenizer { names: &["qwen35"], expressions: &[QWEN35], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"],
        expressions: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    PreTokenizer { names: &["tekken"], expressions: &[TEKKEN], ignore_merges: true, adds_bos: true, ..PLAIN },
];

/// The pre-tokenizer of this name.
pub(super) fn find(name: &str) -> Option<&'static PreTokenizer> {
    KNOWN.iter().find(|pre| pre.names.contains(&name))
}

/// All names.
pub(super) fn known() -> Vec<&'static str> {
    KNOWN.iter().flat_map(|pre| pre.names).copied().collect()
}

/// Whether BOS is put first where a file with this pre-tokenizer does not say.
pub(super) fn adds_bos(name: &str) -> bool {
    find(name).is_some_and(|pre| pre.adds_bos)
}

impl PreTokenizer {
    /// The splitting, followed by GPT-2's spelling of bytes.
    ///
    /// Errors: an expression that does not compile.
    pub fn pre_tokenizer(&self) -> tokenizers::Result<Sequence> {
        let split = |expression: &&str| {
            let pattern = SplitPattern::Regex((*expression).to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map(PreTokenizerWrapper::from)
        };
        let mut steps = self.expressions.iter().map(split).collect::<tokenizers::Result<Vec<_>>>()?;
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles_and_no_name_stands_twice() {
        for pre in &KNOWN {
            pre.pre_tokenizer().unwrap();
        }
        let mut names = known();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
