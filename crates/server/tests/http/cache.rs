//! What clients see of the cache of prompts: salts, the header `x-tallow-cache`, `/v1/cache`.
use crate::common::{Options, Script, Server, TEXT, chat_body, completion_body, error, start, start_with};
use crate::infill::{CODER, INFILL};
use crate::messages::MESSAGES;
use crate::messages_fields::refusal;
use engine::{Miss, PrefixEvent, PrefixReport};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use server::ServerConfig;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const CACHE: &str = "/v1/cache";

/// A server that answers all endpoints.
async fn server(script: Script) -> Server {
    start(Options { script, tokenizer: CODER.clone(), ..Default::default() }).await
}

/// A request to each endpoint that generates.
fn requests() -> [(&'static str, Value); 5] {
    [
        (CHAT, chat_body(json!({}))),
        (COMPLETIONS, completion_body(json!({}))),
        ("/v1/responses", json!({"input": "Hello"})),
        (MESSAGES, json!({"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]})),
        (INFILL, json!({"input_prefix": "a", "input_suffix": "b"})),
    ]
}

fn told(response: &Response) -> Option<&str> {
    Some(response.headers().get("x-tallow-cache")?.to_str().unwrap())
}

#[tokio::test]
async fn a_salt_reaches_the_engine_from_every_endpoint() {
    let server = server(Script::Answer(TEXT)).await;
    for (path, mut body) in requests() {
        for salt in [json!("mine"), json!("x".repeat(256)), Value::Null] {
            body["cache_salt"] = salt.clone();
            server.ask(path, body.clone()).await;
            assert_eq!(server.last_request().cache_salt.as_deref(), salt.as_str(), "{path}");
        }
        // They name clients and what to keep, and give nobody a cache of its own.
        let others = json!({"prompt_cache_key": "k", "prompt_cache_retention": "24h", "cache_control": {}});
        body["cache_salt"].take();
        body.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        server.ask(path, body).await;
        assert_eq!(server.last_request().cache_salt, None, "{path}");
    }
}

#[tokio::test]
async fn a_salt_that_is_none_is_refused() {
    let server = server(Script::Answer(TEXT)).await;
    for (path, mut body) in requests() {
        for (salt, problem) in [
            (json!(""), "cache_salt has 0 characters; it must be a string of 1 to 256 of them"),
            (json!("é".repeat(257)), "cache_salt has 257 characters; it must be a string of 1 to 256 of them"),
            (json!(5), "cache_salt: invalid type: integer `5`, expected a string"),
        ] {
            body["cache_salt"] = salt;
            let response = server.post(path, &body).await;
            if path == MESSAGES {
                let (status, _, message) = refusal(response).await;
                assert_eq!((status, message.as_str()), (400, problem), "{path}");
            } else {
                let (status, code, param, object) = error(response).await;
                assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", Some("cache_salt")));
                assert_eq!(object["message"], problem, "{path}");
            }
        }
    }
    assert!(server.seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_tells_what_was_found_of_its_prompts() {
    let server = server(Script::Answer(TEXT)).await;
    for (path, mut body) in requests() {
        for stream in [false, true] {
            body["stream"] = json!(stream);
            let response = server.post(path, &body).await;
            let prompt = server.last_request().prompt.len();
            let expected =
                format!("prompt={prompt}, memory=1, disk=0, computed={}, miss=\"diverged at token 1\"", prompt - 1);
            assert_eq!(told(&response), Some(expected.as_str()), "{path} {stream}");
            assert_eq!(response.status(), 200);
            response.bytes().await.unwrap();
        }
    }
    for stream in [false, true] {
        let body = completion_body(json!({"prompt": [[5, 6, 7], [8, 9]], "stream": stream}));
        let response = server.post(COMPLETIONS, &body).await;
        assert_eq!(
            told(&response),
            Some("prompt=5, memory=2, disk=0, computed=3, miss=\"diverged at token 1\""),
            "{stream}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_waits_in_the_queue_begins_without_the_header() {
    let server = server(Script::Wait).await;
    for (path, mut body) in requests() {
        body["stream"] = json!(true);
        let response = server.post(path, &body).await;
        assert_eq!((response.status().as_u16(), told(&response)), (200, None), "{path}");
    }
}

#[tokio::test]
async fn an_answer_without_a_prompt_has_no_header() {
    let server = server(Script::Fail).await;
    for (path, mut body) in requests() {
        body["stream"] = json!(false);
        let failed = server.post(path, &body).await;
        assert_eq!((failed.status().as_u16(), told(&failed)), (500, None), "{path}");
        // Its failure is an event of the stream.
        body["stream"] = json!(true);
        let failed = server.post(path, &body).await;
        assert_eq!((failed.status().as_u16(), told(&failed)), (200, None), "{path}");
        assert!(failed.text().await.unwrap().contains("the script says so"), "{path}");
        let refused = server.post(path, &json!({"cache_salt": 5})).await;
        assert_eq!((refused.status().as_u16(), told(&refused)), (400, None), "{path}");
    }
    assert_eq!(told(&server.get("/v1/models").await), None);
    // What fails later has been admitted.
    let late = start_with(Script::FailLate).await;
    let failed = late.post(CHAT, &chat_body(json!({}))).await;
    assert_eq!(failed.status(), 500);
    assert!(told(&failed).is_some_and(|value| value.ends_with("miss=\"diverged at token 1\"")));
}

#[tokio::test]
async fn pages_may_read_the_header() {
    let server = server(Script::Answer(TEXT)).await;
    let request = server.client.post(format!("{}{CHAT}", server.url)).header("origin", "http://localhost:3000");
    let response = request.json(&chat_body(json!({}))).send().await.unwrap();
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.split(',').any(|name| name == "x-tallow-cache"), "{exposed}");
}

/// What two requests found, the newest last.
fn found() -> Vec<PrefixEvent> {
    let miss = Some(Miss::Diverged { at: 65, from: 64, known: [7].into() });
    let first = PrefixReport { prompt: 100, from_memory: 64, from_archive: 0, miss };
    let second = PrefixReport { prompt: 50, from_memory: 16, from_archive: 32, miss: None };
    let event = |id: &str, report| PrefixEvent { id: id.into(), report };
    vec![event("first", first), event("second", second)]
}

#[tokio::test]
async fn the_cache_is_told_with_what_requests_found_in_it() {
    let server = start(Options { found: found(), ..Default::default() }).await;
    let expected = json!({
        "enabled": true,
        "blocks": {
            "total": 10, "held": 5, "cached": 3, "free": 2, "bytes_per_block": 1024, "tokens_per_block": 32,
        },
        "snapshots": {"kept": 1, "capacity": 4},
        "totals": {"queried": 150, "memory": 80, "disk": 32},
        "disk": null,
        "requests": [
            {"id": "second", "prompt": 50, "memory": 16, "disk": 32, "computed": 2, "miss": null},
            {"id": "first", "prompt": 100, "memory": 64, "disk": 0, "computed": 36, "miss": "diverged at token 65"},
        ],
    });
    for path in [CACHE, "/cache"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.json::<Value>().await.unwrap(), expected, "{path}");
    }
}

async fn clear(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Response {
    let request = server.client.request(Method::DELETE, format!("{}{path}", server.url));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

#[tokio::test]
async fn the_cache_is_cleared_by_who_may() {
    let open = start_with(Script::Answer("x")).await;
    for path in [CACHE, "/cache/"] {
        let response = clear(&open, path, &[]).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.json::<Value>().await.unwrap(), json!({"cleared": true}));
    }
    let (status, code, ..) = error(clear(&open, CACHE, &[("origin", "https://evil.example")]).await).await;
    assert_eq!((status, code.as_str()), (403, "not_allowed"));
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    let keyed = start(Options { config, ..Default::default() }).await;
    let (status, ..) = error(clear(&keyed, CACHE, &[]).await).await;
    assert_eq!(status, 401);
    let (status, ..) = error(keyed.get(CACHE).await).await;
    assert_eq!(status, 401);
    assert_eq!(clear(&keyed, CACHE, &[("x-api-key", "secret")]).await.status(), 200);
    for (server, clearings) in [(open, 2), (keyed, 1)] {
        // The engine's thread may not have come to it.
        crate::common::eventually("clearing", || *server.seen.clearings.lock().unwrap() == clearings).await;
    }
    let loading = start(Options { loaded: false, ..Default::default() }).await;
    for response in [loading.get(CACHE).await, clear(&loading, CACHE, &[]).await] {
        let (status, code, ..) = error(response).await;
        assert_eq!((status, code.as_str()), (503, "model_loading"));
    }
}
