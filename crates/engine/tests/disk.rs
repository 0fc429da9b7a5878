//! A prompt that was computed before a restart is read from disk, and gives the same bits.
#![allow(clippy::unwrap_used)] // helpers of tests
use engine::{
    DiskLimit, DiskOptions, EngineConfig, EngineHandle, Event, GenerationRequest, KvOptions, PrefixReport,
    TokenLogprob, start,
};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::Golden;
use turboquant::{Format, KvPair};

const OUTPUT: usize = 16;

type Running = (EngineHandle, JoinHandle<()>);

fn running(model: &str, format: Format, dir: Option<&Path>) -> Running {
    let options =
        |dir: &Path| DiskOptions { dir: dir.to_path_buf(), limit: DiskLimit::Bytes(1 << 28), writes_per_day: 1 << 32 };
    let config = EngineConfig {
        kv: KvOptions::pair(KvPair::both(format), 32),
        kv_cache_memory: Some(128 << 20),
        max_num_seqs: Some(4),
        prefix_cache: dir.is_some(),
        disk_cache: dir.map(options),
        ..EngineConfig::new(testkit::repo(&format!("models/{model}")))
    };
    start(&config).unwrap()
}

fn stop((handle, thread): Running) {
    handle.shutdown(Duration::from_secs(20));
    thread.join().unwrap();
}

/// The answer to a prompt, with log-probabilities, and what was known of the prompt.
fn ask(engine: &Running, prompt: &[u32]) -> (Vec<TokenLogprob>, PrefixReport) {
    let mut request = GenerationRequest { logprobs: Some(3), ..GenerationRequest::greedy(prompt.to_vec(), OUTPUT) };
    request.stop.ignore_eos = true;
    let mut stream = engine.0.submit(request).unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = stream.blocking_next() {
        match event {
            Event::Delta { logprob, .. } => tokens.extend(logprob),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    (tokens, engine.0.prefixes().last.back().unwrap().report.clone())
}

fn text(model: &str, skip: usize, len: usize) -> Vec<u32> {
    Golden::read(model).text(skip, len)
}

#[test]
fn what_was_computed_before_a_restart_is_read_again() {
    for (model, format) in [
        ("demo", Format::Tc4),
        ("demo", Format::Bf16),
        ("tiny-qwen2", Format::Tc3),
        ("tiny-qwen3moe", Format::Tq8),
        ("tiny-qwen35", Format::Tc4),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let first = text(model, 0, 1300);
        let before = running(model, format, Some(dir.path()));
        let (answer, report) = ask(&before, &first);
        assert_eq!(report.reused(), 0, "{model}");
        stop(before);

        let answer: Vec<u32> = answer.iter().map(|token| token.token).collect();
        let second = [&first[..], &answer, &text(model, 9, 50)].concat();
        let after = running(model, format, Some(dir.path()));
        let (got, report) = ask(&after, &second);
        assert_eq!(report.from_archive, (1300 + OUTPUT - 1) / 32 * 32, "{model}");
        // What has been read is in memory.
        let (again, report) = ask(&after, &second);
        assert_eq!((report.from_archive, report.from_memory), (0, second.len() / 32 * 32), "{model}");
        stop(after);

        let plain = running(model, format, None);
        let want = ask(&plain, &second).0;
        assert_eq!(got, want, "{model} {format:?} from disk");
        assert_eq!(again, want, "{model} {format:?} from memory");
        stop(plain);
    }
}

/// Another format's blocks are of no use, and are not taken for this one's.
#[test]
fn another_identity_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = text("demo", 0, 1100);
    let before = running("demo", Format::Tc4, Some(dir.path()));
    ask(&before, &prompt);
    stop(before);
    let other = running("demo", Format::Tc3, Some(dir.path()));
    assert_eq!(ask(&other, &prompt).1.reused(), 0);
    stop(other);
}

/// The second of two processes that want the same file serves without it.
#[test]
fn two_servers_of_one_model_answer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = text("demo", 0, 1100);
    let (first, second) =
        (running("demo", Format::Tc4, Some(dir.path())), running("demo", Format::Tc4, Some(dir.path())));
    assert!(first.0.disk().is_some() && second.0.disk().is_none());
    assert_eq!(ask(&first, &prompt).0, ask(&second, &prompt).0);
    stop(first);
    stop(second);
}
