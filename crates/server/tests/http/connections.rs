//! Connections as sockets see them: clients that send no more, that leave, and that are there while the server ends.
use crate::common::{Options, Script, Server, TEXT, chat_body, eventually, long_text, start, start_with};
use serde_json::json;
use server::ServerConfig;
use socket2::SockRef;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// A chat request as it is sent.
pub fn chat_request(version: &str, stream: bool) -> String {
    let body = chat_body(json!({"stream": stream})).to_string();
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

pub async fn connect_and_send(server: &Server, text: &str) -> TcpStream {
    let mut stream = connect(server).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A client whose system takes little of an answer that the client does not read.
pub async fn connect_without_reading(server: &Server, text: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// What the server sends until it closes the connection.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    end.expect("the server closes the connection").unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    for script in [Script::Answer(TEXT), Script::Late(TEXT, Duration::from_millis(2500))] {
        let server = start_with(script).await;
        for (version, stream) in [("1.1", false), ("1.1", true), ("1.0", false), ("1.0", true)] {
            let mut client = connect_and_send(&server, &chat_request(version, stream)).await;
            client.shutdown().await.unwrap();
            let answer = read_to_end(&mut client).await;
            let (interim, answer) =
                answer.split_at(answer.find("HTTP/1.1 200").or(answer.find("HTTP/1.0 200")).unwrap());
            assert!(interim.split_terminator("\r\n\r\n").all(|head| head == "HTTP/1.1 100 Continue"), "{interim}");
            assert!(answer.ends_with(if stream { "data: [DONE]\n\n" } else { "}" }) || answer.ends_with("0\r\n\r\n"));
            assert!(answer.contains("\"finish_reason\":\"stop\""), "{answer}");
            let late = matches!(script, Script::Late(..));
            match (version, stream) {
                // A client of HTTP/1.0 knows no interim answers.
                ("1.0", false) => assert_eq!(interim, ""),
                (_, false) => assert!(!late || !interim.is_empty(), "nothing told whether the client was there"),
                (_, true) => assert!(!late || answer.contains(": keep-alive"), "{answer}"),
            }
        }
    }
}

#[tokio::test]
async fn requests_behind_one_another_are_answered_after_the_sending_side_is_closed() {
    let server = start_with(Script::Late(TEXT, Duration::from_millis(300))).await;
    let mut client = connect_and_send(&server, &chat_request("1.1", false).repeat(3)).await;
    client.shutdown().await.unwrap();
    let answers = read_to_end(&mut client).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}

/// However much a client has sent behind its request: nothing, a request, half of one, more than is read ahead.
fn left_behind() -> [String; 4] {
    let next = chat_request("1.1", false);
    let long = format!("POST /tokenize HTTP/1.1\r\nContent-Length: 300000\r\n\r\n{}", " ".repeat(300_000));
    [String::new(), next.clone(), next[..next.len() / 2].to_owned(), long]
}

#[tokio::test]
async fn a_client_that_left_is_noticed_whatever_it_left_behind() {
    // Until a token comes, only what the server sends of its own accord can tell.
    for (script, stream) in [(Script::Wait, false), (Script::Wait, true), (Script::Tick, true)] {
        let server = start_with(script).await;
        for (count, rest) in left_behind().iter().enumerate() {
            let text = chat_request("1.1", stream) + rest;
            let mut client = connect(&server).await;
            // The server does not read all of it.
            let _ = timeout(Duration::from_millis(200), client.write_all(text.as_bytes())).await;
            eventually("the request", || server.seen.requests.lock().unwrap().len() == count + 1).await;
            sleep(Duration::from_millis(700)).await;
            assert_eq!(server.seen.aborts.lock().unwrap().len(), count, "aborted while the client is there");
            drop(client);
            eventually("an abort", || server.seen.aborts.lock().unwrap().len() == count + 1).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_left_after_closing_its_sending_side_is_noticed() {
    for stream in [false, true] {
        let server = start_with(Script::Wait).await;
        let mut client = connect_and_send(&server, &chat_request("1.1", stream)).await;
        client.shutdown().await.unwrap();
        sleep(Duration::from_millis(1500)).await;
        assert!(server.seen.aborts.lock().unwrap().is_empty(), "aborted while the client is there");
        drop(client);
        eventually("an abort", || server.seen.aborts.lock().unwrap().len() == 1).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_is_noticed_at_once() {
    let server = start_with(Script::Wait).await;
    for (count, version) in ["1.1", "1.0"].into_iter().enumerate() {
        let client = connect_and_send(&server, &chat_request(version, false)).await;
        eventually("the request", || server.seen.requests.lock().unwrap().len() == count + 1).await;
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        eventually("an abort", || server.seen.aborts.lock().unwrap().len() == count + 1).await;
    }
}

async fn with_long_shutdown(script: Script) -> Server {
    let config = ServerConfig { port: 0, shutdown_limit: Duration::from_secs(60), ..Default::default() };
    start(Options { script, config, ..Default::default() }).await
}

#[tokio::test]
async fn half_requests_and_idle_connections_do_not_hold_up_the_end() {
    let mut server = with_long_shutdown(Script::Answer("x")).await;
    let request = chat_request("1.1", false);
    let _silent = connect(&server).await;
    let _half_a_line = connect_and_send(&server, "POST /v1/ch").await;
    let mut half_a_body = connect_and_send(&server, &request[..request.len() - 5]).await;
    let mut idle = connect_and_send(&server, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    idle.readable().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    server.begin_shutdown();
    server.ended().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(read_to_end(&mut half_a_body).await.contains("shutting_down"));
    assert!(read_to_end(&mut idle).await.contains("200 OK"));
}

#[tokio::test]
async fn the_server_ends_when_its_running_answers_have() {
    let mut server = with_long_shutdown(Script::Late(TEXT, Duration::from_secs(2))).await;
    let _half_a_line = connect_and_send(&server, "POST /v1/ch").await;
    let mut running = connect_and_send(&server, &chat_request("1.1", true)).await;
    eventually("the request", || server.seen.requests.lock().unwrap().len() == 1).await;
    let begin = Instant::now();
    server.begin_shutdown();
    assert!(read_to_end(&mut running).await.contains("data: [DONE]"));
    server.ended().await;
    assert!((1..4).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_hold_up_the_end() {
    let mut server = with_long_shutdown(Script::Answer(long_text())).await;
    let _unread = connect_without_reading(&server, &chat_request("1.1", true)).await;
    eventually("the request", || server.seen.requests.lock().unwrap().len() == 1).await;
    sleep(Duration::from_millis(500)).await;
    let begin = Instant::now();
    server.begin_shutdown();
    server.ended().await;
    // Its client was given five seconds, counted from when it took nothing more.
    assert!((3..8).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}
