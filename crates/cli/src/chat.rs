//! `tallow chat`: a conversation in the terminal, over the same HTTP interface that every client uses.
use crate::args::ChatArgs;
use crate::output;
use crate::serve::Running;
use crate::settings::Settings;
use crate::signals::{Signal, Signals};
use anyhow::{Context, Result, bail};
use engine::EngineHandle;
use futures_util::StreamExt;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use std::io::IsTerminal;

const HELP: &str = "\
/clear          begin anew
/system TEXT    begin anew with a system message
/retry          answer the last message again
/help           this list
/exit           leave (Ctrl-D does too)
Ctrl-C          stop an answer";

/// Runs the command until the conversation is left.
pub async fn chat(args: ChatArgs, signals: &Signals) -> Result<()> {
    let mut settings = Settings::read(
        args.model.config.as_deref(),
        &(&args.model, &args.kv, &args.step, &args.serving, &args.folder),
    )?;
    // A server of our own lives as long as the conversation, and no proxy stands before it.
    let (running, url, http) = match &args.url {
        Some(url) => {
            let url = base_address(url);
            let http = hub::http_for(&url);
            (None, url, http)
        }
        None => {
            (settings.host, settings.port) = ("127.0.0.1".into(), 0);
            let running = Running::start(&settings).await?;
            let url = format!("http://{}", running.address);
            (Some(running), url, hub::http().no_proxy())
        }
    };
    let engine = running.as_ref().map(|running| running.engine.clone());
    let mut session = Session::open(http.build()?, url, settings.api_key, args.system.as_deref()).await?;
    output::line(format_args!("{} · /help for commands", session.model));
    let result = session.run(signals, engine.as_ref()).await;
    if let Some(running) = running {
        running.stop().await?;
    }
    result
}

/// The address before `/v1`. Users give what they give to other clients: with `/v1` or an endpoint's path, with a slash
/// at the end, without a scheme.
fn base_address(url: &str) -> String {
    let mut base = url.trim().trim_end_matches('/');
    for end in ["/chat/completions", "/completions", "/models", "/v1"] {
        base = base.strip_suffix(end).unwrap_or(base).trim_end_matches('/');
    }
    if base.contains("://") { base.to_owned() } else { format!("http://{base}") }
}

struct Session {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
    model: String,
    messages: Vec<Value>,
}

enum Input {
    Say(String),
    Retry,
    Nothing,
    Leave,
}

impl Session {
    async fn open(client: reqwest::Client, url: String, key: Option<String>, system: Option<&str>) -> Result<Self> {
        let mut session = Session { client, url, key, model: String::new(), messages: Vec::new() };
        let request = session.authorised(session.client.get(format!("{}/v1/models", session.url)));
        let answer = request.send().await.with_context(|| format!("no server answers at {}", session.url))?;
        let models: Value = session.checked(answer).await?.json().await.context("/v1/models is not JSON")?;
        let name = models["data"][0]["id"].as_str().context("the server names no model")?;
        session.model = name.to_owned();
        session.begin(system);
        Ok(session)
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The answer, or an error with the message that the server gives for its refusal.
    async fn checked(&self, answer: reqwest::Response) -> Result<reqwest::Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.text().await.unwrap_or_default();
        let message =
            serde_json::from_str::<Value>(&body).ok().and_then(|v| v["error"]["message"].as_str().map(String::from));
        bail!("{status}: {}", message.unwrap_or(body));
    }

    fn begin(&mut self, system: Option<&str>) {
        self.messages = system.map(|text| json!({"role": "system", "content": text})).into_iter().collect();
    }

    /// Talks until the conversation is left, or `engine`, that of a server of our own, has ended.
    async fn run(&mut self, signals: &Signals, engine: Option<&EngineHandle>) -> Result<()> {
        let mut editor = DefaultEditor::new()?;
        // Without a standard output nobody reads an answer.
        while !output::is_closed() {
            // Reading a line blocks its thread; Ctrl-C at the prompt is the editor's.
            let (back, line) = tokio::task::spawn_blocking(move || {
                let line = editor.readline("> ");
                (editor, line)
            })
            .await?;
            editor = back;
            let line = match line {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    output::line(format_args!("Ctrl-D or /exit leaves"));
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let _ = editor.add_history_entry(&line);
            match self.command(line.trim()) {
                Input::Leave => return Ok(()),
                Input::Nothing => continue,
                Input::Say(text) => self.messages.push(json!({"role": "user", "content": text})),
                Input::Retry => {}
            }
            if let Err(error) = self.answer(signals).await {
                if let Some(reason) = engine.and_then(EngineHandle::failure) {
                    bail!("{reason}");
                }
                output::complain(format_args!("{}", output::describe(&error)));
                // The message was not answered, so it is not part of the conversation.
                self.messages.pop();
            }
        }
        Ok(())
    }

    fn command(&mut self, line: &str) -> Input {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => return Input::Nothing,
            ("/exit" | "/quit", _) => return Input::Leave,
            ("/help", _) => output::line(format_args!("{HELP}")),
            ("/clear", _) => self.begin(None),
            ("/system", text) => self.begin(Some(text.trim())),
            ("/retry", _) => {
                if self.messages.last().is_some_and(|m| m["role"] == "assistant") {
                    self.messages.pop();
                }
                if self.messages.last().is_some_and(|m| m["role"] == "user") {
                    return Input::Retry;
                }
                output::line(format_args!("nothing to answer yet"));
            }
            (command, _) if command.starts_with('/') => output::line(format_args!("unknown command {command}\n{HELP}")),
            _ => return Input::Say(line.to_owned()),
        }
        Input::Nothing
    }

    /// Streams an answer; Ctrl-C ends it, and what has come stays in the conversation.
    async fn answer(&mut self, signals: &Signals) -> Result<()> {
        let body = json!({"model": self.model, "messages": self.messages, "stream": true});
        let request = self.authorised(self.client.post(format!("{}/v1/chat/completions", self.url))).json(&body);
        let mut interrupted = signals.next(&[Signal::Interrupt]);
        let answer = tokio::select! {
            answer = request.send() => self.checked(answer?).await?,
            _ = &mut interrupted => bail!("the answer was stopped before it began"),
        };
        let mut bytes = answer.bytes_stream();
        let (mut lines, mut shown) = (LineBuffer::default(), ShownAnswer::new());
        loop {
            let chunk = tokio::select! {
                chunk = bytes.next() => chunk,
                _ = &mut interrupted => None,
            };
            let Some(chunk) = chunk else { break };
            for line in lines.push(&chunk?) {
                let Some(data) = line.strip_prefix("data: ").filter(|d| *d != "[DONE]") else { continue };
                let event: Value = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
                if let Some(message) = event["error"]["message"].as_str() {
                    bail!("{message}");
                }
                shown.show(&event["choices"][0]["delta"]);
            }
        }
        self.messages.push(shown.finish());
        Ok(())
    }
}

/// An answer that is being shown: its thought, set apart, and its text.
struct ShownAnswer {
    /// Terminals show the thought dimmed; in other outputs it is left out, which are for other programs.
    on_terminal: bool,
    thought: String,
    text: String,
}

impl ShownAnswer {
    fn new() -> Self {
        ShownAnswer { on_terminal: std::io::stdout().is_terminal(), thought: String::new(), text: String::new() }
    }

    /// Shows what an answer chunk adds.
    fn show(&mut self, delta: &Value) {
        if let Some(more) = delta["reasoning_content"].as_str() {
            self.thought += more;
            if self.on_terminal {
                output::print(format_args!("\x1b[2m{more}\x1b[0m"));
            }
        }
        if let Some(more) = delta["content"].as_str().filter(|more| !more.is_empty()) {
            let behind_thought = self.text.is_empty() && !self.thought.is_empty() && self.on_terminal;
            let gap = if behind_thought { "\n\n" } else { "" };
            self.text += more;
            output::print(format_args!("{gap}{more}"));
        }
    }

    /// Ends the line. Returns the message that the conversation goes on with.
    fn finish(self) -> Value {
        output::line(format_args!(""));
        let mut message = json!({"role": "assistant", "content": self.text});
        if !self.thought.is_empty() {
            message["reasoning_content"] = self.thought.into();
        }
        message
    }
}

/// Makes whole lines of bytes that arrive cut anywhere.
#[derive(Default)]
struct LineBuffer(Vec<u8>);

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let lines = std::mem::replace(&mut self.0, rest);
        String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{LineBuffer, base_address};

    #[test]
    fn a_servers_address_is_understood_as_other_clients_have_it() {
        for url in [
            "http://host:8000",
            "http://host:8000/",
            "http://host:8000/v1",
            "http://host:8000/v1//",
            "http://host:8000/v1/chat/completions",
            "host:8000/v1/models",
        ] {
            assert_eq!(base_address(url), "http://host:8000", "{url}");
        }
        assert_eq!(base_address("https://host/llm/v1/"), "https://host/llm");
    }

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
}
