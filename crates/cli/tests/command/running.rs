//! A server that runs: what its log tells of requests, and how other commands find it.
use crate::common::{
    PATIENCE, answer, completion, free_port, repo, run, says, serve, signal, spawn, tallow, wait_until_healthy,
};
use serde_json::Value;
use std::time::Instant;
use tempfile::TempDir;

#[test]
fn a_server_is_found_while_it_runs_and_its_log_tells_of_each_request() {
    let (home, port) = (TempDir::new().unwrap(), free_port());
    let known = |arguments: &[&str]| {
        let ended = run(tallow(home.path()).env("TALLOW_CACHE_DIR", home.path()).args(arguments));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout
    };
    let mut arguments = serve(&repo("models/tiny-mistral"), &port.to_string());
    arguments.extend(["--log-format", "json", "--served-model-name", "tiny"].map(str::to_owned));
    let mut server = spawn(&arguments, |command| {
        command.env("TALLOW_CACHE_DIR", home.path());
    });
    wait_until_healthy(port);
    let begin = Instant::now();
    while known(&["ps", "--json"]).trim() == "[]" {
        assert!(begin.elapsed() < PATIENCE, "{}", server.stderr());
    }
    let listed: Value = serde_json::from_str(&known(&["ps", "--json"])).unwrap();
    assert_eq!((&listed[0]["model"], &listed[0]["formats"]), (&"tiny".into(), &"bf16".into()));
    assert_eq!(listed[0]["pid"], server.child.id());
    let url = format!("http://127.0.0.1:{port}");
    says(&known(&["ps"]), &[&url, "tiny", "bf16"]);
    for agent in ["claude", "codex", "opencode"] {
        says(&known(&["launch", agent, "--print"]), &[&url, "tiny", agent]);
    }
    assert_eq!(answer(port, "POST", "/v1/completions", &completion(4, false)).unwrap().0, 200);
    server.wait_for("answered");
    let log = server.stderr();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = lines.iter().find(|line| line["message"] == "answered").unwrap();
    let fields = ["prompt_tokens", "cached_tokens", "answer_tokens"].map(|field| told[field].as_u64());
    assert_eq!(fields, [Some(3), Some(0), Some(4)]);
    assert!(told["tokens_per_second"].as_f64() > Some(0.0) && told["id"].is_string(), "{told}");
    signal("TERM", server.child.id());
    server.wait_for_end();
    assert_eq!(known(&["ps", "--json"]).trim(), "[]");
}
