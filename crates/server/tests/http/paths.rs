//! Paths and methods as clients write them.
use crate::common::{Options, Script, chat_body, error, start, start_with};
use reqwest::Method;
use serde_json::{Value, json};
use server::ServerConfig;

#[tokio::test]
async fn a_base_address_works_with_and_without_the_version_and_slashes() {
    let server = start_with(Script::Answer("x")).await;
    for base in ["", "/", "/v1", "/v1/", "/v1/v1", "//v1", "//"] {
        for (path, body) in [
            ("/chat/completions", chat_body(json!({}))),
            ("/completions", json!({"prompt": "a"})),
            ("/tokenize", json!({"prompt": "a"})),
            ("/completions/", json!({"prompt": "a"})),
        ] {
            server.ask(&format!("{base}{path}"), body).await;
        }
        for path in ["/models", "/models/", "/models/demo", "/health", "/metrics", "/version"] {
            assert_eq!(server.get(&format!("{base}{path}")).await.status(), 200, "{base}{path}");
        }
        let root: Value = server.get(base).await.json().await.unwrap();
        assert_eq!((&root["server"], &root["base_path"]), (&json!("tallow"), &json!("/v1")), "{base}");
    }
}

#[tokio::test]
async fn a_path_that_is_none_is_told_the_right_one() {
    let server = start_with(Script::Answer("x")).await;
    for (path, told) in [
        ("/api/v1/chat/completions", "/v1/chat/completions is what this server has"),
        ("/openai/v1/models", "/v1/models is what this server has"),
        ("/v1/rerank", "this server has /v1/chat/completions, /v1/completions"),
    ] {
        let (status, code, _, object) = error(server.post(path, &json!({})).await).await;
        assert_eq!((status, code.as_str()), (404, "not_found"));
        let message = object["message"].as_str().unwrap();
        assert!(message.contains(&format!("there is no POST {path}; ")) && message.contains(told), "{message}");
    }
}

#[tokio::test]
async fn a_path_written_otherwise_needs_the_key_as_well() {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    let server = start(Options { config, ..Default::default() }).await;
    for path in ["/models", "//v1/models/", "/v1/v1/models"] {
        assert_eq!(server.get(path).await.status(), 401, "{path}");
    }
    assert_eq!(server.get("/").await.status(), 200);
}

#[tokio::test]
async fn head_is_get_without_a_body_and_a_wrong_method_names_the_right_ones() {
    let server = start_with(Script::Answer("x")).await;
    let send = async |method: Method, path: &str| {
        server.client.request(method, format!("{}{path}", server.url)).send().await.unwrap()
    };
    for path in ["/", "/health", "/metrics", "/v1/models"] {
        let head = send(Method::HEAD, path).await;
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.headers().contains_key("content-type"));
        assert_eq!(head.bytes().await.unwrap().len(), 0);
        let posted = send(Method::POST, path).await;
        assert_eq!((posted.status().as_u16(), &posted.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
    }
    for path in ["/v1/chat/completions", "/tokenize"] {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            let answer = send(method, path).await;
            assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &"POST".parse().unwrap()));
        }
    }
}

#[tokio::test]
async fn a_models_name_that_is_no_text_is_unknown() {
    let server = start(Options::default()).await;
    let (status, code, ..) = error(server.get("/v1/models/%ff").await).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
}
