//! `/openapi.json` describes what the server does, and `/docs` shows it.
use crate::common::{Options, Server, error, start};
use crate::infill::CODER;
use crate::messages::MESSAGES;
use crate::messages_fields::refusal;
use serde_json::{Value, json};
use server::ServerConfig;
use std::collections::BTreeSet;

async fn server() -> Server {
    start(Options { tokenizer: CODER.clone(), ..Default::default() }).await
}

async fn document(server: &Server) -> Value {
    let response = server.get("/openapi.json").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
    response.json().await.unwrap()
}

/// The operations with their paths and methods.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, told)| (path.as_str(), method.as_str(), told))
        })
        .collect()
}

#[tokio::test]
async fn every_route_is_described_and_no_other() {
    let server = server().await;
    let document = document(&server).await;
    assert_eq!((&document["openapi"], &document["info"]["title"]), (&json!("3.1.0"), &json!("Tallow")));
    // The server names its routes where it has none for a path, but for its root and those with a parameter.
    let (.., object) = error(server.get("/nowhere").await).await;
    let (_, list) = object["message"].as_str().unwrap().split_once("this server has ").unwrap();
    let named: BTreeSet<&str> = list.split(", ").collect();
    let described = operations(&document);
    let paths: BTreeSet<&str> = described.iter().map(|(path, ..)| *path).collect();
    let plain: BTreeSet<&str> = paths.iter().copied().filter(|path| *path != "/" && !path.contains('{')).collect();
    assert_eq!(plain, named);
    assert!(paths.contains("/") && paths.contains("/v1/models/{name}") && paths.len() == plain.len() + 5);
    for (path, method, told) in described {
        // Each is there by this method, and answers the other with the methods that it has.
        let other = if method == "post" { server.get(path).await } else { server.post(path, &json!({})).await };
        assert_eq!(other.status(), 405, "{path}");
        assert!(other.headers()["allow"].to_str().unwrap().contains(&method.to_uppercase()), "{path}");
        assert!(!told["summary"].as_str().unwrap().is_empty(), "{path}");
        assert!(told["responses"]["200"]["content"].as_object().is_some_and(|c| !c.is_empty()), "{path}");
        assert!(told["responses"]["500"]["description"].as_str().unwrap().contains("internal_error"), "{path}");
    }
}

/// A field is read if a value that it cannot have is refused by its name.
#[tokio::test]
async fn every_field_that_is_described_is_read() {
    let server = server().await;
    let document = document(&server).await;
    let mut fields = 0;
    for (path, _, told) in operations(&document) {
        let schema = &told["requestBody"]["content"]["application/json"]["schema"]["properties"];
        for (field, schema) in schema.as_object().into_iter().flatten() {
            assert!(schema["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path} {field}");
            let mut body = json!({field: [[{}]]});
            // What is needed, so that the field's own fault is found.
            let for_anthropic = path.starts_with(MESSAGES);
            if path.ends_with("chat/completions") || path == "/apply-template" || path == "/tokenize" || for_anthropic {
                body["messages"] = json!([{"role": "user", "content": "x"}]);
            } else if path == "/v1/completions" {
                body["prompt"] = json!("x");
            } else if path == "/v1/responses" {
                body["input"] = json!("x");
            }
            body[field] = json!([[{}]]);
            let response = server.post(path, &body).await;
            if for_anthropic {
                // Its errors have no place for a field but the message's beginning.
                let (status, _, message) = refusal(response).await;
                assert!(status == 400 && message.starts_with(field.as_str()), "{path} {field}: {message}");
                fields += 1;
                continue;
            }
            let (status, code, param, object) = error(response).await;
            assert!(matches!(status, 400 | 422), "{path} {field}: {code}");
            assert!(param.as_str().is_some_and(|param| param.starts_with(field.as_str())), "{path} {field}: {object}");
            fields += 1;
        }
    }
    assert!(fields > 100, "{fields}");
}

/// A body without fields is refused because of the one that the document says is needed.
#[tokio::test]
async fn needed_fields_are_told() {
    let server = server().await;
    let document = document(&server).await;
    let mut needing = BTreeSet::new();
    for (path, _, told) in operations(&document) {
        let schema = &told["requestBody"]["content"]["application/json"]["schema"];
        let Some(field) = schema.pointer("/required/0").and_then(Value::as_str) else { continue };
        assert!(schema["properties"][field].is_object(), "{path} {field}");
        let response = server.post(path, &json!({})).await;
        if path.starts_with(MESSAGES) {
            let (status, _, message) = refusal(response).await;
            assert!(status == 400 && message.starts_with(field), "{path} {field}: {message}");
        } else {
            let (status, code, param, _) = error(response).await;
            assert_eq!((status, code.as_str(), param), (400, "invalid_value", json!(field)), "{path}");
        }
        needing.insert(path);
    }
    let chat_and_others = ["/apply-template", "/detokenize", "/v1/chat/completions", "/v1/completions"];
    assert!(chat_and_others.iter().all(|path| needing.contains(path)), "{needing:?}");
    // A text or messages are needed.
    let schema = &document["paths"]["/tokenize"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let alternatives: Vec<&Value> = schema["oneOf"].as_array().unwrap().iter().map(|one| &one["required"][0]).collect();
    assert_eq!((json!(alternatives), &schema["required"]), (json!(["prompt", "messages"]), &json!([])));
    let messages = json!([{"role": "user", "content": "x"}]);
    for (body, status) in [
        (json!({}), 400),
        (json!({"prompt": null, "messages": null}), 400),
        (json!({"prompt": "x", "messages": messages}), 400),
        (json!({"prompt": "x", "messages": null}), 200),
        (json!({"prompt": null, "messages": messages}), 200),
    ] {
        assert_eq!(server.post("/tokenize", &body).await.status(), status, "{body}");
    }
}

/// What a schema says of the smallest and shortest values is what is refused.
#[tokio::test]
async fn limits_are_told() {
    let server = server().await;
    let document = document(&server).await;
    let field = |path: &str, field: &str| {
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"][field]
            .clone()
    };
    let messages = field("/v1/chat/completions", "messages");
    assert_eq!((&messages["type"], &messages["minItems"]), (&json!("array"), &json!(1)));
    let kept = field("/v1/completions", "truncate_prompt_tokens");
    let minimum = json!({"type": "integer", "minimum": 1});
    assert_eq!(kept["anyOf"], json!([minimum, {"const": -1}, {"type": "null"}]));
    for (body, status) in [
        (json!({"prompt": "x", "truncate_prompt_tokens": 0}), 400),
        (json!({"prompt": "x", "truncate_prompt_tokens": -2}), 400),
        (json!({"prompt": "x", "truncate_prompt_tokens": -1}), 200),
        (json!({"prompt": "x", "truncate_prompt_tokens": 1}), 200),
        (json!({"prompt": []}), 400),
        (json!({"prompt": [[]]}), 400),
        (json!({"prompt": ["x", [5]]}), 200),
    ] {
        assert_eq!(server.post("/v1/completions", &body).await.status(), status, "{body}");
    }
    assert_eq!(server.post("/v1/chat/completions", &json!({"messages": []})).await.status(), 400);
}

/// Names of types that a schema refers to.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn answers_and_errors_have_their_forms() {
    let server = server().await;
    let document = document(&server).await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/Error") && found.len() > 10, "{found:?}");
    for reference in &found {
        assert!(document.pointer(&reference[1..]).is_some_and(Value::is_object), "{reference}");
    }
    let chat = &document["paths"]["/v1/chat/completions"]["post"];
    let refused = chat["responses"]["400"]["description"].as_str().unwrap();
    for code in ["`invalid_json`", "`invalid_value`", "`context_length_exceeded`: The prompt leaves no place"] {
        assert!(refused.contains(code), "{refused}");
    }
    assert!(chat["responses"]["429"]["description"].as_str().unwrap().contains("queue_full"));
    let content = &chat["responses"]["200"]["content"];
    assert!(content["application/json"]["schema"].is_object());
    // An event is not its data.
    let event = &content["text/event-stream"]["schema"];
    assert_eq!((&event["required"], &event["properties"]["data"]["type"]), (&json!(["data"]), &json!("string")));
    assert!(event["properties"]["data"]["contentSchema"].is_object());
    let errors_of = |path: &str| document["paths"][path]["post"]["responses"]["400"]["content"].clone();
    assert_ne!(errors_of(MESSAGES), errors_of("/v1/chat/completions"));
    assert_eq!(chat["security"], json!([{"key": []}, {}]));
    assert!(document["paths"]["/health"]["get"].get("security").is_none());
    let query = &document["paths"]["/slots"]["get"]["parameters"][0];
    assert_eq!((&query["name"], &query["in"]), (&json!("fail_on_no_slot"), &json!("query")));
    let name = &document["paths"]["/v1/models/{name}"]["get"]["parameters"][0];
    assert_eq!((&name["name"], &name["in"], &name["required"]), (&json!("name"), &json!("path"), &json!(true)));
}

#[tokio::test]
async fn the_page_is_open_and_loads_nothing_from_elsewhere() {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    let server = start(Options { config, loaded: false, ..Default::default() }).await;
    assert_eq!(server.get("/openapi.json").await.status(), 200);
    let page = server.get("/docs").await;
    assert_eq!(
        (page.status().as_u16(), &page.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    let page = page.text().await.unwrap();
    assert!(page.contains("fetch(\"openapi.json\")"));
    for elsewhere in ["http:", "https:", "src=", "href=", "import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}

/// The paths of fields that a schema needs and `value` lacks.
fn missing(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return missing(document, document.pointer(name.trim_start_matches('#')).unwrap(), value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let of_each = any.iter().filter(|one| one["type"] != "null" || value.is_null());
        return of_each.map(|one| missing(document, one, value, at)).min_by_key(Vec::len).unwrap_or_default();
    }
    let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut lacking: Vec<String> =
        needed.filter(|field| value.get(field).is_none()).map(|field| format!("{at}.{field}")).collect();
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(field) {
            lacking.extend(missing(document, schema, value, &format!("{at}.{field}")));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        lacking.extend(missing(document, &schema["items"], item, at));
    }
    lacking
}

/// A field that an answer may leave out is not described as one that it always has.
#[tokio::test]
async fn answers_have_all_fields_that_are_described_as_needed() {
    let server = server().await;
    let document = document(&server).await;
    let text = json!({"role": "user", "content": "x"});
    let asked = [
        ("/v1/chat/completions", json!({"messages": [text], "max_tokens": 4})),
        ("/v1/completions", json!({"prompt": "x", "max_tokens": 4})),
        ("/v1/responses", json!({"input": "x", "max_output_tokens": 4})),
        ("/v1/messages", json!({"messages": [text], "max_tokens": 4, "model": "claude-test"})),
    ];
    for (path, body) in asked {
        let response = server.post(path, &body).await;
        assert_eq!(response.status(), 200, "{path}");
        let answer: Value = response.json().await.unwrap();
        let told = &document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(told.is_object(), "{path}");
        assert_eq!(missing(&document, told, &answer, path), [""; 0]);
    }
}
