//! Times text handling with a model's files: `cargo run --release -p text --example speed -- models/demo`.
use serde_json::json;
use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use text::{ChatTemplate, Conversation, Detokenizer, StopMatcher, Tokenizer};

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

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: speed MODEL_FOLDER")?);
    println!("load            {:8.1} ms", best(|| Tokenizer::from_dir(&dir))?.as_secs_f64() * 1e3);
    let tokenizer = Tokenizer::from_dir(&dir)?;

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

    if let Some(template) = ChatTemplate::from_dir(&dir)? {
        let role = |i| if i % 2 == 0 { "user" } else { "assistant" };
        let turns: Vec<_> = (0..100).map(|i| json!({"role": role(i), "content": "Hello"})).collect();
        let messages = json!(turns);
        let time = best(|| template.render(&Conversation::of(&messages)))?;
        println!("chat template   {:8.1} µs, 100 messages", time.as_secs_f64() * 1e6);
    }
    Ok(())
}
