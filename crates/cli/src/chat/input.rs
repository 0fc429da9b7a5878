//! The line editor: messages of several lines, completion of commands, a history that outlives the chat.
use anyhow::Result;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use std::path::PathBuf;

/// What begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

/// The commands of a chat with what each does.
pub const COMMANDS: [(&str, &str); 9] = [
    ("/clear", "begin anew, with the same system message"),
    ("/system", "TEXT: begin anew with this system message"),
    ("/retry", "answer the last message again"),
    ("/thought", "show what was thought before the last answer"),
    ("/tokens", "tell how many tokens of the context are used"),
    ("/save", "FILE: write the conversation, as JSON by a name that ends so, or else as Markdown"),
    ("/help", "this list"),
    ("/exit", "leave (Ctrl-D does too)"),
    ("/quit", "the same"),
];

/// What the editor knows of chats.
pub struct ChatHelper;

impl Helper for ChatHelper {}
impl Highlighter for ChatHelper {}
impl Hinter for ChatHelper {
    type Hint = String;
}

impl Completer for ChatHelper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let names = COMMANDS.iter().map(|(name, _)| (*name).to_owned());
        Ok((0, names.filter(|name| line.starts_with('/') && name.starts_with(&line[..pos])).collect()))
    }
}

impl Validator for ChatHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Whether a message ends with its last line: neither a backslash nor quotes that are open ask for another one.
fn is_whole(text: &str) -> bool {
    !text.ends_with('\\') && (!text.starts_with(QUOTES) || (text.len() > QUOTES.len() && text.ends_with(QUOTES)))
}

/// A message without what made it one of several lines.
pub fn message(text: &str) -> String {
    let inner = text.strip_prefix(QUOTES).and_then(|rest| rest.strip_suffix(QUOTES));
    inner.map_or_else(|| text.replace("\\\n", "\n"), str::to_owned).trim().to_owned()
}

/// The editor of a chat.
pub struct Input {
    editor: Editor<ChatHelper, FileHistory>,
    /// Where the history is kept; `None`: nowhere.
    history: Option<PathBuf>,
}

impl Input {
    /// An editor with the history of earlier chats.
    ///
    /// Errors: no terminal to edit on.
    pub fn new() -> Result<Self> {
        let mut editor = Editor::new()?;
        editor.set_helper(Some(ChatHelper));
        let history = engine::cache_folder().map(|folder| folder.join("chat-history"));
        if let Some(path) = &history {
            // There is none before the first chat.
            let _ = editor.load_history(path);
        }
        Ok(Input { editor, history })
    }

    /// Reads a message, which may be of several lines.
    pub fn read(&mut self) -> rustyline::Result<String> {
        let line = self.editor.readline("> ")?;
        if self.editor.add_history_entry(&line)?
            && let Some(path) = &self.history
        {
            let kept = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(Into::into);
            if let Err(error) = kept.and_then(|()| self.editor.save_history(path)) {
                tracing::debug!("the history is not kept: {error}");
            }
        }
        Ok(message(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_have_several_lines() {
        for (text, whole, told) in [
            ("one", true, "one"),
            ("one\\", false, ""),
            ("one\\\ntwo", true, "one\ntwo"),
            ("\"\"\"", false, ""),
            ("\"\"\"one\n\ntwo", false, ""),
            ("\"\"\"one\n\ntwo\"\"\"", true, "one\n\ntwo"),
            ("say \"\"\"", true, "say \"\"\""),
        ] {
            assert_eq!(is_whole(text), whole, "{text}");
            assert!(!whole || message(text) == told, "{text}");
        }
    }
}
