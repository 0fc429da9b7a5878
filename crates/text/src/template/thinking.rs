//! The variables by which a template is told whether and how hard the model is to think.

/// Variables by which templates turn thoughts on and off.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];
/// The variable by which templates are told how hard the model is to think.
const EFFORT: &str = "reasoning_effort";

/// The variables of a template that tell whether and how hard the model is to think. `None` is one that its source does
/// not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThinkingVariables {
    /// The variable that turns thoughts on and off.
    pub switch: Option<&'static str>,
    /// The variable that tells how hard the model is to think.
    pub effort: Option<&'static str>,
}

impl ThinkingVariables {
    /// `names` tells whether the template's source has a word.
    pub(super) fn find(names: impl Fn(&str) -> bool) -> Self {
        ThinkingVariables {
            switch: SWITCHES.into_iter().find(|name| names(name)),
            effort: Some(EFFORT).filter(|name| names(name)),
        }
    }
}
