//! The messages of chat answers, whole and as deltas.
use crate::content::AnswerContent;
use schemars::JsonSchema;
use serde::Serialize;
use text::AnswerPart;

/// An answer as a message. Newer clients read a thought from `reasoning`, older ones from `reasoning_content`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AnswerMessage {
    role: &'static str,
    /// Null where the answer is tool calls alone.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<SentCall>>,
}

/// A tool call.
#[derive(Debug, Serialize, JsonSchema)]
struct SentCall {
    id: String,
    r#type: &'static str,
    function: CalledFunction,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CalledFunction {
    name: String,
    arguments: String,
}

impl AnswerMessage {
    /// The message of an answer, whose text begins with `echo` and whose calls have the ids that `id` gives.
    pub fn new(echo: &str, content: &AnswerContent, id: impl Fn(usize) -> String) -> Self {
        let call = |(number, call): (usize, &crate::content::ToolCall)| SentCall {
            id: id(number),
            r#type: "function",
            function: CalledFunction { name: call.name.clone(), arguments: call.arguments.clone() },
        };
        let tool_calls: Vec<SentCall> = content.calls().enumerate().map(call).collect();
        let (text, thought) =
            (echo.to_owned() + &content.text(), Some(content.thought()).filter(|thought| !thought.is_empty()));
        AnswerMessage {
            role: "assistant",
            content: (tool_calls.is_empty() || !text.is_empty()).then_some(text),
            refusal: None,
            reasoning: thought.clone(),
            reasoning_content: thought,
            tool_calls: Some(tool_calls).filter(|calls| !calls.is_empty()),
        }
    }
}

/// What an answer chunk adds to a message.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct MessageDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<CallDelta>>,
}

/// What an answer chunk adds to a tool call: its name first, then its arguments as they come.
#[derive(Debug, Serialize, JsonSchema)]
struct CallDelta {
    /// The call's place among the calls of its message.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl MessageDelta {
    /// The delta that begins a message.
    pub fn role() -> Self {
        MessageDelta { role: Some("assistant"), content: Some(String::new()), ..MessageDelta::default() }
    }

    /// A delta of text.
    pub fn content(text: String) -> Self {
        MessageDelta { content: Some(text), ..MessageDelta::default() }
    }
}

/// Writes the deltas of one choice.
#[derive(Debug, Default)]
pub struct DeltaWriter {
    /// Calls that have been opened.
    calls: usize,
}

impl DeltaWriter {
    /// The delta of one part, with the id that `id` gives to a call; `None` if there is nothing to tell.
    pub fn delta(&mut self, part: AnswerPart, id: impl Fn(usize) -> String) -> Option<MessageDelta> {
        let call = |index, id, name: Option<String>, arguments| CallDelta {
            index,
            id,
            r#type: name.is_some().then_some("function"),
            function: FunctionDelta { name, arguments },
        };
        let call = match part {
            AnswerPart::Text(text) => return Some(MessageDelta::content(text)),
            AnswerPart::Thought(text) => {
                let reasoning = Some(text);
                return Some(MessageDelta {
                    reasoning_content: reasoning.clone(),
                    reasoning,
                    ..MessageDelta::default()
                });
            }
            AnswerPart::CallOpened { name } => {
                let index = self.calls;
                self.calls += 1;
                call(index, Some(id(index)), Some(name), String::new())
            }
            AnswerPart::CallArguments(text) => call(self.calls.saturating_sub(1), None, None, text),
            AnswerPart::CallClosed => return None,
        };
        Some(MessageDelta { tool_calls: Some(vec![call]), ..MessageDelta::default() })
    }
}
