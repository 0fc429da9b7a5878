//! Refusals and failures: each with its status, code and field, in OpenAI's shape.
use crate::common::{CONTEXT, Options, Script, chat_body, completion_body, error, eventually, start, start_with};
use crate::connections::{connect, connect_and_send, read_to_end};
use futures_util::StreamExt;
use serde_json::{Value, json};
use server::ServerConfig;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn wrong_fields_are_named() {
    let server = start_with(Script::Answer("x")).await;
    for (more, param) in [
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"top_p": -0.1}), "top_p"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"logit_bias": {"99999": 1}}), "logit_bias"),
        (json!({"logit_bias": {"five": 1}}), "logit_bias"),
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"seed": "x"}), "seed"),
        (json!({"stop": 5}), "stop"),
        (json!({"stop": ["a", 5]}), "stop[1]"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": vec!["s"; 65]}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 3}}), "stream_options.include_usage"),
        (json!({"user": 5}), "user"),
        (json!({"model": 5}), "model"),
    ] {
        for (path, body) in [(CHAT, chat_body(more.clone())), (COMPLETIONS, completion_body(more.clone()))] {
            let (status, code, named, object) = error(server.post(path, &body).await).await;
            assert_eq!(
                (status, code.as_str(), named.as_str()),
                (400, "invalid_value", Some(param)),
                "{path} {more}: {object}"
            );
            let field = param.split(['.', '[']).next().unwrap();
            assert!(object["message"].as_str().unwrap().contains(field), "{object}");
        }
    }
    assert!(server.seen.requests.lock().unwrap().is_empty());
    let (.., object) = error(server.post(CHAT, &chat_body(json!({"max_tokens": -1}))).await).await;
    assert_eq!(object["message"], "max_tokens: invalid value: integer `-1`, expected an integer of at least 0");
}

#[tokio::test]
async fn wrong_fields_of_one_endpoint_are_named() {
    let server = start_with(Script::Answer("x")).await;
    let too_long = vec![5; CONTEXT];
    for (path, body, param) in [
        (CHAT, json!({"model": "demo"}), "messages"),
        (CHAT, chat_body(json!({"messages": []})), "messages"),
        (CHAT, chat_body(json!({"messages": [{"role": "user", "content": 3}]})), "messages[0].content"),
        (
            CHAT,
            chat_body(json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})),
            "messages[0].content[0]",
        ),
        (CHAT, chat_body(json!({"top_logprobs": 2})), "top_logprobs"),
        (CHAT, chat_body(json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (CHAT, chat_body(json!({"logprobs": 3})), "logprobs"),
        (CHAT, chat_body(json!({"chat_template_kwargs": 3})), "chat_template_kwargs"),
        (COMPLETIONS, json!({"model": "demo"}), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": []})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": {}})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": [[]]})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": ["a", 5]})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": [5, -1]})), "prompt[1]"),
        (COMPLETIONS, completion_body(json!({"prompt": [[5], [5, "a"]]})), "prompt[1][1]"),
        (COMPLETIONS, completion_body(json!({"prompt": [12288]})), "prompt"),
        (COMPLETIONS, completion_body(json!({"logprobs": 21})), "logprobs"),
        (COMPLETIONS, completion_body(json!({"prompt_logprobs": 21})), "prompt_logprobs"),
        (COMPLETIONS, completion_body(json!({"prompt_logprobs": 1, "stream": true})), "prompt_logprobs"),
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 5}), "prompt"),
        ("/tokenize", chat_body(json!({"prompt": "both"})), "prompt"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": [5, "a"]}), "tokens[1]"),
        ("/detokenize", json!({"tokens": [12288]}), "tokens"),
    ] {
        let (status, code, named, object) = error(server.post(path, &body).await).await;
        assert_eq!(
            (status, code.as_str(), named.as_str()),
            (400, "invalid_value", Some(param)),
            "{path} {body}: {object}"
        );
    }
    for (path, body, param) in [
        (COMPLETIONS, completion_body(json!({"prompt": too_long})), "prompt"),
        (CHAT, chat_body(json!({"messages": [{"role": "user", "content": "word ".repeat(CONTEXT)}]})), "messages"),
    ] {
        let (status, code, named, object) = error(server.post(path, &body).await).await;
        assert_eq!((status, code.as_str(), named.as_str()), (400, "context_length_exceeded", Some(param)));
        assert_eq!(object["n_ctx"], CONTEXT);
        let n_prompt_tokens = object["n_prompt_tokens"].as_u64().unwrap();
        assert!(n_prompt_tokens >= CONTEXT as u64);
        // Agents know by these words that the conversation has to be made shorter.
        let told = format!(
            "prompt is too long: {n_prompt_tokens} tokens > {} maximum; this model's maximum context length is \
             {CONTEXT} tokens",
            CONTEXT - 1
        );
        assert!(object["message"].as_str().unwrap().starts_with(&told), "{object}");
    }
}

#[tokio::test]
async fn what_is_not_supported_is_refused_and_not_ignored() {
    let server = start_with(Script::Answer("x")).await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (field, value) in [
        ("tools", tool.clone()),
        ("tool_choice", json!("auto")),
        ("tool_choice", json!("required")),
        ("functions", tool),
        ("response_format", json!({"type": "json_object"})),
        ("response_format", json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}})),
        ("min_tokens", json!(1)),
        ("best_of", json!(2)),
        ("guided_json", json!({})),
    ] {
        for (path, body) in
            [(CHAT, chat_body(json!({field: value}))), (COMPLETIONS, completion_body(json!({field: value})))]
        {
            let (status, code, named, object) = error(server.post(path, &body).await).await;
            assert_eq!(
                (status, code.as_str(), named.as_str()),
                (400, "unsupported_parameter", Some(field)),
                "{object}"
            );
            assert!(object["message"].as_str().unwrap().contains(field));
        }
    }
    let (_, code, named, _) = error(server.post(COMPLETIONS, &completion_body(json!({"suffix": "end"}))).await).await;
    assert_eq!((code.as_str(), named.as_str()), ("unsupported_parameter", Some("suffix")));
}

#[tokio::test]
async fn bodies_that_are_no_json_objects() {
    let server = start_with(Script::Answer("x")).await;
    for body in ["", "{", "[1]", "\"x\"", "{\"model\": \"demo\",}", "{\"a\": 1e999}"] {
        let response = server.client.post(format!("{}{CHAT}", server.url)).body(body).send().await.unwrap();
        let (status, code, _, _) = error(response).await;
        assert_eq!((status, code.as_str()), (400, "invalid_json"), "{body}");
    }
}

#[tokio::test]
async fn unknown_models_routes_and_methods() {
    let server = start_with(Script::Answer("x")).await;
    for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
        let (status, code, param, object) = error(server.post(path, &chat_body(json!({"model": "gpt-9"}))).await).await;
        assert_eq!((status, code.as_str(), param.as_str()), (404, "model_not_found", Some("model")));
        assert!(object["message"].as_str().unwrap().contains("demo"), "{object}");
    }
    let (status, code, ..) = error(server.get("/v1/models/gpt-9").await).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    let (status, code, ..) = error(server.post("/v1/nothing", &json!({})).await).await;
    assert_eq!((status, code.as_str()), (404, "not_found"));
    for path in [CHAT, "/tokenize"] {
        let (status, code, ..) = error(server.get(path).await).await;
        assert_eq!((status, code.as_str()), (405, "method_not_allowed"));
    }
    let (status, code, ..) = error(server.post("/health", &json!({})).await).await;
    assert_eq!((status, code.as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn a_key_guards_all_but_health_version_and_metrics() {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    let server = start(Options { config, ..Default::default() }).await;
    for header in
        [None, Some("Bearer wrong!"), Some("Bearer secret2"), Some("Bearer "), Some("secret"), Some("Basic secret")]
    {
        for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
            let request = server.client.post(format!("{}{path}", server.url)).json(&chat_body(json!({})));
            let request = match header {
                Some(value) => request.header("authorization", value),
                None => request,
            };
            let (status, code, ..) = error(request.send().await.unwrap()).await;
            assert_eq!((status, code.as_str()), (401, "invalid_api_key"), "{header:?} {path}");
        }
    }
    let (status, ..) = error(server.get("/v1/models").await).await;
    assert_eq!(status, 401);
    for value in ["Bearer secret", "bearer secret"] {
        let request = server.client.get(format!("{}/v1/models", server.url)).header("authorization", value);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    for open in ["/health", "/version", "/metrics"] {
        assert_eq!(server.get(open).await.status(), 200, "{open}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_clear_error() {
    let server = start_with(Script::Answer("x")).await;
    let long = vec![b' '; 10 << 20];
    let whole = server.client.post(format!("{}{CHAT}", server.url)).body(long.clone()).send().await.unwrap();
    let (status, code, _, object) = error(whole).await;
    assert_eq!((status, code.as_str()), (413, "request_too_large"));
    assert!(object["message"].as_str().unwrap().contains(&(4 << 20).to_string()), "{object}");
    // Without a Content-Length.
    let pieces = futures_util::stream::iter(
        long.chunks(1 << 16).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
    );
    let request = server.client.post(format!("{}{CHAT}", server.url)).body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(error(request.send().await.unwrap()).await.0, 413);
    // Just within the limit it is the body's content that counts.
    let request = server.client.post(format!("{}{CHAT}", server.url)).body(vec![b' '; 4 << 20]);
    assert_eq!(error(request.send().await.unwrap()).await.1, "invalid_json");
}

/// A client that sends all of its body before it reads, as most do.
#[tokio::test]
async fn whoever_is_refused_with_a_long_body_reads_why_and_keeps_the_connection() {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    let server = start(Options { config, ..Default::default() }).await;
    let mut client = connect(&server).await;
    let body = " ".repeat(10 << 20);
    let authorised = "Authorization: Bearer secret\r\n";
    for (path, more, status) in [
        (CHAT, String::new(), 401),
        ("/nowhere", String::new(), 404),
        ("/health", String::new(), 405),
        (CHAT, authorised.to_owned(), 413),
        (CHAT, format!("{authorised}Content-Encoding: br\r\n"), 415),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {}\r\n\r\n", body.len());
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

/// A client that asks first is told before it has sent anything.
#[tokio::test]
async fn whoever_asks_before_sending_is_refused_at_once() {
    let server = start_with(Script::Answer("x")).await;
    for (path, status) in [(CHAT, 413), ("/nowhere", 404)] {
        let head = format!("POST {path} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", 10 << 20);
        let mut client = connect_and_send(&server, &head).await;
        assert!(read_to_end(&mut client).await.starts_with(&format!("HTTP/1.1 {status} ")), "{path}");
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_try_again() {
    let server = start(Options { script: Script::Wait, queue_limit: 1, ..Default::default() }).await;
    let first = server.client.post(format!("{}{CHAT}", server.url)).json(&chat_body(json!({}))).send();
    let first = tokio::spawn(first);
    eventually("the first request", || server.seen.requests.lock().unwrap().len() == 1).await;
    for stream in [false, true] {
        let response = server.post(CHAT, &chat_body(json!({"stream": stream}))).await;
        assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
        let (status, code, ..) = error(response).await;
        assert_eq!((status, code.as_str()), (429, "queue_full"));
    }
    first.abort();
}

#[tokio::test]
async fn while_the_model_loads_all_is_unavailable() {
    let server = start(Options { loaded: false, ..Default::default() }).await;
    for path in ["/health", "/v1/models", "/v1/models/demo"] {
        let response = server.get(path).await;
        assert!(response.headers().contains_key("retry-after"), "{path}");
        let (status, code, ..) = error(response).await;
        assert_eq!((status, code.as_str()), (503, "model_loading"), "{path}");
    }
    for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
        let (status, code, ..) = error(server.post(path, &chat_body(json!({}))).await).await;
        assert_eq!((status, code.as_str()), (503, "model_loading"), "{path}");
    }
    for path in ["/version", "/metrics"] {
        assert_eq!(server.get(path).await.status(), 200);
    }
}

#[tokio::test]
async fn a_failed_step_is_a_500_or_an_event_of_the_stream() {
    for script in [Script::Fail, Script::FailLate] {
        let server = start_with(script).await;
        for (path, body) in [(CHAT, chat_body(json!({}))), (COMPLETIONS, completion_body(json!({})))] {
            let (status, code, _, object) = error(server.post(path, &body).await).await;
            assert_eq!((status, code.as_str()), (500, "step_failed"));
            assert!(object["message"].as_str().unwrap().contains("the script says so"));
            let chunks = server.stream(path, body).await;
            assert_eq!(chunks.last().unwrap()["error"]["code"], "step_failed");
            let texts = chunks.iter().filter(|c| c.to_string().contains("tick")).count();
            assert_eq!(texts, if matches!(script, Script::Fail) { 0 } else { 2 });
        }
    }
}

#[tokio::test]
async fn an_engine_that_ends_early_is_an_error() {
    let server = start_with(Script::Vanish).await;
    let (status, code, ..) = error(server.post(CHAT, &chat_body(json!({}))).await).await;
    assert_eq!((status, code.as_str()), (500, "internal_error"));
}

#[tokio::test]
async fn templates_that_refuse_fail_or_are_missing() {
    for (template, status, code, told) in [
        ("{{ raise_exception('roles must alternate') }}", 400, "invalid_value", "roles must alternate"),
        ("{{ nothing.at.all }}", 422, "invalid_template", "undefined"),
        ("", 422, "invalid_template", "no chat template"),
    ] {
        let server = start(Options { template: Some(template), ..Default::default() }).await;
        for path in [CHAT, "/tokenize"] {
            let (got, name, _, object) = error(server.post(path, &chat_body(json!({}))).await).await;
            assert_eq!((got, name.as_str()), (status, code), "{template}");
            assert!(object["message"].as_str().unwrap().contains(told), "{object}");
        }
    }
}

/// Reads a stream until it has text.
async fn first_text(response: reqwest::Response) -> impl futures_util::Stream {
    let mut bytes = response.bytes_stream().boxed();
    let mut read = String::new();
    while !read.contains("tick") {
        read += std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap();
    }
    bytes
}

#[tokio::test]
async fn a_client_that_goes_away_cancels() {
    let server = start_with(Script::Tick).await;
    let aborted = |n| move || n;
    for (count, path, body) in [(1, CHAT, chat_body(json!({}))), (2, COMPLETIONS, completion_body(json!({})))] {
        let mut body = body;
        body["stream"] = json!(true);
        let stream = first_text(server.post(path, &body).await).await;
        assert_eq!(server.seen.aborts.lock().unwrap().len(), count - 1, "aborted while the client reads");
        drop(stream);
        let expected = aborted(count);
        eventually("an abort", || server.seen.aborts.lock().unwrap().len() == expected()).await;
    }
    let whole = server.client.post(format!("{}{CHAT}", server.url)).json(&chat_body(json!({}))).send();
    let whole = tokio::spawn(whole);
    eventually("the request", || server.seen.requests.lock().unwrap().len() == 3).await;
    whole.abort();
    eventually("an abort of a whole answer", || server.seen.aborts.lock().unwrap().len() == 3).await;
}

#[tokio::test]
async fn a_shutdown_refuses_new_requests_and_ends_running_ones_at_its_limit() {
    let limit = Duration::from_millis(600);
    let config = ServerConfig { port: 0, shutdown_limit: limit, ..Default::default() };
    let mut server = start(Options { script: Script::Tick, config, ..Default::default() }).await;
    let response = server.post(CHAT, &chat_body(json!({"stream": true}))).await;
    let start = Instant::now();
    server.begin_shutdown();
    // Who comes now is told so, until the last request has ended.
    for refused in [server.get("/health").await, server.post(CHAT, &chat_body(json!({}))).await] {
        assert!(refused.headers().contains_key("retry-after"));
        let (status, code, ..) = error(refused).await;
        assert_eq!((status, code.as_str()), (503, "shutting_down"));
    }
    let text = response.text().await.unwrap();
    assert!(start.elapsed() >= limit, "ended after {:?}", start.elapsed());
    let events: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    let [.., failed, done] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(*done, "[DONE]");
    let failed: Value = serde_json::from_str(failed).unwrap();
    assert_eq!(failed["error"]["code"], "shutting_down");
    server.ended().await;
}
