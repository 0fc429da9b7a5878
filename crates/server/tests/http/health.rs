//! `/health` of a server whose engine has ended by itself.
use crate::common::{Script, chat_body, error, start_with};
use serde_json::json;
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn an_engine_that_has_ended_is_seen_in_health() {
    let server = start_with(Script::Die).await;
    assert_eq!(server.get("/health").await.status(), 200);
    let (status, ..) = error(server.post(CHAT, &chat_body(json!({}))).await).await;
    assert!(status >= 500, "{status}");
    // The thread ends a moment after the request does.
    let begin = Instant::now();
    while server.get("/health").await.status() == 200 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for refused in [server.get("/health").await, server.post(CHAT, &chat_body(json!({}))).await] {
        let (status, code, _, told) = error(refused).await;
        assert_eq!((status, code.as_str()), (503, "engine_ended"));
        assert!(told["message"].as_str().unwrap().contains("the engine's thread has ended"), "{told}");
    }
}
