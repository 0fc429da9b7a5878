//! Times text handling with a model's folder or GGUF file:
//! `cargo run --release -p text --example speed -- models/demo`.
use serde_json::{Value, json};
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use text::{CallGrammar, ChatTemplate, Constraint, ConstraintFactory, Conversation, Detokenizer, Grammar, StopMatcher};
use text::{Tokenizer, Tool, ToolCallFormat};

/// The quickest of five runs.
fn best<T>(mut run: impl FnMut() -> Result<T, text::TextError>) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        black_box(run()?);
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn load(model: &Path) -> Result<Tokenizer, Box<dyn Error>> {
    if model.is_dir() {
        return Ok(Tokenizer::from_dir(model)?);
    }
    let bytes = std::fs::read(model)?;
    Ok(Tokenizer::from_gguf(&gguf::Gguf::parse(&bytes)?.metadata, model)?)
}

/// Times constraints: what a coding agent's tools and a schema take to make, and each token's mask while a text is
/// followed.
fn constraints(tokenizer: &Arc<Tokenizer>) -> Result<(), Box<dyn Error>> {
    let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let ends: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let start = Instant::now();
    let factory = ConstraintFactory::new(tokenizer, &ends, tokenizer.vocab_size())?;
    println!("constraints     {:8.1} ms, once for a model", milliseconds(start));

    let property = |i: usize| json!({"type": "string", "description": format!("The argument {i}.")});
    let properties: Value = (0..6).map(|i| (format!("argument_{i}"), property(i))).collect();
    let parameters = json!({"type": "object", "properties": properties, "required": ["argument_0"]});
    let tool = |i| Tool { name: format!("tool_{i}"), parameters: parameters.clone() };
    let tools: Vec<Tool> = (0..20).map(tool).collect();
    let grammar = CallGrammar { format: ToolCallFormat::Hermes, tools: &tools, single: false, exact: true };
    let start = Instant::now();
    let calls = factory.calls(&grammar)?;
    println!("20 tools        {:8.1} ms", milliseconds(start));
    let start = Instant::now();
    black_box(calls.clone());
    println!("their copy      {:8.3} ms", milliseconds(start));
    let call = json!({"argument_0": "fn main() { println!(\"Hello, world: 漢字\"); }\n".repeat(20), "argument_3": "b"});
    let text = format!(
        "\n{{\"name\": \"tool_7\", \"arguments\": {}}}\n</tool_call>",
        call.to_string().replace("\":\"", "\": \"").replace("\",\"", "\", \"")
    );
    follow("a call", calls, tokenizer, &text)?;

    let schema = json!({"type": "array", "items": {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "name": {"type": "string", "maxLength": 40},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        },
        "required": ["id", "name", "tags"],
        "additionalProperties": false,
    }});
    let start = Instant::now();
    let json = factory.answer(Some(&Grammar::Json(schema)), None, None)?.from_start;
    println!("a schema        {:8.1} ms", milliseconds(start));
    let entry = r#"{"id": 123, "name": "The quick brown fox", "tags": ["a", "b"]}"#;
    follow("an answer", json, tokenizer, &format!("[{}]", [entry; 20].join(", ")))
}

/// Times the masks of a text's tokens.
fn follow(name: &str, mut constraint: Constraint, tokenizer: &Tokenizer, text: &str) -> Result<(), Box<dyn Error>> {
    let ids = tokenizer.encode(text, false)?;
    let (mut total, mut longest) = (Duration::ZERO, Duration::ZERO);
    for id in &ids {
        let start = Instant::now();
        let mask = constraint.mask()?;
        let time = start.elapsed();
        if !mask.allows(*id) {
            return Err(format!("{name}: {:?} is not allowed", tokenizer.token_text(*id)).into());
        }
        constraint.consume(*id)?;
        (total, longest) = (total + time, longest.max(time));
    }
    let mean = total.as_secs_f64() * 1e6 / ids.len() as f64;
    println!("{name:15} {mean:8.1} µs a token mask, {:.0} at most, {} tokens", longest.as_secs_f64() * 1e6, ids.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: speed MODEL")?);
    let start = Instant::now();
    let tokenizer = Arc::new(load(&dir)?);
    println!("load            {:8.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let text = "The quick brown fox jumps over the lazy dog; 漢字 and 😀 too, twice.\n".repeat(4000);
    let time = best(|| tokenizer.encode(&text, false))?;
    println!("encode          {:8.2} MB/s", text.len() as f64 / time.as_secs_f64() / 1e6);

    let ids = tokenizer.encode(&text, false)?;
    let time = best(|| {
        let mut detokenizer = Detokenizer::new(true);
        let mut matcher = StopMatcher::new(vec!["\nUser:".into(), "<|end|>".into()], false);
        let pieces = ids.iter().map(|id| matcher.push(&detokenizer.push(&tokenizer, *id)).text.len());
        Ok(pieces.sum::<usize>())
    })?;
    println!("text of a token {:8.1} ns, with two stop strings", time.as_nanos() as f64 / ids.len() as f64);

    constraints(&tokenizer)?;
    if dir.is_dir()
        && let Some(template) = ChatTemplate::from_dir(&dir)?
    {
        let role = |i| if i % 2 == 0 { "user" } else { "assistant" };
        let turns: Vec<_> = (0..100).map(|i| json!({"role": role(i), "content": "Hello"})).collect();
        let messages = json!(turns);
        let time = best(|| template.render(&Conversation::of(&messages)))?;
        println!("chat template   {:8.1} µs, 100 messages", time.as_secs_f64() * 1e6);
    }
    Ok(())
}
