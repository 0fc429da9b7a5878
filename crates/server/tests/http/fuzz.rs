//! Whatever a body holds, its sender gets an answer or an error in its protocol's form, and the server goes on.
use crate::common::{Options, Server, start};
use crate::infill::CODER;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use tokio::runtime::Runtime;

static SERVER: LazyLock<(Runtime, Server)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(start(Options { tokenizer: CODER.clone(), ..Default::default() }));
    (runtime, server)
});

const PATHS: [&str; 10] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/infill",
    "/v1/messages",
    "/v1/messages/count_tokens",
];

/// Fields of all endpoints, known and unknown ones.
const FIELDS: [&str; 73] = [
    "model",
    "messages",
    "prompt",
    "tokens",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "truncate_prompt_tokens",
    "truncation_side",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "logprob_token_ids",
    "allowed_token_ids",
    "bad_words",
    "echo",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stream",
    "stream_options",
    "user",
    "chat_template_kwargs",
    "add_generation_prompt",
    "add_special_tokens",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "tools",
    "tool_choice",
    "response_format",
    "suffix",
    "input_prefix",
    "input_suffix",
    "input_extra",
    "n_predict",
    "response_fields",
    "best_of",
    "cache_salt",
    "documents",
    "continue_final_message",
    "reasoning_effort",
    "metadata",
    "store",
    "system",
    "stop_sequences",
    "thinking",
    "output_config",
    "type",
    "content",
    "input",
    "instructions",
    "dimensions",
    "encoding_format",
    "previous_response_id",
    "max_output_tokens",
    "text",
    "reasoning",
    "include",
    "format",
    "nobody_knows_this",
    "",
];

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3i64..300).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2.0f64..3.0).prop_map(Value::from),
    ]
}

/// A message, mostly with the fields that one has.
fn message() -> impl Strategy<Value = Value> {
    let role = select(vec!["user", "assistant", "system", "developer", "tool", "function", "nobody"]);
    let content = prop_oneof![
        3 => "\\PC{0,20}".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!([{"type": "text", "text": "part"}, {"type": "text"}])),
        1 => Just(json!([{"type": "image_url", "image_url": {"url": "data:"}}])),
        1 => Just(json!([
            {"type": "thinking", "thinking": "x"},
            {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "y"}]},
        ])),
        1 => number(),
    ];
    let call = json!([{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]);
    let calls = prop::option::of(select(vec![Value::Null, json!([]), call, json!([{"function": 1}]), json!("x")]));
    (role, prop::option::of(content), calls).prop_map(|(role, content, calls)| {
        let mut message = Map::from_iter([("role".to_owned(), Value::from(role))]);
        message.extend(content.map(|content| ("content".to_owned(), content)));
        message.extend(calls.map(|calls| ("tool_calls".to_owned(), calls)));
        Value::Object(message)
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => number(),
        2 => "\\PC{0,12}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        2 => message(),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((select(FIELDS.to_vec()), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(&str, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A body that is nearly right: what an endpoint needs, and some fields with any value.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let needed = (prop::collection::vec(message(), 0..4), "\\PC{0,20}", prop::collection::vec(0u32..13_000, 0..5))
        .prop_map(|(messages, prompt, tokens)| {
            let input = messages.clone();
            json!({
                "model": "demo", "messages": messages, "input": input, "prompt": prompt, "tokens": tokens,
                "max_tokens": 4,
            })
        });
    let fields = prop::collection::vec((select(FIELDS.to_vec()), value()), 0..4).prop_map(object);
    let whole = (needed, fields).prop_map(|(mut body, fields)| {
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    });
    let text = prop_oneof![6 => whole, 1 => value()].prop_map(|value| value.to_string().into_bytes());
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 1..4);
    let changed = (text, prop::option::weighted(0.3, changes), any::<Index>(), prop::bool::weighted(0.1));
    changed.prop_map(|(mut bytes, changes, end, cut)| {
        for (at, byte) in changes.unwrap_or_default() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testkit::cases(1000)))]

    #[test]
    fn every_body_is_answered(path in select(PATHS.to_vec()), body in body()) {
        let (runtime, server) = &*SERVER;
        let request = server.client.post(format!("{}{path}", server.url)).header("content-type", "application/json");
        let (status, text) = runtime.block_on(async {
            let response = request.body(body.clone()).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
        let sent = || format!("{path} {}: {status} {text}", String::from_utf8_lossy(&body));
        if status == 200 {
            let whole = serde_json::from_str::<Value>(&text).is_ok_and(|answer| answer["error"].is_null());
            let ends = ["data: [DONE]", "data: {\"type\":\"message_stop\"}"];
            prop_assert!(whole || ends.iter().any(|end| text.trim_end().ends_with(end)), "{}", sent());
        } else {
            prop_assert!([400, 404, 413, 422].contains(&status), "{}", sent());
            let error = serde_json::from_str::<Value>(&text).unwrap_or_default();
            let kind = if path.starts_with("/v1/messages") { &error["request_id"] } else { &error["error"]["code"] };
            prop_assert!(error["error"]["message"].is_string() && kind.is_string(), "{}", sent());
        }
    }
}
