//! An answer as it comes, and what it took.
use super::markdown::Markdown;
use crate::output;
use serde_json::{Value, json};
use std::time::Instant;

/// An answer that is being shown: its thought, folded, and its text.
pub struct ShownAnswer {
    /// Terminals show styles and how the thought gets on; other outputs get the text alone, for other programs.
    on_terminal: bool,
    markdown: Markdown,
    thought: String,
    text: String,
    begin: Instant,
    first_token: Option<Instant>,
    usage: Value,
}

impl ShownAnswer {
    /// An answer of which nothing has come.
    pub fn new(on_terminal: bool) -> Self {
        let (markdown, thought, text) = Default::default();
        ShownAnswer {
            on_terminal,
            markdown,
            thought,
            text,
            begin: Instant::now(),
            first_token: None,
            usage: Value::Null,
        }
    }

    /// Shows what an answer chunk adds.
    pub fn show(&mut self, chunk: &Value) {
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
        let delta = &chunk["choices"][0]["delta"];
        let piece = |name: &str| delta[name].as_str().filter(|more| !more.is_empty());
        if let Some(more) = piece("reasoning_content") {
            self.first_token.get_or_insert_with(Instant::now);
            self.thought += more;
            let words = self.thought.split_whitespace().count();
            self.replace_line(format_args!("thinking, {words} words"));
        }
        if let Some(more) = piece("content") {
            self.first_token.get_or_insert_with(Instant::now);
            if self.text.is_empty() {
                self.fold();
            }
            self.text += more;
            match self.on_terminal {
                true => output::print(format_args!("{}", self.markdown.push(more))),
                false => output::print(format_args!("{more}")),
            }
        }
    }

    /// Shows a line of the chat's own in the place of the one before.
    fn replace_line(&self, line: std::fmt::Arguments<'_>) {
        if self.on_terminal {
            output::print(format_args!("\r\x1b[2K\x1b[2m{line}\x1b[0m"));
        }
    }

    /// Puts one line in the place of the thought.
    fn fold(&self) {
        if !self.thought.is_empty() {
            let seconds = self.begin.elapsed().as_secs_f64();
            self.replace_line(format_args!("thought for {seconds:.1} s; /thought shows it\n"));
        }
    }

    /// Ends the line. Returns the message that the conversation goes on with, and what the answer took.
    pub fn finish(mut self) -> (Value, AnswerCost) {
        if self.text.is_empty() {
            self.fold();
        }
        let end = if self.on_terminal { std::mem::take(&mut self.markdown).finish() } else { String::new() };
        output::line(format_args!("{end}"));
        let count = |name: &str| self.usage[name].as_u64();
        let cost = AnswerCost {
            prompt: count("prompt_tokens"),
            cached: self.usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0),
            answer: count("completion_tokens"),
            seconds: self.first_token.map_or(0.0, |first| first.elapsed().as_secs_f64()),
        };
        let mut message = json!({"role": "assistant", "content": self.text});
        if !self.thought.is_empty() {
            message["reasoning_content"] = self.thought.into();
        }
        (message, cost)
    }
}

/// What an answer took. A server that does not say leaves fields open.
#[derive(Debug, Clone, Default)]
pub struct AnswerCost {
    /// Tokens of the prompt.
    prompt: Option<u64>,
    /// Tokens of it that were known.
    cached: u64,
    /// Tokens of the answer.
    answer: Option<u64>,
    /// From the first token to the last.
    seconds: f64,
}

impl AnswerCost {
    /// One line: how fast the answer came, and how much of a context of so many tokens is used.
    pub fn line(&self, context: Option<u64>) -> Option<String> {
        let (prompt, answer) = (self.prompt?, self.answer?);
        let speed = answer.saturating_sub(1) as f64 / self.seconds.max(1e-9);
        let used = prompt + answer;
        let context = match context {
            Some(context) => {
                format!("{used} of {context} tokens of context used, {} left", context.saturating_sub(used))
            }
            None => format!("{used} tokens of context used"),
        };
        Some(format!("{answer} tokens, {speed:.1} a second; {context}; {} of the prompt were known", self.cached))
    }
}

/// Makes whole lines of bytes that arrive cut anywhere.
#[derive(Default)]
pub struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// The lines that end in `bytes`.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let lines = std::mem::replace(&mut self.0, rest);
        String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_are_cut() {
        let text = "data: {\"a\": \"é🙂\"}\n\ndata: [DONE]\n";
        for cut in 1..text.len() {
            let mut lines = LineBuffer::default();
            let mut got = lines.push(&text.as_bytes()[..cut]);
            got.extend(lines.push(&text.as_bytes()[cut..]));
            assert_eq!(got, text.lines().collect::<Vec<_>>(), "cut at {cut}");
        }
    }

    #[test]
    fn an_answers_cost_is_told_where_the_server_tells_it() {
        let cost = AnswerCost { prompt: Some(90), cached: 64, answer: Some(11), seconds: 2.0 };
        let told =
            "11 tokens, 5.0 a second; 101 of 4096 tokens of context used, 3995 left; 64 of the prompt were known";
        assert_eq!(cost.line(Some(4096)).as_deref(), Some(told));
        assert_eq!(AnswerCost::default().line(Some(4096)), None);
    }
}
