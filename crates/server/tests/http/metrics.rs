//! `/metrics` under vLLM's names.
use crate::common::{Options, Script, TEXT, TOKENIZER, chat_body, eventually, start};
use engine::{PrefixEvent, PrefixReport};
use futures_util::StreamExt;
use serde_json::json;

/// A metric's value, by name, model and further labels.
pub fn value(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let line = metrics.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn a_request_is_counted_and_timed() {
    let server = start(Options { model: "metered", ..Default::default() }).await;
    server.ask("/v1/chat/completions", chat_body(json!({"model": "metered", "n": 2, "max_tokens": 500}))).await;
    let metrics = server.get("/metrics").await.text().await.unwrap();
    let model = ("model_name", "metered");
    let get = |name: &str| value(&metrics, name, &[model]);
    let (prompt, tokens) =
        (server.last_request().prompt.len() as f64, TOKENIZER.encode(TEXT, false).unwrap().len() as f64);
    assert_eq!(get("vllm:prompt_tokens_total"), Some(prompt));
    assert_eq!(get("vllm:generation_tokens_total"), Some(2.0 * tokens));
    assert_eq!(value(&metrics, "vllm:request_success_total", &[model, ("finished_reason", "stop")]), Some(2.0));
    assert_eq!(value(&metrics, "vllm:request_success_total", &[model, ("finished_reason", "abort")]), Some(0.0));
    for (histogram, count) in [
        ("vllm:time_to_first_token_seconds", 2.0),
        ("vllm:inter_token_latency_seconds", 2.0 * (tokens - 1.0)),
        ("vllm:time_per_output_token_seconds", 2.0 * (tokens - 1.0)),
        ("vllm:e2e_request_latency_seconds", 2.0),
        ("vllm:request_prompt_tokens", 1.0),
        ("vllm:request_generation_tokens", 2.0),
        ("vllm:request_params_n", 1.0),
        ("vllm:request_max_num_generation_tokens", 1.0),
        ("vllm:request_prefill_kv_computed_tokens", 1.0),
        ("vllm:request_time_per_output_token_seconds", 2.0),
        ("vllm:request_params_max_tokens", 1.0),
    ] {
        assert_eq!(get(&format!("{histogram}_count")), Some(count), "{histogram}");
        // A histogram and not a summary.
        assert_eq!(
            value(&metrics, &format!("{histogram}_bucket"), &[model, ("le", "+Inf")]),
            Some(count),
            "{histogram}"
        );
    }
    assert_eq!(get("vllm:request_params_max_tokens_sum"), Some(500.0));
    // The engine's state at the time of the scrape.
    for (gauge, expected) in [
        ("vllm:num_requests_running", 2.0),
        ("vllm:num_requests_waiting", 3.0),
        ("vllm:kv_cache_usage_perc", 0.5),
        ("vllm:gpu_cache_usage_perc", 0.5),
        ("vllm:num_preemptions_total", 7.0),
    ] {
        assert_eq!(get(gauge), Some(expected), "{gauge}");
    }
    let cache = [model, ("block_size", "32"), ("num_gpu_blocks", "10"), ("cache_dtype", "bf16/f16")];
    assert_eq!(value(&metrics, "vllm:cache_config_info", &cache), Some(1.0));
    assert!(metrics.contains("# TYPE vllm:time_to_first_token_seconds histogram"));
    assert!(metrics.contains("# HELP vllm:num_requests_running "));
}

#[tokio::test]
async fn newer_metrics_of_vllm_are_there_and_all_have_its_labels() {
    let server = start(Options { model: "sourced", ..Default::default() }).await;
    server.ask("/v1/chat/completions", chat_body(json!({"model": "sourced", "n": 2}))).await;
    let metrics = server.get("/metrics").await.text().await.unwrap();
    let model = ("model_name", "sourced");
    let get = |name: &str| value(&metrics, name, &[model]);
    let (prompt, tokens) =
        (server.last_request().prompt.len() as f64, TOKENIZER.encode(TEXT, false).unwrap().len() as f64);
    assert_eq!(get("vllm:request_max_num_generation_tokens_sum"), Some(tokens));
    // One token of the prompt was in the cache.
    assert_eq!(get("vllm:request_prefill_kv_computed_tokens_sum"), Some(prompt - 1.0));
    assert_eq!(get("vllm:prompt_tokens_cached_total"), Some(1.0));
    for (name, label, expected) in [
        ("vllm:prompt_tokens_by_source_total", ("source", "local_compute"), prompt - 1.0),
        ("vllm:prompt_tokens_by_source_total", ("source", "local_cache_hit"), 1.0),
        ("vllm:num_requests_waiting_by_reason", ("reason", "capacity"), 3.0),
        ("vllm:num_requests_waiting_by_reason", ("reason", "deferred"), 0.0),
        ("vllm:engine_sleep_state", ("sleep_state", "awake"), 1.0),
        ("vllm:engine_sleep_state", ("sleep_state", "discard_all"), 0.0),
    ] {
        assert_eq!(value(&metrics, name, &[model, label]), Some(expected), "{name} {label:?}");
    }
    // vLLM's dashboards select by both labels.
    let own = metrics.lines().filter(|line| line.contains("model_name=\"sourced\""));
    assert!(own.clone().count() > 100);
    let named = |line: &str| line.starts_with("vllm:") || line.starts_with("tallow_");
    assert!(own.clone().all(|line| named(line) && line.contains("engine=\"0\"")), "{metrics}");
}

#[tokio::test]
async fn what_the_cache_holds_and_gives_is_counted() {
    let report = PrefixReport { prompt: 100, from_memory: 64, from_archive: 16, miss: None };
    let found = vec![PrefixEvent { id: "one".into(), report }];
    let server =
        start(Options { model: "cached", script: Script::OnDisk(2), found, has_disk: true, ..Default::default() })
            .await;
    server.ask("/v1/completions", json!({"prompt": [5, 6, 7, 8, 9, 10]})).await;
    let metrics = server.get("/metrics").await.text().await.unwrap();
    let model = ("model_name", "cached");
    for (name, expected) in [
        ("vllm:prefix_cache_queries_total", 100.0),
        ("vllm:prefix_cache_hits_total", 64.0),
        ("vllm:external_prefix_cache_queries_total", 36.0),
        ("vllm:external_prefix_cache_hits_total", 16.0),
        ("vllm:prompt_tokens_cached_total", 3.0),
        ("tallow_cache_snapshots", 1.0),
    ] {
        assert_eq!(value(&metrics, name, &[model]), Some(expected), "{name}");
    }
    for (name, label, expected) in [
        ("vllm:prompt_tokens_by_source_total", ("source", "local_compute"), 3.0),
        ("vllm:prompt_tokens_by_source_total", ("source", "local_cache_hit"), 1.0),
        ("vllm:prompt_tokens_by_source_total", ("source", "external_kv_transfer"), 2.0),
        ("tallow_cache_blocks", ("state", "held"), 5.0),
        ("tallow_cache_blocks", ("state", "cached"), 3.0),
        ("tallow_cache_blocks", ("state", "free"), 2.0),
        ("vllm:cache_config_info", ("enable_prefix_caching", "True"), 1.0),
    ] {
        assert_eq!(value(&metrics, name, &[model, label]), Some(expected), "{name} {label:?}");
    }
}

#[tokio::test]
async fn a_failed_request_counts_as_an_error() {
    let server = start(Options { model: "failing", script: Script::FailLate, ..Default::default() }).await;
    let response = server.post("/v1/chat/completions", &chat_body(json!({"model": "failing"}))).await;
    assert_eq!(response.status(), 500);
    let metrics = server.get("/metrics").await.text().await.unwrap();
    for (reason, count) in [("error", 1.0), ("abort", 0.0)] {
        let labels = [("model_name", "failing"), ("finished_reason", reason)];
        assert_eq!(value(&metrics, "vllm:request_success_total", &labels), Some(count), "{reason}");
    }
}

#[tokio::test]
async fn a_cancelled_request_counts_as_aborted() {
    let server = start(Options { model: "left", script: Script::Tick, ..Default::default() }).await;
    let response = server.post("/v1/chat/completions", &chat_body(json!({"model": "left", "stream": true}))).await;
    let mut bytes = response.bytes_stream().boxed();
    bytes.next().await.unwrap().unwrap();
    drop(bytes);
    eventually("an abort", || server.seen.aborts.lock().unwrap().len() == 1).await;
    let metrics = server.get("/metrics").await.text().await.unwrap();
    let labels = [("model_name", "left"), ("finished_reason", "abort")];
    assert_eq!(value(&metrics, "vllm:request_success_total", &labels), Some(1.0));
}

#[tokio::test]
async fn a_server_without_a_cache_on_disk_looks_for_nothing_there() {
    let report = PrefixReport { prompt: 100, from_memory: 64, from_archive: 0, miss: None };
    let found = vec![PrefixEvent { id: "one".into(), report }];
    let server = start(Options { model: "diskless", found, ..Default::default() }).await;
    let metrics = server.get("/metrics").await.text().await.unwrap();
    let get = |name: &str| value(&metrics, name, &[("model_name", "diskless")]);
    assert_eq!(get("vllm:prefix_cache_queries_total"), Some(100.0));
    assert_eq!(get("vllm:external_prefix_cache_queries_total"), Some(0.0));
}
