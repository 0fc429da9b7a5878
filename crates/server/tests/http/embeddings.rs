//! `/v1/embeddings`: its inputs, its forms, what it refuses.
use crate::common::{CONTEXT, HIDDEN, Options, Server, TOKENIZER, error, start, vector_of};
use serde_json::{Value, json};

const PATH: &str = "/v1/embeddings";

async fn server() -> Server {
    start(Options::default()).await
}

fn ids(text: &str) -> Vec<u32> {
    TOKENIZER.encode(text, true).unwrap()
}

/// The vectors of an answer, whose order and form are checked.
fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("demo")));
    let entries = answer["data"].as_array().unwrap().iter().enumerate();
    let vector = |(index, entry): (usize, &Value)| {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
        entry["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    entries.map(vector).collect()
}

/// Shorter inputs are answered later, so that the order of answers is not the one in which they come.
#[tokio::test]
async fn every_form_of_input_gets_its_vectors_in_order() {
    let server = server().await;
    let texts = ["a", "a longer text than the others", "two words"];
    let of_texts: Vec<Vec<f32>> = texts.iter().map(|text| vector_of(&ids(text))).collect();
    for (input, want) in [
        (json!("two words"), vec![vector_of(&ids("two words"))]),
        (json!(texts), of_texts.clone()),
        (json!([5, 6, 7]), vec![vector_of(&[5, 6, 7])]),
        (json!([[5], [5, 6, 7], [8, 9]]), vec![vector_of(&[5]), vector_of(&[5, 6, 7]), vector_of(&[8, 9])]),
        (json!(texts.map(ids)), of_texts),
    ] {
        let answer = server.ask(PATH, json!({"model": "demo", "input": input, "encoding_format": "float"})).await;
        assert_eq!(vectors(&answer), want, "{input}");
    }
    let answer = server.ask(PATH, json!({"input": texts})).await;
    let tokens: usize = texts.iter().map(|text| ids(text).len()).sum();
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
}

#[tokio::test]
async fn the_fields_reach_the_engine() {
    let server = server().await;
    let body = json!({"input": "x", "dimensions": 2, "user": "me", "add_special_tokens": false});
    assert_eq!(vectors(&server.ask("/embeddings", body).await)[0].len(), 2);
    let request = server.last_request();
    assert_eq!((request.client.as_str(), request.prompt), ("me", TOKENIZER.encode("x", false).unwrap()));
    assert_eq!(request.embedding.unwrap().dimensions, Some(2));
    // The bytes of the vector's elements, by hand.
    let answer = server.ask(PATH, json!({"input": [3, 3], "encoding_format": "base64"})).await;
    assert_eq!(vector_of(&[3, 3]), [2.1, 2.0, -1e-20, 1.0]);
    assert_eq!(answer["data"][0]["embedding"], "ZmYGQAAAAEAI5TyeAACAPw==");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = server().await;
    for (body, code, param) in [
        (json!({}), "invalid_value", "input"),
        (json!({"input": []}), "invalid_value", "input"),
        (json!({"input": [[]]}), "invalid_value", "input"),
        (json!({"input": 3}), "invalid_value", "input"),
        (json!({"input": [[1], [-1]]}), "invalid_value", "input[1][0]"),
        (json!({"input": [999_999]}), "invalid_value", "input"),
        (json!({"input": "x", "encoding_format": "int8"}), "invalid_value", "encoding_format"),
        (json!({"input": "x", "dimensions": 0}), "invalid_value", "dimensions"),
        (json!({"input": "x", "dimensions": HIDDEN + 1}), "invalid_value", "dimensions"),
        (json!({"input": vec![5; CONTEXT + 1]}), "context_length_exceeded", "input"),
        (json!({"input": "x", "normalize": false}), "unsupported_parameter", "normalize"),
        (json!({"input": "x", "truncate_prompt_tokens": 4}), "unsupported_parameter", "truncate_prompt_tokens"),
    ] {
        let (status, got, at, _) = error(server.post(PATH, &body).await).await;
        assert_eq!((status, got.as_str(), at.as_str()), (400, code, Some(param)), "{body}");
    }
    let (status, code, ..) = error(server.post(PATH, &json!({"input": "x", "model": "other"})).await).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    // No answer follows, so that an input may fill the context.
    server.ask(PATH, json!({"input": vec![5; CONTEXT]})).await;
}

#[tokio::test]
async fn models_are_asked_for_what_they_can_alone() {
    let pooling = Err("has no modules.json".into());
    let server = start(Options { pooling, ..Default::default() }).await;
    let (status, code, param, object) = error(server.post(PATH, &json!({"input": "x"})).await).await;
    assert_eq!((status, code.as_str(), param.as_str()), (400, "unsupported_parameter", Some("model")));
    let message = object["message"].as_str().unwrap();
    assert!(message.contains("has no modules.json") && message.contains("Qwen3-Embedding"), "{message}");
    let headless = start(Options { has_head: false, ..Default::default() }).await;
    headless.ask(PATH, json!({"input": "x"})).await;
    let (status, code, param, _) = error(headless.post("/v1/completions", &json!({"prompt": "x"})).await).await;
    assert_eq!((status, code.as_str(), param.as_str()), (400, "unsupported_parameter", Some("model")));
}

#[tokio::test]
async fn models_are_listed_with_what_they_can() {
    let capabilities = async |options: Options| -> Value {
        let list: Value = start(options).await.get("/v1/models").await.json().await.unwrap();
        list["models"][0]["capabilities"].clone()
    };
    assert_eq!(capabilities(Options::default()).await, json!(["completion", "embedding"]));
    assert_eq!(capabilities(Options { has_head: false, ..Default::default() }).await, json!(["embedding"]));
    let pooling = Err("has no modules.json".into());
    assert_eq!(capabilities(Options { pooling, ..Default::default() }).await, json!(["completion"]));
}
