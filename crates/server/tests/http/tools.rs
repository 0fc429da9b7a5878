//! Tools, thoughts and forms of answers over HTTP.
use crate::common::{Options, Script, Server, TOKENIZER, chat_body, completion_body, error, start};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// ChatML with Hermes' tools and thoughts, in the form of Qwen3's template.
pub const TEMPLATE: &str = include_str!("../hermes.jinja");

pub const TWO_CALLS: &str = "<think>\nWhich file? 漢字\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"read\", \
    \"arguments\": {\"path\": \"a \\\"b\\\".rs\", \"line\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"stop\", \
    \"arguments\": {}}\n</tool_call>";

async fn server(answer: &'static str) -> Server {
    start(Options { script: Script::Answer(answer), template: Some(TEMPLATE), context: 4096, ..Options::default() })
        .await
}

pub fn tools() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
        "required": ["path"],
    });
    json!([
        {"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": parameters}},
        {"type": "function", "function": {"name": "stop"}},
    ])
}

/// The message that a stream's deltas make.
pub fn folded(chunks: &[Value]) -> Value {
    let mut message = json!({"role": null, "content": "", "reasoning_content": "", "tool_calls": []});
    for delta in chunks.iter().filter_map(|chunk| chunk.pointer("/choices/0/delta")) {
        for field in ["content", "reasoning_content"] {
            if let Some(text) = delta[field].as_str() {
                message[field] = json!(message[field].as_str().unwrap().to_owned() + text);
            }
        }
        if let Some(role) = delta["role"].as_str() {
            message["role"] = role.into();
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = message["tool_calls"].as_array_mut().unwrap();
            if call["index"] == json!(calls.len()) {
                // Name and id come first, once.
                assert!(call["id"].is_string() && call["function"]["name"].is_string(), "{call}");
                let function = json!({"name": call["function"]["name"], "arguments": ""});
                calls.push(json!({"id": call["id"], "type": call["type"], "function": function}));
            }
            let last = &mut calls.last_mut().unwrap()["function"]["arguments"];
            *last = json!(last.as_str().unwrap().to_owned() + call["function"]["arguments"].as_str().unwrap());
        }
    }
    message
}

#[tokio::test]
async fn calls_and_thoughts_are_told_apart_whole_and_streamed_alike() {
    let server = server(TWO_CALLS).await;
    let body = chat_body(json!({"tools": tools()}));
    let answer = server.ask(CHAT, body.clone()).await;
    let (choice, message) = (&answer["choices"][0], &answer["choices"][0]["message"]);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(message["content"], "I look.");
    assert_eq!(message["reasoning_content"], "Which file? 漢字");
    assert_eq!(message["reasoning"], "Which file? 漢字");
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!(calls[0]["type"], "function");
    // Byte for byte as the model wrote it.
    assert_eq!(calls[0]["function"], json!({"name": "read", "arguments": r#"{"path": "a \"b\".rs", "line": 3}"#}));
    assert_eq!(calls[1]["function"], json!({"name": "stop", "arguments": "{}"}));
    let thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    assert!(thought > 3 && thought < answer["usage"]["completion_tokens"].as_u64().unwrap(), "{answer}");

    let chunks = server.stream(CHAT, body).await;
    let streamed = folded(&chunks);
    for field in ["role", "content", "reasoning_content"] {
        assert_eq!(streamed[field], message[field], "{field}");
    }
    let without_ids = |calls: &Value| -> Vec<Value> {
        calls.as_array().unwrap().iter().map(|call| call["function"].clone()).collect()
    };
    assert_eq!(without_ids(&streamed["tool_calls"]), without_ids(&message["tool_calls"]));
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons.last(), Some(&&json!("tool_calls")));
    assert!(reasons[..reasons.len() - 1].iter().all(|reason| reason.is_null()), "{reasons:?}");
}

#[tokio::test]
async fn calls_come_back_as_the_model_wrote_them() {
    let server = server("ok").await;
    let call = |name: &str, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"id": "call_1", "type": "function", "function": function})
    };
    let arguments = r#"{"path":"a.rs",  "line": 3.0}"#;
    let messages = json!([
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [call("read", arguments)]},
        {"role": "tool", "tool_call_id": "call_1", "content": "fn main() {}"},
    ]);
    server.ask(CHAT, json!({"messages": messages, "tools": tools()})).await;
    let prompt = TOKENIZER.decode(&server.last_request().prompt, false);
    assert!(prompt.contains("<think>\nHm.\n</think>"), "{prompt}");
    assert!(prompt.contains(&format!("{{\"name\": \"read\", \"arguments\": {arguments}}}")), "{prompt}");
    assert!(prompt.contains("<tools>{\"type\": \"function\", \"function\": {\"name\": \"read\""), "{prompt}");
}

#[tokio::test]
async fn what_may_be_called_is_what_the_choice_says() {
    let server = server(TWO_CALLS).await;
    for (choice, callable, held) in [
        (json!("auto"), vec!["read", "stop"], false),
        (json!(null), vec!["read", "stop"], false),
        (json!("required"), vec!["read", "stop"], true),
        (json!({"type": "function", "function": {"name": "stop"}}), vec!["stop"], true),
        (
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "read"}]}),
            vec!["read"],
            false,
        ),
    ] {
        server.chat(json!({"tools": tools(), "tool_choice": choice})).await;
        let request = server.last_request();
        let reading = request.reading.unwrap();
        assert_eq!(reading.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), callable, "{choice}");
        assert_eq!(request.constraint.is_some(), held, "{choice}");
        assert!(reading.call_constraint.is_some() && !reading.single_call, "{choice}");
        // All tools stay in the prompt, so that a choice does not change what is cached of it.
        assert!(TOKENIZER.decode(&request.prompt, false).contains("\"stop\""), "{choice}");
    }
    server.chat(json!({"tools": tools(), "parallel_tool_calls": false})).await;
    assert!(server.last_request().reading.unwrap().single_call);

    let answer = server.chat(json!({"tools": tools(), "tool_choice": "none"})).await;
    assert!(!TOKENIZER.decode(&server.last_request().prompt, false).contains("<tools>"));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_tool_or_choice_that_is_wrong_is_named() {
    let server = server("ok").await;
    let function = |function: Value| json!([{"type": "function", "function": function}]);
    let unknown = json!({"type": "object", "properties": {"a": {"type": "string", "not": {"const": "x"}}}});
    for (more, status, param) in [
        (json!({"tools": [{"type": "web_search"}]}), 400, "tools[0].type"),
        (json!({"tools": function(json!({}))}), 400, "tools[0].function.name"),
        (json!({"tools": function(json!({"name": "f", "parameters": 3}))}), 400, "tools[0].function.parameters"),
        (json!({"tools": tools(), "tool_choice": "maybe"}), 400, "tool_choice"),
        (
            json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "write"}}}),
            400,
            "tool_choice",
        ),
        (json!({"tool_choice": "required"}), 400, "tool_choice"),
        (json!({"tools": function(json!({"name": "f", "strict": true, "parameters": unknown}))}), 422, "tools"),
    ] {
        let (got, _, named, whole) = error(server.post(CHAT, &chat_body(more.clone())).await).await;
        assert_eq!((got, named), (status, Value::from(param)), "{more}: {whole}");
    }
    // What cannot be held of a schema that need not be held to the letter is passed over.
    server.chat(json!({"tools": function(json!({"name": "f", "parameters": unknown}))})).await;
}

#[tokio::test]
async fn thoughts_are_turned_off_and_bounded() {
    let server = server("<think>\nHm.\n</think>\n\nYes.").await;
    for (more, closed) in [
        (json!({}), false),
        (json!({"reasoning_effort": "none"}), true),
        (json!({"reasoning_effort": "high"}), false),
        (json!({"enable_thinking": false}), true),
        (json!({"chat_template_kwargs": {"enable_thinking": false}}), true),
        // The template's own name of it says most.
        (json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": true}}), false),
    ] {
        server.chat(more.clone()).await;
        let prompt = TOKENIZER.decode(&server.last_request().prompt, false);
        assert_eq!(prompt.ends_with("<think>\n\n</think>\n\n"), closed, "{more}");
    }
    server.chat(json!({"thinking_budget": 7})).await;
    assert_eq!(server.last_request().reading.unwrap().thought_budget, Some(7));
}

#[tokio::test]
async fn every_name_for_a_form_holds_the_answer_to_it() {
    let server = server("ok").await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    for more in [
        json!({"response_format": {"type": "json_object"}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}),
        json!({"response_format": {"type": "json_object", "schema": schema}}),
        json!({"structured_outputs": {"json": schema}}),
        json!({"structured_outputs": {"regex": "[a-z]+"}}),
        json!({"structured_outputs": {"choice": ["a", "b"]}}),
        json!({"structured_outputs": {"json_object": true}}),
        json!({"guided_json": schema}),
        json!({"guided_json": schema.to_string()}),
        json!({"guided_regex": "[a-z]+"}),
        json!({"guided_choice": ["a", "b"]}),
        json!({"guided_grammar": "start: \"a\" | \"b\""}),
        json!({"grammar": "root ::= \"a\" | \"b\""}),
        json!({"json_schema": schema}),
        json!({"regex": "[a-z]+"}),
        json!({"ebnf": "root ::= \"a\""}),
    ] {
        server.chat(more.clone()).await;
        assert!(server.last_request().constraint.is_some(), "chat: {more}");
        server.ask("/v1/completions", completion_body(more.clone())).await;
        assert!(server.last_request().constraint.is_some(), "completions: {more}");
    }
    server.chat(json!({"response_format": {"type": "text"}})).await;
    assert!(server.last_request().constraint.is_none());
    for (more, status, param) in [
        (json!({"response_format": {"type": "xml"}}), 400, "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), 400, "response_format.json_schema"),
        (json!({"structured_outputs": {"structural_tag": {}}}), 400, "structured_outputs"),
        (json!({"guided_json": "{"}), 400, "guided_json"),
        (json!({"guided_regex": "a", "json_schema": {}}), 400, "json_schema"),
        (json!({"guided_regex": "[a"}), 422, "guided_regex"),
        (json!({"grammar": "root ::= ("}), 422, "grammar"),
        (json!({"guided_choice": []}), 422, "guided_choice"),
    ] {
        let (got, _, named, whole) = error(server.post(CHAT, &chat_body(more.clone())).await).await;
        assert_eq!((got, named), (status, Value::from(param)), "{more}: {whole}");
    }
    let unknown = json!({"guided_json": {"type": "string", "contentEncoding": "base64", "not": {"const": "x"}}});
    let (status, _, _, whole) = error(server.post(CHAT, &chat_body(unknown)).await).await;
    assert_eq!(status, 422);
    assert!(whole["message"].as_str().unwrap().contains("\"not\""), "{whole}");
}
