//! Chat templates as models ship them, rendered the way transformers' `apply_chat_template` does.
mod call_ids;
mod conversation;
mod deep_stack;
mod functions;
mod jinja;
mod late_system;
mod marks;
mod messages;
mod percent;
mod probe;
mod python;
mod python_json;
mod source;
mod thinking;

pub use conversation::{Conversation, PromptEnd};
pub use thinking::ThinkingVariables;

use crate::answer::{AnswerSyntax, ToolCallFormat};
use crate::error::TextError;
use crate::special::SpecialTexts;
use crate::tokenizer::Tokenizer;
use deep_stack::{MAX_SOURCE, with_deep_stack};
use messages::{MessageForms, NormalMessages, WrittenArguments};
use minijinja::value::Serde;
use minijinja::{Environment, Value as Variable};
use python_json::PythonJson;
use serde_json::{Map, Value, json};
use source::{DEFAULT, Sources};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of the template for requests with tools, which some models ship beside the other.
const TOOL_USE: &str = "tool_use";

/// A model's chat template: messages in, a prompt out.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, String)>,
    forms: MessageForms,
    reads_special_tokens: bool,
    syntax: AnswerSyntax,
    thinking: ThinkingVariables,
    /// Whether the template tells the model of tools.
    tells_of_tools: bool,
    /// The template for requests without tools as the model has it.
    source: String,
    /// Why nothing can be rendered; the file, if that is known, and the message.
    problem: Option<(PathBuf, String)>,
}

impl Given {
    /// Keeps arguments as they were written, where Python would write them otherwise: a prompt then repeats what the
    /// model has generated. `marks` are the special tokens' texts and the mark that breaks them.
    fn keep_written(&mut self, written: Vec<WrittenArguments>, marks: Option<(&SpecialTexts, char)>) {
        for WrittenArguments { pointer, text } in written {
            let Some(arguments) = self.messages.pointer(&pointer).filter(|a| a.is_object()) else { continue };
            let marked = marks.and_then(|(special, mark)| special.marked(&text, mark));
            let text = marked.unwrap_or(text);
            if let Ok(python) = PythonJson::new(None, false).dump(arguments)
                && python != text
            {
                self.written.insert(python, text);
            }
        }
    }
}

/// A prompt as a model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedPrompt {
    /// Its token ids.
    pub ids: Vec<u32>,
    /// Whether it ends within a thought, so that the answer begins in one.
    pub opens_thought: bool,
}

/// The variables of a request, in the forms in which its template is given them.
struct Given {
    messages: Value,
    /// Arguments of tool calls, as Python's JSON and as they were written.
    written: BTreeMap<String, String>,
    tools: Option<Value>,
    kwargs: Map<String, Value>,
    add_generation_prompt: bool,
}

impl ChatTemplate {
    /// A template that can render nothing, since `problem` is so.
    fn broken(problem: TextError) -> Self {
        let problem = match problem {
            TextError::Template { path, message } => (path, message),
            other => (PathBuf::new(), other.to_string()),
        };
        ChatTemplate {
            environment: Environment::empty(),
            special_tokens: Vec::new(),
            forms: MessageForms::default(),
            reads_special_tokens: false,
            syntax: AnswerSyntax::default(),
            thinking: ThinkingVariables::default(),
            tells_of_tools: false,
            source: String::new(),
            problem: Some(problem),
        }
    }

    fn compile(sources: Sources, special_tokens: Vec<(String, String)>) -> Result<Self, TextError> {
        let Sources { path, templates } = sources;
        let broken = |message: String| TextError::Template { path: path.clone(), message };
        let default = templates.iter().find(|(name, _)| name == DEFAULT);
        let default = default.map_or_else(String::new, |(_, source)| source.clone());
        let mut environment = functions::environment().map_err(|e| broken(describe(&e)))?;
        for (name, source) in templates {
            if source.trim().is_empty() {
                return Err(broken("it is empty".into()));
            }
            if source.len() > MAX_SOURCE {
                return Err(broken(format!("it has {} bytes; a chat template may have {MAX_SOURCE}", source.len())));
            }
            with_deep_stack(|| {
                let source = percent::rewritten(&source::without_generation_statements(&source));
                environment.add_template_owned(name, source).map_err(|e| broken(describe(&e)))
            })??;
        }
        let mut template = ChatTemplate {
            environment,
            special_tokens,
            forms: MessageForms::default(),
            reads_special_tokens: false,
            syntax: AnswerSyntax::default(),
            thinking: ThinkingVariables::default(),
            tells_of_tools: false,
            source: default,
            problem: None,
        };
        // A template that does not end must not take long to load.
        template.environment.set_fuel(Some(functions::PROBE_FUEL));
        let render = |messages: &Value, tools: Option<&Value>| {
            let (messages, tools, written, kwargs) = (messages.clone(), tools.cloned(), BTreeMap::new(), Map::new());
            let given = Given { messages, written, tools, kwargs, add_generation_prompt: false };
            template.render_given(&given).ok()
        };
        let forms = probe::forms(|role| template.names_role(role), render);
        let tells_of_tools = probe::tells_of_tools(forms, render);
        (template.forms, template.tells_of_tools) = (forms, tells_of_tools);
        template.syntax = template.shown_syntax();
        template.thinking = ThinkingVariables::find(|name| template.names(name));
        template.environment.set_fuel(Some(functions::FUEL));
        Ok(template)
    }

    /// Reads special tokens that clients write as special tokens instead of text, if `reads` is set.
    pub fn reading_special_tokens(self, reads: bool) -> Self {
        ChatTemplate { reads_special_tokens: reads, ..self }
    }

    /// The template as the model has it, the one for requests without tools; empty if nothing can be rendered.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Takes tool calls to be written in `format`, if there is one, whatever the template shows.
    pub fn calling_tools_as(self, format: Option<ToolCallFormat>) -> Self {
        let calls = format.or(self.syntax.calls);
        ChatTemplate { syntax: AnswerSyntax { calls, ..self.syntax }, ..self }
    }

    /// Whether the template tells the model of the tools that it may call, and it is known how the model calls them.
    pub fn takes_tools(&self) -> bool {
        self.tells_of_tools && self.syntax.calls.is_some()
    }

    /// Why nothing can be rendered, if that is so.
    pub fn problem(&self) -> Option<TextError> {
        let (path, message) = self.problem.clone()?;
        Some(TextError::Template { path, message })
    }

    /// How the model writes thoughts and tool calls: as its templates show, unless
    /// [`calling_tools_as`](Self::calling_tools_as) says otherwise of calls.
    pub fn answer_syntax(&self) -> AnswerSyntax {
        self.syntax
    }

    fn shown_syntax(&self) -> AnswerSyntax {
        let of = |name| {
            let template = self.environment.get_template(name);
            template.map(|template| AnswerSyntax::of_template(template.source())).unwrap_or_default()
        };
        let (default, tool_use) = (of(DEFAULT), of(TOOL_USE));
        AnswerSyntax { thought: default.thought.or(tool_use.thought), calls: tool_use.calls.or(default.calls) }
    }

    /// The prompt's text. Text parts of a message are joined with newlines where the template reads strings.
    ///
    /// Errors: messages of a shape that no template takes; what the template raises or fails with; a template that does
    /// not end, or that has a [`problem`](Self::problem).
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TextError> {
        self.render_marked(conversation, None).map(|(text, _)| text)
    }

    /// The prompt's token ids. What clients write is text, also where it reads like a special token, unless
    /// [`reading_special_tokens`](Self::reading_special_tokens) is set. `add_special_tokens` adds what the model
    /// expects around a plain text, mostly BOS; a template brings its own.
    ///
    /// Errors: those of [`render`](Self::render); the tokenizer fails at the text.
    pub fn encode(
        &self,
        conversation: &Conversation<'_>,
        tokenizer: &Tokenizer,
        add_special_tokens: bool,
    ) -> Result<RenderedPrompt, TextError> {
        let special = (!self.reads_special_tokens).then(|| tokenizer.special_texts());
        let (text, mark) = self.render_marked(conversation, special)?;
        let ids = match mark {
            Some(mark) => tokenizer.encode_marked(&text, mark, add_special_tokens)?,
            None => tokenizer.encode(&text, add_special_tokens)?,
        };
        Ok(RenderedPrompt { ids, opens_thought: self.syntax.opens_thought(&text) })
    }

    /// The variables by which the template is told whether and how hard the model is to think.
    pub fn thinking_variables(&self) -> ThinkingVariables {
        self.thinking
    }

    /// Whether the template's source has this word, which may be one of its variables.
    fn names(&self, word: &str) -> bool {
        self.environment.templates().any(|(_, template)| template.source().contains(word))
    }

    /// The token with which the template closes an assistant's message, if that is a special one.
    pub fn turn_end(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let user = json!({"role": "user", "content": "x"});
        let assistant = json!({"role": "assistant", "content": probe::NEEDLE});
        let closer = |messages: Value| {
            let conversation = Conversation { end: PromptEnd::ClosedMessage, ..Conversation::of(&messages) };
            let text = self.render(&conversation).ok()?;
            let (_, after) = text.rsplit_once(probe::NEEDLE)?;
            let id = *tokenizer.encode(after.trim_start(), false).ok()?.first()?;
            (tokenizer.is_special(id) && tokenizer.bos_id() != Some(id)).then_some(id)
        };
        closer(json!([user, assistant, user])).or_else(|| closer(json!([user, assistant])))
    }

    /// The prompt's text, and the mark in it that breaks special tokens which clients wrote, if there is one.
    fn render_marked(
        &self,
        conversation: &Conversation<'_>,
        special: Option<&SpecialTexts>,
    ) -> Result<(String, Option<char>), TextError> {
        if let Some(problem) = self.problem() {
            return Err(problem);
        }
        let normal = |forms| messages::normalize(conversation.messages, forms, |role| self.names_role(role));
        let normal_messages = normal(self.forms)?;
        let kept_missing = normal_messages.kept_missing;
        match self.render_normal(conversation, normal_messages, special) {
            // The probes did not go where this conversation goes.
            Err(TextError::Render(_)) if kept_missing => {
                let empty = messages::MissingContent::Empty;
                let forms = MessageForms { null_content: empty, absent_content: empty, ..self.forms };
                self.render_normal(conversation, normal(forms)?, special)
            }
            rendered => rendered,
        }
    }

    fn render_normal(
        &self,
        conversation: &Conversation<'_>,
        normal: NormalMessages,
        special: Option<&SpecialTexts>,
    ) -> Result<(String, Option<char>), TextError> {
        let mut given = Given {
            messages: normal.messages,
            written: BTreeMap::new(),
            tools: conversation.tools.cloned(),
            kwargs: conversation.kwargs.cloned().unwrap_or_default(),
            add_generation_prompt: conversation.end == PromptEnd::Answer,
        };
        let mark = match special {
            Some(special) => marks::mark_special_tokens(&mut given, special)?,
            None => None,
        };
        given.keep_written(normal.written, special.zip(mark));
        if conversation.end != PromptEnd::OpenMessage {
            return Ok((self.render_given(&given)?, mark));
        }
        let open = OpenMessage::new(&mut given)?;
        let text = self.render_given(&given)?;
        Ok((open.cut(text)?, mark))
    }

    fn render_given(&self, given: &Given) -> Result<String, TextError> {
        let variable = |value: &Value| Variable::from(Serde(value));
        let mut context: BTreeMap<String, Variable> =
            given.kwargs.iter().map(|(name, value)| (name.clone(), variable(value))).collect();
        let tokens = self.special_tokens.iter();
        context.extend(tokens.map(|(role, token)| (role.clone(), Variable::from(token.as_str()))));
        context.extend([
            (functions::WRITTEN_ARGUMENTS.to_owned(), Variable::from(Serde(&given.written))),
            ("messages".to_owned(), variable(&given.messages)),
            ("tools".to_owned(), given.tools.as_ref().map_or(Variable::from(()), variable)),
            ("documents".to_owned(), Variable::from(())),
            ("add_generation_prompt".to_owned(), Variable::from(given.add_generation_prompt)),
        ]);
        let name = if given.tools.is_some() && self.has(TOOL_USE) { TOOL_USE } else { DEFAULT };
        let template = self.environment.get_template(name).map_err(|e| TextError::Render(describe(&e)))?;
        let context = Variable::from(context);
        // Errors hold values too.
        with_deep_stack(|| {
            template.render(context).map_err(|e| match functions::raised(&e) {
                Some(message) => TextError::Raised(message),
                None => TextError::Render(describe(&e)),
            })
        })?
    }

    fn has(&self, name: &str) -> bool {
        self.environment.templates().any(|(n, _)| n == name)
    }

    /// Whether the template's source has a string that is this role.
    fn names_role(&self, role: &str) -> bool {
        let quoted = [format!("'{role}'"), format!("\"{role}\"")];
        self.environment.templates().any(|(_, t)| quoted.iter().any(|role| t.source().contains(role)))
    }
}

/// The last message of a conversation, whose end has been marked so that the prompt can be cut there.
struct OpenMessage {
    path: String,
    mark: char,
}

impl OpenMessage {
    /// Appends a mark and a space to the last message's text.
    ///
    /// Errors: a last message without a text.
    fn new(given: &mut Given) -> Result<Self, TextError> {
        let mark = marks::free_character(given)?;
        let messages = given.messages.as_array_mut();
        let path = format!("messages[{}].content", messages.as_ref().map_or(0, |list| list.len().saturating_sub(1)));
        let content = messages.and_then(|list| list.last_mut()?.get_mut("content"));
        let text = match content {
            Some(Value::Array(parts)) => parts.last_mut().and_then(|part| part.get_mut("text")),
            other => other,
        };
        let Some(Value::String(text)) = text else {
            let message = "it has no text; continue_final_message continues the last message's text".into();
            return Err(TextError::Messages { path, message });
        };
        text.push(mark);
        text.push(' ');
        Ok(OpenMessage { path, mark })
    }

    /// The prompt's text up to the end of the last message's text.
    ///
    /// Errors: a template that does not show it.
    fn cut(self, mut text: String) -> Result<String, TextError> {
        let Some(at) = text.rfind(self.mark) else {
            let message = "the chat template does not show it, so that it cannot be continued".into();
            return Err(TextError::Messages { path: self.path, message });
        };
        // A template that took the space away would have taken away those that end the message too.
        let trimmed = !text[at + self.mark.len_utf8()..].starts_with(' ');
        text.truncate(at);
        if trimmed {
            text.truncate(text.trim_end().len());
        }
        Ok(text)
    }
}

/// An error with its causes, each of which is told once.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text += &format!(": {inner_text}");
        }
        cause = inner.source();
    }
    text
}
