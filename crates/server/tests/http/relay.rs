//! A server that hands requests on: what goes on, what comes back, and what it answers itself.
use crate::common::{Options, PROMETHEUS, Server, chat_body, error, start as start_engine};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use server::{ApiError, ModelState, Relay, RelayedModel, RelayedRequest, ServerConfig, ServerState, bind, serve_relay};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Two models, of which the first is loaded and the second has failed. Requests are noted and answered.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<(usize, RelayedRequest)>>>);

/// The last event is cut off.
const STREAM: [&str; 3] = ["data: {\"a\":1}\n\nda", "ta: {\"a\":2}\n\n", "data: {\"a\":"];

impl Noted {
    fn last(&self) -> (usize, RelayedRequest) {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

impl Relay for Noted {
    fn models(&self) -> Vec<RelayedModel> {
        let model_list = json!({
            "data": [{"id": "other", "object": "model", "created": 1, "owned_by": "x", "max_model_len": 77}],
            "models": [{"name": "org/one", "capabilities": ["completion"]}],
        });
        let model =
            |name: &str, state, model_list| RelayedModel { name: name.to_owned(), state, created: 5, model_list };
        vec![
            model("org/one", ModelState::Loaded, model_list),
            model("two", ModelState::Failed("it broke".into()), Value::Null),
        ]
    }

    fn nearest(&self, name: &str) -> Option<String> {
        (name == "tow").then(|| "two".to_owned())
    }

    async fn send(&self, model: usize, request: RelayedRequest) -> Result<Response, ApiError> {
        self.0.lock().unwrap().push((model, request.clone()));
        let broken = || Err(io::Error::other("the process is gone"));
        let pieces = STREAM.map(|piece| Ok(Bytes::from(piece))).into_iter().chain([broken()]);
        let about = [("content-type", "text/event-stream"), ("connection", "x-hop"), ("x-hop", "1"), ("x-kept", "1")];
        Ok(match () {
            () if request.path.contains("resp_none") => axum::http::StatusCode::NOT_FOUND.into_response(),
            () if request.path == "/infill" => "whole".into_response(),
            () => (about, Body::from_stream(stream::iter(pieces))).into_response(),
        })
    }

    async fn metrics(&self) -> Vec<String> {
        vec!["# TYPE of_one gauge\nof_one 1\n".to_owned()]
    }
}

async fn start(config: ServerConfig) -> (Server, Noted) {
    let noted = Noted::default();
    let config = ServerConfig { port: 0, ..config };
    let listener = bind(&config).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = ServerState::new(config, PROMETHEUS.clone());
    let (shutdown, stop) = oneshot::channel::<()>();
    let relay = noted.clone();
    let ended = tokio::spawn(serve_relay(listener, state, relay, async {
        stop.await.ok();
    }));
    (Server::at(url, shutdown, ended), noted)
}

#[tokio::test]
async fn a_request_goes_on_as_it_came_but_for_what_is_the_connections() {
    let (server, noted) = start(ServerConfig { api_key: Some("secret".into()), ..Default::default() }).await;
    let body = "{ \"model\" : \"two\", \"a\": [1.0] }";
    let request = server.client.post(format!("{}/v1//chat/completions/?x=1", server.url)).body(body);
    let own = ["authorization", "origin", "te", "x-hop", "x-tallow-client"];
    let request = request
        .header("authorization", "Bearer secret")
        .header("origin", "http://localhost:1")
        .header("te", "trailers")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-tallow-client", "8.8.8.8:1")
        .header("x-request-id", "mine")
        .header("x-kept", "2");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine");
    assert_eq!(response.headers()["x-kept"], "1");
    assert_eq!(response.headers()["access-control-allow-origin"], "http://localhost:1");
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(!response.headers().contains_key("x-hop"));
    let (model, sent) = noted.last();
    assert_eq!((model, sent.path.as_str(), &sent.body[..]), (1, "/v1/chat/completions?x=1", body.as_bytes()));
    assert_eq!(sent.headers["x-kept"], "2");
    assert_eq!(sent.headers["x-request-id"], "mine");
    for name in &own[..4] {
        assert!(!sent.headers.contains_key(*name), "{name}");
    }
    assert!(sent.headers["x-tallow-client"].to_str().unwrap().starts_with("127.0.0.1:"));
    // Without the key nothing goes on.
    let response = server.post("/v1/chat/completions", &chat_body(json!({}))).await;
    assert_eq!((response.status(), noted.0.lock().unwrap().len()), (401.try_into().unwrap(), 1));
}

/// Whole events are passed on as they come; what is broken off is left out, and the protocol's error ends the stream.
#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_its_protocols_error() {
    let (server, _) = start(ServerConfig::default()).await;
    let whole = "data: {\"a\":1}\n\ndata: {\"a\":2}\n\n";
    let ends = [
        ("/v1/chat/completions", "data: {\"error\":{\"message\":", "}\n\ndata: [DONE]\n\n"),
        ("/v1/messages", "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"", "}\n\n"),
        (
            "/v1/responses",
            "event: error\ndata: {\"type\":\"error\",\"sequence_number\":2,\"code\":\"model_ended\"",
            "}\n\n",
        ),
    ];
    for (path, begin, end) in ends {
        let response = server.post(path, &json!({"model": "two"})).await;
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        let error = text.strip_prefix(whole).unwrap_or_else(|| panic!("{text}"));
        assert!(error.starts_with(begin) && error.ends_with(end) && error.contains("the process is gone"), "{text}");
    }
}

#[tokio::test]
async fn each_request_finds_its_model() {
    let (server, noted) = start(ServerConfig::default()).await;
    let post = async |path: &str, body: Value| {
        let response = server.post(path, &body).await;
        (response.status().as_u16(), noted.0.lock().unwrap().last().map_or(9, |(model, _)| *model))
    };
    assert_eq!(post("/tokenize", json!({"model": "two"})).await, (200, 1));
    for body in [json!({}), json!({"model": null}), json!({"model": ""}), json!({"model": "org/one"})] {
        assert_eq!(post("/tokenize", body).await, (200, 0));
    }
    assert_eq!(post("/v1/messages/count_tokens", json!({"model": "two"})).await, (200, 1));
    assert_eq!(post("/v1/messages", json!({"model": "claude-5-opus"})).await, (200, 0));
    assert_eq!(post("/v1/chat/completions", json!({"model": "claude-5-opus"})).await, (404, 0));
    assert_eq!(server.get("/v1/cache?model=two").await.status(), 200);
    let (model, request) = noted.last();
    assert_eq!((model, request.is_look, request.path.as_str()), (1, true, "/v1/cache?model=two"));
    server.get("/props").await;
    assert_eq!((noted.last().0, noted.last().1.is_look), (0, false));
    let (status, code, param, object) = error(server.post("/infill", &json!({"model": "tow"})).await).await;
    assert_eq!((status, code.as_str(), param), (404, "model_not_found", json!("model")));
    let message = "the model \"tow\" is not served here; this server serves org/one, two; did you mean \"two\"?";
    assert_eq!(object["message"], message);
    // What needs no model does not go on.
    let before = noted.0.lock().unwrap().len();
    let head = server.client.head(format!("{}/v1/messages", server.url)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), server.get("/infill").await.status().as_u16()), (200, 405));
    assert_eq!(server.get("/v1/nothing").await.status(), 404);
    assert_eq!(noted.0.lock().unwrap().len(), before);
    // Kept responses are asked of loaded models alone.
    assert_eq!(server.get("/v1/responses/resp_1").await.status(), 200);
    let (status, code, ..) = error(server.get("/v1/responses/resp_none").await).await;
    assert_eq!((status, code.as_str()), (404, "response_not_found"));
    assert!(noted.0.lock().unwrap()[before..].iter().all(|(model, request)| *model == 0 && request.is_look));
}

#[tokio::test]
async fn models_are_listed_with_their_state_in_every_form() {
    let (server, _) = start(ServerConfig::default()).await;
    let get = async |path: &str| server.get(path).await.json::<Value>().await.unwrap();
    let list = get("/v1/models").await;
    let one = json!({
        "id": "org/one", "object": "model", "created": 5, "owned_by": "tallow", "status": {"value": "loaded"},
        "max_model_len": 77,
    });
    let status = json!({"value": "failed", "reason": "it broke"});
    let two = json!({"id": "two", "object": "model", "created": 5, "owned_by": "tallow", "status": status});
    assert_eq!((&list["object"], &list["data"]), (&json!("list"), &json!([one, two])));
    assert_eq!(list["models"][0]["capabilities"], json!(["completion"]));
    assert_eq!(get("/v1/models?client_version=1").await["models"], json!([]));
    assert_eq!(get("/models/org/one").await, one);
    let (status, code, ..) = error(server.get("/v1/models/tow").await).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    let request = server.client.get(format!("{}/v1/models", server.url)).header("anthropic-version", "2023-06-01");
    let page: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&page["first_id"], &page["last_id"]), (&json!("org/one"), &json!("two")));
    assert_eq!((&page["data"][0]["max_input_tokens"], page["data"][1].get("max_input_tokens")), (&json!(77), None));
    assert_eq!(get("/health").await, json!({"status": "ok", "models": {"org/one": "loaded", "two": "failed"}}));
    assert!(server.get("/metrics").await.text().await.unwrap().ends_with("# TYPE of_one gauge\nof_one 1\n"));
    let document = get("/openapi.json").await;
    let answers = &document["paths"]["/v1/chat/completions"]["post"]["responses"];
    assert!(answers["507"]["description"].as_str().unwrap().contains("model_too_large"), "{answers}");
}

/// Requests in work may end; new ones are refused.
#[tokio::test]
async fn a_shutdown_waits_for_what_was_handed_on() {
    let (mut server, _) = start(ServerConfig { shutdown_limit: Duration::from_secs(20), ..Default::default() }).await;
    let response = server.post("/v1/chat/completions", &chat_body(json!({"model": "two"}))).await;
    let open = server.client.post(format!("{}/infill", server.url));
    let body = reqwest::Body::wrap_stream(stream::once(async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok::<_, io::Error>("{}")
    }));
    let open = tokio::spawn(open.body(body).send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.begin_shutdown();
    assert_eq!(open.await.unwrap().unwrap().text().await.unwrap(), "whole");
    assert!(response.bytes_stream().next().await.unwrap().is_ok());
    server.ended().await;
}

/// Behind a front nothing is open, and the front says whose a request is; elsewhere nobody can.
#[tokio::test]
async fn a_server_behind_a_front_takes_its_word_for_the_client() {
    for (behind_front, client) in [(true, "10.0.0.9"), (false, "127.0.0.1")] {
        let config = ServerConfig { port: 0, api_key: Some("k".into()), behind_front, ..Default::default() };
        let server = start_engine(Options { config, ..Default::default() }).await;
        let request = server.client.post(format!("{}/v1/chat/completions", server.url)).json(&chat_body(json!({})));
        let request = request.header("x-tallow-client", "10.0.0.9:5").header("x-api-key", "k");
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(server.last_request().client, client);
        for path in ["/health", "/metrics", "/version", "/", "/docs", "/openapi.json"] {
            assert_eq!(server.get(path).await.status() == 401, behind_front, "{path}");
        }
    }
}
