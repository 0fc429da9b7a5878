//! How several models behind one address end: processes that are killed or cannot load, clients that leave, signals.
use crate::common::{answer, copy_model, repo, says, send, signal, wait_until};
use crate::front::{A, B, Front, alone, ask_for, body_of, front, front_of, lives};
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

/// The model `A` with a context that its answers do not come to the end of for seconds.
const LONG: &str = "long";
/// Tokens of an answer that takes longer than a test looks at it.
const ENDLESS: usize = 90_000;

/// A front of the long model and `B`, with a chat template, and the folder of what they are made of.
fn long_front(more: &[&str]) -> (Front, TempDir) {
    let folder = TempDir::new().unwrap();
    let (model, template) = (folder.path().join(LONG), folder.path().join("template.jinja"));
    std::fs::create_dir(&model).unwrap();
    copy_model(&format!("models/{A}"), &model);
    let config = model.join("config.json");
    let mut told: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    told["max_position_embeddings"] = json!(100_000);
    std::fs::write(config, told.to_string()).unwrap();
    std::fs::write(&template, "{% for message in messages %}{{ message.content }}{% endfor %}").unwrap();
    let flags = ["--kv-cache-memory", "128MiB", "--chat-template", template.to_str().unwrap()];
    (front_of(&[&model, &repo(&format!("models/{B}"))], &[&flags, more].concat()), folder)
}

/// A stream of which some has come.
fn begun(front: &Front, path: &str, body: &str) -> TcpStream {
    let mut stream = send(front.port, "POST", path, body).unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\ndata: ") {
        let mut piece = [0; 512];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    stream
}

/// The process of a model is killed while it answers. Its answers end with an error in their protocol's form, the next
/// request is answered by another process, and the other model's never notice.
#[test]
fn a_process_that_is_killed_costs_its_own_answers_alone() {
    let (front, _folder) = long_front(&[]);
    let expected = (alone(A, 8), alone(B, 64));
    // A stream comes in pieces, long before its end.
    let message = json!({"model": LONG, "max_tokens": ENDLESS, "stream": true, "ignore_eos": true, "temperature": 0});
    let of = |field: &str, value: Value| {
        let mut message = message.clone();
        message[field] = value;
        message.to_string()
    };
    let messages = of("messages", json!([{"role": "user", "content": "a"}]));
    let streams = [
        begun(&front, "/v1/completions", &ask_for(LONG, ENDLESS, true)),
        begun(&front, "/v1/messages", &messages),
        begun(&front, "/v1/responses", &of("input", json!("a")).replace("max_tokens", "max_output_tokens")),
    ];
    let (killed, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Some of them end before the kill, some after it.
                let mut after = 0;
                while after < 3 {
                    after += usize::from(killed.load(Ordering::SeqCst));
                    assert_eq!(front.complete(B, 64), (200, expected.1.clone()));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let whole = scope.spawn(|| front.ask("POST", "/v1/completions", &ask_for(LONG, ENDLESS, false)));
        wait_until("some are answered", || done.load(Ordering::SeqCst) >= 4);
        wait_until("all run", || front.metric("vllm:num_requests_running", LONG) >= 4.0);
        // What breaks off at once is sent again.
        std::thread::sleep(std::time::Duration::from_millis(200));
        signal("KILL", front.process_of(LONG));
        killed.store(true, Ordering::SeqCst);
        let ends = streams.map(|mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        says(&ends[0], &["data: {\"error\":{", "model_ended", "data: [DONE]\n\n"]);
        says(&ends[1], &["event: error\ndata: {\"type\":\"error\"", "api_error"]);
        says(
            &ends[2],
            &["event: error\ndata: {\"type\":\"error\"", "event: response.failed\n", "\"status\":\"failed\""],
        );
        let (status, told) = whole.join().unwrap();
        assert_eq!((status, told["error"]["code"].as_str()), (502, Some("model_ended")), "{told}");
        assert_eq!(front.complete(LONG, 8), (200, expected.0.clone()));
    });
    assert_eq!(front.metric("tallow_model_restarts_total", LONG), 1.0);
    assert_eq!(front.metric("tallow_model_loads_total", B), 1.0);
    says(&front.process.stderr(), &["its process ended (signal: 9"]);
}

/// A process that cannot load its model is not started again at once, and what it said is told.
#[test]
fn a_model_that_cannot_be_loaded_is_tried_again_after_pauses() {
    let folder = TempDir::new().unwrap();
    copy_model(&format!("models/{A}"), folder.path());
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let front = front_of(&[folder.path(), &repo(&format!("models/{B}"))], &[]);
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let body = ask_for(name, 4, false);
    let (status, text) = answer(front.port, "POST", "/v1/completions", &body).unwrap();
    assert_eq!(status, 503, "{text}");
    says(&text, &["model_failed", "retry-after: 1", "tokenizer.json", "the last lines of its log"]);
    // Until the pause is over, requests are refused without another process.
    let mut refused = 0;
    while front.process.stderr().matches(&format!("the process of {name} is")).count() == 1 {
        refused += 1;
        assert_eq!(answer(front.port, "POST", "/v1/completions", &body).unwrap().0, 503);
        assert!(refused < 100_000);
    }
    says(&front.state(name).to_string(), &["failed", "tokenizer.json"]);
    assert_eq!(front.complete(B, 4).0, 200);
    copy_model(&format!("models/{A}"), folder.path());
    wait_until("it is loaded", || front.complete(name, 4).0 == 200);
    let processes = front.process.stderr().matches(&format!("the process of {name} is")).count();
    assert!(refused > processes && processes <= 10, "{processes} processes, {refused} refusals");
}

#[test]
fn a_client_that_leaves_is_noticed_by_the_models_process() {
    let (front, _folder) = long_front(&[]);
    drop(begun(&front, "/v1/completions", &ask_for(LONG, ENDLESS, true)));
    let aborted = || {
        let (_, text) = answer(front.port, "GET", "/metrics", "").unwrap();
        text.lines().any(|line| {
            line.starts_with("vllm:request_success_total") && line.contains("abort") && line.ends_with(" 1")
        })
    };
    wait_until("the answer is aborted", aborted);
    // One that leaves before an answer begins is noticed too.
    let stream = send(front.port, "POST", "/v1/completions", &ask_for(LONG, ENDLESS, false)).unwrap();
    wait_until("it runs", || front.metric("vllm:num_requests_running", LONG) == 1.0);
    drop(stream);
    wait_until("nothing runs", || front.metric("vllm:num_requests_running", LONG) == 0.0);
}

/// A signal leaves running answers their time. What is not done by then is told so.
#[test]
fn a_signal_lets_answers_end() {
    let (mut front, _folder) = long_front(&["--shutdown-timeout", "3"]);
    let expected = alone(B, 64);
    assert_eq!(front.complete(B, 1).0, 200);
    let mut endless = begun(&front, "/v1/completions", &ask_for(LONG, ENDLESS, true));
    let mut short = send(front.port, "POST", "/v1/completions", &ask_for(B, 64, false)).unwrap();
    wait_until("its prompt is read", || front.metric("vllm:prompt_tokens_total", B) == 6.0);
    signal("TERM", front.process.child.id());
    let mut texts = [String::new(), String::new()];
    short.read_to_string(&mut texts[0]).unwrap();
    endless.read_to_string(&mut texts[1]).unwrap();
    let told: Value = serde_json::from_str(body_of(&texts[0])).unwrap();
    assert_eq!(told["choices"][0]["text"], expected, "{told}");
    says(&texts[1], &["shutting_down", "data: [DONE]\n\n"]);
    assert_eq!(front.process.wait_for_end().code(), Some(0), "{}", front.process.stderr());
}

/// However the front ends, its processes do.
#[test]
fn no_process_outlives_the_front() {
    for (name, code) in [("TERM", Some(0)), ("INT", Some(0)), ("KILL", None)] {
        let mut front = front(&[]);
        assert_eq!((front.complete(A, 4).0, front.complete(B, 4).0), (200, 200));
        let processes = [A, B].map(|model| front.process_of(model));
        assert!(processes.iter().all(|process| lives(*process)));
        // One of them is in the middle of an answer.
        let _stream = (name == "KILL").then(|| begun(&front, "/v1/completions", &ask_for(A, ENDLESS, true)));
        signal(name, front.process.child.id());
        assert_eq!(front.process.wait_for_end().code(), code, "{}", front.process.stderr());
        if code.is_none() {
            wait_until("the processes end", || !processes.iter().any(|process| lives(*process)));
        }
        assert!(!processes.iter().any(|process| lives(*process)), "{name}");
    }
}
