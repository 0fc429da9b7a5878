//! `tallow chat`: a conversation in the terminal, over the same HTTP interface that every client uses.
mod answer;
mod input;
mod markdown;

use crate::args::ChatArgs;
use crate::demo;
use crate::output;
use crate::serve::Running;
use crate::server_client::{self, ServerClient};
use crate::settings::Settings;
use crate::signals::{Signal, Signals};
use answer::{AnswerCost, LineBuffer, ShownAnswer};
use anyhow::{Context, Result, bail};
use engine::EngineHandle;
use futures_util::StreamExt;
use input::{COMMANDS, Input};
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;

/// Runs the command until the conversation is left.
pub async fn chat(args: ChatArgs, signals: &Signals) -> Result<()> {
    let mut settings = Settings::of_serving(&args.serve)?;
    // Without a model, a server that runs already is the one to talk to.
    let url = args.url.or_else(|| settings.model.is_none().then(server_client::last_started).flatten());
    let (running, server) = match url {
        Some(url) => (None, ServerClient::new(&url, settings.api_key)?),
        None => {
            if settings.model.is_none() {
                output::line(format_args!("{}. To talk to a server that runs: --url.", demo::NOTICE));
            }
            // A server of our own lives as long as the conversation.
            (settings.host, settings.port) = ("127.0.0.1".into(), 0);
            let running = Running::start(&settings).await?;
            let server = ServerClient::of_this_process(format!("http://{}", running.address), settings.api_key)?;
            (Some(running), server)
        }
    };
    let engine = running.as_ref().map(|running| running.engine.clone());
    let mut session = Session::open(server, args.system.as_deref()).await?;
    let place = if running.is_none() { format!(" at {}", session.server.url) } else { String::new() };
    output::line(format_args!("{}{place} · /help for commands", session.model));
    let result = session.run(signals, engine.as_ref()).await;
    if let Some(running) = running {
        running.stop().await?;
    }
    result
}

struct Session {
    server: ServerClient,
    model: String,
    /// Tokens of the context, if the server says so.
    context: Option<u64>,
    on_terminal: bool,
    messages: Vec<Value>,
    /// What the last answer took.
    cost: AnswerCost,
}

/// What a line of the user's means.
enum LineMeaning {
    Say(String),
    Retry,
    Nothing,
    Leave,
}

impl Session {
    async fn open(server: ServerClient, system: Option<&str>) -> Result<Self> {
        let model = server.model(None).await?;
        let mut session = Session {
            server,
            model: model.id,
            context: model.context,
            on_terminal: std::io::stdout().is_terminal(),
            messages: Vec::new(),
            cost: AnswerCost::default(),
        };
        session.begin(system);
        Ok(session)
    }

    fn begin(&mut self, system: Option<&str>) {
        self.messages = system.map(|text| json!({"role": "system", "content": text})).into_iter().collect();
        self.cost = AnswerCost::default();
    }

    /// Talks until the conversation is left, or `engine`, that of a server of our own, has ended.
    async fn run(&mut self, signals: &Signals, engine: Option<&EngineHandle>) -> Result<()> {
        let mut input = Input::new()?;
        // Without a standard output nobody reads an answer.
        while !output::is_closed() {
            // Reading a line blocks its thread; Ctrl-C at the prompt is the editor's.
            let (back, text) = tokio::task::spawn_blocking(move || {
                let text = input.read();
                (input, text)
            })
            .await?;
            input = back;
            let text = match text {
                Ok(text) => text,
                Err(ReadlineError::Interrupted) => {
                    output::line(format_args!("Ctrl-D or /exit leaves"));
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let before = self.messages.clone();
            match self.command(&text) {
                LineMeaning::Leave => return Ok(()),
                LineMeaning::Nothing => continue,
                LineMeaning::Say(text) => self.messages.push(json!({"role": "user", "content": text})),
                LineMeaning::Retry => {}
            }
            if let Err(error) = self.answer(signals).await {
                if let Some(reason) = engine.and_then(EngineHandle::failure) {
                    bail!("{reason}");
                }
                output::complain(format_args!("{}", output::describe(&error)));
                // A question that got no answer is taken out of the conversation again. Where an answer was to be
                // replaced, it is put back.
                self.messages = before;
            }
        }
        Ok(())
    }

    fn command(&mut self, text: &str) -> LineMeaning {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match (name, rest.trim()) {
            ("", _) => return LineMeaning::Nothing,
            ("/exit" | "/quit", _) => return LineMeaning::Leave,
            ("/help", _) => {
                COMMANDS.iter().for_each(|(name, help)| output::line(format_args!("{name:<10}{help}")));
                output::line(format_args!(
                    "Ctrl-C stops an answer. A line that ends in \\ goes on, as does text behind \"\"\"."
                ));
            }
            ("/clear", _) => {
                let system = self.messages.first().filter(|message| message["role"] == "system");
                let system = system.and_then(|message| message["content"].as_str()).map(str::to_owned);
                self.begin(system.as_deref());
            }
            ("/system", text) => self.begin(Some(text).filter(|text| !text.is_empty())),
            ("/thought", _) => match self.messages.last().and_then(|message| message["reasoning_content"].as_str()) {
                Some(thought) => output::line(format_args!("{thought}")),
                None => output::line(format_args!("nothing was thought before the last answer")),
            },
            ("/tokens", _) => match self.cost.line(self.context) {
                Some(line) => output::line(format_args!("{line}")),
                None => output::line(format_args!("nothing was answered yet")),
            },
            ("/save", "") => output::line(format_args!("/save needs the name of a file")),
            ("/save", path) => match self.save(Path::new(path)) {
                Ok(()) => output::line(format_args!("{path} has the conversation")),
                Err(error) => output::complain(format_args!("{path}: {error}")),
            },
            ("/retry", _) => {
                if self.messages.last().is_some_and(|message| message["role"] == "assistant") {
                    self.messages.pop();
                }
                if self.messages.last().is_some_and(|message| message["role"] == "user") {
                    return LineMeaning::Retry;
                }
                output::line(format_args!("nothing to answer yet"));
            }
            (name, _) if name.starts_with('/') => {
                let near = crate::nearest(name, COMMANDS.iter().map(|(name, _)| *name));
                let hint = near.map_or("/help lists them".to_owned(), |near| format!("did you mean {near}?"));
                output::line(format_args!("{name} is no command; {hint}"));
            }
            _ => return LineMeaning::Say(text.to_owned()),
        }
        LineMeaning::Nothing
    }

    fn save(&self, path: &Path) -> Result<()> {
        let text = if path.extension().is_some_and(|end| end == "json") {
            serde_json::to_string_pretty(&self.messages)? + "\n"
        } else {
            let mut text = String::new();
            for message in &self.messages {
                let (role, content) = (message["role"].as_str(), message["content"].as_str());
                writeln!(text, "## {}\n\n{}\n", role.unwrap_or_default(), content.unwrap_or_default())?;
            }
            text
        };
        Ok(std::fs::write(path, text)?)
    }

    /// Streams an answer; Ctrl-C ends it, and what has come stays in the conversation.
    async fn answer(&mut self, signals: &Signals) -> Result<()> {
        let body = json!({
            "model": self.model, "messages": self.messages, "stream": true, "stream_options": {"include_usage": true},
        });
        let mut interrupted = signals.next(&[Signal::Interrupt]);
        let response = tokio::select! {
            response = self.server.post("/v1/chat/completions", &body) => response?,
            _ = &mut interrupted => bail!("the answer was stopped before it began"),
        };
        let mut stream = response.bytes_stream();
        let (mut lines, mut shown) = (LineBuffer::default(), ShownAnswer::new(self.on_terminal));
        loop {
            let bytes = tokio::select! {
                bytes = stream.next() => bytes,
                _ = &mut interrupted => None,
            };
            let Some(bytes) = bytes else { break };
            for line in lines.push(&bytes?) {
                let Some(data) = line.strip_prefix("data: ").filter(|d| *d != "[DONE]") else { continue };
                let event: Value = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
                if let Some(message) = event["error"]["message"].as_str() {
                    bail!("{message}");
                }
                shown.show(&event);
            }
        }
        let (message, cost) = shown.finish();
        self.messages.push(message);
        self.cost = cost;
        if let Some(line) = self.cost.line(self.context).filter(|_| self.on_terminal) {
            output::line(format_args!("\x1b[2m{line}\x1b[0m"));
        }
        Ok(())
    }
}
