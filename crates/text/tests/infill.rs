//! Prompts for fill-in-the-middle.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{load, sentencepiece};
use serde_json::{Value, json};
use text::{Infill, Tokenizer};

fn added(id: usize, content: &str, special: bool) -> Value {
    let mut token = json!({"id": id, "content": content, "special": special});
    for flag in ["single_word", "lstrip", "rstrip", "normalized"] {
        token[flag] = json!(false);
    }
    token
}

/// The demo's tokenizer, of byte-level BPE, with tokens that its files call special or not.
fn with_tokens(contents: &[&str], special: bool) -> Tokenizer {
    let dir = testkit::repo("models/demo");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(dir.join("tokenizer.json")).unwrap()).unwrap();
    let config = serde_json::from_slice(&std::fs::read(dir.join("tokenizer_config.json")).unwrap()).unwrap();
    for (i, content) in contents.iter().enumerate() {
        tokenizer["added_tokens"].as_array_mut().unwrap().push(added(12288 + i, content, special));
    }
    load(&tokenizer, &config).unwrap()
}

fn encode(tokenizer: &Tokenizer, infill: Infill<'_>) -> Vec<u32> {
    tokenizer.fill_in_the_middle().unwrap().encode(tokenizer, &infill).unwrap()
}

/// The ids of parts that are given by text, or by the id of a token.
fn ids(tokenizer: &Tokenizer, parts: &[Result<&str, u32>]) -> Vec<u32> {
    let mut ids = vec![tokenizer.bos_id().unwrap()];
    for part in parts {
        match part {
            Ok(text) => ids.extend(tokenizer.encode(text, false).unwrap()),
            Err(id) => ids.push(*id),
        }
    }
    ids
}

const CODE: Infill<'_> =
    Infill { prefix: "def add(a, b):\n    return ", suffix: "\n\nprint(add)", begun: "a", files: &[] };

#[test]
fn each_familys_tokens_stand_where_the_family_has_them() {
    for special in [false, true] {
        for family in [
            ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
            ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
            ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        ] {
            let tokenizer = with_tokens(&family, special);
            let parts = [Err(12288), Ok(CODE.prefix), Err(12289), Ok(CODE.suffix), Err(12290), Ok(CODE.begun)];
            assert_eq!(encode(&tokenizer, CODE), ids(&tokenizer, &parts), "{family:?}");
        }
        // The suffix comes first, and nothing follows the prefix but what has been begun of the middle.
        let codestral = with_tokens(&["[PREFIX]", "[SUFFIX]", "[MIDDLE]"], special);
        let begun = format!("{}{}", CODE.prefix, CODE.begun);
        assert_eq!(encode(&codestral, CODE), ids(&codestral, &[Err(12289), Ok(CODE.suffix), Err(12288), Ok(&begun)]));
    }
}

#[test]
fn other_files_come_first_under_their_names() {
    let files = [("a.py".to_owned(), "x = 1".to_owned()), ("b.py".to_owned(), "y = 2".to_owned())];
    let infill = Infill { files: &files, ..CODE };
    let form = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
    let gap = [Err(12288), Ok(CODE.prefix), Err(12289), Ok(CODE.suffix), Err(12290), Ok(CODE.begun)];

    let qwen = with_tokens(&[&form[..], &["<|repo_name|>", "<|file_sep|>", "<|fim_pad|>"]].concat(), false);
    let (repository, separator) = (Err(12291), Err(12292));
    let mut parts = vec![repository, Ok("myproject\n"), separator, Ok("a.py\nx = 1\n"), separator];
    parts.extend([Ok("b.py\ny = 2\n"), separator, Ok("filename\n")]);
    parts.extend(gap);
    assert_eq!(encode(&qwen, infill), ids(&qwen, &parts));
    // What would begin another file ends the middle.
    let mut ends = qwen.fill_in_the_middle().unwrap().ends().to_vec();
    ends.sort_unstable();
    assert_eq!(ends, [12291, 12292, 12293]);

    let plain = with_tokens(&form, false);
    let mut parts = vec![Ok("x = 1\ny = 2\n")];
    parts.extend(gap);
    assert_eq!(encode(&plain, infill), ids(&plain, &parts));
}

#[test]
fn tokens_that_a_client_writes_are_text() {
    for special in [false, true] {
        let form = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
        let tokenizer = with_tokens(&form, special);
        let bos = tokenizer.spelling(tokenizer.bos_id().unwrap()).unwrap();
        let tricks = [&form[..], &["<|eot_id|>", &bos]].concat();
        for trick in &tricks {
            let prefix = format!("{trick} = 1 {trick}");
            let ids = encode(&tokenizer, Infill { prefix: &prefix, suffix: trick, begun: trick, files: &[] });
            assert_eq!(ids[..2], [tokenizer.bos_id().unwrap(), 12288], "{trick}");
            let inner: Vec<_> = ids[1..].iter().copied().filter(|id| *id >= 12272).collect();
            assert_eq!(inner, [12288, 12289, 12290], "{trick}");
            let shown = format!("{bos}<|fim_prefix|>{prefix}<|fim_suffix|>{trick}<|fim_middle|>{trick}");
            assert_eq!(tokenizer.decode(&ids, false), shown);
        }
    }
}

#[test]
fn sentencepiece_and_models_without_such_tokens() {
    let mut tokenizer = sentencepiece();
    for (i, content) in ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"].into_iter().enumerate() {
        tokenizer["added_tokens"].as_array_mut().unwrap().push(added(265 + i, content, true));
    }
    let tokenizer = load(&tokenizer, &json!({"bos_token": "<s>", "add_bos_token": true})).unwrap();
    let ids = encode(&tokenizer, Infill { prefix: "Hi", suffix: "!", begun: "", files: &[] });
    let controls: Vec<_> = ids.iter().copied().filter(|id| *id >= 265 || *id == 1).collect();
    assert_eq!(controls, [1, 265, 266, 267]);
    assert_eq!(ids.first(), Some(&1));
    assert_eq!(tokenizer.fill_in_the_middle().unwrap().ends(), [268]);

    assert!(Tokenizer::from_dir(&testkit::repo("models/demo")).unwrap().fill_in_the_middle().is_none());
    // Two of three tokens are none.
    assert!(with_tokens(&["<|fim_prefix|>", "<|fim_suffix|>"], true).fill_in_the_middle().is_none());
}
