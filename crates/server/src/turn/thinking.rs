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

/// Variables by which templates turn thoughts on and off.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];
/// The variable by which templates are told the effort.
const EFFORT: &str = "reasoning_effort";

impl Thinking {
    /// Whether thoughts are turned off or on; `None` leaves it to the model.
    fn wanted(&self) -> Option<bool> {
        self.enabled.or_else(|| self.effort.as_deref().map(|effort| effort != "none"))
    }

    /// What the template is told, of the variables that it names.
    pub fn kwargs(&self, template: &ChatTemplate) -> Map<String, Value> {
        let mut kwargs = Map::new();
        if let Some(wanted) = self.wanted() {
            let switch = SWITCHES.into_iter().find(|name| template.names_variable(name));
            kwargs.extend(switch.map(|name| (name.to_owned(), json!(wanted))));
        }
        if let Some(effort) = self.effort.as_ref().filter(|_| template.names_variable(EFFORT)) {
            kwargs.insert(EFFORT.into(), json!(effort));
        }
        kwargs
    }

    /// Tokens of the thought at most. A model whose template has no switch closes at once a thought that is not
    /// wanted.
    pub fn budget_for(&self, template: &ChatTemplate) -> Option<usize> {
        let has_switch = SWITCHES.iter().any(|name| template.names_variable(name));
        if self.wanted() == Some(false) && !has_switch { Some(0) } else { self.budget }
    }
}
