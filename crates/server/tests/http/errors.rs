//! Refusals and failures: each with its status, code and field, in OpenAI's shape.
use crate::common::{Options, Script, chat_body, completion_body, error, eventually, start, start_with};
use crate::connections::{connect, connect_and_send, read_to_end};
use crate::messages::MESSAGES;
use crate::metrics::value;
use engine::PressureLevel;
use futures_util::StreamExt;
use serde_json::{Value, json};
use server::ServerConfig;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

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
        let (status, code, _, object) = error(server.get(path).await).await;
        assert_eq!((status, code.as_str()), (405, "method_not_allowed"));
        let told = object["message"].as_str().unwrap();
        assert!(told.ends_with("does not take GET; it takes POST"), "{told}");
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
async fn a_machine_without_memory_says_when_to_try_again_and_counts_whom_it_refused() {
    let server = start(Options { model: "pressed", pressure: PressureLevel::Critical, ..Default::default() }).await;
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4});
    for path in [CHAT, MESSAGES] {
        let response = server.post(path, &body).await;
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
            (503, "5"),
            "{path}"
        );
        let body: Value = response.json().await.unwrap();
        let told = if path == CHAT { &body["error"]["code"] } else { &body["error"]["type"] };
        assert_eq!(told, if path == CHAT { "memory_pressure" } else { "overloaded_error" });
    }
    let metrics = server.get("/metrics").await.text().await.unwrap();
    for (name, expected) in [("tallow_memory_pressure", 2.0), ("tallow_requests_shed_total", 2.0)] {
        assert_eq!(value(&metrics, name, &[("model_name", "pressed")]), Some(expected), "{name}");
    }
    let info: Value = server.get("/server_info").await.json().await.unwrap();
    assert_eq!(info["memory_pressure"], "critical");
    assert_eq!(server.get("/health").await.status(), 200);
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

/// What a client reads of a value of a wrong type are JSON's words, not those of the program.
#[tokio::test]
async fn objects_are_asked_for_by_that_word() {
    let server = start_with(Script::Answer("x")).await;
    for (path, field) in [
        (CHAT, "stream_options"),
        ("/v1/responses", "text"),
        ("/v1/responses", "reasoning"),
        ("/v1/messages", "thinking"),
        ("/v1/messages", "output_config"),
        ("/v1/messages", "tool_choice"),
        ("/v1/messages", "metadata"),
    ] {
        let mut body = json!({"model": "demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4});
        if path == "/v1/responses" {
            body = json!({"model": "demo", "input": "x"});
        }
        body[field] = json!(5);
        let answer: Value = server.post(path, &body).await.json().await.unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(field) && message.contains("an object"), "{path} {field}: {message}");
    }
}
