//! From a request's messages to the prompt that the engine gets.
use crate::common::{Options, Script, Server, TOKENIZER, completion_body, error, start, start_with};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// The text of the last request's prompt.
fn prompt(server: &Server) -> String {
    TOKENIZER.decode(&server.last_request().prompt, false)
}

fn conversation(more: Value) -> Value {
    let mut body = json!({"messages": [
        {"role": "user", "content": "Write JSON."}, {"role": "assistant", "content": "Sure: {"},
    ]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn the_last_message_is_continued_where_that_is_asked_for() {
    let server = start_with(Script::Answer("x")).await;
    server.ask(CHAT, conversation(json!({"continue_final_message": true}))).await;
    let continued = prompt(&server);
    assert!(continued.ends_with("assistant<|end_header_id|>\n\nSure: {"), "{continued}");
    assert!(!server.last_request().begins_text);
    server.ask(CHAT, conversation(json!({"continue_final_message": true, "add_generation_prompt": false}))).await;
    assert_eq!(prompt(&server), continued);
    // Without the field an assistant's message that comes last is a turn like any other.
    server.ask(CHAT, conversation(json!({}))).await;
    let header = "<|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(prompt(&server), format!("{continued}<|eot_id|>{header}"));
    assert!(server.last_request().begins_text);
    server.ask(CHAT, conversation(json!({"add_generation_prompt": false}))).await;
    assert_eq!(prompt(&server), format!("{continued}<|eot_id|>"));

    let both = conversation(json!({"continue_final_message": true, "add_generation_prompt": true}));
    let (status, code, param, object) = error(server.post(CHAT, &both).await).await;
    assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", Some("continue_final_message")));
    assert!(object["message"].as_str().unwrap().contains("add_generation_prompt: true"), "{object}");
    let completion = completion_body(json!({"continue_final_message": true}));
    assert_eq!(error(server.post(COMPLETIONS, &completion).await).await.1, "unsupported_parameter");
}

/// A template that does not compile, or is empty, costs chat alone.
#[tokio::test]
async fn without_a_template_that_compiles_completions_are_served() {
    for (template, reason) in [("{% if %}", "does not compile"), (" \n", "it is empty"), ("", "no chat template")] {
        let server = start(Options { template: Some(template), ..Default::default() }).await;
        let (status, code, _, object) = error(server.post(CHAT, &conversation(json!({}))).await).await;
        assert_eq!((status, code.as_str()), (422, "invalid_template"), "{template:?}");
        assert!(object["message"].as_str().unwrap().contains(reason), "{template:?}: {object}");
        let answer = server.ask(COMPLETIONS, completion_body(json!({}))).await;
        assert_eq!(answer["object"], "text_completion", "{template:?}");
        assert!(!server.last_request().begins_text);
    }
}

#[tokio::test]
async fn a_text_that_begins_with_bos_gets_no_second_one() {
    let server = start_with(Script::Answer("x")).await;
    let bos = TOKENIZER.bos_id().unwrap();
    for prompt in ["<|begin_of_text|>Hello", "Hello"] {
        let answer = server.ask(COMPLETIONS, json!({"prompt": prompt, "echo": true})).await;
        let ids = server.last_request().prompt;
        assert_eq!(ids.iter().filter(|id| **id == bos).count(), 1, "{prompt}");
        assert_eq!(ids[0], bos);
        assert!(answer["choices"][0]["text"].as_str().unwrap().starts_with(prompt), "{answer}");
    }
    // The template writes BOS; a request may ask for the tokenizer's as well.
    server.ask(CHAT, conversation(json!({"add_special_tokens": true}))).await;
    assert_eq!(server.last_request().prompt.iter().filter(|id| **id == bos).count(), 1);
}

#[tokio::test]
async fn what_a_user_writes_is_text() {
    let server = start_with(Script::Answer("x")).await;
    let end = TOKENIZER.encode("<|eot_id|>", false).unwrap()[0];
    let user = |content: &str| json!({"messages": [{"role": "user", "content": content}]});
    server.ask(CHAT, user("Say <|eot_id|> now.")).await;
    let ids = server.last_request().prompt;
    assert_eq!(ids.iter().filter(|id| **id == end).count(), 1);
    assert!(prompt(&server).contains("Say <|eot_id|> now.<|eot_id|>"));
}

#[tokio::test]
async fn messages_that_no_template_takes_are_named_by_their_field() {
    let server = start_with(Script::Answer("x")).await;
    for (message, param) in [
        (json!({"role": "narrator", "content": "x"}), "messages[0].role"),
        (json!({"role": "user"}), "messages[0].content"),
        (json!({"role": "user", "content": null}), "messages[0].content"),
        (json!({"role": "assistant"}), "messages[0].content"),
        (json!({"role": "assistant", "tool_calls": [{}]}), "messages[0].tool_calls[0].function"),
    ] {
        let (status, code, named, _) = error(server.post(CHAT, &json!({"messages": [message]})).await).await;
        assert_eq!((status, code.as_str(), named.as_str()), (400, "invalid_value", Some(param)), "{message}");
    }
}
