//! Several models behind one address, each a process of its own.
use crate::common::{
    Process, answer, free_port, refused, repo, says, serve, spawn, tallow, wait_until, wait_until_healthy,
};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

pub const A: &str = "tiny-mistral";
pub const B: &str = "tiny-qwen3";

/// A front of some models, and how it is asked.
pub struct Front {
    pub process: Process,
    pub port: u16,
}

/// A front of the two models, each with a little cache.
pub fn front(more: &[&str]) -> Front {
    front_of(&[&repo(&format!("models/{A}")), &repo(&format!("models/{B}"))], more)
}

pub fn front_of(models: &[&Path], more: &[&str]) -> Front {
    let port = free_port();
    let models = models.iter().map(|model| model.to_str().unwrap().to_owned());
    let flags = ["--kv-preset", "bf16", "--kv-centre", "off", "--threads", "1"];
    let small = ["--kv-cache-memory", "8MiB"];
    let flags = flags.iter().chain(small.iter().filter(|_| !more.contains(&small[0])));
    let flags = flags.chain(&["--kv-disk-cache", "off"]).chain(more).map(|flag| (*flag).to_owned());
    let arguments: Vec<String> =
        ["serve".to_owned(), "--port".to_owned(), port.to_string()].into_iter().chain(models).chain(flags).collect();
    let process = spawn(&arguments, |_| {});
    wait_until_healthy(port);
    Front { process, port }
}

/// A completion of some tokens, the likeliest ones.
pub fn ask_for(model: &str, tokens: usize, stream: bool) -> String {
    json!({
        "model": model, "prompt": [1, 2, 3], "max_tokens": tokens, "ignore_eos": true, "temperature": 0,
        "stream": stream, "return_token_ids": true,
    })
    .to_string()
}

impl Front {
    /// The status and the JSON of an answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = answer(self.port, method, path, body).unwrap();
        (status, serde_json::from_str(body_of(&text)).unwrap_or_default())
    }

    /// The text that a model writes.
    pub fn complete(&self, model: &str, tokens: usize) -> (u16, String) {
        let (status, answer) = self.ask("POST", "/v1/completions", &ask_for(model, tokens, false));
        assert!(status != 200 || answer["model"] == model, "{answer}");
        (status, answer["choices"][0]["text"].as_str().unwrap_or_default().to_owned())
    }

    pub fn state(&self, model: &str) -> Value {
        let (status, told) = self.ask("GET", &format!("/v1/models/{model}"), "");
        assert_eq!(status, 200, "{told}");
        told["status"].clone()
    }

    /// The id of a model's last process, by the log.
    pub fn process_of(&self, model: &str) -> u32 {
        let log = self.process.stderr();
        let line = log.lines().rfind(|line| line.contains(&format!("the process of {model} is "))).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub fn metric(&self, name: &str, model: &str) -> f64 {
        let (_, text) = answer(self.port, "GET", "/metrics", "").unwrap();
        let of_model = format!("model_name=\"{model}\"");
        let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(&of_model));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// What follows the head of an answer, which is sent whole.
pub fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Whether there is such a process.
pub fn lives(process: u32) -> bool {
    Command::new("sh").args(["-c", &format!("kill -0 {process} 2>/dev/null")]).status().unwrap().success()
}

/// What one server of one model writes.
pub fn alone(model: &str, tokens: usize) -> String {
    let port = free_port();
    let _server = spawn(&serve(&repo(&format!("models/{model}")), &port.to_string()), |_| {});
    wait_until_healthy(port);
    let (status, text) = answer(port, "POST", "/v1/completions", &ask_for(model, tokens, false)).unwrap();
    assert_eq!(status, 200, "{text}");
    let told: Value = serde_json::from_str(body_of(&text)).unwrap();
    told["choices"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn each_model_is_loaded_by_the_request_that_names_it() {
    let front = front(&[]);
    assert_eq!((front.state(A), front.state(B)), (json!({"value": "unloaded"}), json!({"value": "unloaded"})));
    let (status, told) = front.ask("GET", "/v1/cache", "");
    assert_eq!((status, told["error"]["code"].as_str()), (503, Some("model_not_loaded")), "{told}");
    assert_eq!(front.complete(B, 8), (200, alone(B, 8)));
    assert_eq!((front.state(A), front.state(B)), (json!({"value": "unloaded"}), json!({"value": "loaded"})));
    // A request that names no model is the first one's.
    let (status, told) = front.ask("POST", "/tokenize", r#"{"prompt": "x"}"#);
    assert_eq!((status, front.state(A)), (200, json!({"value": "loaded"})), "{told}");
    assert_eq!(front.complete(A, 8), (200, alone(A, 8)));
    let (_, list) = front.ask("GET", "/v1/models", "");
    let names: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, [A, B]);
    assert!(list["data"][0]["max_model_len"].is_u64() && list["data"][1]["meta"]["n_vocab"].is_u64(), "{list}");
    let (_, health) = front.ask("GET", "/health", "");
    assert_eq!(health, json!({"status": "ok", "models": {A: "loaded", B: "loaded"}}));
    for model in [A, B] {
        assert_eq!(front.metric("tallow_model_loads_total", model), 1.0);
        assert!(front.metric("vllm:prompt_tokens_total", model) >= 3.0);
    }
    let (status, cache) = front.ask("GET", &format!("/v1/cache?model={B}"), "");
    assert_eq!((status, cache["totals"]["queried"].as_u64()), (200, Some(3)), "{cache}");
    assert_eq!(answer(front.port, "GET", "/docs", "").unwrap().0, 200);
}

#[test]
fn what_is_asked_wrongly_is_told_as_one_server_tells_it() {
    let front = front(&["--api-key", "secret"]);
    let with_key = |path: &str, headers: &str, body: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).unwrap();
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}");
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str::<Value>(body_of(&text)).unwrap())
    };
    let key = "Authorization: Bearer secret\r\n";
    let completions = "/v1/completions";
    let (status, told) = front.ask("POST", completions, "{}");
    assert_eq!((status, told["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    let (status, told) = with_key(completions, key, &ask_for("tiny-mistrl", 1, false));
    assert_eq!((status, told["error"]["code"].as_str()), (404, Some("model_not_found")));
    says(
        told["error"]["message"].as_str().unwrap(),
        &["serves tiny-mistral, tiny-qwen3", "did you mean \"tiny-mistral\"?"],
    );
    for (body, code) in [("{", "invalid_json"), ("[]", "invalid_json"), (r#"{"model": 1}"#, "invalid_value")] {
        let (status, told) = with_key(completions, key, body);
        assert_eq!((status, told["error"]["code"].as_str()), (400, Some(code)), "{told}");
    }
    let (status, told) = with_key("/v1/nothing", key, "{}");
    assert_eq!((status, told["error"]["code"].as_str()), (404, Some("not_found")));
    let (status, told) = with_key("/v1/messages", "x-api-key: secret\r\n", &ask_for("no", 1, false));
    assert_eq!((status, told["error"]["type"].as_str()), (404, Some("not_found_error")), "{told}");
    // What is wrong with a field is told by the model's own server.
    let (status, told) = with_key(completions, key, &format!(r#"{{"model": "{A}", "prompt": "x", "n": -1}}"#));
    assert_eq!((status, told["error"]["param"].as_str()), (400, Some("n")), "{told}");
    // Nobody reaches that server without its own key, not even what monitoring asks.
    let log = front.process.stderr();
    let own = log.lines().find(|line| line.starts_with("[tiny-mistral]") && line.contains("listening on")).unwrap();
    let port: u16 = own.rsplit(':').next().unwrap().trim().parse().unwrap();
    for path in ["/health", "/metrics", "/", "/v1/models", "/docs"] {
        assert_eq!(answer(port, "GET", path, "").unwrap().0, 401, "{path}");
    }
}

/// Two models that do not fit beside each other take turns; no request fails, whoever asks at once.
#[test]
fn models_beyond_the_memory_take_turns() {
    // Each needs some 64 MiB beside its 8 MiB of cache.
    let front = front(&["--memory", "120MiB"]);
    let expected = [(A, alone(A, 16)), (B, alone(B, 16))];
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (front, expected) = (&front, &expected);
            scope.spawn(move || {
                for request in 0..4 {
                    let (model, text) = &expected[(client + request) % 2];
                    assert_eq!(front.complete(model, 16), (200, text.clone()), "{model}");
                }
            });
        }
    });
    let count = |what: &str| front.metric(what, A) + front.metric(what, B);
    assert!(count("tallow_model_unloads_total") >= 2.0 && count("tallow_model_restarts_total") == 0.0);
    let states = [front.state(A), front.state(B)].map(|state| state["value"].clone());
    assert!(states.contains(&json!("loaded")) && !states.iter().all(|state| state == "loaded"), "{states:?}");
    // Each was told its share.
    let log = front.process.stderr();
    assert!(!log.lines().any(|line| line.contains("failed") || line.contains("WARN")), "{log}");
}

#[test]
fn a_model_that_never_fits_is_refused_with_the_numbers() {
    let front = front(&["--memory", "60MiB"]);
    let (status, told) = front.ask("POST", "/v1/completions", &ask_for(A, 1, false));
    assert_eq!((status, told["error"]["code"].as_str()), (507, Some("model_too_large")), "{told}");
    says(told["error"]["message"].as_str().unwrap(), &["tiny-mistral cannot be loaded", "margin 64 MiB", "62914560"]);
    assert_eq!(front.state(A)["value"], "failed");
    assert!(!front.process.stderr().contains("the process of"));
}

#[test]
fn a_model_that_nobody_uses_is_unloaded_and_comes_back() {
    let front = front_of(&[&repo(&format!("models/{A}"))], &["--idle-unload", "1s"]);
    let text = front.complete(A, 8);
    assert_eq!(text.0, 200);
    let process = front.process_of(A);
    // To look at it is no use of it.
    wait_until("it is unloaded", || {
        front.ask("GET", "/v1/cache", "");
        front.state(A)["value"] == "unloaded"
    });
    assert!(!lives(process));
    assert_eq!(front.complete(A, 8), text);
    assert_ne!(front.process_of(A), process);
}

#[test]
fn a_folder_of_models_is_served() {
    let folder = TempDir::new().unwrap();
    for model in [A, B] {
        std::os::unix::fs::symlink(repo(&format!("models/{model}")).canonicalize().unwrap(), folder.path().join(model))
            .unwrap();
    }
    let front = front_of(&[], &["--models-dir", folder.path().to_str().unwrap()]);
    assert_eq!(front.complete(B, 4).0, 200);
    assert_eq!((front.state(A), front.state(B)), (json!({"value": "unloaded"}), json!({"value": "loaded"})));
}

#[test]
fn models_that_cannot_be_told_apart_are_refused() {
    let (home, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    std::os::unix::fs::symlink(repo(&format!("models/{A}")).canonicalize().unwrap(), folder.path().join(A)).unwrap();
    let (one, other) = (repo(&format!("models/{A}")), folder.path().join(A));
    let serve = |more: &[&str]| refused(tallow(home.path()).arg("serve").args(more));
    let message = serve(&[one.to_str().unwrap(), other.to_str().unwrap()]);
    says(&message, &["would both be called tiny-mistral", "rename"]);
    let message = serve(&[one.to_str().unwrap(), "no/such/model"]);
    says(&message, &["no/such/model", "no such file or folder"]);
    let message = serve(&[one.to_str().unwrap(), B, "--served-model-name", "x"]);
    says(&message, &["--served-model-name: is \"x\"", "of several"]);
    let message = serve(&["--models-dir", home.path().to_str().unwrap()]);
    says(&message, &["--models-dir", "there is no model in it"]);
}
