//! Answers in Anthropic's form, whole and streamed.
use crate::common::{CONTEXT, Options, Script, Server, TEXT, TOKENIZER, start, start_with};
use crate::tools::{TEMPLATE, TWO_CALLS};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

pub const MESSAGES: &str = "/v1/messages";
pub const COUNT_TOKENS: &str = "/v1/messages/count_tokens";

/// A server whose template knows thoughts and tools.
pub async fn server(answer: &'static str) -> Server {
    start(Options { script: Script::Answer(answer), template: Some(TEMPLATE), context: 4096, ..Options::default() })
        .await
}

pub fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "demo",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "Hello"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub fn tools() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
        "required": ["path"],
    });
    json!([
        {"name": "read", "description": "Reads.", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "stop", "input_schema": {"type": "object", "properties": {}}},
    ])
}

/// The events of a streamed answer, each under the name that its data has.
async fn stream(server: &Server, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let response = server.post(MESSAGES, &body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    let event = |text: &str| {
        let (name, data) = text.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str(), "{text}");
        data
    };
    text.trim_end().split("\n\n").map(event).collect()
}

fn push(text: &mut Value, more: &Value) {
    *text = json!(text.as_str().unwrap().to_owned() + more.as_str().unwrap());
}

/// The message that events tell, read as clients read them, with the input of tool calls as text.
fn folded(events: &[Value]) -> Value {
    let events: Vec<&Value> = events.iter().filter(|event| event["type"] != "ping").collect();
    let [first, blocks @ .., ending, last] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&first["type"], &last["type"]), (&json!("message_start"), &json!("message_stop")));
    assert_eq!(ending["type"], "message_delta");
    let mut message = first["message"].clone();
    assert_eq!(message["content"], json!([]));
    assert_eq!((&message["stop_reason"], &message["stop_sequence"]), (&Value::Null, &Value::Null));
    let mut open = false;
    for event in blocks {
        let content = message["content"].as_array_mut().unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(!open, "a block opens before the last one is closed");
                content.push(event["content_block"].clone());
                let block = content.last_mut().unwrap();
                if block["type"] == "tool_use" {
                    assert_eq!(block["input"], json!({}));
                    block["input"] = json!("");
                }
                open = true;
            }
            "content_block_delta" => {
                let (block, delta) = (content.last_mut().unwrap(), &event["delta"]);
                match delta["type"].as_str().unwrap() {
                    "text_delta" => push(&mut block["text"], &delta["text"]),
                    "thinking_delta" => push(&mut block["thinking"], &delta["thinking"]),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => push(&mut block["input"], &delta["partial_json"]),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                assert!(std::mem::replace(&mut open, false));
            }
            other => panic!("{other}"),
        }
        assert_eq!(event["index"], message["content"].as_array().unwrap().len() - 1);
    }
    assert!(!open);
    for field in ["stop_reason", "stop_sequence"] {
        message[field] = ending["delta"][field].clone();
    }
    message["usage"] = ending["usage"].clone();
    message
}

/// The message without the ids that each request has of its own.
fn without_ids(message: &Value) -> Value {
    let unique = message["id"].as_str().unwrap().strip_prefix("msg_").unwrap();
    assert!(unique.len() == 24 && unique.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{unique}");
    serde_json::from_str(&message.to_string().replace(unique, "ID")).unwrap()
}

/// The whole answer and the folded streamed one, which are compared but for inputs that were cut off.
async fn both(server: &Server, body: Value) -> (Value, Value) {
    let whole = without_ids(&server.ask(MESSAGES, body.clone()).await);
    let mut streamed = without_ids(&folded(&stream(server, body).await));
    let text = streamed.clone();
    for (i, block) in whole["content"].as_array().unwrap().iter().enumerate() {
        if block["type"] == "tool_use" {
            let input = &mut streamed["content"][i]["input"];
            *input = serde_json::from_str(input.as_str().unwrap()).unwrap_or_else(|_| block["input"].clone());
        }
    }
    assert_eq!(whole, streamed);
    (whole, text)
}

/// Checks that the whole and the streamed answer of a request with tools are the same.
pub async fn agree(server: &Server, max_tokens: usize) {
    both(server, body(json!({"tools": tools(), "max_tokens": max_tokens}))).await;
}

#[tokio::test]
async fn a_text_is_one_block() {
    let server = start_with(Script::Answer(TEXT)).await;
    let (whole, _) = both(&server, body(json!({}))).await;
    let tokens = TOKENIZER.encode(TEXT, false).unwrap().len();
    let prompt = server.last_request().prompt.len();
    assert_eq!(
        whole,
        json!({
            "id": "msg_ID", "type": "message", "role": "assistant", "model": "demo",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn", "stop_sequence": null,
            // The script has one token of each prompt in the cache.
            "usage": {
                "input_tokens": prompt - 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1,
                "output_tokens": tokens, "output_tokens_details": {"thinking_tokens": 0},
            },
        })
    );
    let start = &stream(&server, body(json!({}))).await[0]["message"];
    assert_eq!((&start["usage"]["input_tokens"], &start["usage"]["output_tokens"]), (&json!(prompt - 1), &json!(0)));
    assert_eq!(start["usage"]["cache_read_input_tokens"], 1);
    // Nothing is known of a prompt that waits in the queue.
    let busy = start_with(Script::Wait).await;
    let mut waiting = busy.post(MESSAGES, &body(json!({"stream": true}))).await;
    let first = waiting.chunk().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let start: Value = serde_json::from_str(first).unwrap();
    let usage = ["input_tokens", "cache_read_input_tokens"].map(|field| &start["message"]["usage"][field]);
    assert_eq!(usage, [&json!(prompt), &json!(0)]);
}

#[tokio::test]
async fn thoughts_text_and_calls_are_blocks_in_their_order() {
    let server = server(TWO_CALLS).await;
    let (whole, _) = both(&server, body(json!({"tools": tools()}))).await;
    assert_eq!(
        whole["content"],
        json!([
            {"type": "thinking", "thinking": "Which file? 漢字", "signature": "sig_ID"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_ID00", "name": "read", "input": {"path": "a \"b\".rs", "line": 3}},
            {"type": "tool_use", "id": "toolu_ID01", "name": "stop", "input": {}},
        ])
    );
    assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!("tool_use"), &Value::Null));
    assert!(whole["usage"]["output_tokens_details"]["thinking_tokens"].as_u64().unwrap() > 3, "{whole}");

    let events = stream(&server, body(json!({"tools": tools()}))).await;
    let name = |event: &Value| {
        let kind = event.pointer("/delta/type").or(event.pointer("/content_block/type")).unwrap_or(&event["type"]);
        kind.as_str().unwrap().to_owned()
    };
    let mut names: Vec<String> = events.iter().map(name).collect();
    names.dedup();
    let order = "message_start ping thinking thinking_delta signature_delta content_block_stop text text_delta \
                 content_block_stop tool_use input_json_delta content_block_stop tool_use input_json_delta \
                 content_block_stop message_delta message_stop";
    assert_eq!(names.join(" "), order);
}

/// Cuts an answer behind each of its tokens.
#[tokio::test]
async fn an_answer_that_is_cut_off_keeps_what_is_complete() {
    let server = server(TWO_CALLS).await;
    let tokens = TOKENIZER.encode(TWO_CALLS, false).unwrap().len();
    let mut inputs = Vec::new();
    for max_tokens in 1..=tokens {
        let (whole, text) = both(&server, body(json!({"tools": tools(), "max_tokens": max_tokens}))).await;
        let reason = if max_tokens < tokens { "max_tokens" } else { "tool_use" };
        assert_eq!(whole["stop_reason"], reason, "{max_tokens}");
        assert_eq!(whole["usage"]["output_tokens"], max_tokens);
        if let Some(read) = whole["content"].as_array().unwrap().iter().find(|block| block["name"] == "read") {
            let streamed = &text["content"][2]["input"];
            inputs.push((streamed.as_str().unwrap().to_owned(), read["input"].clone()));
        }
    }
    inputs.dedup();
    let whole = inputs.last().unwrap().1.clone();
    assert_eq!(whole, json!({"path": "a \"b\".rs", "line": 3}));
    assert_eq!(inputs[0].1, json!({}));
    assert!(inputs.iter().any(|(_, input)| *input == json!({"path": "a \"b\".rs"})), "{inputs:?}");
    for (text, input) in &inputs {
        let known = |(key, value): (&String, &Value)| whole[key] == *value;
        assert!(input.as_object().unwrap().iter().all(known), "{text} became {input}");
    }
}

#[tokio::test]
async fn a_stop_sequence_is_named() {
    let server = start_with(Script::Stopped(TEXT)).await;
    let (whole, _) = both(&server, body(json!({"stop_sequences": ["\n", "END"]}))).await;
    assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!("stop_sequence"), &json!("\n")));
    assert_eq!(server.last_request().stop.stop, ["\n", "END"]);
}

#[tokio::test]
async fn thoughts_are_told_of_but_not_shown_where_they_are_to_be_left_out() {
    let server = server("<think>\nHm.\n</think>\n\nYes.").await;
    let (whole, _) = both(&server, body(json!({"thinking": {"type": "adaptive", "display": "omitted"}}))).await;
    let thought = json!({"type": "thinking", "thinking": "", "signature": "sig_ID"});
    assert_eq!(whole["content"], json!([thought, {"type": "text", "text": "Yes."}]));
}

#[tokio::test]
async fn an_answer_of_no_tokens_only_reads_the_prompt() {
    let server = start_with(Script::Answer(TEXT)).await;
    let (whole, _) = both(&server, body(json!({"max_tokens": 0}))).await;
    assert_eq!((&whole["content"], &whole["stop_reason"]), (&json!([]), &json!("max_tokens")));
    assert_eq!(whole["usage"]["output_tokens"], 0);
    assert!(whole["usage"]["input_tokens"].as_u64().unwrap() < CONTEXT as u64);
}

#[tokio::test]
async fn a_stream_that_waits_for_the_model_sends_pings() {
    let server = start_with(Script::Late(TEXT, Duration::from_millis(4500))).await;
    let events = stream(&server, body(json!({}))).await;
    let first_block = events.iter().position(|event| event["type"] == "content_block_start").unwrap();
    assert_eq!(events[0]["type"], "message_start");
    assert!(events[1..first_block].iter().all(|event| *event == json!({"type": "ping"})), "{events:?}");
    // One at the start, and one for every two seconds.
    assert_eq!(first_block, 4);
    assert_eq!(folded(&events)["content"][0]["text"], TEXT);
}

#[tokio::test]
async fn a_failure_behind_the_start_is_an_event() {
    for (script, blocks) in [(Script::Fail, 0), (Script::FailLate, 1), (Script::Vanish, 0)] {
        let server = start_with(script).await;
        let events = stream(&server, body(json!({}))).await;
        let last = events.last().unwrap();
        assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")), "{last}");
        assert!(last["error"]["message"].is_string() && last["request_id"].is_string(), "{last}");
        let opened = events.iter().filter(|event| event["type"] == "content_block_start").count();
        assert_eq!((opened, events.iter().filter(|event| event["type"] == "error").count()), (blocks, 1));
        let whole = server.post(MESSAGES, &body(json!({}))).await;
        assert_eq!(whole.status(), 500);
        let whole: Value = whole.json().await.unwrap();
        assert_eq!((&whole["type"], &whole["error"]), (&json!("error"), &last["error"]));
    }
}
