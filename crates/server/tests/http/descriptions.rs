//! What the server tells of itself, in the forms of vLLM, llama.cpp and SGLang.
use crate::common::{CONTEXT, Options, Script, Server, TOKENIZER, chat_body, error, eventually, start, start_with};
use engine::{KlFigures, PrefixEvent, PrefixReport};
use reqwest::StatusCode;
use serde_json::{Value, json};
use server::ServerConfig;

async fn get(server: &Server, path: &str) -> Value {
    let response = server.get(path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.json().await.unwrap()
}

async fn server() -> Server {
    start_with(Script::Answer("x")).await
}

#[tokio::test]
async fn the_tokenizer_is_described_as_in_its_files() {
    let info = get(&server().await, "/tokenizer_info").await;
    let files: Value =
        serde_json::from_slice(&std::fs::read(testkit::repo("models/demo/tokenizer_config.json")).unwrap()).unwrap();
    for key in ["tokenizer_class", "bos_token", "eos_token"] {
        assert!(info[key].is_string() && info[key] == files[key], "{key}: {info}");
    }
    let bos = TOKENIZER.bos_id().unwrap().to_string();
    assert_eq!(info["added_tokens_decoder"][&bos]["content"], info["bos_token"]);
    assert_eq!(info["added_tokens_decoder"][&bos]["special"], true);
    assert!(info["chat_template"].as_str().unwrap().contains("messages"));
    let bare = start(Options { template: Some(""), ..Default::default() }).await;
    assert!(get(&bare, "/tokenizer_info").await.get("chat_template").is_none());
}

#[tokio::test]
async fn a_template_is_applied_without_an_answer() {
    let server = server().await;
    let applied = server.ask("/apply-template", chat_body(json!({}))).await;
    server.chat(json!({})).await;
    assert_eq!(applied, json!({"prompt": TOKENIZER.decode(&server.last_request().prompt, false)}));
    let template = Some("{{ tools | length if tools else 0 }}{{ 'deep' if deep }}{{ add_generation_prompt }}");
    let server = start(Options { template, ..Default::default() }).await;
    for (more, prompt) in [
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), "1True"),
        (json!({"tools": [], "chat_template_kwargs": {"deep": true}}), "0deepTrue"),
        (json!({"add_generation_prompt": false}), "0False"),
    ] {
        assert_eq!(server.ask("/apply-template", chat_body(more)).await["prompt"], prompt);
    }
    let (status, code, param, _) = error(server.post("/apply-template", &json!({})).await).await;
    assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", Some("messages")));
    let (status, code, param, _) = error(server.post("/apply-template", &chat_body(json!({"tools": 3}))).await).await;
    assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", Some("tools")));
    let bare = start(Options { template: Some(""), ..Default::default() }).await;
    let (status, code, ..) = error(bare.post("/apply-template", &chat_body(json!({}))).await).await;
    assert_eq!((status, code.as_str()), (422, "invalid_template"));
}

#[tokio::test]
async fn properties_are_those_of_model_and_server() {
    let config = ServerConfig { port: 0, max_tokens_default: Some(7), ..Default::default() };
    let props = get(&start(Options { config, ..Default::default() }).await, "/props").await;
    assert_eq!((&props["total_slots"], &props["model_alias"]), (&json!(64), &json!("demo")));
    assert!(props["model_path"].as_str().unwrap().ends_with("models/demo"));
    assert_eq!(props["eos_token"], TOKENIZER.spelling(TOKENIZER.eos_id().unwrap()).unwrap());
    assert!(props["chat_template"].as_str().unwrap().contains("messages"));
    let defaults = &props["default_generation_settings"];
    assert_eq!(defaults["n_ctx"], CONTEXT);
    assert_eq!(defaults["params"]["max_tokens"], 7);
    assert!((defaults["params"]["temperature"].as_f64().unwrap() - 0.7).abs() < 1e-6);
    let props = get(&server().await, "/props").await;
    assert_eq!(props["default_generation_settings"]["params"]["n_predict"], -1);
    // Whether the model calls tools is found in its template.
    let hermes = "{% if tools %}<tool_call>{{ tools | tojson }}</tool_call>{% endif %}{{ messages }}\
                  {% for m in messages %}{% for c in m.tool_calls %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \
                  \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}{% endfor %}";
    for (template, takes_tools) in [("{{ messages }}", false), (hermes, true)] {
        let props = get(&start(Options { template: Some(template), ..Default::default() }).await, "/props").await;
        let expected = json!({"supports_tools": takes_tools, "supports_tool_calls": takes_tools});
        assert_eq!(props["chat_template_caps"], expected, "{template}");
    }
}

#[tokio::test]
async fn as_many_slots_are_busy_as_sequences_run() {
    let server = server().await;
    let slots = get(&server, "/slots").await;
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 64);
    assert!(slots.iter().enumerate().all(|(i, slot)| slot["id"] == i && slot["n_ctx"] == CONTEXT));
    assert_eq!(slots.iter().filter(|slot| slot["is_processing"] == true).count(), 2);
    get(&server, "/slots?fail_on_no_slot=1").await;
    let full = start(Options { running: 64, ..Default::default() }).await;
    let (status, code, ..) = error(full.get("/slots?fail_on_no_slot=1").await).await;
    assert_eq!((status, code.as_str()), (503, "no_slot"));
    assert!(get(&full, "/slots").await.as_array().unwrap().iter().all(|slot| slot["is_processing"] == true));
}

#[tokio::test]
async fn the_load_is_the_requests_that_are_being_answered() {
    let server = start_with(Script::Tick).await;
    assert_eq!(get(&server, "/load").await, json!({"server_load": 0}));
    let first = server.post("/v1/chat/completions", &chat_body(json!({"stream": true}))).await;
    let second = server.post("/v1/chat/completions", &chat_body(json!({"stream": true}))).await;
    assert_eq!(get(&server, "/load").await, json!({"server_load": 2}));
    drop((first, second));
    eventually("two aborts", || server.seen.aborts.lock().unwrap().len() == 2).await;
    assert_eq!(get(&server, "/load").await, json!({"server_load": 0}));
}

#[tokio::test]
async fn routers_for_sglang_learn_the_load_and_the_limits() {
    let report = PrefixReport { prompt: 100, from_memory: 64, from_archive: 16, miss: None };
    let found = vec![PrefixEvent { id: "one".into(), report }];
    let server = start(Options { found, ..Default::default() }).await;
    let loads = get(&server, "/v1/loads").await;
    assert_eq!(loads["dp_rank_count"], 1);
    // A point in time with its offset.
    let timestamp = loads["timestamp"].as_str().unwrap();
    assert!(timestamp.starts_with("20") && timestamp.ends_with("+00:00"), "{timestamp}");
    let expected = json!({
        "dp_rank": 0, "num_running_reqs": 2, "num_waiting_reqs": 3, "num_total_reqs": 5, "num_used_tokens": 160,
        "max_total_num_tokens": 320, "token_usage": 0.5, "cache_hit_rate": 0.8, "utilization": 0.03125,
        "max_running_requests": 64,
    });
    assert_eq!(loads["loads"], json!([expected]));
    assert_eq!((&loads["aggregate"]["total_reqs"], &loads["aggregate"]["avg_token_usage"]), (&json!(5), &json!(0.5)));

    let info = get(&server, "/server_info").await;
    assert_eq!((&info["served_model_name"], &info["dp_size"]), (&json!("demo"), &json!(1)));
    assert_eq!((&info["max_total_tokens"], &info["context_length"]), (&json!(320), &json!(CONTEXT)));
    assert_eq!((&info["max_running_requests"], &info["kv_cache_dtype"]), (&json!(64), &json!("bf16/f16")));
    assert_eq!((&info["page_size"], &info["disable_radix_cache"]), (&json!(32), &json!(false)));
    let memory = &info["memory"];
    let [total, free, resident] = ["total", "free", "resident"].map(|name| memory[name].as_u64().unwrap());
    assert!(free <= total && (1..=total).contains(&resident) && memory["weights"] == 123_456, "{memory}");
    let model = get(&server, "/model_info").await;
    assert_eq!((&model["model_type"], &model["is_generation"]), (&json!("llama"), &json!(true)));
    assert_eq!(model["model_path"], info["model_path"]);
}

#[tokio::test]
async fn what_presets_cost_is_told_where_it_has_been_measured() {
    let divergence = async |kl_figures| {
        let server = start(Options { kl_figures, ..Default::default() }).await;
        get(&server, "/server_info").await["kv_divergence"].clone()
    };
    let preset = |name: &str, format: &str, kl| json!({"name": name, "k": format, "v": format, "kl": kl});
    let told = |tokens: usize, balanced| {
        let presets = [
            preset("bf16", "bf16", Value::Null),
            preset("transparent", "tq8", Value::Null),
            preset("near-lossless", "tc5", Value::Null),
            preset("balanced", "tc4", balanced),
        ];
        json!({"limit": 0.05, "tokens": tokens, "presets": presets})
    };
    assert_eq!(divergence(KlFigures::default()).await, told(0, Value::Null));
    let measured = json!({"tokens": 2048, "pairs": [{"k": "tc4", "v": "tc4", "kl": 0.0099}]});
    assert_eq!(divergence(serde_json::from_value(measured).unwrap()).await, told(2048, json!(0.0099)));
}

#[tokio::test]
async fn a_model_has_its_limits_and_each_client_its_list() {
    let server = server().await;
    let models = get(&server, "/v1/models").await;
    let model = &models["data"][0];
    assert_eq!((&model["max_model_len"], &model["meta"]["n_ctx"]), (&json!(CONTEXT), &json!(CONTEXT)));
    assert_eq!(
        (&model["meta"]["n_ctx_train"], &model["meta"]["n_vocab"]),
        (&json!(4 * CONTEXT), &json!(TOKENIZER.vocab_size()))
    );
    assert_eq!((&model["meta"]["size"], &model["meta"]["supports_tools"]), (&json!(123_456), &json!(false)));
    assert_eq!((&models["models"][0]["name"], &models["models"][0]["type"]), (&json!("demo"), &json!("model")));
    assert_eq!(get(&server, "/v1/models/demo").await, *model);
    // Codex takes the entries for its own and would fail at them.
    let codex = get(&server, "/v1/models?client_version=0.150.0").await;
    assert_eq!((&codex["models"], &codex["data"]), (&json!([]), &models["data"]));
}

#[tokio::test]
async fn descriptions_need_the_key_and_a_model() {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..Default::default() };
    let guarded = start(Options { config, ..Default::default() }).await;
    let loading = start(Options { loaded: false, ..Default::default() }).await;
    for path in ["/tokenizer_info", "/props", "/slots", "/load", "/v1/loads", "/server_info", "/model_info"] {
        let (status, ..) = error(guarded.get(path).await).await;
        assert_eq!(status, 401, "{path}");
        let (status, code, ..) = error(loading.get(path).await).await;
        assert_eq!((status, code.as_str()), (503, "model_loading"), "{path}");
    }
}
