//! Bodies and answers: encodings, and what a value says that is there but empty.
use crate::common::{Options, Script, Server, chat_body, error, start, start_with};
use flate2::Compression;
use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
use reqwest::Response;
use serde_json::{Value, json};
use server::ServerConfig;
use std::io::Read;

const CHAT: &str = "/v1/chat/completions";

async fn post(server: &Server, encoding: Option<&str>, body: Vec<u8>) -> Response {
    let request = server.client.post(format!("{}{CHAT}", server.url)).body(body);
    let request = match encoding {
        Some(encoding) => request.header("content-encoding", encoding),
        None => request,
    };
    request.send().await.unwrap()
}

fn packed(mut encoder: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn compressed_bodies_are_read() {
    let server = start_with(Script::Answer("x")).await;
    let body = chat_body(json!({"seed": 5})).to_string();
    let (plain, level) = (body.as_bytes(), Compression::default());
    // Two members of gzip after each other are one text.
    let (half, rest) = plain.split_at(plain.len() / 2);
    let members = [packed(GzEncoder::new(half, level)), packed(GzEncoder::new(rest, level))].concat();
    for (encoding, bytes) in [
        ("gzip", packed(GzEncoder::new(plain, level))),
        ("X-GZIP", members),
        ("deflate", packed(ZlibEncoder::new(plain, level))),
        ("deflate", packed(DeflateEncoder::new(plain, level))),
        ("identity", plain.to_vec()),
    ] {
        let answer = post(&server, Some(encoding), bytes).await;
        assert_eq!(answer.status(), 200, "{encoding}");
        assert_eq!(server.last_request().sampling.seed, Some(5));
    }
    for encoding in ["gzip", "deflate"] {
        let (status, code, _, object) = error(post(&server, Some(encoding), plain.to_vec()).await).await;
        assert_eq!((status, code.as_str()), (400, "invalid_json"));
        assert!(object["message"].as_str().unwrap().contains(encoding), "{object}");
    }
    for encoding in ["br", "zstd", "gzip, deflate"] {
        let answer = post(&server, Some(encoding), plain.to_vec()).await;
        assert_eq!(answer.headers()["accept-encoding"], "gzip, deflate");
        let (status, code, _, object) = error(answer).await;
        assert_eq!((status, code.as_str()), (415, "unsupported_encoding"));
        assert!(object["message"].as_str().unwrap().contains(encoding), "{object}");
    }
}

#[tokio::test]
async fn the_limit_counts_what_a_body_unpacks_to() {
    let limit = 20_000;
    let config = ServerConfig { port: 0, max_body_bytes: limit, ..Default::default() };
    let server = start(Options { config, ..Default::default() }).await;
    // Deflate packs spaces to a thousandth: one body is over the limit as it comes, one only unpacked.
    for size in [40_u64 << 20, 10 << 20] {
        for bomb in [
            ("gzip", packed(GzEncoder::new(std::io::repeat(b' ').take(size), Compression::best()))),
            ("deflate", packed(ZlibEncoder::new(std::io::repeat(b' ').take(size), Compression::best()))),
        ] {
            let (status, code, ..) = error(post(&server, Some(bomb.0), bomb.1).await).await;
            assert_eq!((status, code.as_str()), (413, "request_too_large"));
        }
    }
    let body = chat_body(json!({"user": "u".repeat(limit - 200)})).to_string();
    assert!(body.len() < limit);
    let answer = post(&server, Some("gzip"), packed(GzEncoder::new(body.as_bytes(), Compression::fast()))).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn utf8_is_read_with_a_byte_order_mark_and_other_encodings_are_named() {
    let server = start_with(Script::Answer("x")).await;
    let body = chat_body(json!({"user": "é"})).to_string();
    let marked = [b"\xef\xbb\xbf".as_slice(), body.as_bytes()].concat();
    assert_eq!(post(&server, None, marked).await.status(), 200);
    let units: Vec<u16> = body.encode_utf16().collect();
    let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    let latin1: Vec<u8> = body.chars().map(|c| c as u8).collect();
    for (bytes, told) in [
        ([b"\xff\xfe".to_vec(), little.clone()].concat(), "UTF-16"),
        ([b"\xfe\xff".to_vec(), big.clone()].concat(), "UTF-16"),
        (little, "UTF-16"),
        (big, "UTF-16"),
        (latin1, "the body is not UTF-8 from byte"),
    ] {
        let (status, code, _, object) = error(post(&server, None, bytes).await).await;
        assert_eq!((status, code.as_str()), (400, "invalid_json"));
        assert!(object["message"].as_str().unwrap().contains(told), "{object}");
    }
}

#[tokio::test]
async fn answers_name_their_encoding() {
    let server = start_with(Script::Answer("x")).await;
    let json = "application/json; charset=utf-8";
    for response in [
        server.get("/v1/models").await,
        server.get("/").await,
        server.get("/nowhere").await,
        server.post(CHAT, &chat_body(json!({}))).await,
        server.post(CHAT, &json!({})).await,
    ] {
        assert_eq!(response.headers()["content-type"], json, "{}", response.url());
    }
    let stream = server.post(CHAT, &chat_body(json!({"stream": true}))).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
}

#[tokio::test]
async fn an_empty_name_is_as_good_as_none() {
    let server = start_with(Script::Answer("x")).await;
    let answer = server.chat(json!({"model": "", "user": ""})).await;
    assert_eq!(answer["model"], "demo");
    // Requests without a user are told apart by their addresses.
    assert_eq!(server.last_request().client, "127.0.0.1");
    for (path, body) in [
        ("/v1/completions", json!({"model": "", "prompt": "a"})),
        ("/tokenize", json!({"model": "", "prompt": "a"})),
        ("/detokenize", json!({"model": "", "tokens": [1]})),
    ] {
        server.ask(path, body).await;
    }
}

#[tokio::test]
async fn a_top_p_of_zero_is_taken() {
    let server = start_with(Script::Answer("x")).await;
    server.chat(json!({"top_p": 0})).await;
    assert_eq!(server.last_request().sampling.top_p, 0.0);
    let (status, _, param, object) = error(server.post(CHAT, &chat_body(json!({"top_p": -0.1}))).await).await;
    assert_eq!((status, param), (400, Value::from("top_p")));
    assert!(object["message"].as_str().unwrap().contains("[0, 1]"), "{object}");
}

#[tokio::test]
async fn tools_change_a_prompts_tokens_and_are_not_left_out_of_them() {
    let server = start_with(Script::Answer("x")).await;
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    let (status, _, param, _) = error(server.post("/tokenize", &chat_body(tools)).await).await;
    assert_eq!((status, param), (400, Value::from("tools")));
    server.ask("/tokenize", chat_body(json!({"tools": []}))).await;
}
