//! Answers of every endpoint, whole and streamed.
use crate::common::{CONTEXT, Options, Script, Server, TEXT, TOKENIZER, chat_body, completion_body, start, start_with};
use engine::{SamplingParams, StopParams};
use serde_json::{Value, json};
use server::ServerConfig;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn text_of(chunks: &[Value], index: usize, path: &str) -> String {
    let choices = chunks.iter().flat_map(|c| c["choices"].as_array().unwrap()).filter(|c| c["index"] == index);
    choices.filter_map(|c| c.pointer(path)?.as_str()).collect()
}

fn num_tokens(text: &str) -> usize {
    TOKENIZER.encode(text, false).unwrap().len()
}

async fn server() -> Server {
    start_with(Script::Answer(TEXT)).await
}

#[tokio::test]
async fn a_chat_answer() {
    let server = server().await;
    let answer = server.chat(json!({})).await;
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["model"], "demo");
    assert!(answer["system_fingerprint"].as_str().unwrap().contains("bf16-f16"));
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], TEXT);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"], Value::Null);
    let prompt = server.last_request().prompt;
    assert_eq!(answer["usage"]["prompt_tokens"], prompt.len());
    assert_eq!(answer["usage"]["completion_tokens"], num_tokens(TEXT));
    assert_eq!(answer["usage"]["total_tokens"], prompt.len() + num_tokens(TEXT));
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
    let details = &answer["usage"]["completion_tokens_details"];
    assert_eq!(
        (&details["accepted_prediction_tokens"], &details["rejected_prediction_tokens"]),
        (&json!(1), &json!(1))
    );
    // The rendered template, without a second BOS.
    assert_eq!(
        TOKENIZER.decode(&prompt, false),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[tokio::test]
async fn a_streamed_chat_answer() {
    let server = server().await;
    let chunks = server.stream(CHAT, chat_body(json!({"stream_options": {"include_usage": true}}))).await;
    let [first, .., finish, usage] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == first["id"]));
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(finish["choices"][0]["delta"], json!({}));
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], num_tokens(TEXT));
    assert!(chunks[..chunks.len() - 1].iter().all(|c| c.get("usage") == Some(&Value::Null)));
    assert_eq!(text_of(&chunks, 0, "/delta/content"), TEXT);
    // Fewer chunks than tokens: parts of characters wait, and none is half.
    assert!(chunks.len() < num_tokens(TEXT) + 3);
    assert!(chunks.iter().all(|c| !c.to_string().contains('\u{FFFD}')));
    let without = server.stream(CHAT, chat_body(json!({}))).await;
    assert!(without.iter().all(|c| c.get("usage").is_none()));
}

#[tokio::test]
async fn several_choices() {
    let server = server().await;
    let answer = server.chat(json!({"n": 3})).await;
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(choices.iter().all(|c| c["message"]["content"] == TEXT));
    assert_eq!(answer["usage"]["completion_tokens"], 3 * num_tokens(TEXT));
    assert_eq!(answer["usage"]["prompt_tokens"], server.last_request().prompt.len());
    let chunks = server.stream(CHAT, chat_body(json!({"n": 3}))).await;
    for index in 0..3 {
        assert_eq!(text_of(&chunks, index, "/delta/content"), TEXT);
        assert_eq!(text_of(&chunks, index, "/delta/role"), "assistant");
        assert_eq!(text_of(&chunks, index, "/finish_reason"), "stop");
    }
}

#[tokio::test]
async fn chat_logprobs() {
    let server = server().await;
    let body = json!({"logprobs": true, "top_logprobs": 2});
    let whole = server.chat(body.clone()).await;
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let chunks = server.stream(CHAT, chat_body(body)).await;
    let logprobs = chunks.iter().filter_map(|c| c["choices"][0]["logprobs"]["content"].as_array());
    let streamed: Vec<Value> = logprobs.flatten().cloned().collect();
    assert_eq!(content, streamed);
    assert_eq!(content.len(), num_tokens(TEXT));
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|entry| entry["bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8))
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), TEXT);
    for (entry, id) in content.iter().zip(TOKENIZER.encode(TEXT, false).unwrap()) {
        assert_eq!(entry["logprob"], -1.5);
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 2);
        let bytes = TOKENIZER.token_bytes(id);
        match String::from_utf8(bytes) {
            Ok(text) => assert_eq!(entry["token"], text),
            Err(_) => assert!(entry["token"].as_str().unwrap().starts_with("bytes:\\x")),
        }
    }
    let plain = server.chat(json!({"logprobs": true})).await;
    assert_eq!(plain["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn a_completion_and_its_logprobs() {
    let server = server().await;
    let answer = server.ask(COMPLETIONS, completion_body(json!({"logprobs": 1, "max_tokens": 500}))).await;
    assert_eq!(answer["object"], "text_completion");
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], TEXT);
    assert_eq!(choice["finish_reason"], "stop");
    let ids = TOKENIZER.encode(TEXT, false).unwrap();
    let logprobs = &choice["logprobs"];
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().unwrap().len(), ids.len(), "{list}");
    }
    // The most likely one first, then the chosen one, which is not among the top 1.
    let top = logprobs["top_logprobs"][0].as_object().unwrap();
    assert_eq!(top.values().collect::<Vec<_>>(), [&json!(-0.25), &json!(-1.5)]);
    let characters: Vec<char> = TEXT.chars().collect();
    for i in 0..ids.len() {
        let offset = logprobs["text_offset"][i].as_u64().unwrap() as usize;
        let rest: String = characters[offset..].iter().collect();
        let token = logprobs["tokens"][i].as_str().unwrap();
        assert!(rest.starts_with(token) || token.starts_with("bytes:"), "{token:?} at {offset}");
    }
    // A prompt of text gets BOS.
    assert_eq!(server.last_request().prompt, TOKENIZER.encode("Once upon", true).unwrap());
}

#[tokio::test]
async fn a_streamed_completion_joins_to_the_whole_one() {
    let server = server().await;
    for more in [json!({"logprobs": 2}), json!({"logprobs": 2, "echo": true}), json!({"n": 2, "prompt": ["a", "b"]})] {
        let whole = server.ask(COMPLETIONS, completion_body(more.clone())).await;
        let chunks = server.stream(COMPLETIONS, completion_body(more)).await;
        for choice in whole["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            assert_eq!(text_of(&chunks, index, "/text"), choice["text"].as_str().unwrap());
            for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let parts = chunks.iter().map(|c| &c["choices"][0]).filter(|c| c["index"] == index);
                let parts = parts.filter_map(|c| c["logprobs"][list].as_array()).flatten();
                let joined: Vec<Value> = parts.cloned().collect();
                assert_eq!(joined, *choice["logprobs"][list].as_array().unwrap_or(&vec![]), "{list}");
            }
        }
    }
}

#[tokio::test]
async fn an_echoed_prompt_with_logprobs_and_no_tokens() {
    let server = server().await;
    let prompt = "Once 漢 upon";
    let body = json!({"model": "demo", "prompt": prompt, "echo": true, "logprobs": 1, "max_tokens": 0});
    let answer = server.ask(COMPLETIONS, body.clone()).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], prompt);
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    let ids = TOKENIZER.encode(prompt, true).unwrap();
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), ids.len());
    assert_eq!(logprobs["tokens"][0], "<|begin_of_text|>");
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&Value::Null, &Value::Null));
    assert_eq!(logprobs["token_logprobs"][1], -1.5);
    // BOS is no part of the text.
    assert_eq!((&logprobs["text_offset"][0], &logprobs["text_offset"][1]), (&json!(0), &json!(0)));
    assert_eq!(server.last_request().prompt_logprobs, Some(1));
    let chunks = server.stream(COMPLETIONS, body).await;
    assert_eq!(text_of(&chunks, 0, "/text"), prompt);
    assert_eq!(text_of(&chunks, 0, "/finish_reason"), "length");
}

#[tokio::test]
async fn prompt_logprobs_as_in_vllm() {
    let server = server().await;
    let answer = server.ask(COMPLETIONS, completion_body(json!({"prompt_logprobs": 1}))).await;
    let places = answer["choices"][0]["prompt_logprobs"].as_array().unwrap();
    let ids = TOKENIZER.encode("Once upon", true).unwrap();
    assert_eq!((places.len(), &places[0]), (ids.len(), &Value::Null));
    let own = &places[1][ids[1].to_string()];
    assert_eq!(own["logprob"], -1.5);
    assert_eq!(own["decoded_token"], TOKENIZER.token_text(ids[1]));
    assert_eq!(places[1][(ids[1] + 1).to_string()]["rank"], 1);
}

/// The engine takes the larger number for both.
#[tokio::test]
async fn echo_and_prompt_logprobs_have_as_many_alternatives_as_each_asks_for() {
    let server = server().await;
    for (echoed, own) in [(1, 3), (3, 1)] {
        let body = json!({"echo": true, "logprobs": echoed, "prompt_logprobs": own});
        let answer = server.ask(COMPLETIONS, completion_body(body)).await;
        assert_eq!(server.last_request().prompt_logprobs, Some(3));
        let choice = &answer["choices"][0];
        // With the prompt's own token, which is the second most likely.
        let len = |value: &Value| value.as_object().unwrap().len();
        assert_eq!(len(&choice["logprobs"]["top_logprobs"][1]), echoed.max(2));
        assert_eq!(len(&choice["prompt_logprobs"][1]), own.max(2));
    }
}

#[tokio::test]
async fn every_form_of_prompt() {
    let server = server().await;
    let ids = |text: &str| TOKENIZER.encode(text, true).unwrap();
    for (prompt, expected) in [
        (json!("a b"), vec![ids("a b")]),
        (json!(["a", "b c"]), vec![ids("a"), ids("b c")]),
        (json!([5, 6, 7]), vec![vec![5, 6, 7]]),
        (json!([[5], [6, 7]]), vec![vec![5], vec![6, 7]]),
    ] {
        server.seen.requests.lock().unwrap().clear();
        let answer = server.ask(COMPLETIONS, completion_body(json!({"prompt": prompt, "n": 2}))).await;
        let prompts: Vec<Vec<u32>> = server.seen.requests.lock().unwrap().iter().map(|r| r.prompt.clone()).collect();
        assert_eq!(prompts, expected);
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 2 * expected.len());
        assert!(choices.iter().enumerate().all(|(i, c)| c["index"] == i && c["text"] == TEXT));
    }
    let echoed = server.ask(COMPLETIONS, completion_body(json!({"prompt": ids("a b"), "echo": true}))).await;
    assert_eq!(echoed["choices"][0]["text"], format!("<|begin_of_text|>a b{TEXT}"));
    server.ask(COMPLETIONS, completion_body(json!({"add_special_tokens": false}))).await;
    assert_eq!(server.last_request().prompt, TOKENIZER.encode("Once upon", false).unwrap());
}

#[tokio::test]
async fn token_ids_on_request() {
    let server = server().await;
    let ids = json!(TOKENIZER.encode(TEXT, false).unwrap());
    let flags = json!({"return_token_ids": true, "return_tokens_as_token_ids": true, "logprobs": 0});
    let answer = server.ask(COMPLETIONS, completion_body(flags)).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["token_ids"], ids);
    assert_eq!(choice["prompt_token_ids"], json!(TOKENIZER.encode("Once upon", true).unwrap()));
    assert_eq!(choice["logprobs"]["tokens"][0], format!("token_id:{}", ids[0]));
    let chat = server.chat(json!({"return_token_ids": true})).await;
    assert_eq!(chat["choices"][0]["token_ids"], ids);
    assert_eq!(chat["prompt_token_ids"], json!(server.last_request().prompt));
    let chunks = server.stream(CHAT, chat_body(json!({"return_token_ids": true}))).await;
    let parts = chunks.iter().filter_map(|c| c["choices"][0]["token_ids"].as_array()).flatten();
    assert_eq!(json!(parts.collect::<Vec<_>>()), ids);
    assert_eq!(chunks[0]["prompt_token_ids"], json!(server.last_request().prompt));
}

#[tokio::test]
async fn a_stop_string_is_named() {
    let server = start_with(Script::Stopped("Yes")).await;
    let answer = server.chat(json!({"stop": "\n"})).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["stop_reason"], "\n");
    let chunks = server.stream(COMPLETIONS, completion_body(json!({"stop": ["\n"]}))).await;
    assert_eq!(chunks.last().unwrap()["choices"][0]["stop_reason"], "\n");
}

#[tokio::test]
async fn a_limit_is_a_length_finish_and_lets_go_of_half_a_character() {
    let server = start_with(Script::Answer("😀")).await;
    for limit in ["max_tokens", "max_completion_tokens"] {
        let answer = server.chat(json!({limit: 1})).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["choices"][0]["message"]["content"], "\u{FFFD}");
        let chunks = server.stream(CHAT, chat_body(json!({limit: 1}))).await;
        assert_eq!(text_of(&chunks, 0, "/delta/content"), "\u{FFFD}");
    }
}

#[tokio::test]
async fn parameters_reach_the_engine() {
    let server = server().await;
    let body = json!({
        "temperature": 0.25, "top_p": 0.5, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5,
        "presence_penalty": -1.0, "frequency_penalty": 2.0, "logit_bias": {"5": -100, "6": 1.5}, "seed": 42,
        "allowed_token_ids": [7, 8], "bad_words": [" Alice", "a"], "min_tokens": 4, "logprob_token_ids": [9],
        "max_tokens": 9, "max_completion_tokens": 11, "stop": ["x", "y"], "stop_token_ids": [3], "ignore_eos": true,
        "include_stop_str_in_output": true, "skip_special_tokens": false, "n": 2, "user": "someone", "logprobs": true,
    });
    server.chat(body).await;
    let request = server.last_request();
    assert_eq!(
        request.sampling,
        SamplingParams {
            temperature: 0.25,
            top_p: 0.5,
            top_k: 7,
            min_p: 0.125,
            repetition_penalty: 1.5,
            presence_penalty: -1.0,
            frequency_penalty: 2.0,
            logit_bias: vec![(5, -100.0), (6, 1.5)],
            allowed_token_ids: Some(vec![7, 8]),
            banned_sequences: ["Alice", " Alice", "a", " a"].map(|text| TOKENIZER.encode(text, false).unwrap()).into(),
            seed: Some(42),
        }
    );
    assert_eq!(
        request.stop,
        StopParams {
            max_tokens: Some(11),
            min_tokens: 4,
            stop: vec!["x".into(), "y".into()],
            stop_token_ids: vec![3],
            ignore_eos: true,
            include_stop_str_in_output: true,
            keep_special_tokens: true,
        }
    );
    assert_eq!((request.n, request.client.as_str(), request.logprobs), (2, "someone", Some(0)));
    assert_eq!(request.logprob_token_ids, [9]);
}

#[tokio::test]
async fn what_a_request_leaves_open_is_the_models() {
    let server = server().await;
    // Null is the same as nothing, also for the fields that are refused otherwise.
    let nulls = json!({"temperature": null, "stop": null, "logit_bias": null, "tools": null, "stream": null, "n": null,
        "tool_choice": "none", "response_format": {"type": "text"}, "unheard_of": [1]});
    server.chat(nulls).await;
    let request = server.last_request();
    assert_eq!(request.sampling, SamplingParams { temperature: 0.7, top_p: 0.9, ..Default::default() });
    assert_eq!(request.stop, StopParams::default());
    assert_eq!((request.n, request.client.as_str(), request.logprobs), (1, "127.0.0.1", None));
    server.chat(json!({"top_k": -1, "max_tokens": 100_000})).await;
    assert_eq!(server.last_request().sampling.top_k, 0);
}

#[tokio::test]
async fn template_switches_reach_the_template() {
    let template = Some("{{ 'on' if deep else 'off' }}{{ add_generation_prompt }}");
    let server = start(Options { template, ..Default::default() }).await;
    server.chat(json!({"chat_template_kwargs": {"deep": true}, "add_generation_prompt": false})).await;
    assert_eq!(TOKENIZER.decode(&server.last_request().prompt, false).to_lowercase(), "onfalse");
}

#[tokio::test]
async fn models_and_their_names() {
    let mut config = ServerConfig { port: 0, ..Default::default() };
    config.served_model_name = vec!["org/first".into(), "second".into()];
    let server = start(Options { config, ..Default::default() }).await;
    let models: Value = server.get("/v1/models").await.json().await.unwrap();
    assert_eq!(models["object"], "list");
    let names: Vec<&str> = models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["org/first", "second"]);
    assert_eq!(models["data"][0]["max_model_len"], CONTEXT);
    let model: Value = server.get("/v1/models/org/first").await.json().await.unwrap();
    assert_eq!((model["id"].as_str(), model["object"].as_str()), (Some("org/first"), Some("model")));
    for asked in [json!({"model": "second"}), json!({"model": null}), json!({"model": "org/first"})] {
        assert_eq!(server.chat(asked).await["model"], "org/first");
    }
}

#[tokio::test]
async fn health_and_version() {
    let server = server().await;
    let health = server.get("/health").await;
    assert_eq!(health.status(), 200);
    let version: Value = server.get("/version").await.json().await.unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn tokenize_and_detokenize() {
    let server = server().await;
    let ids = TOKENIZER.encode("Hello 漢", true).unwrap();
    let answer = server.ask("/tokenize", json!({"prompt": "Hello 漢", "return_token_strs": true})).await;
    assert_eq!(answer["tokens"], json!(ids));
    assert_eq!((&answer["count"], &answer["max_model_len"]), (&json!(ids.len()), &json!(CONTEXT)));
    assert_eq!(answer["token_strs"][0], "<|begin_of_text|>");
    let plain = server.ask("/tokenize", json!({"prompt": "Hello 漢", "add_special_tokens": false})).await;
    assert_eq!((&plain["tokens"], &plain["token_strs"]), (&json!(ids[1..]), &Value::Null));
    let chat = server.ask("/tokenize", chat_body(json!({}))).await;
    server.chat(json!({})).await;
    assert_eq!(chat["tokens"], json!(server.last_request().prompt));
    let text = server.ask("/detokenize", json!({"tokens": ids})).await;
    assert_eq!(text, json!({"prompt": "<|begin_of_text|>Hello 漢"}));
}
