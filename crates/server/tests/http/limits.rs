//! What clients may take: time and connections.
use crate::common::{Options, Script, Server, TEXT, chat_body, completion_body, error, eventually, long_text, start};
use crate::connections::{chat_request, connect, connect_and_send, connect_without_reading, read_to_end};
use serde_json::json;
use server::ServerConfig;
use socket2::SockRef;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const SHORT: Duration = Duration::from_millis(400);
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn with_config(script: Script, change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = ServerConfig { port: 0, ..Default::default() };
    change(&mut config);
    start(Options { script, config, ..Default::default() }).await
}

/// The beginning of the next answer.
async fn read_some(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    // Bytes that come after the server has closed the connection reset it.
    let n = stream.read(&mut bytes).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[tokio::test]
async fn a_head_and_a_body_must_come_in_time() {
    let server = with_config(Script::Answer("x"), |c| c.read_timeout = SHORT).await;
    let begin = Instant::now();
    let mut half_a_head = connect_and_send(&server, "GET /health HTTP/1.1\r\nHo").await;
    assert_eq!(read_to_end(&mut half_a_head).await, "");
    let request = chat_request("1.1", false);
    let mut half_a_body = connect_and_send(&server, &request[..request.len() - 5]).await;
    let answer = read_to_end(&mut half_a_body).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("the body did not come within 0.4 s"), "{answer}");
    assert!(begin.elapsed() >= 2 * SHORT && begin.elapsed() < 10 * SHORT, "{:?}", begin.elapsed());
}

/// Each byte comes before the pause is too long.
#[tokio::test]
async fn a_head_and_a_body_that_trickle_are_bounded_too() {
    let server = with_config(Script::Answer("x"), |c| c.read_timeout = SHORT).await;
    let (head, body) = (chat_request("1.1", false), "x".repeat(1000));
    let body_request = format!("POST /tokenize HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{body}");
    // (what is sent at once, what trickles, the time that is allowed)
    for (at_once, trickling, allowed) in
        [("", head.as_str(), SHORT), (&body_request[..60], &body_request[60..], 10 * SHORT)]
    {
        let begin = Instant::now();
        let mut client = connect_and_send(&server, at_once).await;
        let mut bytes = trickling.as_bytes().iter();
        let answer = loop {
            tokio::select! {
                answer = read_some(&mut client) => break answer,
                () = sleep(SHORT / 4) => client.write_all(&[*bytes.next().unwrap()]).await.unwrap(),
            }
        };
        assert!(begin.elapsed() >= allowed && begin.elapsed() < allowed + 4 * SHORT, "{:?}", begin.elapsed());
        assert_eq!(answer.starts_with("HTTP/1.1 408"), !at_once.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_requests_is_kept() {
    let server = with_config(Script::Answer("x"), |c| c.keep_alive_timeout = SHORT).await;
    let begin = Instant::now();
    let mut silent = connect(&server).await;
    let mut busy = connect(&server).await;
    for _ in 0..4 {
        busy.write_all(HEALTH.as_bytes()).await.unwrap();
        assert!(read_some(&mut busy).await.starts_with("HTTP/1.1 200"));
        sleep(SHORT / 2).await;
    }
    assert!(begin.elapsed() >= 2 * SHORT);
    assert_eq!(read_to_end(&mut silent).await, "");
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn an_answer_that_takes_long_is_never_cut() {
    let server = with_config(Script::Late(TEXT, 5 * SHORT), |c| {
        (c.keep_alive_timeout, c.read_timeout, c.write_timeout) = (SHORT, SHORT, SHORT);
    })
    .await;
    for stream in [false, true] {
        let mut client = connect_and_send(&server, &chat_request("1.1", stream)).await;
        let answer = read_to_end(&mut client).await;
        assert!(answer.contains("\"finish_reason\":\"stop\""), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut_and_one_that_is_read_slowly_is_not() {
    let limit = Duration::from_secs(1);
    let server = with_config(Script::Answer(long_text()), |c| c.write_timeout = limit).await;
    let request = chat_request("1.1", true);
    let mut unread = connect_without_reading(&server, &request).await;
    sleep(2 * limit).await;
    let mut bytes = Vec::new();
    read_faster(&unread);
    // The rest of the answer is missing, or the connection reset.
    let _ = unread.read_to_end(&mut bytes).await;
    assert!(bytes.starts_with(b"HTTP/1.1 200") && !String::from_utf8_lossy(&bytes).contains("[DONE]"));
    let mut slow = connect_without_reading(&server, &request).await;
    let begin = Instant::now();
    // A system tells of space when there is a third of its buffer, which this reader makes several times a second.
    while begin.elapsed() < 2 * limit {
        assert!(slow.read(&mut [0; 4096]).await.unwrap() > 0);
        sleep(limit / 100).await;
    }
    read_faster(&slow);
    read_stream_to_end(&mut slow).await;
}

/// Makes the system take more of an answer from now on.
fn read_faster(client: &TcpStream) {
    SockRef::from(client).set_recv_buffer_size(1 << 20).unwrap();
}

/// Reads an event stream until its last event.
async fn read_stream_to_end(stream: &mut TcpStream) {
    let (mut text, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    while !text.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n") {
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "the answer is cut");
        text.extend_from_slice(&piece[..n]);
    }
}

#[tokio::test]
async fn idle_connections_make_place_for_new_ones() {
    let server = with_config(Script::Answer("x"), |c| c.max_connections = Some(3)).await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut client = connect_and_send(&server, HEALTH).await;
        assert!(read_some(&mut client).await.starts_with("HTTP/1.1 200"));
        idle.push(client);
    }
    // The one that waited longest went first, so the last are open.
    for (i, client) in idle.iter_mut().enumerate() {
        if i < 7 {
            assert_eq!(read_to_end(client).await, "", "{i}");
        } else {
            client.write_all(HEALTH.as_bytes()).await.unwrap();
            assert!(read_some(client).await.starts_with("HTTP/1.1 200"), "{i}");
        }
    }
}

#[tokio::test]
async fn where_all_connections_are_busy_monitoring_is_still_answered() {
    let server = with_config(Script::Tick, |c| c.max_connections = Some(3)).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(server.post("/v1/chat/completions", &chat_body(json!({"stream": true}))).await);
    }
    for path in ["/health", "/metrics", "/v1/health"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["connection"]), (200, &"close".parse().unwrap()));
    }
    let refused = server.post("/v1/chat/completions", &chat_body(json!({}))).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, code, ..) = error(refused).await;
    assert_eq!((status, code.as_str()), (503, "too_many_connections"));
    drop(streams.pop());
    eventually("an abort", || server.seen.aborts.lock().unwrap().len() == 1).await;
    sleep(Duration::from_millis(100)).await;
    let served = server.post("/v1/chat/completions", &chat_body(json!({"stream": true}))).await;
    assert_eq!(served.status(), 200);
}

#[tokio::test]
async fn slow_readers_keep_nobody_else_waiting() {
    let server = with_config(Script::Answer(long_text()), |_| ()).await;
    let mut readers = Vec::new();
    for _ in 0..40 {
        readers.push(connect_without_reading(&server, &chat_request("1.1", true)).await);
    }
    eventually("all requests", || server.seen.requests.lock().unwrap().len() == 40).await;
    for path in ["/health", "/metrics", "/v1/models"] {
        let begin = Instant::now();
        assert_eq!(server.get(path).await.status(), 200);
        assert!(begin.elapsed() < Duration::from_secs(2), "{path} took {:?}", begin.elapsed());
    }
    let answer = server.chat(json!({"max_tokens": 3})).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    // They can still read all of their answers.
    for reader in &mut readers[..3] {
        read_faster(reader);
        read_stream_to_end(reader).await;
    }
}

#[tokio::test]
async fn more_prompts_than_may_ever_wait_take_no_place_in_the_queue() {
    let server = start(Options { script: Script::Wait, queue_limit: 2, ..Default::default() }).await;
    let body = completion_body(json!({"prompt": ["a", "b", "c"]}));
    // To try again does not help.
    let (status, code, param, object) = error(server.post("/v1/completions", &body).await).await;
    assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", Some("prompt")));
    let message = object["message"].as_str().unwrap();
    assert!(message.contains("3 prompts") && message.contains("--max-queued-requests allows 2 to wait"), "{message}");
    assert!(server.seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_refused_prompt_keeps_the_others_from_running() {
    let server = start(Options { script: Script::Wait, queue_limit: 2, ..Default::default() }).await;
    let url = format!("{}/v1/completions", server.url);
    let waiting = tokio::spawn(server.client.post(url).json(&completion_body(json!({"prompt": "x"}))).send());
    eventually("a request that waits", || server.seen.requests.lock().unwrap().len() == 1).await;
    let (status, ..) =
        error(server.post("/v1/completions", &completion_body(json!({"prompt": ["a", "b"]}))).await).await;
    assert_eq!(status, 429);
    eventually("the abort of the other", || server.seen.aborts.lock().unwrap().len() == 1).await;
    waiting.abort();
}
