//! `tallow launch`: an agent with the environment by which it finds a server.
use crate::args::{Agent, LaunchArgs};
use crate::output;
use crate::server_client::{self, ListedModel, ServerClient};
use anyhow::{Result, bail};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Tokens of context below which agents do not get far: their own instructions take some 25,000.
pub const LEAST_CONTEXT: u64 = 32_768;

/// What starts an agent.
#[derive(Debug, PartialEq, Eq)]
struct AgentStart {
    program: &'static str,
    /// How the program is installed.
    install: &'static str,
    variables: Vec<(&'static str, String)>,
    arguments: Vec<String>,
}

/// Runs an agent in the place of this process, or prints how it is run.
///
/// Errors: no server that answers, no such program on this machine.
pub async fn launch(args: LaunchArgs) -> Result<()> {
    let url = args.url.or_else(server_client::last_started).unwrap_or_else(|| "http://127.0.0.1:8000".to_owned());
    let key = args.api_key.unwrap_or_default();
    let server = ServerClient::new(&url, Some(key.clone()))?;
    let ListedModel { id: name, context, takes_tools } = server.model(args.model.as_deref()).await?;
    if takes_tools == Some(false) {
        output::complain(format_args!(
            "tallow: the chat template of {name} tells of no tools, without which an agent can do nothing; \
             `tallow list --known` names models that have them"
        ));
    }
    let mut start = AgentStart::of(args.agent, &server.url, &name, context, &key);
    start.arguments.extend(args.arguments);
    if args.print {
        for (name, value) in &start.variables {
            output::line(format_args!("export {name}={}", quoted(value)));
        }
        let words: Vec<String> = start.arguments.iter().map(|word| quoted(word)).collect();
        output::line(format_args!("{} {}", start.program, words.join(" ")));
        return Ok(());
    }
    if let Some(context) = context.filter(|context| *context < LEAST_CONTEXT) {
        output::complain(format_args!(
            "tallow: {name} has a context of {context} tokens; agents need {LEAST_CONTEXT} or more (--context)"
        ));
    }
    let AgentStart { program, install, variables, arguments } = start;
    let error = Command::new(program).args(arguments).envs(variables).exec();
    bail!("{program} cannot be run ({error}); it is installed with: {install}")
}

impl AgentStart {
    /// What starts an agent with a model of the server at `url`. `context`: its tokens, if the server says so.
    fn of(agent: Agent, url: &str, model: &str, context: Option<u64>, key: &str) -> Self {
        // Clients refuse to start without a key.
        let key = if key.is_empty() { "none".to_owned() } else { key.to_owned() };
        match agent {
            Agent::Claude => AgentStart {
                program: "claude",
                install: "npm install -g @anthropic-ai/claude-code",
                variables: vec![
                    ("ANTHROPIC_BASE_URL", url.to_owned()),
                    ("ANTHROPIC_AUTH_TOKEN", key),
                    ("ANTHROPIC_MODEL", model.to_owned()),
                    ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model.to_owned()),
                    // A text that is new in every request stands before all others, so that no prefix would be known.
                    ("CLAUDE_CODE_ATTRIBUTION_HEADER", "0".to_owned()),
                    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
                ],
                arguments: Vec::new(),
            },
            Agent::Codex => {
                let provider = format!(
                    "model_providers.tallow={{name=\"tallow\", base_url=\"{url}/v1\", wire_api=\"responses\", \
                     env_key=\"OPENAI_API_KEY\"}}"
                );
                let window = context.map(|tokens| format!("model_context_window={tokens}"));
                let named = format!("model=\"{model}\"");
                let settings = [named, "model_provider=tallow".to_owned(), provider].into_iter().chain(window);
                let settings = settings.flat_map(|setting| ["-c".to_owned(), setting]);
                AgentStart {
                    program: "codex",
                    install: "npm install -g @openai/codex",
                    variables: vec![("OPENAI_API_KEY", key)],
                    arguments: settings.collect(),
                }
            }
            Agent::Opencode => {
                let limit = context.map(|tokens| json!({"limit": {"context": tokens, "output": tokens / 4}}));
                let provider = json!({
                    "npm": "@ai-sdk/openai-compatible",
                    "options": {"baseURL": format!("{url}/v1"), "apiKey": key},
                    "models": {model: limit.unwrap_or_else(|| json!({}))},
                });
                let config = json!({"provider": {"tallow": provider}, "model": format!("tallow/{model}")});
                AgentStart {
                    program: "opencode",
                    install: "npm install -g opencode-ai",
                    variables: vec![("OPENCODE_CONFIG_CONTENT", config.to_string())],
                    arguments: Vec::new(),
                }
            }
        }
    }
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_for_a_shell() {
        for word in ["plain", "two words", "it's", "a=\"b\" $HOME", ""] {
            let echoed = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), word);
        }
    }

    #[test]
    fn each_client_is_given_address_model_and_key() {
        for agent in [Agent::Claude, Agent::Codex, Agent::Opencode] {
            let start = AgentStart::of(agent, "http://h:1", "org/name", Some(40_000), "secret");
            let told = format!("{start:?}");
            assert!(told.contains("http://h:1") && told.contains("org/name") && told.contains("secret"), "{told}");
            assert!(agent == Agent::Claude || told.contains("40000"), "{told}");
        }
    }
}
