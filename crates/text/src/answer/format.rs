//! How models write tool calls.
use super::section::CallSyntax;
use super::{deepseek, hermes, llama_json, mistral, pythonic, qwen_xml};
use std::fmt;
use std::str::FromStr;

macro_rules! formats {
    ($($(#[$doc:meta])* $format:ident = $name:literal, $syntax:expr;)*) => {
        /// How a model writes tool calls in its answers. The names are those of vLLM's `--tool-call-parser`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ToolCallFormat { $($(#[$doc])* $format,)* }

        impl ToolCallFormat {
            /// All formats.
            pub const ALL: &[ToolCallFormat] = &[$(ToolCallFormat::$format),*];

            /// The format's name.
            pub const fn name(self) -> &'static str {
                match self { $(ToolCallFormat::$format => $name,)* }
            }

            /// How the format is found and read.
            pub(super) fn syntax(self) -> &'static CallSyntax {
                match self { $(ToolCallFormat::$format => &$syntax,)* }
            }
        }
    };
}

formats! {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, a pair of tags for each call (Qwen2.5, Qwen3, Hermes,
    /// SmolLM3), or a list of such objects between the tags (SmolLM2).
    Hermes = "hermes", hermes::CALLS;
    /// `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>` with newlines between tags
    /// and values (Qwen3-Coder, Qwen3.5).
    QwenXml = "qwen3_coder", qwen_xml::CALLS;
    /// `{"name": .., "parameters": {..}}` and nothing else, after `<|python_tag|>` or not, several after semicolons
    /// (Llama 3.1 and 3.2).
    LlamaJson = "llama3_json", llama_json::CALLS;
    /// `[NAME(KEY=VALUE, ..), ..]`, with values as Python writes them (Llama 3.2 and 4).
    Pythonic = "pythonic", pythonic::CALLS;
    /// `[TOOL_CALLS]` before a list of `{"name": .., "arguments": {..}}`, or before each `NAME[ARGS]{..}` (Mistral).
    Mistral = "mistral", mistral::CALLS;
    /// `<｜tool▁calls▁begin｜>`, then for each call `<｜tool▁call▁begin｜>`, kind, `<｜tool▁sep｜>`, name and arguments in a
    /// fenced block of JSON (DeepSeek V3 and R1 and its distills), or name, `<｜tool▁sep｜>`, arguments (V3.1).
    DeepSeek = "deepseek_v3", deepseek::CALLS;
}

impl fmt::Display for ToolCallFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No tool-call format has this name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no tool-call format; it must be one of {names}", names = names())]
pub struct UnknownToolCallFormat(String);

impl FromStr for ToolCallFormat {
    type Err = UnknownToolCallFormat;

    fn from_str(name: &str) -> Result<Self, UnknownToolCallFormat> {
        let known = ToolCallFormat::ALL.iter().find(|format| format.name() == name);
        known.copied().ok_or_else(|| UnknownToolCallFormat(name.to_owned()))
    }
}

fn names() -> String {
    ToolCallFormat::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}
