//! What clients send, brought to what templates expect.
use super::{render, with_template};
use serde_json::{Value, json};
use text::{Conversation, PromptEnd, TextError};

/// A turn of the assistant that calls a tool, with this content or without any.
fn calls(content: Option<Value>) -> Value {
    let function = json!({"name": "f", "arguments": "{\"city\": \"Köln\"}"});
    let mut message = json!({"role": "assistant", "tool_calls": [{"id": "abcdefgh1", "function": function}]});
    if let Some(content) = content {
        message["content"] = content;
    }
    json!([{"role": "user", "content": "x"}, message])
}

fn assistants(line: &str) -> String {
    format!("{{% for m in messages if m.role == 'assistant' %}}[{line}]{{% endfor %}}")
}

#[test]
fn a_missing_content_is_empty_where_a_template_would_say_none_or_fail() {
    for line in ["{{ 'a' + m.content + 'b' }}", "{{ 'a' ~ (m.content | trim) ~ 'b' }}", "a{{ m['content'] }}b"] {
        let template = with_template(&assistants(line));
        for content in [None, Some(Value::Null), Some(json!("")), Some(json!([]))] {
            assert_eq!(render(&template, &calls(content.clone())).unwrap(), "[ab]", "{line}: {content:?}");
        }
    }
    let parts = "{% for p in m.content %}{{ p.text }}{% endfor %}";
    let template = with_template(&format!("{{% for m in messages %}}[{parts}]{{% endfor %}}"));
    for content in [None, Some(Value::Null)] {
        assert_eq!(render(&template, &calls(content)).unwrap(), "[x][]");
    }
}

#[test]
fn a_template_that_asks_for_a_missing_content_sees_it() {
    let none = with_template(&assistants("{% if m.content is none %}calls{% else %}{{ m.content + '' }}{% endif %}"));
    assert_eq!(render(&none, &calls(Some(Value::Null))).unwrap(), "[calls]");
    assert_eq!(render(&none, &calls(Some(json!("text")))).unwrap(), "[text]");
    let defined = with_template(&assistants("{{ m.content if m.content is defined else 'calls' }}"));
    assert_eq!(render(&defined, &calls(None)).unwrap(), "[calls]");
    assert_eq!(render(&defined, &calls(Some(Value::Null))).unwrap(), "[]");
    let there = with_template(&assistants("{{ 'content' in m }}"));
    assert_eq!(render(&there, &calls(None)).unwrap(), "[False]");
}

/// The probe has one turn of the assistant; a template may read a later one in another way.
#[test]
fn a_missing_content_is_empty_where_only_a_later_turn_fails() {
    let line = "{{ loop.index ~ m.content if loop.index > 1 and 'x' + m.content else '-' }}";
    let template = with_template(&assistants(line));
    let mut messages = calls(Some(Value::Null));
    messages.as_array_mut().unwrap().extend(calls(Some(Value::Null)).as_array().unwrap().clone());
    assert_eq!(render(&template, &messages).unwrap(), "[-][2]");
}

#[test]
fn a_tool_without_a_result_shows_an_empty_text() {
    let template = with_template("{% for m in messages %}[{{ m.role + m.content }}]{% endfor %}");
    for tool in [json!({"role": "tool"}), json!({"role": "tool", "content": null})] {
        assert_eq!(render(&template, &json!([{"role": "user", "content": "x"}, tool])).unwrap(), "[userx][tool]");
    }
}

#[test]
fn fields_that_are_null_are_left_out() {
    let template = with_template("{% for m in messages %}{{ m.keys() | list }}{% endfor %}");
    let message = json!({"role": "assistant", "content": "x", "tool_calls": null, "refusal": null, "name": "n"});
    assert_eq!(render(&template, &json!([message])).unwrap(), "['role', 'content', 'name']");
    let message = json!({"role": "assistant", "content": "x", "tool_calls": []});
    assert_eq!(render(&template, &json!([message])).unwrap(), "['role', 'content']");
}

#[test]
fn developer_is_system_where_the_template_has_no_developer() {
    let messages = json!([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    let plain = with_template("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}");
    assert_eq!(render(&plain, &messages).unwrap(), "<system>Be brief.<user>Hi");
    let knows = with_template("{% for m in messages %}{{ 'D' if m.role == 'developer' else m.role }} {% endfor %}");
    assert_eq!(render(&knows, &messages).unwrap(), "D user ");
}

/// As Qwen3.5's template does.
const ONE_SYSTEM: &str = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
    {{ raise_exception('System message must be at the beginning.') }}{% endif %}<{{ m.role }}>{{ m.content }}\
    {% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}";

#[test]
fn a_system_message_behind_others_stays_or_becomes_the_users() {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let call = json!({"type": "function", "function": {"name": "f", "arguments": "{\"a\":  1}"}});
    let messages = json!([
        message("system", "S"),
        message("developer", "D"),
        message("user", "1"),
        message("system", "2"),
        {"role": "assistant", "content": "3", "tool_calls": [call]},
        message("system", "4"),
        message("user", "5"),
        message("user", "6"),
        message("assistant", "7"),
        message("user", "8"),
        message("user", "9"),
    ]);
    let settled = "<system>S\nD<user>1\n2<assistant>3{\"a\":  1}<user>4\n5\n6<assistant>7<user>8<user>9";
    assert_eq!(render(&with_template(ONE_SYSTEM), &messages).unwrap(), settled);
    // One that is left out, or moved to the front, is not shown where it stands.
    let dropping =
        ONE_SYSTEM.replace("{{ raise_exception('System message must be at the beginning.') }}", "{% continue %}");
    assert_eq!(render(&with_template(&dropping), &messages).unwrap(), settled);
    let all = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let kept = "<system>S<system>D<user>1<system>2<assistant>3<system>4<user>5<user>6<assistant>7<user>8<user>9";
    assert_eq!(render(&with_template(all), &messages).unwrap(), kept);
}

#[test]
fn a_role_that_the_template_names_is_taken() {
    let template = with_template("{% for m in messages %}{{ 'I' if m.role == \"ipython\" else m.role }}{% endfor %}");
    assert_eq!(render(&template, &json!([{"role": "ipython", "content": "1"}])).unwrap(), "I");
    let Err(TextError::Messages { path, .. }) = render(&template, &json!([{"role": "python", "content": "1"}])) else {
        panic!("the role is not known")
    };
    assert_eq!(path, "messages[0].role");
}

#[test]
fn arguments_are_an_object_or_a_text_as_the_template_takes_them() {
    let arguments = "m.tool_calls[0].function.arguments";
    for (line, expected) in [
        (format!("{{{{ {arguments} | tojson }}}}"), r#"[{"city": "Köln"}]"#),
        (format!("{{{{ '`' + {arguments} + '`' }}}}"), r#"[`{"city": "Köln"}`]"#),
        (format!("{{{{ {arguments} }}}}"), r#"[{"city": "Köln"}]"#),
        (format!("{{% for k, v in {arguments}.items() %}}{{{{ k ~ v }}}}{{% endfor %}}"), "[cityKöln]"),
        (format!("{{{{ {arguments} if {arguments} is string else {arguments} | tojson }}}}"), r#"[{"city": "Köln"}]"#),
        (format!("{{% if m.content is none %}}{{{{ '' + {arguments} }}}}{{% endif %}}"), r#"[{"city": "Köln"}]"#),
    ] {
        let template = with_template(&assistants(&line));
        assert_eq!(render(&template, &calls(Some(Value::Null))).unwrap(), expected, "{line}");
        let mut object = calls(Some(Value::Null));
        object[1]["tool_calls"][0]["function"]["arguments"] = json!({"city": "Köln"});
        assert_eq!(render(&template, &object).unwrap(), expected, "{line}");
    }
    // A text that is no JSON is text, where text is what the template takes.
    let template = with_template(&assistants(&format!("{{{{ '' + {arguments} }}}}")));
    let mut broken = calls(Some(json!("")));
    broken[1]["tool_calls"][0]["function"]["arguments"] = json!("{\"city");
    assert_eq!(render(&template, &broken).unwrap(), "[{\"city]");
}

fn continued(source: &str, messages: &Value) -> Result<String, TextError> {
    let conversation = Conversation { end: PromptEnd::OpenMessage, ..Conversation::of(messages) };
    with_template(source).render(&conversation)
}

/// Expected texts are those of transformers' `continue_final_message`.
#[test]
fn the_last_message_is_continued() {
    let plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}\
                 {{ '<assistant>' if add_generation_prompt }}";
    let messages = |last: &str| json!([{"role": "user", "content": "Hi Hi"}, {"role": "assistant", "content": last}]);
    assert_eq!(continued(plain, &messages("Hi")).unwrap(), "<user>Hi Hi</><assistant>Hi");
    assert_eq!(continued(plain, &messages("Sure: ")).unwrap(), "<user>Hi Hi</><assistant>Sure: ");
    assert_eq!(continued(plain, &messages("")).unwrap(), "<user>Hi Hi</><assistant>");
    let trims = plain.replace("m.content }}", "m.content | trim }}");
    assert_eq!(continued(&trims, &messages(" Sure: ")).unwrap(), "<user>Hi Hi</><assistant>Sure:");
    assert_eq!(continued(&trims, &messages("Sure")).unwrap(), "<user>Hi Hi</><assistant>Sure");
    let parts =
        json!([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    assert_eq!(continued(plain, &parts).unwrap(), "<assistant>a\nb");
    let reads_parts = "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}";
    assert_eq!(continued(reads_parts, &parts).unwrap(), "[a][b");
    let hidden = continued("{% for m in messages %}{{ m.role }}{% endfor %}", &messages("x")).unwrap_err().to_string();
    assert!(hidden.starts_with("messages[1].content: the chat template does not show it"), "{hidden}");
    let none = continued(plain, &calls(Some(json!([])))).map_err(|e| e.to_string());
    assert_eq!(none.unwrap(), "<user>x</><assistant>");
}
