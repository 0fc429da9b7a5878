//! What requests in Anthropic's form become, and what is refused of them.
use crate::common::{Options, Script, Server, TOKENIZER, start, start_with};
use crate::messages::{COUNT_TOKENS, MESSAGES, body, server, tools};
use reqwest::Response;
use serde_json::{Value, json};
use server::ServerConfig;

fn prompt(server: &Server) -> String {
    TOKENIZER.decode(&server.last_request().prompt, false)
}

/// An error's status, type and message.
pub async fn refusal(response: Response) -> (u16, String, String) {
    let (status, id) = (response.status().as_u16(), response.headers()["request-id"].to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["type"], &body["request_id"]), (&json!("error"), &json!(id)), "{body}");
    let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
    (status, text("type"), text("message"))
}

#[tokio::test]
async fn a_second_turn_shows_the_template_thoughts_calls_and_results() {
    let server = server("ok").await;
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "Look."}, {"type": "text", "text": "Now."}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig_1"},
            {"type": "redacted_thinking", "data": "c2VjcmV0"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a.rs", "line": 3}},
            {"type": "tool_use", "id": "toolu_2", "name": "stop", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                {"type": "text", "text": "fn main() {"}, {"type": "text", "text": "}"},
            ], "cache_control": {"type": "ephemeral"}},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such thing", "is_error": true},
            {"type": "text", "text": "Go on."},
        ]},
    ]);
    let system = json!([{"type": "text", "text": "Be terse."}, {"type": "text", "text": "Be kind."}]);
    server.ask(MESSAGES, body(json!({"system": system, "messages": messages, "tools": tools()}))).await;
    let told = prompt(&server);
    let (_, told) = told.split_once("<|im_end|>\n").unwrap();
    let expected = "<|im_start|>system\nBe terse.\nBe kind.<|im_end|>\n\
        <|im_start|>user\nLook.\nNow.<|im_end|>\n\
        <|im_start|>assistant\n<think>\nHm.\n</think>\n\nI look.\
        <tool_call>\n{\"name\": \"read\", \"arguments\": {\"path\": \"a.rs\", \"line\": 3}}\n</tool_call>\
        <tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call><|im_end|>\n\
        <|im_start|>tool\nfn main() {\n}<|im_end|>\n\
        <|im_start|>tool\nError: no such thing<|im_end|>\n\
        <|im_start|>user\nGo on.<|im_end|>\n\
        <|im_start|>assistant\n";
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_tools_result_has_the_name_of_its_tool() {
    let template = "{% for m in messages %}{{ m.role }}({{ m.name }},{{ m.tool_call_id }}) {% endfor %}<tool_call>";
    let options = Options { template: Some(template), context: 4096, ..Options::default() };
    let server = start(options).await;
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
    let messages = json!([
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result("toolu_1"), result("toolu_9")]},
    ]);
    server.ask(MESSAGES, body(json!({"messages": messages}))).await;
    assert!(prompt(&server).contains("tool(read,toolu_1) tool(,toolu_9) "), "{}", prompt(&server));
}

#[tokio::test]
async fn messages_of_one_role_in_a_row_are_one_turn() {
    let server = server("ok").await;
    let messages = json!([
        {"role": "user", "content": "One."},
        {"role": "user", "content": "Two."},
        {"role": "system", "content": "From now on, rhyme."},
        {"role": "assistant", "content": []},
        {"role": "user", "content": [{"type": "text", "text": "Three."}]},
        {"role": "assistant", "content": "The answer"},
        {"role": "assistant", "content": "is ("},
    ]);
    server.ask(MESSAGES, body(json!({"messages": messages, "system": "Rhyme."}))).await;
    let expected = "<|im_start|>system\nRhyme.<|im_end|>\n\
        <|im_start|>user\nOne.\nTwo.<|im_end|>\n\
        <|im_start|>system\nFrom now on, rhyme.<|im_end|>\n\
        <|im_start|>assistant\n<|im_end|>\n\
        <|im_start|>user\nThree.<|im_end|>\n\
        <|im_start|>assistant\nThe answer\nis (";
    assert_eq!(prompt(&server), expected);
    // The answer continues the text.
    assert!(!server.last_request().begins_text);
}

/// A request in the shape of Claude Code's.
fn of_claude_code() -> Value {
    let tool = |i: usize| {
        json!({
            "name": format!("Tool{i}"),
            "description": "Does one thing.",
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {"what": {"type": "string", "description": "What to do"}, "n": {"type": "number"}},
                "required": ["what"],
                "additionalProperties": false,
            },
        })
    };
    let cached = json!({"type": "ephemeral"});
    json!({
        "model": "claude-opus-5",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>The day is Monday.</system-reminder>"},
                {"type": "text", "text": "Greet me", "cache_control": cached},
            ]},
            {"role": "system", "content": "Helpers: none."},
        ],
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: version=1; entry=7;"},
            {"type": "text", "text": "You are an agent.", "cache_control": cached},
            {"type": "text", "text": "You help people who write programs.", "cache_control": cached},
        ],
        "tools": (0..20).map(tool).collect::<Vec<_>>(),
        "metadata": {"user_id": "{\"session\": \"s1\"}"},
        "max_tokens": 32000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": true,
    })
}

#[tokio::test]
async fn a_request_of_claude_code_is_answered() {
    let options = Options { script: Script::Answer("Hello!"), context: 8192, ..Options::default() };
    let server = start(Options { template: Some(crate::tools::TEMPLATE), ..options }).await;
    let mut prompts = Vec::new();
    for billing in ["x-anthropic-billing-header: version=1;", "x-anthropic-billing-header: version=1; entry=8;"] {
        let mut sent = of_claude_code();
        sent["system"][0]["text"] = billing.into();
        let request = server.client.post(format!("{}{MESSAGES}?beta=true", server.url)).json(&sent);
        let betas = "claude-code-20250219,interleaved-thinking-2025-05-14,something-2031-01-01";
        let request = request.header("anthropic-version", "2023-06-01").header("anthropic-beta", betas);
        let answer = request.header("authorization", "Bearer any").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["request-id"], answer.headers()["x-request-id"]);
        let text = answer.text().await.unwrap();
        assert!(text.contains("\"model\":\"claude-opus-5\"") && text.contains("\"text\":\"Hello\""), "{text}");
        prompts.push(prompt(&server));
    }
    // What changes with every request is not in the prompt.
    assert_eq!(prompts[0], prompts[1]);
    assert!(!prompts[0].contains("billing"), "{}", prompts[0]);
    let at = |text: &str| prompts[0].find(text).unwrap_or_else(|| panic!("{text} is not in {}", prompts[0]));
    assert!(at("Tool19") < at("You are an agent.") && at("Greet me") < at("Helpers: none."));
    let request = server.last_request();
    assert_eq!((request.client.as_str(), request.stop.max_tokens), ("{\"session\": \"s1\"}", Some(32000)));
    assert_eq!(request.reading.unwrap().tools.len(), 20);
}

#[tokio::test]
async fn fields_reach_the_engine() {
    let server = server("ok").await;
    server.ask(MESSAGES, body(json!({"temperature": 0.5, "top_p": 0.25, "top_k": 7}))).await;
    let request = server.last_request();
    assert_eq!((request.sampling.temperature, request.sampling.top_p, request.sampling.top_k), (0.5, 0.25, 7));
    assert_eq!(request.client, "127.0.0.1");
    let without = json!({"messages": [{"role": "user", "content": "x"}]});
    let answer = server.ask(MESSAGES, without.clone()).await;
    assert_eq!((answer["model"].as_str(), server.last_request().stop.max_tokens), (Some("demo"), None));
    // The model's own defaults.
    assert_eq!(server.last_request().sampling.temperature, 0.7);
    let config = ServerConfig { port: 0, max_tokens_default: Some(5), ..ServerConfig::default() };
    let server = start(Options { config, ..Options::default() }).await;
    assert_eq!(server.ask(MESSAGES, without).await["stop_reason"], "max_tokens");
    assert_eq!(server.last_request().stop.max_tokens, Some(5));
}

#[tokio::test]
async fn thinking_is_turned_off_and_bounded() {
    let server = server("ok").await;
    for (more, closed, budget) in [
        (json!({}), false, None),
        (json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}), false, None),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), false, Some(1024)),
        (json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}), true, None),
    ] {
        server.ask(MESSAGES, body(more.clone())).await;
        assert_eq!(prompt(&server).ends_with("<think>\n\n</think>\n\n"), closed, "{more}");
        assert_eq!(server.last_request().reading.unwrap().thought_budget, budget, "{more}");
    }
}

#[tokio::test]
async fn what_may_be_called_is_what_the_choice_says() {
    let server = server("ok").await;
    for (choice, callable, held, single) in [
        (json!({"type": "auto"}), vec!["read", "stop"], false, false),
        (json!({"type": "auto", "disable_parallel_tool_use": true}), vec!["read", "stop"], false, true),
        (json!({"type": "any"}), vec!["read", "stop"], true, false),
        (json!({"type": "tool", "name": "stop"}), vec!["stop"], true, false),
    ] {
        server.ask(MESSAGES, body(json!({"tools": tools(), "tool_choice": choice}))).await;
        let request = server.last_request();
        let reading = request.reading.unwrap();
        assert_eq!(reading.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), callable, "{choice}");
        assert_eq!((request.constraint.is_some(), reading.single_call), (held, single), "{choice}");
    }
    server.ask(MESSAGES, body(json!({"tools": tools(), "tool_choice": {"type": "none"}}))).await;
    assert!(!prompt(&server).contains("<tools>"));
    // Tools that run elsewhere are left out beside others.
    let mut with_search = tools();
    with_search.as_array_mut().unwrap().push(json!({"type": "web_search_20250305", "name": "web_search"}));
    server.ask(MESSAGES, body(json!({"tools": with_search}))).await;
    assert!(prompt(&server).contains("\"read\"") && !prompt(&server).contains("web_search"));
}

#[tokio::test]
async fn an_answer_is_held_to_a_schema() {
    let server = server("ok").await;
    let format = json!({"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "null"}}}});
    for more in [json!({"output_config": {"format": format}}), json!({"output_format": format})] {
        server.ask(MESSAGES, body(more.clone())).await;
        assert!(server.last_request().constraint.is_some(), "{more}");
    }
}

#[tokio::test]
async fn tokens_are_counted_as_the_prompt_has_them() {
    let server = server("ok").await;
    for more in [
        json!({}),
        json!({"system": "Be terse.", "tools": tools(), "thinking": {"type": "disabled"}}),
        json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}),
        of_claude_code(),
    ] {
        let mut sent = body(more);
        sent["stream"] = json!(false);
        let counted = server.ask(COUNT_TOKENS, sent.clone()).await;
        let usage = server.ask(MESSAGES, sent).await["usage"].clone();
        let read = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
        assert_eq!(counted, json!({"input_tokens": read}));
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_by_its_path() {
    let server = server("ok").await;
    let block =
        |block: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, block]}]});
    let last = |content: Value| {
        let answer = json!({"role": "assistant", "content": content});
        json!({"messages": [{"role": "user", "content": "x"}, answer]})
    };
    let call = |input: Value| json!([{"type": "tool_use", "id": "a", "name": "read", "input": input}]);
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}});
    let inner = json!({"type": "tool_result", "tool_use_id": "a", "content": [image]});
    for (more, start) in [
        (json!({"messages": null}), "messages is missing"),
        (json!({"messages": []}), "messages is []"),
        (json!({"messages": ["x"]}), "messages[0].role is null"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role is \"tool\""),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content is null"),
        (json!({"messages": [{"role": "user", "content": [3]}]}), "messages[0].content[0] is no content block"),
        (block(json!({"type": "text"})), "messages[0].content[1].text is null"),
        (block(image), "messages[0].content[1] is a block of the type \"image\""),
        (block(json!({"type": "document"})), "messages[0].content[1] is a block of the type \"document\""),
        (block(inner), "messages[0].content[1].content[0] is a block of the type \"image\""),
        (block(json!({"type": "tool_result"})), "messages[0].content[1].tool_use_id is null"),
        (last(call(json!("{}"))), "messages[1].content[0].input is \"{}\""),
        (last(call(json!({}))), "messages[1] comes last"),
        (last(json!([{"type": "thinking", "thinking": "Hm."}])), "messages[1] comes last"),
        (json!({"system": 3}), "system is 3"),
        (json!({"system": [{"type": "image"}]}), "system[0] is a block of the type \"image\""),
        (json!({"max_tokens": -1}), "max_tokens: "),
        (json!({"temperature": 200.0}), "temperature is 200"),
        (json!({"stop_sequences": [""]}), "stop_sequences holds an empty string"),
        (json!({"stop_sequences": "x"}), "stop_sequences: "),
        (json!({"thinking": {"type": "maybe"}}), "thinking.type is \"maybe\""),
        (json!({"output_config": {"effort": "none"}}), "output_config.effort is \"none\""),
        (json!({"output_config": {"format": {"type": "xml"}}}), "output_config.format.type is \"xml\""),
        (json!({"output_format": {"type": "json_schema"}}), "output_format.schema is null"),
        (json!({"tools": [{"input_schema": {}}]}), "tools[0].name is null"),
        (json!({"tools": [{"name": "f", "input_schema": 3}]}), "tools[0].input_schema is 3"),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type is \"bash_20250124\""),
        (json!({"tools": tools(), "tool_choice": {"type": "tool", "name": "write"}}), "tool_choice names \"write\""),
        (json!({"tools": tools(), "tool_choice": {"type": "tool"}}), "tool_choice.name is missing"),
        (json!({"tools": tools(), "tool_choice": {"type": "some"}}), "tool_choice.type is \"some\""),
        (json!({"mcp_servers": [{"type": "url"}]}), "mcp_servers is not supported"),
    ] {
        let sent = body(more.clone());
        let (status, kind, message) = refusal(server.post(MESSAGES, &sent).await).await;
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{more}: {message}");
        assert!(message.starts_with(start), "{more}: {message}");
    }
}

#[tokio::test]
async fn every_error_has_anthropics_form() {
    let server = start_with(Script::Answer("x")).await;
    let long = body(json!({"messages": [{"role": "user", "content": "word ".repeat(200)}]}));
    let (status, kind, message) = refusal(server.post(MESSAGES, &long).await).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    let tokens = server.ask(COUNT_TOKENS, long).await["input_tokens"].clone();
    assert!(message.starts_with(&format!("prompt is too long: {tokens} tokens > 127 maximum")), "{message}");

    let url = |path: &str| format!("{}{path}", server.url);
    let post = |path: &str, body: String| server.client.post(url(path)).body(body);
    for (request, status, kind) in [
        (post(MESSAGES, "{".into()), 400, "invalid_request_error"),
        (post(COUNT_TOKENS, "[]".into()), 400, "invalid_request_error"),
        (post(MESSAGES, " ".repeat(5 << 20)), 413, "request_too_large"),
        (post(MESSAGES, body(json!({"model": "gpt-9"})).to_string()), 404, "not_found_error"),
        (post("/v1/messages/batches", "{}".into()), 404, "not_found_error"),
        (server.client.get(url(MESSAGES)), 405, "invalid_request_error"),
        (server.client.get(url("/v1/models/gpt-9")).header("anthropic-version", "1"), 404, "not_found_error"),
        (post(MESSAGES, "{}".into()).header("host", "evil.example"), 403, "permission_error"),
        (post(MESSAGES, "{}".into()).header("content-encoding", "br"), 415, "invalid_request_error"),
    ] {
        let (got, named, message) = refusal(request.send().await.unwrap()).await;
        assert_eq!((got, named.as_str()), (status, kind), "{message}");
    }
    let full = start(Options { script: Script::Wait, queue_limit: 1, ..Options::default() }).await;
    let waits = full.post(MESSAGES, &body(json!({"stream": true}))).await;
    let (status, kind, _) = refusal(full.post(MESSAGES, &body(json!({}))).await).await;
    assert_eq!((status, kind.as_str()), (429, "rate_limit_error"));
    drop(waits);
    let loading = start(Options { loaded: false, ..Options::default() }).await;
    let (status, kind, _) = refusal(loading.post(MESSAGES, &body(json!({}))).await).await;
    assert_eq!((status, kind.as_str()), (503, "overloaded_error"));
}

#[tokio::test]
async fn the_key_is_taken_from_either_header() {
    let config = ServerConfig { port: 0, api_key: Some("secret".into()), ..ServerConfig::default() };
    let server = start(Options { config, ..Options::default() }).await;
    let post = |headers: &[(&'static str, &str)]| {
        let request = server.client.post(format!("{}{MESSAGES}", server.url)).json(&body(json!({})));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    for headers in [
        &[("x-api-key", "secret")][..],
        &[("authorization", "Bearer secret")],
        &[("x-api-key", "other"), ("authorization", "Bearer secret")],
        &[("x-api-key", "secret"), ("authorization", "Bearer other")],
    ] {
        assert_eq!(post(headers).send().await.unwrap().status(), 200, "{headers:?}");
    }
    for headers in [&[][..], &[("x-api-key", "secret2")], &[("x-api-key", ""), ("authorization", "secret")]] {
        let (status, kind, _) = refusal(post(headers).send().await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (401, "authentication_error"), "{headers:?}");
    }
    let models = server.client.get(format!("{}/v1/models", server.url)).header("x-api-key", "secret").send().await;
    assert_eq!(models.unwrap().status(), 200);
}

#[tokio::test]
async fn models_are_listed_in_the_form_of_the_client() {
    let names = vec!["first".to_owned(), "org/second".to_owned()];
    let config = ServerConfig { port: 0, served_model_name: names, ..ServerConfig::default() };
    let server = start(Options { config, ..Options::default() }).await;
    let get = async |path: &str| -> Value {
        let request = server.client.get(format!("{}{path}", server.url)).header("anthropic-version", "2023-06-01");
        request.send().await.unwrap().json().await.unwrap()
    };
    let list = get("/v1/models?limit=20").await;
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!("first"), &json!("org/second")));
    assert_eq!((&list["has_more"], list["data"].as_array().unwrap().len()), (&json!(false), 2));
    let model = &list["data"][1];
    assert_eq!(*model, get("/v1/models/org/second").await);
    assert_eq!((&model["type"], &model["display_name"]), (&json!("model"), &json!("org/second")));
    let created = model["created_at"].as_str().unwrap();
    assert!(created.len() == 20 && created.starts_with("20") && created.ends_with('Z'), "{created}");
    assert_eq!(get("/v1/models/claude-opus-5").await["id"], "claude-opus-5");
    let openai: Value = server.get("/v1/models").await.json().await.unwrap();
    assert_eq!(openai["object"], "list");
    let answer = server.ask(MESSAGES, body(json!({"model": "org/second"}))).await;
    assert_eq!(answer["model"], "org/second");
}

#[tokio::test]
async fn probes_are_answered() {
    let server = start_with(Script::Answer("x")).await;
    for path in ["/", MESSAGES, COUNT_TOKENS, "/v1/messages?beta=true", "/messages"] {
        let answer = server.client.head(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.text().await.unwrap().is_empty());
    }
}
