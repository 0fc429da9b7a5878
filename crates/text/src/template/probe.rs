//! Finds out by rendering probes what a template reads messages as.
use super::messages::{ArgumentsForm, ContentForm, MessageForms, MissingContent};
use serde_json::{Value, json};

/// A text that no template has of its own.
pub(super) const NEEDLE: &str = "needle_of_a_probe";

/// An id of a tool call that every template takes: Mistral's insist on nine letters and digits.
const SHORT_ID: &str = "abcdefgh1";

/// Finds out the forms in which the template reads messages. `names_role` tells whether its source names a role;
/// `render` gives the text for messages and tools, without a header for an answer, or `None` where the template fails
/// or refuses them.
pub(super) fn forms(
    names_role: impl Fn(&str) -> bool,
    render: impl Fn(&Value, Option<&Value>) -> Option<String>,
) -> MessageForms {
    let shows = |messages: Value| render(&messages, None).is_some_and(|text| text.contains(NEEDLE));
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let parts = !shows(user(json!(NEEDLE))) && shows(user(json!([{"type": "text", "text": NEEDLE}])));
    let content = if parts { ContentForm::Parts } else { ContentForm::Text };
    let text = |text: &str| if parts { json!([{"type": "text", "text": text}]) } else { json!(text) };
    let history = |message: Value| json!([{"role": "user", "content": text("x")}, message]);

    let contents = [Some(Value::Null), Some(text("")), None];
    let arguments = arguments_form(|arguments| {
        let tools = json!([{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]);
        let messages = contents.iter().map(|content| history(call(content.clone(), arguments.clone())));
        let rendered = messages.flat_map(|m| [render(&m, None), render(&m, Some(&tools))]).flatten();
        rendered.filter(|text| text.contains(NEEDLE)).collect()
    });
    let given = match arguments {
        ArgumentsForm::Object => json!({}),
        ArgumentsForm::Text => json!("{}"),
    };
    let missing = |content: Option<Value>| {
        let rendered = |content: Option<Value>| render(&history(call(content, given.clone())), None);
        let says_none = |text: &str| text.matches("None").count();
        let empty = rendered(Some(text("")));
        let kept = rendered(content).filter(|kept| says_none(kept) <= empty.as_deref().map_or(0, says_none));
        if kept.is_some() { MissingContent::Kept } else { MissingContent::Empty }
    };
    let with_id = |id: &str| {
        let mut message = call(Some(text("")), given.clone());
        message["tool_calls"][0]["id"] = json!(id);
        render(&history(message), None)
    };
    MessageForms {
        content,
        arguments,
        null_content: missing(Some(Value::Null)),
        absent_content: missing(None),
        has_developer: names_role("developer"),
        short_call_ids: with_id(SHORT_ID).is_some() && with_id("call_0123456789abcdef").is_none(),
        late_system: shows_late_system(text, render),
    }
}

/// Whether the template shows a system message after a user's, and the one at the beginning too. `text` gives a
/// content in the form that the template reads.
fn shows_late_system(text: impl Fn(&str) -> Value, render: impl Fn(&Value, Option<&Value>) -> Option<String>) -> bool {
    let needle = |number: usize| format!("{NEEDLE}{number}");
    let messages: Vec<Value> = ["system", "user", "system"]
        .into_iter()
        .enumerate()
        .map(|(i, role)| json!({"role": role, "content": text(&needle(i))}))
        .collect();
    let Some(rendered) = render(&messages.into(), None) else { return false };
    let places: Vec<Option<usize>> = (0..3).map(|number| rendered.find(&needle(number))).collect();
    places.iter().all(Option::is_some) && places.is_sorted()
}

/// Whether the template tells the model of a tool.
pub(super) fn tells_of_tools(forms: MessageForms, render: impl Fn(&Value, Option<&Value>) -> Option<String>) -> bool {
    let content = match forms.content {
        ContentForm::Text => json!("x"),
        ContentForm::Parts => json!([{"type": "text", "text": "x"}]),
    };
    let user = json!({"role": "user", "content": content});
    let function = json!({"name": NEEDLE, "description": "", "parameters": {"type": "object", "properties": {}}});
    let tools = json!([{"type": "function", "function": function}]);
    let system = json!({"role": "system", "content": content});
    // Some templates put tools into a system message that has to be there.
    let conversations = [json!([user]), json!([system, user])];
    conversations.iter().any(|messages| render(messages, Some(&tools)).is_some_and(|text| text.contains(NEEDLE)))
}

/// An assistant's message that calls a tool; without a content where that is `None`.
fn call(content: Option<Value>, arguments: Value) -> Value {
    let function = json!({"name": "f", "arguments": arguments});
    let mut message = json!({
        "role": "assistant",
        "tool_calls": [{"id": SHORT_ID, "type": "function", "function": function}],
    });
    if let Some(content) = content {
        message["content"] = content;
    }
    message
}

/// The form of arguments that the template takes. `rendered` gives the texts that show some arguments.
///
/// A template that prints an object without a filter writes it as Python does, which no model has been trained on; it
/// is made for text.
fn arguments_form(rendered: impl Fn(Value) -> Vec<String>) -> ArgumentsForm {
    let python = format!("'{NEEDLE}'");
    let as_object = rendered(json!({NEEDLE: 1})).iter().any(|text| !text.contains(&python));
    if !as_object && !rendered(json!(format!("{{\"{NEEDLE}\": 1}}"))).is_empty() {
        return ArgumentsForm::Text;
    }
    ArgumentsForm::Object
}
