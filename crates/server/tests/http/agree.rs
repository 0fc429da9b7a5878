//! A streamed answer, put together, is the whole one, in every protocol and for every format of tool calls.
use crate::common::{Options, Script, Server, chat_body, start};
use crate::tools::TEMPLATE;
use crate::{messages, responses, tools};
use serde_json::{Value, json};
use text::ToolCallFormat;

/// Pieces that answers in any format are made of, well-formed together or not.
const PIECES: [&str; 44] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_call>\n",
    "\n</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "function",
    "\n```json\n",
    "\n```",
    "{\"name\": \"read\", \"arguments\": ",
    "{\"name\": \"stop\", \"parameters\": ",
    "{\"path\": \"a\", \"line\": 3}",
    "{}",
    "}",
    "[",
    "]",
    ", ",
    ";",
    "read",
    "stop",
    "read(path=\"é\", line=1)",
    "stop()",
    "<function=read>",
    "<function=stop>",
    "</function>",
    "\n<parameter=path>\nx y\n</parameter>",
    "<parameter=line>7</parameter>",
    "漢字",
    "😀",
    " ",
    "\n",
    "Well, ",
    "{\"",
    "\\u00e9\"",
    "nobody",
    "<",
];

/// Well-formed calls, one in each format, and an answer in JSON.
const CALLS: [&str; 7] = [
    "<tool_call>\n{\"name\": \"read\", \"arguments\": {\"path\": \"a\", \"line\": 3}}\n</tool_call>",
    "<tool_call>\n<function=read>\n<parameter=path>\na b\n</parameter>\n</function>\n</tool_call>",
    "{\"name\": \"read\", \"parameters\": {\"path\": \"é\"}}",
    "[read(path=\"a\", line=2), stop()]",
    "[TOOL_CALLS] [{\"name\": \"stop\", \"arguments\": {}}, {\"name\": \"read\", \"arguments\": {\"path\": \"a\"}}]",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>read\n```json\n{\"path\": \"a\"}\n```\
     <｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "{\"a\": [1, null]}",
];

/// More tokens than any text has. What is beyond it in a request's limit is the seed of the text.
pub const LIMIT: usize = 10_000;

/// A text that looks random, for a request's limit of tokens.
fn text(limit: usize) -> String {
    let mut state = limit as u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let pieces = 1 + below(14);
    let piece = |_| if below(5) == 0 { CALLS[below(CALLS.len())] } else { PIECES[below(PIECES.len())] };
    (0..pieces).map(piece).collect()
}

/// The parts of a choice that both kinds of answers have, without ids.
fn of_chat(message: &Value) -> Value {
    let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let calls: Vec<&Value> = calls.iter().map(|call| &call["function"]).collect();
    json!([text("content"), text("reasoning_content"), calls])
}

async fn chat_agrees(server: &Server, seed: usize) -> Value {
    let body = chat_body(json!({"tools": tools::tools(), "max_tokens": LIMIT + seed}));
    let whole = server.ask("/v1/chat/completions", body.clone()).await;
    let chunks = server.stream("/v1/chat/completions", body).await;
    let choice = &whole["choices"][0];
    let parts = of_chat(&choice["message"]);
    assert_eq!(of_chat(&tools::folded(&chunks)), parts, "seed {seed}: {:?}", text(LIMIT + seed));
    let reason = &chunks.last().unwrap()["choices"][0]["finish_reason"];
    assert_eq!(*reason, choice["finish_reason"], "seed {seed}");
    parts
}

#[tokio::test]
async fn streams_and_whole_answers_agree() {
    let cases = testkit::cases(60) as usize;
    let mut calls = 0;
    for &format in ToolCallFormat::ALL {
        let options = Options {
            script: Script::Seeded(text),
            template: Some(TEMPLATE),
            calls: Some(format),
            context: 8192,
            ..Options::default()
        };
        let server = start(options).await;
        for seed in 0..cases {
            let parts = chat_agrees(&server, seed).await;
            calls += parts[2].as_array().unwrap().len();
            messages::agree(&server, LIMIT + seed).await;
            responses::agree(&server, LIMIT + seed).await;
            // A long run would keep them all.
            server.seen.requests.lock().unwrap().clear();
        }
    }
    assert!(calls > cases / 4, "{calls} calls");
}
