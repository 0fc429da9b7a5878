//! The input of responses over HTTP: which prompt it becomes, what tools are called as, what is refused.
use crate::common::{Server, TOKENIZER, error};
use crate::responses::{RESPONSES, body, events, server, tools};
use engine::GenerationRequest;
use serde_json::{Value, json};

/// What the engine is asked for by a request for a response.
async fn asked(server: &Server, more: Value) -> GenerationRequest {
    server.ask(RESPONSES, body(more)).await;
    server.last_request()
}

/// What the engine is asked for by a request for a chat answer.
async fn chat(server: &Server, more: Value) -> Vec<u32> {
    server.chat(more).await;
    server.last_request().prompt
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[tokio::test]
async fn a_conversation_has_the_prompt_that_the_chat_endpoint_gives_it() {
    let server = server("ok").await;
    let text = |role: &str, text: &str| json!({"type": "message", "role": role, "content": text});
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    let read = json!({"name": "read", "description": "Reads.", "parameters": parameters});
    let mut flat = read.clone();
    flat["type"] = "function".into();
    let arguments = r#"{"path":"a.rs",  "line": 3.0}"#;
    let input = json!([
        {"type": "message", "id": "m1", "role": "developer", "content": [{"type": "input_text", "text": "In Rust."}]},
        text("user", "Look."),
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "message", "role": "assistant", "status": "completed", "id": "msg_2",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "read", "arguments": arguments},
        {"type": "function_call", "call_id": "call_2", "name": "spawn", "namespace": "agents", "arguments": "{}"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "call_1", "output": "fn main() {}"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "done"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So."}], "encrypted_content": null},
        {"type": "custom_tool_call", "call_id": "call_3", "name": "patch", "input": "a \"b\"\nc"},
        {"type": "custom_tool_call_output", "call_id": "call_3", "output": "Done"},
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": [{"type": "input_text", "text": "And"}, {"type": "input_text", "text": "now?"}]},
    ]);
    let messages = json!([
        {"role": "system", "content": "Be terse."},
        {"role": "developer", "content": "In Rust."},
        {"role": "user", "content": "Look."},
        {
            "role": "assistant", "content": "I look.", "reasoning_content": "Hm.",
            "tool_calls": [call("call_1", "read", arguments), call("call_2", "agents__spawn", "{}")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "fn main() {}"},
        {"role": "tool", "tool_call_id": "call_2", "content": "done"},
        {
            "role": "assistant", "content": null, "reasoning_content": "So.",
            "tool_calls": [call("call_3", "patch", r#"{"input": "a \"b\"\nc"}"#)],
        },
        {"role": "tool", "tool_call_id": "call_3", "content": "Done"},
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": "And\nnow?"},
    ]);
    let ours = asked(&server, json!({"instructions": "Be terse.", "input": input, "tools": [flat]})).await.prompt;
    let theirs = chat(&server, json!({"messages": messages, "tools": [{"type": "function", "function": read}]})).await;
    assert_eq!(TOKENIZER.decode(&ours, false), TOKENIZER.decode(&theirs, false));
    assert_eq!(ours, theirs);
    let prompt = TOKENIZER.decode(&ours, false);
    assert!(prompt.contains("<think>\nHm.\n</think>\n\nI look.") && prompt.contains(arguments), "{prompt}");
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_left_out_with_its_result() {
    let server = server("ok").await;
    let broken = json!([
        {"role": "user", "content": "Look."},
        {"type": "function_call", "call_id": "1", "name": "read", "arguments": "{\"pa", "status": "incomplete"},
        {"type": "function_call_output", "call_id": "1", "output": "broken"},
        {"role": "user", "content": "Again."},
    ]);
    let ours = asked(&server, json!({"input": broken})).await.prompt;
    let messages = json!([{"role": "user", "content": "Look."}, {"role": "user", "content": "Again."}]);
    assert_eq!(ours, chat(&server, json!({"messages": messages})).await);
}

#[tokio::test]
async fn clients_that_try_whether_a_server_answers_get_an_answer() {
    let server = server("ok").await;
    for more in [json!({"input": ""}), json!({"input": []}), json!({"input": [], "instructions": "Be terse."})] {
        let mut more = more;
        more["max_output_tokens"] = json!(1);
        let request = asked(&server, more).await;
        assert_eq!(request.stop.max_tokens, Some(1));
        assert!(TOKENIZER.decode(&request.prompt, false).contains("<|im_start|>user\n<|im_end|>"));
    }
}

#[tokio::test]
async fn tools_are_offered_as_functions_and_held_to_what_they_take() {
    let server = server("ok").await;
    let request = asked(&server, json!({"tools": tools()})).await;
    let reading = request.reading.unwrap();
    let names: Vec<&str> = reading.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["read", "stop", "apply_patch", "note", "agents__spawn"]);
    assert!(reading.call_constraint.is_some() && request.constraint.is_none() && !reading.single_call);
    assert_eq!(reading.tools[3].parameters["required"], json!(["input"]));
    let prompt = TOKENIZER.decode(&request.prompt, false);
    // The model is told of a grammar that its text cannot be held to.
    assert!(prompt.contains("lark grammar:\\nstart: \\\"*** Begin\\\" /.+/"), "{prompt}");

    let grammar = json!({"type": "grammar", "syntax": "regex", "definition": "[0-9]+|x"});
    let digits = json!([{"type": "custom", "name": "digits", "format": grammar}]);
    let request = asked(&server, json!({"tools": digits, "parallel_tool_calls": false})).await;
    let reading = request.reading.unwrap();
    assert_eq!(reading.tools[0].parameters["properties"]["input"]["pattern"], "^(?:[0-9]+|x)$");
    assert!(reading.single_call);
    let mut held = reading.call_constraint.unwrap();
    assert!(held.clone().consume_text("\n{\"name\": \"digits\", \"arguments\": {\"input\": \"12\"}}\n"));
    assert!(!held.consume_text("\n{\"name\": \"digits\", \"arguments\": {\"input\": \"1y\"}}\n"));
}

#[tokio::test]
async fn what_may_be_called_is_what_the_choice_says() {
    let server = server("ok").await;
    for (choice, callable, forced) in [
        (json!("auto"), 5, false),
        (json!(null), 5, false),
        (json!("required"), 5, true),
        (json!({"type": "function", "name": "stop"}), 1, true),
        (json!({"type": "custom", "name": "note"}), 1, true),
        (json!({"type": "function", "name": "spawn", "namespace": "agents"}), 1, true),
        (
            json!({"type": "allowed_tools", "mode": "auto", "tools": [
                {"type": "function", "name": "read"}, {"type": "custom", "name": "note"}, {"type": "web_search"},
            ]}),
            2,
            false,
        ),
    ] {
        let request = asked(&server, json!({"tools": tools(), "tool_choice": choice})).await;
        let reading = request.reading.unwrap();
        assert_eq!((reading.tools.len(), request.constraint.is_some()), (callable, forced), "{choice}");
    }
    let request = asked(&server, json!({"tools": tools(), "tool_choice": "none"})).await;
    assert!(!TOKENIZER.decode(&request.prompt, false).contains("<tools>"));
    // Tools that nobody can run here leave none.
    let request = asked(&server, json!({"tools": [{"type": "web_search"}]})).await;
    assert!(!TOKENIZER.decode(&request.prompt, false).contains("<tools>"));
}

#[tokio::test]
async fn forms_thoughts_and_sampling_reach_the_engine() {
    let server = server("ok").await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false});
    for (format, held) in [
        (json!({"type": "text"}), false),
        (json!({"type": "json_object"}), true),
        (json!({"type": "json_schema", "name": "a", "strict": true, "schema": schema}), true),
    ] {
        let request = asked(&server, json!({"text": {"format": format, "verbosity": "low"}})).await;
        assert_eq!(request.constraint.is_some(), held, "{format}");
    }
    let request = asked(&server, json!({"reasoning": {"effort": "none"}})).await;
    assert!(TOKENIZER.decode(&request.prompt, false).ends_with("<think>\n\n</think>\n\n"));
    let request = asked(&server, json!({"temperature": 0.5, "top_p": 0.25, "seed": 7, "stop": "x"})).await;
    assert_eq!((request.sampling.temperature, request.sampling.top_p, request.sampling.seed), (0.5, 0.25, Some(7)));
    assert_eq!(request.stop.stop, ["x"]);
    for (more, client) in [
        (json!({"prompt_cache_key": "k"}), "k"),
        (json!({"prompt_cache_key": "k", "safety_identifier": "s"}), "s"),
        (json!({"prompt_cache_key": "k", "safety_identifier": "s", "user": "u"}), "u"),
        (json!({"user": ""}), "127.0.0.1"),
    ] {
        assert_eq!(asked(&server, more).await.client, client);
    }
}

fn with_item(item: Value) -> Value {
    json!({"input": [{"role": "user", "content": "x"}, item]})
}

/// Sends each request, and checks the status and the field that the error names.
async fn refused(cases: Vec<(Value, u16, &str)>) {
    let server = server("ok").await;
    for (more, status, param) in cases {
        let (got, _, named, whole) = error(server.post(RESPONSES, &body(more.clone())).await).await;
        assert_eq!((got, named), (status, Value::from(param)), "{more}: {whole}");
        assert!(whole["message"].as_str().unwrap().contains(param.split('.').next_back().unwrap()), "{whole}");
    }
}

#[tokio::test]
async fn a_field_that_is_wrong_or_not_supported_is_named() {
    let inexact = json!({"type": "json_schema", "schema": {"type": "string", "not": {"const": "x"}}});
    refused(vec![
        (json!({"background": true}), 400, "background"),
        (json!({"conversation": "conv_1"}), 400, "conversation"),
        (json!({"prompt": {"id": "pmpt_1"}}), 400, "prompt"),
        (json!({"truncation": "auto"}), 400, "truncation"),
        (json!({"n": 2}), 400, "n"),
        (json!({"model": "nope"}), 404, "model"),
        (json!({"input": null}), 400, "input"),
        (json!({"input": 3}), 400, "input"),
        (json!({"max_output_tokens": -1}), 400, "max_output_tokens"),
        (json!({"reasoning": {"effort": 3}}), 400, "reasoning.effort"),
        (json!({"text": {"format": {"type": "xml"}}}), 400, "text.format.type"),
        (json!({"text": {"format": {"type": "json_schema", "name": "a"}}}), 400, "text.format.schema"),
        (json!({"text": {"format": inexact}}), 422, "text.format"),
        (json!({"previous_response_id": "resp_gone"}), 404, "previous_response_id"),
    ])
    .await;
}

#[tokio::test]
async fn an_item_that_is_wrong_or_not_supported_is_named() {
    let image = json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA"});
    let file = json!({"type": "input_file", "file_id": "f"});
    let output = json!({"type": "function_call_output", "call_id": "1", "output": [image]});
    refused(vec![
        (with_item(json!({})), 400, "input[1].type"),
        (with_item(json!("x")), 400, "input[1].type"),
        (with_item(json!({"type": "dream"})), 400, "input[1].type"),
        (with_item(json!({"role": "nobody", "content": "x"})), 400, "input[1].role"),
        (with_item(json!({"role": "user"})), 400, "input[1].content"),
        (with_item(json!({"role": "user", "content": [image]})), 400, "input[1].content[0]"),
        (with_item(json!({"role": "user", "content": [file]})), 400, "input[1].content[0]"),
        (with_item(json!({"type": "function_call", "call_id": "1", "arguments": "{}"})), 400, "input[1].name"),
        (with_item(json!({"type": "function_call", "name": "f", "arguments": "{}"})), 400, "input[1].call_id"),
        (
            with_item(json!({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"})),
            400,
            "input[1].arguments",
        ),
        (with_item(json!({"type": "function_call_output", "call_id": "1"})), 400, "input[1].output"),
        (with_item(output), 400, "input[1].output[0]"),
        (with_item(json!({"type": "custom_tool_call", "call_id": "1", "name": "f"})), 400, "input[1].input"),
        (with_item(json!({"type": "item_reference", "id": "msg_gone"})), 404, "input[1].id"),
        (with_item(json!({"id": "msg_gone"})), 404, "input[1].id"),
    ])
    .await;
    let server = server("ok").await;
    let (.., whole) = error(server.post(RESPONSES, &body(with_item(json!({"type": "dream"})))).await).await;
    assert!(whole["message"].as_str().unwrap().contains("dream"), "{whole}");
}

#[tokio::test]
async fn a_tool_that_is_wrong_and_a_choice_of_none_are_named() {
    let tool = |tool: Value| json!({"tools": [{"type": "web_search"}, tool]});
    let twice = json!([{"type": "function", "name": "f"}, {"type": "custom", "name": "f"}]);
    let choice = |choice: Value| json!({"tools": tools(), "tool_choice": choice});
    refused(vec![
        (tool(json!({"name": "f"})), 400, "tools[1].type"),
        (tool(json!({"type": "function"})), 400, "tools[1].name"),
        (tool(json!({"type": "function", "name": "f", "parameters": 3})), 400, "tools[1].parameters"),
        (tool(json!({"type": "custom", "name": "f", "format": {"type": "grammar"}})), 400, "tools[1].format"),
        (tool(json!({"type": "namespace", "name": "n"})), 400, "tools[1].tools"),
        (
            tool(json!({"type": "namespace", "name": "n", "tools": [{"type": "function"}]})),
            400,
            "tools[1].tools[0].name",
        ),
        (json!({"tools": twice}), 400, "tools[1].name"),
        (choice(json!("maybe")), 400, "tool_choice"),
        (choice(json!({"type": "function", "name": "write"})), 400, "tool_choice"),
        (choice(json!({"type": "web_search"})), 400, "tool_choice"),
        (json!({"tools": [{"type": "web_search"}], "tool_choice": "required"}), 400, "tool_choice"),
    ])
    .await;
}

/// What a coding agent sends: what it is, rules and surroundings before the task, a call of its last turn with the
/// result, a dozen tools of all kinds, and fields that only its own server knows.
#[tokio::test]
async fn a_coding_agents_request_is_answered_to_its_end() {
    let server = server(
        "<think>\nA patch.\n</think>\n\n<tool_call>\n{\"name\": \"apply_patch\", \"arguments\": \
        {\"input\": \"*** Begin Patch\\n*** End Patch\"}}\n</tool_call>",
    )
    .await;
    let text = |role: &str, texts: &[&str]| {
        let parts: Vec<Value> = texts.iter().map(|text| json!({"type": "input_text", "text": text})).collect();
        json!({"type": "message", "id": format!("msg_{}", texts[0].len()), "role": role, "content": parts})
    };
    let mut all = tools().as_array().unwrap().clone();
    for name in ["run", "list", "search", "plan", "ask"] {
        let parameters = json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false});
        all.push(
            json!({"type": "function", "name": name, "description": name, "strict": false, "parameters": parameters}),
        );
    }
    assert_eq!(all.len(), 12);
    let request = json!({
        "model": "demo",
        "instructions": "You write code.",
        "input": [
            text("developer", &["You run in a terminal."]),
            text("developer", &["Skills: none.", "The sandbox is read-only."]),
            text("user", &["The folder is /tmp."]),
            text("user", &["Fix it."]),
            {
                "type": "function_call", "id": "fc_1", "name": "run", "arguments": "{}", "call_id": "1",
                "status": "completed",
            },
            {"type": "function_call_output", "id": "fco_1", "call_id": "1", "output": "exit 1"},
        ],
        "tools": all,
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0123",
        "client_metadata": {"session_id": "0123"},
    });
    let events = events(&server, request).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    let items: Vec<&Value> = done.map(|event| &event["item"]).collect();
    assert_eq!(items.iter().map(|item| &item["type"]).collect::<Vec<_>>(), ["reasoning", "custom_tool_call"]);
    assert_eq!(items[0]["summary"][0]["text"], "A patch.");
    assert_eq!(items[1]["input"], "*** Begin Patch\n*** End Patch");
    assert!(last["response"]["id"].is_string() && last["response"]["usage"]["total_tokens"].is_u64());
    assert!(events.iter().any(|event| event["type"] == "response.reasoning_summary_text.delta"));
}
