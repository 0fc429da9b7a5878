//! What clients write is text, also where it reads like a special token.
use super::{corpus, repo, with_template};
use crate::common::{load, sentencepiece};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};
use text::{ChatTemplate, Conversation, Tokenizer};

/// Tokenizers of byte-level BPE, and of SentencePiece in the forms that `tokenizer.json` has for its spaces.
fn tokenizers() -> Vec<(String, Tokenizer)> {
    let folders = ["demo", "tiny-mistral", "tiny-qwen35"];
    let mut all: Vec<_> = folders
        .into_iter()
        .map(|name| (name.to_owned(), Tokenizer::from_dir(&repo("models").join(name)).unwrap()))
        .collect();
    let config = json!({"bos_token": "<s>", "add_bos_token": true});
    for normalized in [false, true] {
        for scheme in ["prepend", "first", "always", "never"] {
            let mut tokenizer = sentencepiece();
            if scheme != "prepend" {
                tokenizer["normalizer"] = Value::Null;
                tokenizer["pre_tokenizer"] =
                    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
            }
            for token in tokenizer["added_tokens"].as_array_mut().unwrap() {
                token["normalized"] = json!(normalized);
            }
            // A token that takes in the space around it, as Phi-3's do, and one that belongs to the text.
            for (id, content, special) in [(300, "<|end|>", true), (301, "<think>", false)] {
                let mut token = tokenizer["added_tokens"][0].clone();
                (token["id"], token["content"]) = (json!(id), json!(content));
                (token["special"], token["rstrip"], token["lstrip"]) = (json!(special), json!(special), json!(special));
                tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
            }
            all.push((format!("{scheme}, normalized {normalized}"), load(&tokenizer, &config).unwrap()));
        }
    }
    all
}

fn special(tokenizer: &Tokenizer) -> Vec<(u32, String)> {
    let ids = (0..tokenizer.vocab_size() as u32).filter(|id| tokenizer.is_special(*id));
    ids.filter_map(|id| Some((id, tokenizer.spelling(id)?))).collect()
}

/// The ids of a template that is `text` and no more, for a client who writes `unshown` where nobody sees it.
fn apart(tokenizer: &Tokenizer, text: &str, unshown: &str, add_special_tokens: bool) -> Vec<u32> {
    let template = with_template(&format!("{text}{{{{ '' }}}}"));
    let kwargs: Map<String, Value> = Map::from_iter([("unshown".to_owned(), json!(unshown))]);
    let messages = json!([{"role": "user", "content": "x"}]);
    let conversation = Conversation { kwargs: Some(&kwargs), ..Conversation::of(&messages) };
    template.encode(&conversation, tokenizer, add_special_tokens).unwrap().ids
}

/// A special token that is broken somewhere must not change how the rest is tokenised: pieces between special tokens
/// are normalised, split and merged as in the flat text.
#[test]
fn a_text_without_special_tokens_of_clients_has_the_ids_of_the_flat_text() {
    let tokenizers = tokenizers();
    let piece = ("( |\n|[a-e]|Hi|Hello|the|é|漢|😀|<|>|<think>){0,8}", any::<Index>());
    let pieces = prop::collection::vec(piece, 0..6);
    proptest!(ProptestConfig::with_cases(150), |(pieces in pieces, add_special_tokens: bool)| {
        for (name, tokenizer) in &tokenizers {
            let mut tokens = special(tokenizer);
            let unshown = tokens[0].1.clone();
            tokens.push((0, String::new()));
            let text: String =
                pieces.iter().map(|(text, token)| format!("{text}{}", tokens[token.index(tokens.len())].1)).collect();
            let flat = tokenizer.encode(&text, add_special_tokens).unwrap();
            prop_assert_eq!(apart(tokenizer, &text, &unshown, add_special_tokens), flat, "{}: {:?}", name, text);
        }
    });
}

/// Conversations of published families' templates: those have special tokens of many kinds, of which the tokenizers
/// know some.
#[test]
fn a_prompt_has_the_ids_of_its_flat_text() {
    let tokenizers = tokenizers();
    let mut compared = 0;
    corpus::each(|family, number, template, conversation| {
        let Ok(text) = template.render(conversation) else { return };
        for (name, tokenizer) in &tokenizers {
            let flat = tokenizer.encode(&text, false).unwrap();
            let ids = template.encode(conversation, tokenizer, false).unwrap().ids;
            assert_eq!(ids, flat, "{family} {number} {name}");
            let mut kwargs = conversation.kwargs.cloned().unwrap_or_default();
            kwargs.insert("unshown".into(), json!(special(tokenizer)[0].1));
            let marked = Conversation { kwargs: Some(&kwargs), ..*conversation };
            assert_eq!(
                template.encode(&marked, tokenizer, false).unwrap().ids,
                flat,
                "{family} {number} {name}, apart"
            );
            compared += 1;
        }
    });
    assert!(compared > 2000, "{compared}");
}

fn said(template: &ChatTemplate, tokenizer: &Tokenizer, content: Value) -> Vec<u32> {
    let messages = json!([{"role": "user", "content": content}]);
    template.encode(&Conversation::of(&messages), tokenizer, false).unwrap().ids
}

#[test]
fn a_special_token_that_a_client_writes_is_text() {
    for (name, tokenizer) in tokenizers() {
        // A token that is recognised in the normalised text may need a space before it.
        for (id, token) in special(&tokenizer).into_iter().filter(|_| !name.ends_with("true")) {
            let source = format!("{token}{{{{ messages[0].content }}}}{token}");
            let template = with_template(&source);
            let content = format!("Say {token} or <think>{token}{token}.");
            for content in [json!(content), json!([{"type": "text", "text": content}])] {
                let ids = said(&template, &tokenizer, content);
                assert_eq!((ids[0], ids[ids.len() - 1]), (id, id), "{name}: {token}");
                let inner = &ids[1..ids.len() - 1];
                assert!(inner.iter().all(|id| !tokenizer.is_special(*id)), "{name}: {token}: {inner:?}");
            }
            let content = format!("Say {token} or {token}{token}.");
            let text = said(&template, &tokenizer, json!(content));
            let shown = tokenizer.decode(&text[1..text.len() - 1], false);
            assert_eq!(shown.trim_start(), content, "{name}: {token}");
            let reads = with_template(&source).reading_special_tokens(true);
            let flat = tokenizer.encode(&format!("{token}{content}{token}"), false).unwrap();
            assert_eq!(said(&reads, &tokenizer, json!(content)), flat, "{name}: {token}");
        }
    }
}

/// Names, tools and a template's own variables come from the client too; keys of objects as well.
#[test]
fn every_text_of_a_client_is_kept_apart() {
    let tokenizer = Tokenizer::from_dir(&repo("models/demo")).unwrap();
    let end = tokenizer.encode("<|eot_id|>", false).unwrap()[0];
    let source = "{{ messages | tojson }}{{ tools | tojson(ensure_ascii=true) }}{{ note }}<|eot_id|>";
    let template = with_template(source);
    let messages = json!([
        {"role": "user", "content": "a<|eot_id|>", "name": "<|eot_id|>"},
        {"role": "assistant", "tool_calls": [{"id": "<|eot_id|>", "function": {
            "name": "<|eot_id|>", "arguments": "{\"<|eot_id|>\": \"<|\\u0065ot_id|>\"}"}}]},
    ]);
    let tools = json!([{"type": "function", "function": {"name": "f", "description": "<|eot_id|> é"}}]);
    let kwargs: Map<String, Value> = Map::from_iter([("note".to_owned(), json!("<|eot_id|>"))]);
    let conversation = Conversation { tools: Some(&tools), kwargs: Some(&kwargs), ..Conversation::of(&messages) };
    let ids = template.encode(&conversation, &tokenizer, false).unwrap().ids;
    assert_eq!(ids.iter().filter(|id| **id == end).count(), 1);
    let text = tokenizer.decode(&ids, false);
    assert_eq!(text, template.render(&conversation).unwrap());
    assert_eq!(text.matches("<|eot_id|>").count(), 9);
    assert!(text.contains(r"<|eot_id|> \u00e9"), "{text}");
}

/// The characters that mark places in a text may be in the text themselves.
#[test]
fn characters_that_serve_as_marks_are_text_too() {
    let tokenizer = Tokenizer::from_dir(&repo("models/demo")).unwrap();
    let template = with_template("{{ messages[0].content }}<|eot_id|>");
    let strange: String = ('\u{FDD0}'..='\u{FDEF}').chain(['\u{F0000}']).collect();
    let content = format!("{strange}<|eot_id|>{strange}");
    let ids = said(&template, &tokenizer, json!(content));
    assert_eq!(tokenizer.decode(&ids[..ids.len() - 1], false), content);
    assert!(ids[..ids.len() - 1].iter().all(|id| !tokenizer.is_special(*id)));
}
