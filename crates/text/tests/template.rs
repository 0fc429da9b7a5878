//! Chat templates through every way that models ship them, and what is refused.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use text::{ChatTemplate, Conversation, TextError};

/// A model folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn with_template(source: &str) -> ChatTemplate {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": source});
    let dir = folder(&[("tokenizer_config.json", &config.to_string())]);
    ChatTemplate::from_dir(dir.path()).unwrap().unwrap()
}

fn user(content: Value) -> Value {
    json!([{"role": "user", "content": content}])
}

fn render(template: &ChatTemplate, messages: &Value) -> Result<String, TextError> {
    template.render(&Conversation::of(messages))
}

#[test]
fn the_demo_models_template() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let template = ChatTemplate::from_dir(&demo).unwrap().unwrap();
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "}]);
    assert_eq!(
        render(&template, &messages).unwrap(),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn the_jinja_file_goes_before_the_configuration() {
    let config = json!({"bos_token": "<s>", "chat_template": "configured"}).to_string();
    let dir = folder(&[("chat_template.jinja", "{{ bos_token }}file"), ("tokenizer_config.json", &config)]);
    let template = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!(render(&template, &user(json!("x"))).unwrap(), "<s>file");
}

#[test]
fn requests_with_tools_take_the_template_for_tools() {
    let list = json!([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools[0].a }}"}]);
    let dir = folder(&[("tokenizer_config.json", &json!({"chat_template": list}).to_string())]);
    let template = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!(render(&template, &user(json!("x"))).unwrap(), "plain");
    let (messages, tools) = (user(json!("x")), json!([{"a": 7}]));
    let with_tools = template.render(&Conversation { tools: Some(&tools), ..Conversation::of(&messages) });
    assert_eq!(with_tools.unwrap(), "7");
}

#[test]
fn a_folder_without_a_template_has_none() {
    assert!(ChatTemplate::from_dir(folder(&[]).path()).unwrap().is_none());
    let null = folder(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]);
    assert!(ChatTemplate::from_dir(null.path()).unwrap().is_none());
}

/// What is wrong with a template costs requests with messages, and not the model.
#[test]
fn broken_templates_are_named_and_cost_rendering_alone() {
    for (config, told) in [
        (r#"{"chat_template": "{% if %}"}"#, "does not compile"),
        (r#"{"chat_template": 3}"#, "chat_template: it must be a string or a list"),
        (r#"{"chat_template": [{"name": "rag", "template": ""}]}"#, "no template named \"default\""),
        (r#"{"chat_template": [{"name": "default"}]}"#, "chat_template: it must be a string or a list"),
        (r#"{"chat_template": " \n"}"#, "it is empty"),
    ] {
        let dir = folder(&[("tokenizer_config.json", config)]);
        let template = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
        let message = template.problem().unwrap().to_string();
        assert!(message.contains("tokenizer_config.json") && message.contains(told), "{config}: {message}");
        let Err(TextError::Template { .. }) = render(&template, &user(json!("x"))) else { panic!("{config}") };
    }
    assert!(with_template("x").problem().is_none());
    let dir = folder(&[("tokenizer_config.json", r#"{"chat_template""#)]);
    let message = ChatTemplate::from_dir(dir.path()).err().unwrap().to_string();
    assert!(message.contains("is not valid"), "{message}");
}

#[test]
fn a_failure_of_the_template_says_where() {
    let template = with_template("{{ messages[0].content }}\n{{ nothing.at.all }}");
    let Err(TextError::Render(message)) = render(&template, &user(json!("x"))) else { panic!() };
    assert!(message.contains("undefined") && message.contains(":2"), "{message}");
}

#[test]
fn parts_become_what_the_template_reads() {
    let parts = json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]);
    let wants_text = with_template("{% for m in messages %}{{ m.content | trim }}{% endfor %}");
    assert_eq!(render(&wants_text, &user(parts.clone())).unwrap(), "one\ntwo");
    assert_eq!(render(&wants_text, &user(json!("x"))).unwrap(), "x");
    let wants_parts =
        with_template("{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}");
    assert_eq!(render(&wants_parts, &user(parts.clone())).unwrap(), "[one][two]");
    assert_eq!(render(&wants_parts, &user(json!("x"))).unwrap(), "[x]");
    let reads_both = with_template("{{ messages[0].content if messages[0].content is string else 'list' }}");
    assert_eq!(render(&reads_both, &user(parts)).unwrap(), "one\ntwo");
}

#[test]
fn arguments_written_as_json_text_become_objects() {
    let template = with_template("{{ messages[0].tool_calls[0].function.arguments | tojson }}");
    let call = |arguments: &str| {
        let calls = json!([{"function": {"name": "f", "arguments": arguments}}]);
        render(&template, &json!([{"role": "assistant", "content": null, "tool_calls": calls}]))
    };
    // A prompt repeats what the model has written.
    assert_eq!(call(r#"{"a":[1,2]}"#).unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(call(r#"{"a": 12345678901234567890123}"#).unwrap(), r#"{"a": 12345678901234567890123}"#);
    assert_eq!(call("").unwrap(), "{}");
    let message = call("{a").unwrap_err().to_string();
    assert!(message.starts_with("messages[0].tool_calls[0].function.arguments: it is not JSON"), "{message}");
}

#[test]
fn messages_that_no_template_takes_are_refused_by_place() {
    let template = with_template("{{ messages[0].content }}");
    for (messages, place) in [
        (json!([]), "messages: "),
        (json!("hi"), "messages: "),
        (json!([1]), "messages[0]: "),
        (json!([{"content": "x"}]), "messages[0].role: "),
        (json!([{"role": "user", "content": "x"}, {"role": "user", "content": 3}]), "messages[1].content: 3"),
        (
            json!([{"role": "narrator", "content": "x"}]),
            "messages[0].role: it is \"narrator\"; it must be one of system, ",
        ),
        (json!([{"role": "user"}]), "messages[0].content: it is missing; a message of the role user"),
        (json!([{"role": "system", "content": null}]), "messages[0].content: it is missing"),
        (
            json!([{"role": "assistant", "content": null, "tool_calls": []}]),
            "messages[0].content: it is missing; an assi",
        ),
        (json!([{"role": "assistant", "tool_calls": "f"}]), "messages[0].tool_calls: \"f\"; it must be a list"),
        (json!([{"role": "assistant", "tool_calls": [1]}]), "messages[0].tool_calls[0]: 1; it must be an object"),
        (json!([{"role": "assistant", "tool_calls": [{"id": "a"}]}]), "messages[0].tool_calls[0].function: it must"),
        (
            user(json!([{"type": "text", "text": "x"}, {"type": "image_url"}])),
            "messages[0].content[1]: its type is image_url",
        ),
    ] {
        let message = render(&template, &messages).unwrap_err().to_string();
        assert!(message.starts_with(place), "{messages}: {message}");
    }
}

#[test]
fn kwargs_cannot_replace_the_messages() {
    let template = with_template("{{ messages[0].content }} {{ flag }}");
    let kwargs = json!({"messages": [], "flag": "on"});
    let messages = user(json!("kept"));
    let text = template.render(&Conversation { kwargs: kwargs.as_object(), ..Conversation::of(&messages) });
    assert_eq!(text.unwrap(), "kept on");
}

#[test]
fn strftime_now_knows_the_year_and_refuses_unknown_formats() {
    let year = render(&with_template("{{ strftime_now('%Y') }}"), &user(json!("x"))).unwrap();
    assert!(year.parse::<u32>().is_ok_and(|y| y >= 2025), "{year}");
    let message = render(&with_template("{{ strftime_now('%Q') }}"), &user(json!("x"))).unwrap_err().to_string();
    assert!(message.contains("strftime_now: unknown format \"%Q\""), "{message}");
}

/// A hostile template is an error, within time and memory that a server can spare.
#[test]
fn a_template_without_end_fails() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='0123456789') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ] {
        let message = render(&with_template(source), &user(json!("x"))).unwrap_err().to_string();
        assert!(message.contains("the chat template failed") && message.contains("fuel"), "{message}");
    }
    // A long conversation is no such thing.
    let template = with_template("{% for m in messages[::-1] %}{{ m.role ~ ': ' ~ m.content | trim }}{% endfor %}");
    let messages = vec![json!({"role": "user", "content": "word ".repeat(10)}); 20_000];
    assert_eq!(render(&template, &json!(messages)).unwrap().len(), 20_000 * ("user: ".len() + 49));
}

#[test]
fn json_is_indented_within_reason() {
    let indented = |n: u64| {
        let source = format!("{{{{ messages[0] | tojson(indent={n}) }}}}");
        render(&with_template(&source), &user(json!("x")))
    };
    assert_eq!(indented(2).unwrap(), "{\n  \"role\": \"user\",\n  \"content\": \"x\"\n}");
    for n in [33, 70_000, u64::MAX] {
        let message = indented(n).unwrap_err().to_string();
        assert!(message.contains(&format!("indent is {n}")), "{message}");
    }
}

/// Each of these would overflow a thread's usual stack, which ends the process.
#[test]
fn what_nests_deeply_is_rendered_or_refused() {
    let messages = user(json!("x"));
    let expressions = [
        format!("{{{{ 1{} }}}}", "+1".repeat(60_000)),
        format!("{{{{ messages{} }}}}", ".a".repeat(60_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(40_000)),
    ];
    let nested = |levels: &str, rest: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(1000) %}}{{% for j in range({levels}) %}}\
             {{% set ns.x = [ns.x] %}}{{% endfor %}}{{% endfor %}}{rest}"
        )
    };
    let values = ["{{ ns.x|length }}", "{{ ns.x == ns.x }}", "{{ ns.x }}", "{{ ns.x|tojson }}"];
    for source in expressions.into_iter().chain(values.map(|rest| nested("90", rest))) {
        let rendered = render(&with_template(&source), &messages);
        assert!(rendered.is_ok() || matches!(rendered, Err(TextError::Render(_) | TextError::Template { .. })));
    }
    let endless = render(&with_template(&nested("90000", "")), &messages);
    assert!(matches!(endless, Err(TextError::Render(_))), "{endless:?}");
}

#[test]
fn a_template_of_many_bytes_is_refused_with_the_limit() {
    let error = render(&with_template(&"x".repeat(300_000)), &user(json!("x"))).unwrap_err().to_string();
    assert!(error.contains("300000") && error.contains("262144"), "{error}");
}

#[test]
fn a_cause_that_repeats_is_told_once() {
    let error = render(&with_template("{% include 'default' %}"), &user(json!("x"))).unwrap_err().to_string();
    assert!(error.len() < 500, "{error}");
}

#[test]
fn a_template_that_insists_on_short_ids_of_calls_is_given_such() {
    let template = with_template(include_str!("templates/mistral.jinja"));
    let conversation = |id: &str| {
        let function = json!({"name": "f", "arguments": {"a": 1}});
        let messages = json!([
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "", "tool_calls": [{"id": id, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": id, "content": "42"},
        ]);
        render(&template, &messages).unwrap()
    };
    assert!(conversation("Abcdefgh1").matches("Abcdefgh1").count() == 2);
    let text = conversation("call_0123456789abcdef");
    let (_, behind) = text.split_once("\"id\": \"").unwrap();
    let id = &behind[..9];
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && text.matches(id).count() == 2, "{text}");
    assert_ne!(text, conversation("call_0123456789abcdeg"));
    // A call that is written as a whole has its arguments as they came, too.
    let template = with_template("{{ messages[0].tool_calls[0].function | tojson }}");
    let calls = json!([{"function": {"name": "f", "arguments": r#"{"a":1}"#}}]);
    let text = render(&template, &json!([{"role": "assistant", "content": "", "tool_calls": calls}])).unwrap();
    assert_eq!(text, r#"{"name": "f", "arguments": {"a":1}}"#);
}
