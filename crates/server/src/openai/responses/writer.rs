//! Writes the items of a response from the parts of its answer, with the events that tell of them. A whole response is
//! what the same writer has written once the answer has ended, so that it cannot differ from the streamed one.
use super::events::{EventQueue, ResponseEvent};
use super::items::{ItemStatus, ItemText, OutputItem};
use super::tools::{CalledTool, CalledTools, INPUT_FIELD};
use crate::openai::token_names::DrawnToken;
use text::{AnswerPart, StringField};

/// Writes the items of a response.
pub struct ItemWriter {
    /// What the ids of the items end with, before their numbers.
    unique: String,
    tools: CalledTools,
    /// Thoughts are sent as summaries.
    summarises: bool,
    /// Calls so far.
    calls: usize,
    open: Option<OpenItem>,
}

/// The item that the answer is in.
struct OpenItem {
    id: String,
    output_index: usize,
    kind: OpenKind,
    /// Text, arguments or input so far.
    text: String,
    logprobs: Vec<DrawnToken>,
}

enum OpenKind {
    Thought,
    Summary,
    Message,
    Function {
        tool: CalledTool,
        call_id: String,
    },
    Custom {
        tool: CalledTool,
        call_id: String,
        field: StringField,
        /// The arguments as the model wrote them.
        arguments: String,
    },
}

/// The names of the events of one kind of item.
struct EventNames {
    delta: &'static str,
    done: &'static str,
    /// Those of the part that holds the text, if one does.
    part: Option<(&'static str, &'static str)>,
}

impl ItemWriter {
    /// A writer of items whose ids end with `unique` and a number. `summarises` sends thoughts as summaries.
    pub fn new(unique: String, tools: CalledTools, summarises: bool) -> Self {
        ItemWriter { unique, tools, summarises, calls: 0, open: None }
    }

    /// Takes in a part. Items that are complete go to `items`. A text takes all `logprobs` with it.
    pub fn take(
        &mut self,
        part: AnswerPart,
        logprobs: &mut Vec<DrawnToken>,
        items: &mut Vec<OutputItem>,
        events: &mut EventQueue,
    ) {
        match part {
            AnswerPart::Text(text) => {
                if !self.is_in(|kind| matches!(kind, OpenKind::Message)) {
                    self.begin(OpenKind::Message, "msg", items, events);
                }
                self.add(&text, std::mem::take(logprobs), events);
            }
            AnswerPart::Thought(text) => {
                if !self.is_in(|kind| matches!(kind, OpenKind::Thought | OpenKind::Summary)) {
                    let kind = if self.summarises { OpenKind::Summary } else { OpenKind::Thought };
                    self.begin(kind, "rs", items, events);
                }
                self.add(&text, Vec::new(), events);
            }
            AnswerPart::CallOpened { name } => self.begin_call(&name, items, events),
            AnswerPart::CallArguments(text) if self.is_in(OpenKind::is_call) => self.add(&text, Vec::new(), events),
            // A parser gives them within a call alone.
            AnswerPart::CallArguments(_) => {}
            AnswerPart::CallClosed => self.end(ItemStatus::Completed, items, events),
        }
    }

    /// Ends the open item with the answer, which is complete or not.
    pub fn finish(&mut self, complete: bool, items: &mut Vec<OutputItem>, events: &mut EventQueue) {
        // A call that is not closed is never complete.
        let complete = complete && !self.is_in(OpenKind::is_call);
        self.end(if complete { ItemStatus::Completed } else { ItemStatus::Incomplete }, items, events);
    }

    fn is_in(&self, kind: impl Fn(&OpenKind) -> bool) -> bool {
        self.open.as_ref().is_some_and(|open| kind(&open.kind))
    }

    fn begin_call(&mut self, name: &str, items: &mut Vec<OutputItem>, events: &mut EventQueue) {
        let tool = self.tools.get(name);
        let call_id = format!("call_{}{:02x}", self.unique, self.calls);
        self.calls += 1;
        if tool.is_custom {
            let field = StringField::new(INPUT_FIELD);
            self.begin(OpenKind::Custom { tool, call_id, field, arguments: String::new() }, "ctc", items, events);
        } else {
            self.begin(OpenKind::Function { tool, call_id }, "fc", items, events);
        }
    }

    /// Ends the open item and begins another, whose id begins with `prefix`.
    fn begin(&mut self, kind: OpenKind, prefix: &str, items: &mut Vec<OutputItem>, events: &mut EventQueue) {
        self.finish(true, items, events);
        let output_index = items.len();
        let id = format!("{prefix}_{}{output_index:02x}", self.unique);
        let open = OpenItem { id, output_index, kind, text: String::new(), logprobs: Vec::new() };
        open.begin(events);
        self.open = Some(open);
    }

    fn add(&mut self, text: &str, logprobs: Vec<DrawnToken>, events: &mut EventQueue) {
        if let Some(open) = &mut self.open {
            open.add(text, logprobs, events);
        }
    }

    fn end(&mut self, status: ItemStatus, items: &mut Vec<OutputItem>, events: &mut EventQueue) {
        if let Some(open) = self.open.take() {
            items.push(open.end(status, events));
        }
    }
}

impl OpenKind {
    fn is_call(&self) -> bool {
        matches!(self, OpenKind::Function { .. } | OpenKind::Custom { .. })
    }

    fn names(&self) -> EventNames {
        const CONTENT: (&str, &str) = ("response.content_part.added", "response.content_part.done");
        const SUMMARY: (&str, &str) = ("response.reasoning_summary_part.added", "response.reasoning_summary_part.done");
        let names = |delta, done, part| EventNames { delta, done, part };
        match self {
            OpenKind::Message => names("response.output_text.delta", "response.output_text.done", Some(CONTENT)),
            OpenKind::Thought => names("response.reasoning_text.delta", "response.reasoning_text.done", Some(CONTENT)),
            OpenKind::Summary => {
                names("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", Some(SUMMARY))
            }
            OpenKind::Function { .. } => {
                names("response.function_call_arguments.delta", "response.function_call_arguments.done", None)
            }
            OpenKind::Custom { .. } => {
                names("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", None)
            }
        }
    }
}

impl OpenItem {
    /// An event about this item.
    fn event(&self, kind: &'static str) -> ResponseEvent {
        ResponseEvent {
            kind,
            output_index: Some(self.output_index),
            item_id: Some(self.id.clone()),
            ..ResponseEvent::default()
        }
    }

    /// An event about the text in this item.
    fn text_event(&self, kind: &'static str) -> ResponseEvent {
        let (content_index, summary_index) = match &self.kind {
            OpenKind::Message | OpenKind::Thought => (Some(0), None),
            OpenKind::Summary => (None, Some(0)),
            OpenKind::Function { .. } | OpenKind::Custom { .. } => (None, None),
        };
        ResponseEvent { content_index, summary_index, ..self.event(kind) }
    }

    /// An event about this item as a whole.
    fn item_event(&self, kind: &'static str, item: OutputItem) -> ResponseEvent {
        ResponseEvent { kind, output_index: Some(self.output_index), item: Some(item), ..ResponseEvent::default() }
    }

    fn begin(&self, events: &mut EventQueue) {
        events.push(self.item_event("response.output_item.added", self.item(ItemStatus::InProgress)));
        if let Some((added, _)) = self.kind.names().part {
            events.push(ResponseEvent { part: Some(self.part()), ..self.text_event(added) });
        }
    }

    fn add(&mut self, piece: &str, logprobs: Vec<DrawnToken>, events: &mut EventQueue) {
        let mut decoded = String::new();
        let delta = match &mut self.kind {
            OpenKind::Custom { field, arguments, .. } => {
                arguments.push_str(piece);
                field.push(piece, &mut decoded);
                &decoded
            }
            _ => piece,
        };
        self.push(delta, logprobs, events);
    }

    /// Adds to the item's text.
    fn push(&mut self, delta: &str, logprobs: Vec<DrawnToken>, events: &mut EventQueue) {
        if delta.is_empty() {
            return;
        }
        self.text.push_str(delta);
        let mut event = ResponseEvent { delta: Some(delta.to_owned()), ..self.text_event(self.kind.names().delta) };
        if matches!(self.kind, OpenKind::Message) {
            event.logprobs = Some(logprobs.clone());
        }
        self.logprobs.extend(logprobs);
        events.push(event);
    }

    fn end(mut self, status: ItemStatus, events: &mut EventQueue) -> OutputItem {
        if let OpenKind::Custom { field, arguments, .. } = &mut self.kind
            && !field.is_found()
        {
            // A call without the field is given as it is rather than empty.
            let arguments = std::mem::take(arguments);
            self.push(&arguments, Vec::new(), events);
        }
        let names = self.kind.names();
        let mut done = self.text_event(names.done);
        let text = Some(self.text.clone());
        match self.kind {
            OpenKind::Message => (done.text, done.logprobs) = (text, Some(self.logprobs.clone())),
            OpenKind::Thought | OpenKind::Summary => done.text = text,
            OpenKind::Function { .. } => done.arguments = text,
            OpenKind::Custom { .. } => done.input = text,
        }
        events.push(done);
        if let Some((_, part_done)) = names.part {
            events.push(ResponseEvent { part: Some(self.part()), ..self.text_event(part_done) });
        }
        let item = self.item(status);
        events.push(self.item_event("response.output_item.done", item.clone()));
        item
    }

    /// The part that holds the text.
    fn part(&self) -> ItemText {
        let text = self.text.clone();
        match self.kind {
            OpenKind::Thought => ItemText::Reasoning { text },
            OpenKind::Summary => ItemText::Summary { text },
            _ => ItemText::Output { text, annotations: Vec::new(), logprobs: self.logprobs.clone() },
        }
    }

    /// The item with what it holds so far. One that has just begun has no part.
    fn item(&self, status: ItemStatus) -> OutputItem {
        let id = self.id.clone();
        let parts = || if status == ItemStatus::InProgress { Vec::new() } else { vec![self.part()] };
        match &self.kind {
            OpenKind::Thought => OutputItem::Reasoning { id, summary: Vec::new(), content: Some(parts()), status },
            OpenKind::Summary => OutputItem::Reasoning { id, summary: parts(), content: None, status },
            OpenKind::Message => OutputItem::Message { id, role: "assistant", status, content: parts() },
            OpenKind::Function { tool, call_id } => OutputItem::FunctionCall {
                id,
                call_id: call_id.clone(),
                name: tool.name.clone(),
                namespace: tool.namespace.clone(),
                arguments: self.text.clone(),
                status,
            },
            OpenKind::Custom { tool, call_id, .. } => OutputItem::CustomToolCall {
                id,
                call_id: call_id.clone(),
                name: tool.name.clone(),
                namespace: tool.namespace.clone(),
                input: self.text.clone(),
                status,
            },
        }
    }
}
