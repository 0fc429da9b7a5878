//! Pre-tokenizers of byte-level BPE by the names that `tokenizer.ggml.pre` has for them (llama.cpp, `llama-vocab.cpp`), with the
//! expressions of the models' own tokenizer.json.
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

pub(super) struct Pre {
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces of the one before.
    expressions: &'static [&'static str],
    /// A piece that is a token is not merged from its parts.
    pub ignore_merges: bool,
    /// Text is brought to NFC first.
    pub nfc: bool,
    adds_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const PLAIN: Pre = Pre { names: &[], expressions: &[], ignore_merges: false, nfc: false, adds_bos: false };

const KNOWN: [Pre; 7] = [
    Pre { names: &["default"], expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ..PLAIN },
    Pre { names: &["gpt-2", "mpt", "olmo", "jais"], expressions: &[GPT2], ..PLAIN },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "dbrx", "smaug-bpe"],
        expressions: &[LLAMA3],
        ignore_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Pre { names: &["qwen2", "deepseek-r1-qwen", "megrez"], expressions: &[QWEN2], nfc: true, ..PLAIN },
    Pre { names: &["qwen35"], expressions: &[QWEN35], nfc: true, ..PLAIN },
    Pre {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"],
        expressions: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Pre { names: &["tekken"], expressions: &[TEKKEN], ignore_merges: true, adds_bos: true, ..PLAIN },
];

pub(super) fn find(name: &str) -> Option<&'static Pre> {
    const TABLE: &[Pre] = &KNOWN;
    TABLE.iter().find(|pre| pre.names.contains(&name))
}

pub(super) fn known() -> Vec<&'static str> {
    KNOWN.iter().flat_map(|pre| pre.names).copied().collect()
}

/// Whether files that do not say so mean BOS to be put first.
pub(super) fn adds_bos(name: &str) -> bool {
    find(name).is_some_and(|pre| pre.adds_bos)
}

impl Pre {
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
