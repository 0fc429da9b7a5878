//! One turn of a conversation, by whatever protocol it comes: messages and tools become a prompt, and it is settled how
//! the answer is read and what it is held to.
mod held;
mod thinking;
mod tools;

pub use held::HeldTo;
pub use thinking::Thinking;
pub use tools::{ToolChoice, ToolUse, check_function};

use crate::http::error::{ApiError, ErrorCode};
use crate::http::state::ServedModel;
use engine::GenerationRequest;
use serde_json::{Map, Value};
use std::sync::Arc;
use text::{AnswerConstraint, AnswerReading, AnswerSyntax, ChatTemplate, Conversation, PromptEnd, RenderedPrompt};

/// What a client asks for in one turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// The messages in OpenAI's form.
    pub messages: Value,
    /// The tools that may be called.
    pub tools: ToolUse,
    /// The template's own variables.
    pub kwargs: Map<String, Value>,
    /// How the prompt ends.
    pub end: PromptEnd,
    /// Adds what the model expects around a plain text, mostly BOS. A template brings its own.
    pub add_special_tokens: bool,
    /// What the answer is held to, beside the tools.
    pub held_to: Option<HeldTo>,
    /// Whether and how long the model may think.
    pub thinking: Thinking,
}

/// What the engine is told of a turn.
#[derive(Debug, Clone, Default)]
pub struct PreparedTurn {
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Whether the answer is a text of its own.
    begins_text: bool,
    reading: Option<AnswerReading>,
    constraint: Option<AnswerConstraint>,
}

impl PreparedTurn {
    /// A text that is no turn of a conversation, held to `constraint`.
    pub fn of_text(constraint: Option<AnswerConstraint>) -> Self {
        PreparedTurn { constraint, ..PreparedTurn::default() }
    }

    /// Writes what is special to this turn into the engine's request.
    pub fn apply(&self, request: &mut GenerationRequest) {
        request.begins_text = self.begins_text;
        request.reading.clone_from(&self.reading);
        request.constraint.clone_from(&self.constraint);
    }
}

impl Turn {
    /// Renders and tokenizes the prompt, and makes the constraints. It is done on a thread of its own, since it would
    /// hold up the threads that serve connections. `field` is the one that errors of the messages are about.
    ///
    /// Errors: messages that are missing or that the template refuses, a template that is missing or fails, tools that
    /// the model cannot call, a schema or grammar that cannot be held.
    pub async fn prepare(self, served: &Arc<ServedModel>, field: &'static str) -> Result<PreparedTurn, ApiError> {
        let served = served.clone();
        tokio::task::spawn_blocking(move || self.prepare_now(&served, field)).await?
    }

    fn prepare_now(self, served: &ServedModel, field: &'static str) -> Result<PreparedTurn, ApiError> {
        let template = template_of(served, field)?;
        let syntax = self.syntax(template)?;
        let rendered = self.render(served, template, field)?;
        let in_thought = self.end != PromptEnd::OpenMessage && rendered.opens_thought;
        let (call_constraint, constraint) = held::constraints(&self, syntax, served)?;
        let reads = syntax != AnswerSyntax::default();
        let reading = reads.then(|| AnswerReading {
            syntax,
            in_thought,
            tools: self.tools.callable.clone().into(),
            call_constraint,
            single_call: !self.tools.parallel,
            thought_budget: self.thinking.budget_for(template),
        });
        Ok(PreparedTurn { prompt: rendered.ids, begins_text: self.end != PromptEnd::OpenMessage, reading, constraint })
    }

    /// The prompt's text.
    ///
    /// Errors: those of [`prepare`](Self::prepare) that are about messages and template.
    pub async fn prompt_text(self, served: &Arc<ServedModel>, field: &'static str) -> Result<String, ApiError> {
        let served = served.clone();
        let render = move || {
            let template = template_of(&served, field)?;
            let kwargs = self.all_kwargs(template);
            template.render(&self.conversation(&kwargs)).map_err(|e| ApiError::from_text(e, field))
        };
        tokio::task::spawn_blocking(render).await?
    }

    /// How the answer is read: tool calls are told from text where tools may be called.
    ///
    /// Errors: tools for a model that has no way to call them.
    fn syntax(&self, template: &ChatTemplate) -> Result<AnswerSyntax, ApiError> {
        let syntax = template.answer_syntax();
        if self.tools.callable.is_empty() {
            return Ok(AnswerSyntax { calls: None, ..syntax });
        }
        if !template.takes_tools() {
            let message = "tools are given, but this model's chat template has no way to call them; take a model that \
                           was trained for tools, or a template that tells of them (--chat-template, \
                           --tool-call-format)";
            return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at("tools"));
        }
        Ok(syntax)
    }

    fn render(
        &self,
        served: &ServedModel,
        template: &ChatTemplate,
        field: &'static str,
    ) -> Result<RenderedPrompt, ApiError> {
        let kwargs = self.all_kwargs(template);
        let rendered = template.encode(&self.conversation(&kwargs), served.engine.tokenizer(), self.add_special_tokens);
        rendered.map_err(|e| ApiError::from_text(e, field))
    }

    fn all_kwargs(&self, template: &ChatTemplate) -> Map<String, Value> {
        let mut kwargs = self.thinking.kwargs(template);
        // What a client says by the template's own names is what it means.
        kwargs.extend(self.kwargs.clone());
        kwargs
    }

    fn conversation<'a>(&'a self, kwargs: &'a Map<String, Value>) -> Conversation<'a> {
        Conversation {
            messages: &self.messages,
            tools: self.tools.offered.as_ref(),
            kwargs: Some(kwargs),
            end: self.end,
        }
    }
}

fn template_of<'a>(served: &'a ServedModel, field: &'static str) -> Result<&'a ChatTemplate, ApiError> {
    served.template.as_deref().ok_or_else(|| {
        let message = "this model has no chat template; use /v1/completions, or name one with --chat-template";
        ApiError::new(ErrorCode::InvalidTemplate, message).at(field)
    })
}
