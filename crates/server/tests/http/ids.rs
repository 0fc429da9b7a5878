//! The ids of requests: the client's, or one that is made.
use crate::common::{Script, chat_body, start_with};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_request_has_the_id_that_its_client_gave_it() {
    let server = start_with(Script::Answer("x")).await;
    let post = |id: &str| server.client.post(format!("{}{CHAT}", server.url)).header("x-request-id", id);
    let answer = post("my-id:1/2").json(&chat_body(json!({}))).send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "my-id:1/2");
    // Logs name it by that id; the answer has an id of its own.
    assert_eq!(server.last_request().id, "my-id:1/2");
    let body: Value = answer.json().await.unwrap();
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"), "{body}");

    let refused = post("wrong").body("{").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["x-request-id"]), (400, &"wrong".parse().unwrap()));
}

#[tokio::test]
async fn an_id_is_made_where_none_is_given_or_none_that_can_be_logged() {
    let server = start_with(Script::Answer("x")).await;
    let mut made = Vec::new();
    for given in [None, Some("a b".to_owned()), Some(String::new()), Some("é".to_owned()), Some("x".repeat(129))] {
        let mut request = server.client.post(format!("{}{CHAT}", server.url)).json(&chat_body(json!({})));
        if let Some(given) = &given {
            request = request.header("x-request-id", given.as_bytes());
        }
        let answer = request.send().await.unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(Some(&id) != given.as_ref() && id.len() == 24, "{given:?} {id}");
        assert_eq!(server.last_request().id, id);
        // It is found in the answer's id too.
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["id"], format!("chatcmpl-{id}"));
        made.push(id);
    }
    for path in ["/health", "/v1/models", "/nowhere"] {
        made.push(server.get(path).await.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    let all = made.len();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), all);
    let longest = "x".repeat(128);
    let answer = server.client.get(format!("{}/health", server.url)).header("x-request-id", &longest).send().await;
    assert_eq!(answer.unwrap().headers()["x-request-id"], longest);
}
