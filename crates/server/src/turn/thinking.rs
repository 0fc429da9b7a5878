//! Whether and how long a model may think before it answers.
use serde_json::{Map, Value, json};
use text::ChatTemplate;

/// Whether and how long a model may think before it answers.
#[derive(Debug, Clone, Default)]
pub struct Thinking {
    /// How hard it is to think, in OpenAI's words: `none` to `xhigh`.
    pub effort: Option<String>,
    /// Whether it may think at all.
    pub enabled: Option<bool>,
    /// Tokens of the thought at most.
    pub budget: Option<usize>,
}

impl Thinking {
    /// Whether thoughts are turned off or on; `None` leaves it to the model.
    fn wanted(&self) -> Option<bool> {
        self.enabled.or_else(|| self.effort.as_deref().map(|effort| effort != "none"))
    }

    /// What the template is told, of the variables that it names.
    pub fn kwargs(&self, template: &ChatTemplate) -> Map<String, Value> {
        let names = template.thinking_variables();
        let switch = names.switch.zip(self.wanted().map(|wanted| json!(wanted)));
        let effort = names.effort.zip(self.effort.as_ref().map(|effort| json!(effort)));
        switch.into_iter().chain(effort).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Tokens of the thought at most. A model whose template has no switch closes at once a thought that is not
    /// wanted.
    pub fn budget_for(&self, template: &ChatTemplate) -> Option<usize> {
        let has_switch = template.thinking_variables().switch.is_some();
        if self.wanted() == Some(false) && !has_switch { Some(0) } else { self.budget }
    }
}
