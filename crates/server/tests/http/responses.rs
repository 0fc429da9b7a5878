//! Responses over HTTP: what they hold, whole and streamed.
use crate::common::{Options, Script, Server, start};
use crate::tools::TEMPLATE;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

pub const RESPONSES: &str = "/v1/responses";

/// A thought, a text and two calls.
const TWO_CALLS: &str = "<think>\nWhich file? 漢字\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"read\", \
    \"arguments\": {\"path\": \"a \\\"b\\\".rs\", \"line\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"stop\", \
    \"arguments\": {}}\n</tool_call>";
/// A call of a custom tool, whose text has all that JSON escapes.
const PATCH: &str = "<tool_call>\n{\"name\": \"apply_patch\", \"arguments\": {\"input\": \
    \"*** Begin\\n+\\\"a\\\"\\t\\\\ \\u00e9\\ud83d\\ude00 漢字\\n*** End\"}}\n</tool_call>";
const PATCH_TEXT: &str = "*** Begin\n+\"a\"\t\\ é😀 漢字\n*** End";
/// A call of a tool in a namespace.
const SPAWN: &str = "<tool_call>\n{\"name\": \"agents__spawn\", \"arguments\": {\"task\": \"x\"}}\n</tool_call>";

pub async fn server_with(script: Script) -> Server {
    start(Options { script, template: Some(TEMPLATE), context: 4096, ..Options::default() }).await
}

pub async fn server(answer: &'static str) -> Server {
    server_with(Script::Answer(answer)).await
}

pub fn body(more: Value) -> Value {
    let mut body = json!({"model": "demo", "input": "Hello", "store": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Tools of every kind, most of them as Codex sends them.
pub fn tools() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
        "required": ["path"],
    });
    let task = json!({"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]});
    let spawn = json!({"type": "function", "name": "spawn", "strict": false, "parameters": task});
    let grammar = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"*** Begin\" /.+/"});
    json!([
        {"type": "function", "name": "read", "description": "Reads.", "strict": false, "parameters": parameters},
        {"type": "function", "name": "stop", "description": null, "strict": false, "parameters": null},
        {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": grammar},
        {"type": "custom", "name": "note"},
        {"type": "namespace", "name": "agents", "description": "Agents.", "tools": [spawn]},
        {"type": "web_search", "external_web_access": false},
        {"type": "image_generation"},
    ])
}

/// A streamed response's events, each checked to be named and numbered.
pub async fn events(server: &Server, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let response = server.post(RESPONSES, &body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    let mut events = Vec::new();
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        assert_eq!(data["sequence_number"], events.len(), "{data}");
        events.push(data);
    }
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[1]["type"], "response.in_progress");
    events
}

fn append(value: &mut Value, delta: &Value) {
    *value = json!(value.as_str().unwrap().to_owned() + delta.as_str().unwrap());
}

/// The output that the pieces of a stream make, without the items as its last events repeat them.
fn folded(events: &[Value]) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    for event in events {
        let kind = event["type"].as_str().unwrap();
        let at = event["output_index"].as_u64().unwrap_or(0) as usize;
        match kind {
            "response.output_item.added" => {
                assert_eq!((at, &event["item"]["status"]), (items.len(), &json!("in_progress")));
                items.push(event["item"].clone());
                continue;
            }
            "response.output_item.done" => items[at]["status"] = event["item"]["status"].clone(),
            _ => {}
        }
        if event.get("item_id").is_none() {
            continue;
        }
        assert_eq!(event["item_id"], items[at]["id"], "{event}");
        let index = |field: &str| event[field].as_u64().unwrap() as usize;
        let item = &mut items[at];
        match kind {
            "response.content_part.added" => item["content"].as_array_mut().unwrap().push(event["part"].clone()),
            "response.reasoning_summary_part.added" => {
                item["summary"].as_array_mut().unwrap().push(event["part"].clone());
            }
            "response.output_text.delta" | "response.reasoning_text.delta" => {
                let part = &mut item["content"][index("content_index")];
                append(&mut part["text"], &event["delta"]);
                for logprob in event["logprobs"].as_array().into_iter().flatten() {
                    part["logprobs"].as_array_mut().unwrap().push(logprob.clone());
                }
            }
            "response.reasoning_summary_text.delta" => {
                append(&mut item["summary"][index("summary_index")]["text"], &event["delta"]);
            }
            "response.function_call_arguments.delta" => append(&mut item["arguments"], &event["delta"]),
            "response.custom_tool_call_input.delta" => append(&mut item["input"], &event["delta"]),
            "response.output_text.done" | "response.reasoning_text.done" => {
                assert_eq!(item["content"][index("content_index")]["text"], event["text"]);
            }
            "response.reasoning_summary_text.done" => assert_eq!(item["summary"][0]["text"], event["text"]),
            "response.content_part.done" => assert_eq!(item["content"][index("content_index")], event["part"]),
            "response.reasoning_summary_part.done" => assert_eq!(item["summary"][0], event["part"]),
            "response.function_call_arguments.done" => assert_eq!(item["arguments"], event["arguments"]),
            "response.custom_tool_call_input.done" => assert_eq!(item["input"], event["input"]),
            other => panic!("unknown event {other}"),
        }
    }
    items
}

/// A response without what differs between two that are asked for alike: points in time, and ids but for their form.
fn comparable(response: &Value) -> Value {
    let unique = response["id"].as_str().unwrap().strip_prefix("resp_").unwrap();
    let mut response: Map<String, Value> = serde_json::from_str(&response.to_string().replace(unique, "ID")).unwrap();
    response.retain(|field, _| field != "created_at" && field != "completed_at");
    Value::Object(response)
}

/// The whole response to `body`, which is checked to be what its stream tells, piece by piece and at its end.
async fn whole_and_streamed(server: &Server, body: Value) -> Value {
    let whole = server.ask(RESPONSES, body.clone()).await;
    let events = events(server, body).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], format!("response.{}", whole["status"].as_str().unwrap()));
    assert_eq!(json!(folded(&events)), last["response"]["output"]);
    assert_eq!(comparable(&last["response"]), comparable(&whole));
    whole
}

/// Asks with this limit of tokens, and checks that the whole response and the streamed one agree.
pub async fn agree(server: &Server, limit: usize) {
    whole_and_streamed(server, body(json!({"tools": tools(), "max_output_tokens": limit}))).await;
}

#[tokio::test]
async fn thoughts_texts_and_calls_are_items_whole_and_streamed_alike() {
    let server = server(TWO_CALLS).await;
    let whole = whole_and_streamed(&server, body(json!({"tools": tools()}))).await;
    assert_eq!((&whole["status"], &whole["object"]), (&json!("completed"), &json!("response")));
    let output = whole["output"].as_array().unwrap();
    let kinds: Vec<&Value> = output.iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call", "function_call"]);
    assert_eq!(output[0]["content"], json!([{"type": "reasoning_text", "text": "Which file? 漢字"}]));
    assert_eq!(output[0]["summary"], json!([]));
    let text = json!([{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]);
    assert_eq!((&output[1]["role"], &output[1]["content"]), (&json!("assistant"), &text));
    assert_eq!(output[2]["name"], "read");
    // Byte for byte as the model wrote it.
    assert_eq!(output[2]["arguments"], r#"{"path": "a \"b\".rs", "line": 3}"#);
    assert_eq!((&output[3]["name"], &output[3]["arguments"]), (&json!("stop"), &json!("{}")));
    assert_ne!(output[2]["call_id"], output[3]["call_id"]);
    for (item, prefix) in output.iter().zip(["rs_", "msg_", "fc_", "fc_"]) {
        assert!(item["id"].as_str().unwrap().starts_with(prefix), "{item}");
        assert_eq!(item["status"], "completed");
    }
    let usage = &whole["usage"];
    let (input, output) = (usage["input_tokens"].as_u64().unwrap(), usage["output_tokens"].as_u64().unwrap());
    assert_eq!(usage["total_tokens"], input + output);
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 1);
    let thought = usage["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    assert!(thought > 3 && thought < output, "{usage}");

    let summary = json!({"tools": tools(), "reasoning": {"effort": "low", "summary": "auto"}});
    let whole = whole_and_streamed(&server, body(summary)).await;
    assert_eq!(whole["output"][0]["summary"], json!([{"type": "summary_text", "text": "Which file? 漢字"}]));
    assert!(whole["output"][0].get("content").is_none());
}

#[tokio::test]
async fn a_custom_tool_is_called_by_its_text_and_a_namespace_comes_back() {
    let server = server(PATCH).await;
    let whole = whole_and_streamed(&server, body(json!({"tools": tools()}))).await;
    let call = &whole["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("custom_tool_call"), &json!("apply_patch")));
    assert_eq!(call["input"], PATCH_TEXT);
    assert!(call["id"].as_str().unwrap().starts_with("ctc_") && call["call_id"].as_str().unwrap().starts_with("call_"));
    // The text comes in more than one piece.
    let events = events(&server, body(json!({"tools": tools()}))).await;
    let deltas = events.iter().filter(|event| event["type"] == "response.custom_tool_call_input.delta").count();
    assert!(deltas > 5, "{deltas}");

    let server = self::server(SPAWN).await;
    let whole = whole_and_streamed(&server, body(json!({"tools": tools()}))).await;
    let call = &whole["output"][0];
    assert_eq!((&call["name"], &call["namespace"]), (&json!("spawn"), &json!("agents")));
    assert_eq!(call["arguments"], r#"{"task": "x"}"#);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_incomplete_wherever_that_is() {
    for answer in [TWO_CALLS, PATCH] {
        let server = server(answer).await;
        let mut kinds = Vec::new();
        for tokens in 1..40 {
            let whole = whole_and_streamed(&server, body(json!({"tools": tools(), "max_output_tokens": tokens}))).await;
            if whole["status"] == "completed" {
                break;
            }
            assert_eq!(whole["incomplete_details"], json!({"reason": "max_output_tokens"}));
            assert_eq!(whole["usage"]["output_tokens"], tokens);
            let Some((last, before)) = whole["output"].as_array().unwrap().split_last() else { continue };
            assert!(before.iter().all(|item| item["status"] == "completed"), "{whole}");
            if last["status"] == "incomplete" {
                kinds.push(last["type"].as_str().unwrap().to_owned());
            }
        }
        kinds.dedup();
        assert!(kinds.ends_with(&["function_call".to_owned()]) || kinds.ends_with(&["custom_tool_call".into()]));
    }
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_text() {
    let server = server("<think>\nHm.\n</think>\n\nYes, 漢字.").await;
    let more = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let whole = whole_and_streamed(&server, body(more)).await;
    let text = &whole["output"][1]["content"][0];
    let bytes: Vec<u8> = text["logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8))
        .collect();
    assert!(String::from_utf8(bytes).unwrap().ends_with("Yes, 漢字."), "{text}");
    assert_eq!(text["logprobs"][0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_failure_is_told_in_the_stream_and_by_the_status() {
    let server = server_with(Script::FailLate).await;
    assert_eq!(server.post(RESPONSES, &body(json!({}))).await.status(), 500);
    let events = events(&server, body(json!({}))).await;
    let [.., error, text_done, part_done, item_done, failed] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("step_failed")));
    assert!(error["message"].is_string() && error["param"].is_null());
    assert_eq!(text_done["type"], "response.output_text.done");
    assert_eq!(part_done["type"], "response.content_part.done");
    assert_eq!(item_done["item"]["status"], "incomplete");
    assert_eq!((&failed["type"], &failed["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(failed["response"]["error"]["code"], "step_failed");
    assert_eq!(failed["response"]["output"], json!(folded(&events[..events.len() - 1])));
}

#[tokio::test]
async fn agents_are_told_in_the_stream_that_a_conversation_is_too_long() {
    let server = server("ok").await;
    let long = body(json!({"input": "word ".repeat(5000)}));
    let (status, code, param, _) = crate::common::error(server.post(RESPONSES, &long).await).await;
    assert_eq!((status, code.as_str(), param), (400, "context_length_exceeded", json!("input")));
    let events = events(&server, long).await;
    let failed = events.last().unwrap();
    assert_eq!(failed["type"], "response.failed");
    assert_eq!(failed["response"]["error"]["code"], "context_length_exceeded");
    assert!(failed["response"]["error"]["message"].as_str().unwrap().starts_with("prompt is too long"));
}

#[tokio::test]
async fn a_response_repeats_what_was_asked_for() {
    let server = server("ok").await;
    let asked = json!({
        "instructions": "Be terse.", "max_output_tokens": 7, "max_tool_calls": 3, "metadata": {"a": "b"},
        "parallel_tool_calls": false, "prompt_cache_key": "k", "reasoning": {"effort": "low", "summary": null},
        "safety_identifier": "s", "service_tier": "auto", "store": false, "temperature": 0.2, "tool_choice": "auto",
        "text": {"format": {"type": "text"}, "verbosity": "low"}, "tools": tools(), "top_p": 0.5,
        "truncation": "disabled", "user": "u", "background": false,
    });
    let response = server.ask(RESPONSES, body(asked.clone())).await;
    for (field, value) in asked.as_object().unwrap() {
        assert_eq!(&response[field], value, "{field}");
    }
    for field in ["error", "incomplete_details", "previous_response_id"] {
        assert!(response.get(field).is_some_and(Value::is_null), "{field}");
    }
    let bare = server.ask(RESPONSES, json!({"input": "Hi", "text": null, "reasoning": null, "tools": null})).await;
    assert_eq!(bare["text"], json!({"format": {"type": "text"}}));
    assert_eq!((&bare["tools"], &bare["tool_choice"]), (&json!([]), &json!("auto")));
    assert_eq!((&bare["temperature"], &bare["top_p"]), (&json!(0.7), &json!(0.9)));
    assert_eq!((&bare["store"], &bare["model"]), (&json!(true), &json!("demo")));
}
