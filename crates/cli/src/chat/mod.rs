//! `tallow chat`: a conversation in the terminal, over the same HTTP interface that every client uses.
mod answer;
mod input;
mod markdown;

use crate::args::ChatArgs;
use crate::demo;
use crate::output;
use crate::serve::Running;
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
    // A server of our own lives as long as the conversation, and no proxy stands before it.
    let (running, url, http) = match &args.url {
        Some(url) => {
            let url = base_address(url);
            let http = hub::http_for(&url);
            (None, url, http)
        }
        None => {
            if settings.model.is_none() {
                output::line(format_args!("{}. To talk to a server that runs: --url.", demo::NOTICE));
            }
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
pub fn base_address(url: &str) -> String {
    let mut base = url.trim().trim_end_matches('/');
    for end in ["/chat/completions", "/completions", "/models", "/v1"] {
        base = base.strip_suffix(end).unwrap_or(base).trim_end_matches('/');
    }
    if base.contains("://") { base.to_owned() } else { format!("http://{base}") }
}

/// What the server at `url` says of its models.
///
/// Errors: no server there, or one that refuses to tell.
pub async fn models_of(client: &reqwest::Client, url: &str, key: Option<&str>) -> Result<Value> {
    let request = authorised(client.get(format!("{url}/v1/models")), key);
    let answer = request.send().await.with_context(|| format!("no server answers at {url}"))?;
    checked(answer).await?.json().await.context("/v1/models is not JSON")
}

fn authorised(request: reqwest::RequestBuilder, key: Option<&str>) -> reqwest::RequestBuilder {
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// The answer, or an error with the message that the server gives for its refusal.
async fn checked(answer: reqwest::Response) -> Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.text().await.unwrap_or_default();
    let message =
        serde_json::from_str::<Value>(&body).ok().and_then(|v| v["error"]["message"].as_str().map(String::from));
    bail!("{status}: {}", message.unwrap_or(body));
}

struct Session {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
    model: String,
    /// Tokens of the context, if the server says so.
    context: Option<u64>,
    on_terminal: bool,
    messages: Vec<Value>,
    /// What the last answer took.
    cost: AnswerCost,
}

enum Request {
    Say(String),
    Retry,
    Nothing,
    Leave,
}

impl Session {
    async fn open(client: reqwest::Client, url: String, key: Option<String>, system: Option<&str>) -> Result<Self> {
        let models = models_of(&client, &url, key.as_deref()).await?;
        let model = &models["data"][0];
        let mut session = Session {
            model: model["id"].as_str().context("the server names no model")?.to_owned(),
            context: model["max_model_len"].as_u64(),
            on_terminal: std::io::stdout().is_terminal(),
            messages: Vec::new(),
            cost: AnswerCost::default(),
            client,
            url,
            key,
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
                Request::Leave => return Ok(()),
                Request::Nothing => continue,
                Request::Say(text) => self.messages.push(json!({"role": "user", "content": text})),
                Request::Retry => {}
            }
            if let Err(error) = self.answer(signals).await {
                if let Some(reason) = engine.and_then(EngineHandle::failure) {
                    bail!("{reason}");
                }
                output::complain(format_args!("{}", output::describe(&error)));
                // What was not answered is no part of the conversation; the answer that was to be replaced is again.
                self.messages = before;
            }
        }
        Ok(())
    }

    fn command(&mut self, text: &str) -> Request {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match (name, rest.trim()) {
            ("", _) => return Request::Nothing,
            ("/exit" | "/quit", _) => return Request::Leave,
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
                    return Request::Retry;
                }
                output::line(format_args!("nothing to answer yet"));
            }
            (name, _) if name.starts_with('/') => {
                let near = crate::nearest(name, COMMANDS.iter().map(|(name, _)| *name));
                let hint = near.map_or("/help lists them".to_owned(), |near| format!("did you mean {near}?"));
                output::line(format_args!("{name} is no command; {hint}"));
            }
            _ => return Request::Say(text.to_owned()),
        }
        Request::Nothing
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
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(&body);
        let request = authorised(request, self.key.as_deref());
        let mut interrupted = signals.next(&[Signal::Interrupt]);
        let answer = tokio::select! {
            answer = request.send() => checked(answer?).await?,
            _ = &mut interrupted => bail!("the answer was stopped before it began"),
        };
        let mut bytes = answer.bytes_stream();
        let (mut lines, mut shown) = (LineBuffer::default(), ShownAnswer::new(self.on_terminal));
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

#[cfg(test)]
mod tests {
    use super::base_address;

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
}
