//! The engine under load: too small a pool, clients that leave, steps that panic, shutdown.
#![allow(clippy::unwrap_used)] // helpers of tests
mod failing;
mod idle;
mod plan;
mod pressure;
mod shutdown;
mod speculation;
mod warm_up;
mod wrapped_device;
mod wrapped_model;

use engine::{
    EngineConfig, EngineError, EngineHandle, Event, FinishReason, GenerationRequest, KvOptions, MatchedStop,
    RequestField, RequestStream, SamplingParams, StopParams, SubmitError, start,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use text::AnswerPart;
use turboquant::{Format, KvPair};

fn config() -> EngineConfig {
    EngineConfig { max_num_batched_tokens: 256, ..EngineConfig::new(testkit::repo("models/demo")) }
}

/// Half of the prompts' text is the same, the length is not.
fn prompt(i: usize) -> Vec<u32> {
    (0..5 + (i * 37) % 160).map(|t| 300 + ((t * 31 + i * (t % 2)) % 4000) as u32).collect()
}

#[derive(Debug, PartialEq)]
struct Answer {
    text: String,
    tokens: Vec<u32>,
    reason: Option<FinishReason>,
    stop: Option<MatchedStop>,
}

fn answers(stream: &mut RequestStream, n: usize) -> Result<Vec<Answer>, EngineError> {
    let mut all: Vec<Answer> =
        (0..n).map(|_| Answer { text: String::new(), tokens: vec![], reason: None, stop: None }).collect();
    while let Some(event) = stream.blocking_next() {
        match event {
            Event::Delta { choice, parts, token, .. } => {
                all[choice].text += &AnswerPart::text_of(&parts);
                all[choice].tokens.push(token);
            }
            Event::Finished { choice, parts, reason, matched_stop, .. } => {
                all[choice].text += &AnswerPart::text_of(&parts);
                all[choice].reason = Some(reason);
                all[choice].stop = matched_stop;
            }
            Event::Failed(error) => return Err(error),
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } => {}
        }
    }
    Ok(all)
}

fn answer(handle: &EngineHandle, request: GenerationRequest) -> Answer {
    answers(&mut handle.submit(request).unwrap(), 1).unwrap().remove(0)
}

fn idle_within(handle: &EngineHandle, limit: Duration) {
    let begin = Instant::now();
    loop {
        let stats = handle.stats();
        if stats.running + stats.waiting + stats.blocks_held == 0 {
            assert_eq!(stats.blocks_free + stats.blocks_cached, handle.info().num_blocks);
            return;
        }
        assert!(begin.elapsed() < limit, "not idle: {stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn stop((handle, thread): (EngineHandle, JoinHandle<()>)) {
    handle.shutdown(Duration::from_secs(5));
    thread.join().unwrap();
}

#[test]
fn a_pool_too_small_for_all_changes_no_answer() {
    overload(64, Format::Bf16, Format::Bf16);
}

#[test]
fn a_small_pool_changes_no_compressed_answer() {
    for (k, v) in
        [(Format::Tq8, Format::Tq8), (Format::Tc5, Format::Tc5), (Format::Tc4, Format::Tc4), (Format::Tc4, Format::Tc3)]
    {
        overload(24, k, v);
    }
}

/// `clients` requests at once, of which the pool holds about one in six, answer as each does alone.
fn overload(clients: usize, k: Format, v: Format) {
    let config = EngineConfig { kv: KvOptions::pair(KvPair::new(k, v), 16), ..config() };
    let wide = start(&config).unwrap();
    let request =
        |i| GenerationRequest { n: 1 + usize::from(i % 8 == 3), ..GenerationRequest::greedy(prompt(i), 20 + i % 30) };
    let ask = |handle: &EngineHandle, i: usize| {
        let mut stream = handle.submit(request(i)).unwrap();
        std::thread::spawn(move || answers(&mut stream, request(i).n).unwrap())
    };
    let alone: Vec<_> = (0..clients).map(|i| ask(&wide.0, i).join().unwrap()).collect();
    let bytes_per_token = wide.0.info().bytes_per_block / 16;
    stop(wide);

    let memory = (bytes_per_token * clients.max(40) * 20) as u64;
    let tight = start(&EngineConfig { kv_cache_memory: Some(memory), ..config }).unwrap();
    let threads: Vec<_> = (0..clients).map(|i| ask(&tight.0, i)).collect();
    for (i, (thread, want)) in threads.into_iter().zip(&alone).enumerate() {
        assert_eq!(&thread.join().unwrap(), want, "{k:?}/{v:?}, request {i}");
    }
    assert!(tight.0.stats().preemptions > 0, "the pool was not too small: {:?}", tight.0.stats());
    idle_within(&tight.0, Duration::from_secs(1));
    stop(tight);
}

/// Recurrent states and blocks share the memory that is named, and a hybrid model in too little of it answers all the
/// same.
#[test]
fn a_hybrid_model_serves_many_at_once() {
    let golden = testkit::Golden::read("tiny-qwen35");
    let request = |i: usize| {
        let prompt = golden.prompts[i % 2].ids.clone();
        let mut request = GenerationRequest::greedy(prompt, 32);
        request.stop.ignore_eos = true;
        // Nobody shares a block, so that all of them do not fit at once.
        request.cache_salt = Some(i.to_string());
        request
    };
    let base = EngineConfig {
        kv: KvOptions::pair(KvPair::both(Format::F32), 16),
        max_num_seqs: Some(8),
        ..EngineConfig::new(testkit::repo("models/tiny-qwen35"))
    };
    // A sequence keeps, in each of 6 layers, 3 inputs of 256 channels and 4 heads of 32 x 32, in f32.
    let states = 8 * 6 * (3 * 256 + 4 * 32 * 32) * 4;
    let too_little = start(&EngineConfig { kv_cache_memory: Some(states - 1), ..base.clone() });
    let error = too_little.err().unwrap().to_string();
    assert!(error.contains(&states.to_string()) && error.contains("--max-num-seqs 8"), "{error}");

    let block = 2 * 16 * 2 * 2 * 64 * 4;
    // A quarter of what is left after the states is enough for one snapshot.
    let memory = states + states / 8 + 20 * block;
    let engine = start(&EngineConfig { kv_cache_memory: Some(memory), max_model_len: Some(128), ..base }).unwrap();
    let info = engine.0.info();
    assert_eq!((info.num_blocks, info.bytes_per_block as u64, info.num_snapshots), (20, block, 1));
    let streams: Vec<_> = (0..8).map(|i| engine.0.submit(request(i)).unwrap()).collect();
    for (i, mut stream) in streams.into_iter().enumerate() {
        let tokens = answers(&mut stream, 1).unwrap().remove(0).tokens;
        assert_eq!(tokens, golden.prompts[i % 2].greedy_32_ignore_eos, "request {i}");
    }
    assert!(engine.0.stats().preemptions > 0, "the pool was not too small: {:?}", engine.0.stats());
    idle_within(&engine.0, Duration::from_secs(1));
    stop(engine);
}

#[test]
fn clients_that_leave_take_nothing_with_them() {
    let kv = KvOptions::pair(KvPair::both(Format::Tc4), 32);
    let engine = start(&EngineConfig { kv_cache_memory: Some(4 << 20), kv, ..config() }).unwrap();
    let clients: Vec<_> = (0..200usize)
        .map(|i| {
            let request = GenerationRequest { n: 1 + i % 3, ..GenerationRequest::greedy(prompt(i * 7), 40) };
            let mut stream = engine.0.submit(request).unwrap();
            std::thread::spawn(move || {
                // Some leave at once, some in their prefill, some after a few tokens.
                std::thread::sleep(Duration::from_millis((i as u64 * 29) % 400));
                for _ in 0..i % 5 {
                    let _ = stream.blocking_next();
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().unwrap());
    idle_within(&engine.0, Duration::from_secs(1));
    assert_eq!(answer(&engine.0, GenerationRequest::greedy(prompt(1), 5)).tokens.len(), 5);
    stop(engine);
}

#[test]
fn choices_differ_and_a_seed_repeats_them_in_any_company() {
    let engine = start(&config()).unwrap();
    let sampling = SamplingParams { seed: Some(11), ..Default::default() };
    let request = || GenerationRequest { n: 3, sampling: sampling.clone(), ..GenerationRequest::greedy(prompt(4), 12) };
    let first = answers(&mut engine.0.submit(request()).unwrap(), 3).unwrap();
    assert!(first[0].tokens != first[1].tokens && first[1].tokens != first[2].tokens);
    let others: Vec<_> = (0..9).map(|i| engine.0.submit(GenerationRequest::greedy(prompt(i), 40)).unwrap()).collect();
    assert_eq!(answers(&mut engine.0.submit(request()).unwrap(), 3).unwrap(), first);
    drop(others);
    stop(engine);
}

#[test]
fn banned_sequences_are_not_generated() {
    let engine = start(&config()).unwrap();
    let free = answer(&engine.0, GenerationRequest::greedy(prompt(3), 30));
    let banned = free.tokens[4..7].to_vec();
    let sampling = SamplingParams { banned_sequences: vec![banned.clone()].into(), ..SamplingParams::greedy() };
    let other = answer(&engine.0, GenerationRequest { sampling, ..GenerationRequest::greedy(prompt(3), 30) });
    let first = free.tokens.windows(3).position(|tokens| tokens == banned).unwrap();
    assert_eq!(other.tokens[..first + 2], free.tokens[..first + 2]);
    assert!(other.tokens.len() == 30 && other.tokens.windows(3).all(|tokens| tokens != banned));
    stop(engine);
}

#[test]
fn text_ends_at_stops_and_limits() {
    let engine = start(&config()).unwrap();
    let golden = testkit::Golden::read("demo");
    let prompt = golden.prompts[3].ids.clone();
    let free = answer(&engine.0, GenerationRequest::greedy(prompt.clone(), 30));
    assert_eq!((free.tokens.len(), free.reason), (30, Some(FinishReason::Length)));

    // A stop string from the middle of the text, cut so that it begins inside a token and ends inside another.
    let letters: Vec<char> = free.text.chars().collect();
    let word: String = letters[letters.len() / 2..letters.len() / 2 + 9].iter().collect();
    let mut request = GenerationRequest::greedy(prompt.clone(), 30);
    request.stop.stop = vec!["never to be found".into(), word.clone()];
    let stopped = answer(&engine.0, request.clone());
    let until = free.text.find(&word).unwrap();
    assert_eq!((stopped.text.as_str(), stopped.reason), (&free.text[..until], Some(FinishReason::Stop)));
    assert_eq!(stopped.stop, Some(MatchedStop::Text(word.clone())));
    request.stop.include_stop_str_in_output = true;
    assert_eq!(answer(&engine.0, request).text, free.text[..until + word.len()]);

    let mut request = GenerationRequest::greedy(prompt, 30);
    request.stop.stop_token_ids = vec![free.tokens[7]];
    let stopped = answer(&engine.0, request);
    let first = free.tokens.iter().position(|t| *t == free.tokens[7]).unwrap();
    assert_eq!(stopped.tokens, free.tokens[..=first]);
    assert_eq!(stopped.stop, Some(MatchedStop::Token(free.tokens[7])));

    // With a least number of tokens no stop is looked for in the first of them, and none of the ends is drawn.
    let mut request = GenerationRequest::greedy(golden.prompts[3].ids.clone(), 30);
    request.stop = StopParams { stop: vec![word.clone()], min_tokens: 30, ..request.stop };
    assert_eq!(answer(&engine.0, request).text, free.text);

    // The chat prompt ends with an EOS id, which ignore_eos runs past.
    let chat = golden.prompts[0].ids.clone();
    let ended = answer(&engine.0, GenerationRequest::greedy(chat.clone(), 32));
    assert_eq!((ended.reason, ended.stop), (Some(FinishReason::Stop), None));
    let mut request = GenerationRequest::greedy(chat.clone(), 32);
    request.stop.ignore_eos = true;
    assert_eq!(answer(&engine.0, request).tokens.len(), 32);
    let mut request = GenerationRequest::greedy(chat, 32);
    let least = ended.tokens.len() + 3;
    request.stop.min_tokens = least;
    let longer = answer(&engine.0, request);
    assert_eq!(longer.tokens[..ended.tokens.len() - 1], ended.tokens[..ended.tokens.len() - 1]);
    let ends = &engine.0.info().turn_ends;
    assert!(longer.tokens.len() >= least && longer.tokens[..least].iter().all(|token| !ends.contains(token)));
    stop(engine);
}

/// A model's configuration may name another end than its tokenizer does: that of the base model it was made from.
#[test]
fn text_ends_at_the_tokenizers_end_too() {
    let (demo, folder) = (testkit::repo("models/demo"), tempfile::tempdir().unwrap());
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::os::unix::fs::symlink(demo.join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": 5}"#).unwrap();
    let engine = start(&EngineConfig { model: folder.path().to_owned(), ..config() }).unwrap();
    let chat = testkit::Golden::read("demo").prompts[0].ids.clone();
    let ended = answer(&engine.0, GenerationRequest::greedy(chat, 32));
    assert_eq!((ended.reason, ended.stop), (Some(FinishReason::Stop), None));
    assert_eq!(ended.tokens.last().copied(), engine.0.tokenizer().eos_id());
    stop(engine);
}

#[test]
fn log_probabilities_cover_prompt_and_answer() {
    let engine = start(&config()).unwrap();
    let tokens = prompt(9);
    let whole = {
        let request = GenerationRequest {
            prompt_logprobs: Some(2),
            logprobs: Some(3),
            ..GenerationRequest::greedy(tokens.clone(), 3)
        };
        let mut stream = engine.0.submit(request).unwrap();
        let mut got = (Vec::new(), Vec::new());
        while let Some(event) = stream.blocking_next() {
            match event {
                Event::Admitted(_) => {}
                Event::Prompt { logprobs, .. } => got.0 = logprobs.unwrap(),
                Event::Delta { logprob, .. } => got.1.push(logprob.unwrap()),
                _ => {}
            }
        }
        got
    };
    assert_eq!((whole.0.len(), whole.1.len()), (tokens.len(), 3));
    assert!(whole.0[0].is_none());
    for (entry, token) in whole.0[1..].iter().zip(&tokens[1..]) {
        let entry = entry.as_ref().unwrap();
        assert_eq!((entry.token, entry.top.len()), (*token, 2));
        assert!(entry.logprob <= entry.top[0].1 && entry.top[0].1 < 0.0);
    }
    assert!(whole.1.iter().all(|l| l.token == l.top[0].0 && l.logprob == l.top[0].1 && l.top.len() == 3));
    // Named tokens take the place of the most likely ones.
    let named: Vec<u32> = whole.1[0].top.iter().map(|(token, _)| *token).rev().collect();
    let request = GenerationRequest {
        logprobs: Some(0),
        logprob_token_ids: named,
        ..GenerationRequest::greedy(tokens.clone(), 1)
    };
    let mut stream = engine.0.submit(request).unwrap();
    let first = std::iter::from_fn(|| stream.blocking_next()).find_map(|event| match event {
        Event::Delta { logprob, .. } => logprob,
        _ => None,
    });
    assert_eq!(first.unwrap().top, whole.1[0].top.iter().rev().copied().collect::<Vec<_>>());
    stop(engine);
}

#[test]
fn refusals_name_the_limit() {
    let engine =
        start(&EngineConfig { max_model_len: Some(64), max_queued_requests: 2, max_num_seqs: Some(2), ..config() })
            .unwrap();
    let refuse = |request| engine.0.submit(request).err().unwrap();
    let error = refuse(GenerationRequest::greedy(vec![300; 64], 1));
    assert_eq!(error, SubmitError::ContextLengthExceeded { n_prompt_tokens: 64, n_ctx: 64, is_answered: true });
    assert!(matches!(
        refuse(GenerationRequest::greedy(vec![], 1)),
        SubmitError::Invalid { field: RequestField::Prompt, .. }
    ));
    assert!(refuse(GenerationRequest::greedy(vec![99_999], 1)).to_string().contains("99999"));
    let error = refuse(GenerationRequest { n: 3, ..GenerationRequest::greedy(vec![300], 1) });
    assert!(error.to_string().contains("[1, 2]"), "{error}");
    // A prompt one short of the context gets its one token.
    let last = answer(&engine.0, GenerationRequest::greedy(vec![300; 63], 10));
    assert_eq!((last.tokens.len(), last.reason), (1, Some(FinishReason::Length)));

    let long = || {
        let mut request = GenerationRequest::greedy(vec![300; 8], 50);
        request.stop.ignore_eos = true;
        request
    };
    let streams: Vec<_> = (0..20).map(|_| engine.0.submit(long())).collect();
    assert!(streams.iter().any(|s| matches!(s, Err(SubmitError::QueueFull { limit: 2 }))));
    drop(streams);
    idle_within(&engine.0, Duration::from_secs(1));
    stop(engine);
}
/// The long prefill's steps go on, and the short request is in the first that is scheduled after it came.
#[test]
fn a_short_request_gets_its_token_within_three_steps_of_a_long_prefill() {
    let engine = start(&config()).unwrap();
    let _long = engine.0.submit(GenerationRequest::greedy((0..3000).map(|i| 300 + i % 999).collect(), 1)).unwrap();
    while engine.0.stats().steps < 2 {
        std::thread::sleep(Duration::from_micros(100));
    }
    let before = engine.0.stats().steps;
    let mut short = engine.0.submit(GenerationRequest::greedy(prompt(2), 1)).unwrap();
    while !matches!(short.blocking_next(), Some(Event::Delta { .. })) {}
    let steps = engine.0.stats().steps - before;
    assert!(steps <= 3, "{steps} steps");
    assert!(before < 3000 / 256, "the long prefill had ended already");
    stop(engine);
}
