//! How much drafts from a request's own tokens speed an answer up that repeats its prompt.
use crate::{BLOCK_SIZE, Rate, Scheme};
use engine::{
    DraftTokens, EngineConfig, EngineHandle, Event, GenerationRequest, KvOptions, StartError, StopParams, start,
    wikitext,
};
use std::time::{Duration, Instant};
use turboquant::{Format, KvPair};

/// Tokens of the text that the prompt begins with.
const TEXT: usize = 400;
/// Tokens of its beginning that the prompt ends with. A model that goes on as the text did repeats it.
const REPEATED: usize = 40;
/// Tokens of an answer.
const ANSWER: usize = 160;
/// Tokens of prompt and answer together.
const LENGTH: usize = TEXT + REPEATED + ANSWER;

/// The speed of an answer that repeats its prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftSpeed {
    /// Tokens a second of the answer, where nothing is drafted.
    pub alone: Rate,
    /// Tokens a second where the tokens that may follow are drafted, as a server does it.
    pub drafted: Rate,
    /// What became of the drafts of all rounds.
    pub drafts: DraftTokens,
}

/// Has the model answer a prompt of 400 tokens of wikitext-2 and the first 40 of them again, greedily, with drafts and
/// without by turns, `rounds` times each. K and V are stored as `config` names, or as bf16. `None` where the
/// configuration drafts nothing, or where the model's context does not hold 600 tokens.
///
/// Errors: what keeps a server with this configuration from starting.
pub fn drafts(config: &EngineConfig, rounds: usize) -> Result<Option<DraftSpeed>, StartError> {
    if config.max_draft_tokens == 0 {
        return Ok(None);
    }
    let kv = match Scheme::named(&config.kv) {
        Some(_) => config.kv,
        None => KvOptions::pair(KvPair::both(Format::Bf16), BLOCK_SIZE),
    };
    let config = EngineConfig {
        kv,
        kv_cache_memory: None,
        max_model_len: Some(LENGTH),
        context_is_cap: true,
        max_num_seqs: Some(1),
        prefix_cache: false,
        disk_cache: None,
        ..config.clone()
    };
    let alone = start(&EngineConfig { max_draft_tokens: 0, ..config.clone() })?;
    if alone.0.info().max_model_len < LENGTH {
        stop(alone);
        return Ok(None);
    }
    let drafted = start(&config)?;
    let (mut alone_rates, mut drafted_rates, mut drafts) = (Vec::new(), Vec::new(), DraftTokens::default());
    for _ in 0..rounds {
        alone_rates.extend(answer(&alone.0).map(|(rate, _)| rate));
        if let Some((rate, own)) = answer(&drafted.0) {
            drafted_rates.push(rate);
            drafts.accepted += own.accepted;
            drafts.rejected += own.rejected;
        }
    }
    stop(alone);
    stop(drafted);
    Ok(Some(DraftSpeed { alone: Rate::of(alone_rates), drafted: Rate::of(drafted_rates), drafts }))
}

fn stop((handle, thread): (EngineHandle, std::thread::JoinHandle<()>)) {
    handle.shutdown(Duration::ZERO);
    drop(handle);
    let _ = thread.join();
}

/// The tokens a second of one answer after its first token, and what became of its drafts. `None` if the engine failed.
fn answer(engine: &EngineHandle) -> Option<(f64, DraftTokens)> {
    let text = engine.tokenizer().encode(wikitext(), false).ok()?;
    let prompt = [text.get(..TEXT)?, text.get(..REPEATED)?].concat();
    let stop = StopParams { max_tokens: Some(ANSWER), ignore_eos: true, ..StopParams::default() };
    let request = GenerationRequest { stop, ..GenerationRequest::greedy(prompt, ANSWER) };
    let mut events = engine.submit(request).ok()?;
    let (mut first, mut tokens) = (None, 0);
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Delta { .. } => {
                first.get_or_insert_with(Instant::now);
                tokens += 1;
            }
            Event::Finished { drafts, .. } => {
                let seconds = first?.elapsed().as_secs_f64();
                return Some((f64::from(tokens - 1) / seconds, drafts));
            }
            Event::Failed(_) => return None,
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } => {}
        }
    }
    None
}
