//! A server behind which a script answers in place of a model: where it is offered a shell it calls it once, with a
//! command that makes a file, and then says what the shell has answered. It shows that an agent completes its loop
//! whatever a model would choose: `cargo run -p server --example scripted -- MODEL_FOLDER PORT COMMAND`.
use engine::{
    DraftTokens, Event, FinishReason, GenerationRequest, Message, Miss, ModelInfo, PrefixReport, SamplingParams,
    channel,
};
use serde_json::{Map, Value, json};
use server::{ServerConfig, ServerState, bind, install_metrics, serve};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use text::{AnswerEnd, AnswerPipeline, ChatTemplate, Pushed, Tokenizer, Tool};

/// Names of shells, as agents call them.
const SHELLS: [&str; 6] = ["Bash", "bash", "exec_command", "shell_command", "shell", "run_terminal_cmd"];

/// ChatML with Hermes' tools.
const TEMPLATE: &str = r#"
{%- if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>
Call them by <tool_call>{"name": .., "arguments": ..}</tool_call>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: scripted MODEL_FOLDER PORT COMMAND";
    let mut arguments = std::env::args().skip(1);
    let (model, port, command) = (arguments.next(), arguments.next(), arguments.next());
    let (model, port, command) = (model.ok_or(usage)?, port.ok_or(usage)?, command.ok_or(usage)?);
    let tokenizer = Arc::new(Tokenizer::from_dir(&PathBuf::from(&model))?);
    let folder = std::env::temp_dir().join(format!("scripted-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("chat_template.jinja"), TEMPLATE)?;
    let template = ChatTemplate::from_dir(&folder)?.map(Arc::new);
    std::fs::remove_dir_all(&folder)?;

    let config = ServerConfig { port: port.parse()?, ..ServerConfig::default() };
    let state = ServerState::new(config.clone(), install_metrics()?);
    let listener = bind(&config).await?;
    let (handle, inbox) = channel(info(&tokenizer, PathBuf::from(model)), tokenizer.clone(), 100);
    std::thread::spawn(move || {
        for message in inbox.messages.iter() {
            if let Message::Submit { request, events, .. } = message {
                for event in answer(&request, &tokenizer, &command) {
                    // Nobody may be left who reads it.
                    let _ = events.send(event);
                }
            }
        }
    });
    state.set_engine(handle, template);
    println!("http://127.0.0.1:{port}");
    Ok(serve(listener, state, std::future::pending()).await?)
}

fn info(tokenizer: &Tokenizer, path: PathBuf) -> ModelInfo {
    ModelInfo {
        name: "agent".into(),
        path,
        model_type: "script".into(),
        weight_bytes: 0,
        trained_len: 1 << 20,
        max_model_len: 1 << 20,
        vocab_size: tokenizer.vocab_size(),
        has_head: true,
        hidden_size: 1,
        pooling: Err("is a script".into()),
        turn_ends: tokenizer.eos_id().into_iter().collect(),
        block_size: 32,
        num_blocks: 1 << 16,
        bytes_per_block: 1,
        prefix_cache: false,
        num_snapshots: 0,
        max_num_seqs: 64,
        k_quant: "bf16".into(),
        v_quant: "bf16".into(),
        default_sampling: SamplingParams::default(),
    }
}

/// The events of an answer, as the engine would send them.
fn answer(request: &GenerationRequest, tokenizer: &Arc<Tokenizer>, command: &str) -> Vec<Event> {
    let prompt = tokenizer.decode(&request.prompt, false);
    let tokens = request.prompt.len();
    let report = PrefixReport { prompt: tokens, miss: Some(Miss::Off), ..PrefixReport::default() };
    let mut events = vec![Event::Admitted(report), Event::Prompt { tokens, cached_tokens: 0, logprobs: None }];
    let text = script(request, &prompt, command);
    let mut pipeline = AnswerPipeline::new(tokenizer, request.answer_options());
    let mut reason = FinishReason::Stop;
    for token in tokenizer.encode(&text, false).unwrap_or_default() {
        // What the script says must be what the constraint on a call allows.
        match pipeline.push(token) {
            Ok(Pushed { parts, in_thought, end }) => {
                events.push(Event::Delta { choice: 0, parts, in_thought, token, logprob: None });
                if end == Some(AnswerEnd::Complete) {
                    break;
                }
            }
            Err(error) => return vec![Event::Failed(engine::EngineError::ConstraintFailed(error.to_string()))],
        }
    }
    let (parts, _) = pipeline.finish();
    if pipeline.has_calls() {
        reason = FinishReason::ToolCalls;
    }
    events.push(Event::Finished { choice: 0, parts, reason, matched_stop: None, drafts: DraftTokens::default() });
    events
}

/// What the script says next in a conversation.
fn script(request: &GenerationRequest, prompt: &str, command: &str) -> String {
    let tools = request.reading.as_ref().map(|reading| reading.tools.clone()).unwrap_or_default();
    let shell = SHELLS.iter().find_map(|name| tools.iter().find(|tool| tool.name == *name));
    let last = prompt.rsplit("<|im_start|>").nth(1).unwrap_or_default();
    match (shell, last.strip_prefix("tool\n")) {
        (_, Some(result)) => format!("The shell says: {}", result.trim()),
        (Some(shell), None) => {
            let arguments = Value::Object(shell_arguments(shell, command));
            // As the grammar of calls writes JSON.
            let arguments = arguments.to_string().replace("\":", "\": ").replace(",\"", ", \"");
            format!(
                "I make the file.\n<tool_call>\n{{\"name\": \"{}\", \"arguments\": {arguments}}}\n</tool_call>",
                shell.name
            )
        }
        (None, None) => "I have no shell.".into(),
    }
}

/// The arguments that a shell needs, in the schema's order.
fn shell_arguments(tool: &Tool, command: &str) -> Map<String, Value> {
    let properties = tool.parameters.get("properties").and_then(Value::as_object).into_iter().flatten();
    let required = tool.parameters.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let argument = |(name, schema): (&String, &Value)| {
        let is_command = ["command", "cmd"].contains(&name.as_str());
        if !is_command && !required.iter().any(|needed| needed == name) {
            return None;
        }
        let value = match schema.get("type").and_then(Value::as_str) {
            Some("array") if is_command => json!(["bash", "-c", command]),
            Some("string") if is_command => json!(command),
            Some("integer" | "number") => json!(10_000),
            Some("boolean") => json!(false),
            Some("array") => json!([]),
            Some("object") => json!({}),
            _ => json!("makes a file"),
        };
        Some((name.clone(), value))
    };
    properties.filter_map(argument).collect()
}
