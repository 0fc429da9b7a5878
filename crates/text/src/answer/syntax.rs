//! How a model writes thoughts and tool calls.
use super::format::ToolCallFormat;

/// How a model writes thoughts and tool calls. Of what is `None` nothing is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerSyntax {
    /// The tags around thoughts.
    pub thought: Option<ThoughtTags>,
    /// The format of tool calls.
    pub calls: Option<ToolCallFormat>,
}

/// The tags around a thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThoughtTags {
    /// The tag before it.
    pub open: &'static str,
    /// The tag after it.
    pub close: &'static str,
}

impl ThoughtTags {
    /// The pairs that published models use.
    pub const ALL: &[ThoughtTags] = &[
        // Qwen3, QwQ, DeepSeek R1 and V3.1, SmolLM3, GLM and most others.
        ThoughtTags { open: "<think>", close: "</think>" },
        // Magistral.
        ThoughtTags { open: "[THINK]", close: "[/THINK]" },
        // Command A Reasoning.
        ThoughtTags { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
        // Seed-OSS.
        ThoughtTags { open: "<seed:think>", close: "</seed:think>" },
        // Kimi-VL Thinking.
        ThoughtTags { open: "◁think▷", close: "◁/think▷" },
    ];
}

impl AnswerSyntax {
    /// Returns the syntax that the source of a chat template shows. A template that cuts thoughts out of old answers
    /// has the closing tag alone, so that one is looked for.
    pub fn of_template(source: &str) -> Self {
        AnswerSyntax {
            thought: ThoughtTags::ALL.iter().copied().find(|tags| source.contains(tags.close)),
            calls: ToolCallFormat::ALL.iter().copied().find(|format| (format.syntax().is_in_template)(source)),
        }
    }

    /// Whether a prompt ends within a thought, so that the answer begins in it.
    pub fn opens_thought(&self, prompt: &str) -> bool {
        self.thought.is_some_and(|tags| prompt.trim_end().ends_with(tags.open))
    }

    /// The texts of the syntax's tags. Where one is a special token, it must not be left out of the text that an
    /// [`AnswerParser`](super::AnswerParser) is given, which leaves it out itself.
    pub fn special_tags(&self) -> Vec<&'static str> {
        let thought = self.thought.iter().flat_map(|tags| [tags.open, tags.close]);
        let calls = self.calls.iter().flat_map(|format| format.syntax().tags());
        thought.chain(calls).collect()
    }
}
