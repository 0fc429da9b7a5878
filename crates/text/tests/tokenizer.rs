//! Encoding, decoding and incremental decoding with the demo model's tokenizer and a SentencePiece one.
#![allow(clippy::unwrap_used)]

mod common;

use common::{load, sentencepiece};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;
use text::{Detokenizer, TextError, Tokenizer};

fn demo_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

static DEMO: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_dir(&demo_dir()).unwrap());
/// The reference for decoding.
static REFERENCE: LazyLock<tokenizers::Tokenizer> =
    LazyLock::new(|| tokenizers::Tokenizer::from_file(demo_dir().join("tokenizer.json")).unwrap());

fn pieces(tokenizer: &Tokenizer, mut detokenizer: Detokenizer, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(tokenizer, *id)).collect();
    pieces.push(detokenizer.flush());
    pieces
}

#[test]
fn the_demo_models_special_tokens() {
    let bos = DEMO.bos_id().unwrap();
    assert!(DEMO.added_bos() == Some(bos) && DEMO.is_special(bos));
    assert_eq!(DEMO.token_text(bos), "<|begin_of_text|>");
    assert_eq!(DEMO.token_text(DEMO.eos_id().unwrap()), "<|eot_id|>");
    assert_eq!(DEMO.vocab_size(), 12288);
    let (plain, with) = (DEMO.encode("Hello", false).unwrap(), DEMO.encode("Hello", true).unwrap());
    assert_eq!(with, [&[bos], &plain[..]].concat());
    assert_eq!(DEMO.encode("<|begin_of_text|>Hello", false).unwrap(), with);
    assert_eq!(DEMO.decode(&with, true), "Hello");
    assert_eq!(DEMO.decode(&with, false), "<|begin_of_text|>Hello");
    // Marks that belong to the text are no special tokens.
    let think = DEMO.encode("<think>", false).unwrap();
    assert_eq!((think.len(), DEMO.is_special(think[0])), (1, false));
}

#[test]
fn ids_beyond_the_vocabulary_are_empty() {
    assert_eq!(DEMO.token_bytes(u32::MAX), b"");
    assert_eq!(DEMO.spelling(12288), None);
    assert_eq!(DEMO.decode(&[12288, u32::MAX], false), "");
}

#[test]
fn no_piece_of_emoji_or_cjk_is_half_a_character() {
    let text = "smile 😀👩‍👩‍👧 漢字かな 한국어 naïve";
    let ids = DEMO.encode(text, false).unwrap();
    let split = ids.iter().filter(|id| String::from_utf8(DEMO.token_bytes(**id)).is_err()).count();
    assert!(split >= 10, "the demo vocabulary no longer splits these characters ({split} tokens)");
    let pieces = pieces(&DEMO, Detokenizer::new(true), &ids);
    assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')), "{pieces:?}");
    assert_eq!(pieces.concat(), text);
    assert_eq!(pieces.last().unwrap(), "");
}

#[test]
fn an_incomplete_character_becomes_one_replacement_at_flush() {
    let ids = DEMO.encode("a😀", false).unwrap();
    let pieces = pieces(&DEMO, Detokenizer::new(true), &ids[..ids.len() - 1]);
    assert_eq!(pieces.last().unwrap(), "\u{FFFD}");
    assert_eq!(pieces.concat(), "a\u{FFFD}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn increments_join_to_the_reference_decoding(
        ids in proptest::collection::vec(0u32..12288, 0..40), skip_special: bool,
    ) {
        let expected = REFERENCE.decode(&ids, skip_special).unwrap();
        prop_assert_eq!(&pieces(&DEMO, Detokenizer::new(skip_special), &ids).concat(), &expected);
        prop_assert_eq!(DEMO.decode(&ids, skip_special), expected);
    }

    /// The 256 single bytes come first in the vocabulary, so nearly every sequence is broken UTF-8.
    #[test]
    fn increments_of_broken_utf8_join_to_the_reference_decoding(ids in proptest::collection::vec(0u32..300, 0..40)) {
        let expected = REFERENCE.decode(&ids, true).unwrap();
        prop_assert_eq!(pieces(&DEMO, Detokenizer::new(true), &ids).concat(), expected);
    }

    #[test]
    fn any_text_survives_encoding(text in any::<String>()) {
        let ids = DEMO.encode(&text, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| DEMO.token_bytes(*id)).collect();
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), text.clone());
        prop_assert_eq!(DEMO.decode(&ids, false), text);
    }
}

#[test]
fn sentencepiece_text_comes_back_through_byte_tokens() {
    let tokenizer = load(&sentencepiece(), &json!({"bos_token": "<s>", "add_bos_token": true})).unwrap();
    let reference = tokenizers::Tokenizer::from_bytes(sentencepiece().to_string()).unwrap();
    let ids = tokenizer.encode("Hi 世 Hi!\n", true).unwrap();
    // The file's truncation to two tokens is not applied.
    assert!(ids.len() > 8 && ids[0] == 1, "{ids:?}");
    assert_eq!(tokenizer.decode(&ids, true), "Hi 世 Hi!\n");
    assert_eq!(pieces(&tokenizer, Detokenizer::new(true), &ids).concat(), "Hi 世 Hi!\n");
    for skip in [true, false] {
        assert_eq!(tokenizer.decode(&ids, skip), reference.decode(&ids, skip).unwrap());
    }
    assert_eq!(tokenizer.token_bytes(3 + 0x0A), b"\n");
    assert_eq!(tokenizer.token_text(3 + 0xE4), "\u{FFFD}");
    assert_eq!(tokenizer.token_text(ids[1]), " Hi");
}

#[test]
fn a_continuation_keeps_its_leading_space() {
    let tokenizer = load(&sentencepiece(), &json!({})).unwrap();
    let ids = tokenizer.encode("Hi", false).unwrap();
    assert_eq!(pieces(&tokenizer, Detokenizer::new(true), &ids).concat(), "Hi");
    assert_eq!(pieces(&tokenizer, Detokenizer::after_prompt(true), &ids).concat(), " Hi");
}

#[test]
fn add_bos_token_goes_before_the_post_processor() {
    let demo: Value = serde_json::from_slice(&std::fs::read(demo_dir().join("tokenizer.json")).unwrap()).unwrap();
    let bos = "<|begin_of_text|>";
    let without = load(&demo, &json!({"bos_token": bos, "add_bos_token": false})).unwrap();
    assert_eq!(without.added_bos(), None);
    assert_eq!(without.encode("Hello", true).unwrap(), DEMO.encode("Hello", false).unwrap());
    let unsaid = load(&demo, &json!({"bos_token": {"content": bos}})).unwrap();
    assert_eq!(unsaid.encode("Hello", true).unwrap(), DEMO.encode("Hello", true).unwrap());
    // A text that begins with BOS, as one from a chat template does, gets no second one.
    for tokenizer in [&without, &unsaid, &*DEMO] {
        let ids = tokenizer.encode("<|begin_of_text|>Hello", true).unwrap();
        assert_eq!(ids, DEMO.encode("Hello", true).unwrap());
    }
    let inserted = load(&sentencepiece(), &json!({"bos_token": "<s>", "add_bos_token": true})).unwrap();
    assert_eq!(inserted.encode("<s>Hi", true).unwrap(), inserted.encode("Hi", true).unwrap());
    let plain = load(&sentencepiece(), &json!({"bos_token": "<s>"})).unwrap();
    assert_eq!((plain.added_bos(), plain.bos_id()), (None, Some(1)));
}

/// Embedding models end a text with a token: their post-processor appends it, or the configuration asks for it.
#[test]
fn eos_goes_behind_a_text_once() {
    let mut demo: Value = serde_json::from_slice(&std::fs::read(demo_dir().join("tokenizer.json")).unwrap()).unwrap();
    let eos = DEMO.spelling(DEMO.eos_id().unwrap()).unwrap();
    let plain = DEMO.encode("Hello", false).unwrap();
    let ended = [&plain[..], &[DEMO.eos_id().unwrap()]].concat();
    demo["post_processor"] = Value::Null;
    let asked = load(&demo, &json!({"eos_token": eos, "add_eos_token": true})).unwrap();
    demo["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": eos, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {&eos: {"id": eos, "ids": [DEMO.eos_id()], "tokens": [eos]}},
    });
    let processed = load(&demo, &json!({"eos_token": eos})).unwrap();
    let both = load(&demo, &json!({"eos_token": eos, "add_eos_token": true})).unwrap();
    for tokenizer in [asked, processed, both] {
        assert_eq!(tokenizer.encode("Hello", true).unwrap(), ended);
        assert_eq!(tokenizer.encode("Hello", false).unwrap(), plain);
    }
}

/// Names tell where the token is a special one; in the format of gpt-oss `<|end|>` ends a message and not the answer.
#[test]
fn turn_ends_are_special_tokens_with_the_names_of_such() {
    let named = |special: &[&str], plain: &[&str]| {
        let mut tokenizer = sentencepiece();
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        for (i, token) in special.iter().chain(plain).enumerate() {
            let mut entry = added[0].clone();
            entry["id"] = json!(300 + i);
            entry["content"] = json!(token);
            entry["special"] = json!(special.contains(token));
            added.push(entry);
        }
        let tokenizer = load(&tokenizer, &json!({})).unwrap();
        let mut ends: Vec<_> = tokenizer.turn_ends().into_iter().filter_map(|id| tokenizer.spelling(id)).collect();
        ends.sort();
        ends
    };
    assert_eq!(named(&["<|im_end|>", "<|im_start|>"], &["<|endoftext|>"]), ["</s>", "<|im_end|>"]);
    assert_eq!(named(&["<end_of_turn>", "<|end|>"], &[]), ["</s>", "<end_of_turn>", "<|end|>"]);
    assert_eq!(named(&["<|end|>", "<|return|>", "<|call|>"], &[]), ["</s>", "<|call|>", "<|return|>"]);
    let demo: Vec<_> = DEMO.turn_ends().into_iter().map(|id| DEMO.token_text(id)).collect();
    assert_eq!(demo, ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>"]);
}

#[test]
fn broken_files_are_named() {
    let decoder = |decoder: Value| {
        let mut tokenizer = sentencepiece();
        tokenizer["decoder"] = decoder;
        load(&tokenizer, &json!({})).unwrap_err().to_string()
    };
    let word_piece = decoder(json!({"type": "WordPiece", "prefix": "##", "cleanup": true}));
    assert!(word_piece.contains("tokenizer.json: decoder: ") && word_piece.contains("`WordPiece`"), "{word_piece}");
    assert!(decoder(Value::Null).contains("tokenizer.json: decoder: there is none"));
    let strip = decoder(json!({"type": "Strip", "content": "_", "start": 0, "stop": 2}));
    assert!(strip.contains("Strip of 0 and 2 times '_'"), "{strip}");

    for id in [1u32 << 24, u32::MAX] {
        let mut far = sentencepiece();
        far["model"]["vocab"]["far"] = json!(id);
        let far = load(&far, &json!({})).unwrap_err().to_string();
        assert!(far.contains(&format!("tokenizer.json: vocab: \"far\" has the id {id}")), "{far}");
    }

    let missing = load(&sentencepiece(), &json!({"add_bos_token": true})).unwrap_err().to_string();
    assert!(missing.contains("tokenizer_config.json: bos_token: missing"), "{missing}");
    let unknown = load(&sentencepiece(), &json!({"bos_token": "<x>", "add_bos_token": true})).unwrap_err().to_string();
    assert!(unknown.contains("\"<x>\" is not in the vocabulary"), "{unknown}");
    let flag = load(&sentencepiece(), &json!({"add_bos_token": "yes"})).unwrap_err().to_string();
    assert!(flag.contains("add_bos_token: \"yes\"; it must be true or false"), "{flag}");

    let dir = TempDir::new().unwrap();
    assert!(matches!(Tokenizer::from_dir(dir.path()), Err(TextError::Read { .. })));
    std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    assert!(matches!(Tokenizer::from_dir(dir.path()), Err(TextError::Parse { .. })));
}
