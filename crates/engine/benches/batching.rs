//! Batching pays: tokens a second of 1, 2, 4, 8 and 16 concurrent decodes, as ratios in one run; how long a short
//! request waits beside a long prefill; how long a stream stands still beside one.
//! `cargo bench -p engine --bench batching [-- MODEL_FOLDER]`.
use engine::{EngineConfig, EngineHandle, Event, GenerationRequest, RequestStream, start};
use std::time::{Duration, Instant};

const OUTPUT: usize = 64;
const ROUNDS: usize = 5;

fn main() {
    let model = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let config = EngineConfig::new(model.unwrap_or_else(|| testkit::repo("models/demo").display().to_string()));
    let (handle, thread) = start(&config).expect("the engine starts");
    decodes(&handle);
    short_beside_long(&handle, config.max_num_batched_tokens);
    handle.shutdown(Duration::ZERO);
    thread.join().expect("the engine ends");
    stream_beside_long(&config);
}

/// The longest gap of a stream beside a prompt of up to 7,000 tokens, and how long that prompt takes, with and without
/// a limit on a step's time, which take turns.
fn stream_beside_long(config: &EngineConfig) {
    let limits = [config.max_step_time, None];
    let mut best = [(f64::INFINITY, f64::INFINITY); 2];
    for _ in 0..ROUNDS.div_ceil(2) {
        for (best, max_step_time) in best.iter_mut().zip(limits) {
            let (handle, thread) = start(&EngineConfig { max_step_time, ..config.clone() }).expect("the engine starts");
            let tokens = (handle.info().max_model_len - 8).min(7000);
            let mut stream = handle.submit(request(64, handle.info().max_model_len - 64)).expect("accepted");
            (0..8).for_each(|_| first_token(&mut stream));
            let begin = Instant::now();
            let mut long = handle.submit(request(tokens, 1)).expect("accepted");
            let first = std::thread::spawn(move || {
                first_token(&mut long);
                Instant::now()
            });
            let (mut gap, mut last) = (Duration::ZERO, begin);
            while !first.is_finished() {
                first_token(&mut stream);
                gap = gap.max(last.elapsed());
                last = Instant::now();
            }
            let prefill = first.join().expect("the prompt is read").duration_since(begin);
            *best = (best.0.min(gap.as_secs_f64()), best.1.min(prefill.as_secs_f64()));
            drop(stream);
            handle.shutdown(Duration::ZERO);
            thread.join().expect("the engine ends");
        }
    }
    println!("a stream beside a long prompt, least of some rounds:");
    for ((gap, prefill), limit) in best.iter().zip(limits) {
        let limit = limit.map_or("no limit".into(), |time| format!("steps of {} ms", time.as_millis()));
        println!("{limit:>16}: longest gap {:.0} ms, prompt read in {:.1} s", gap * 1e3, prefill);
    }
}

fn request(tokens: usize, output: usize) -> GenerationRequest {
    let mut request = GenerationRequest::greedy((0..tokens).map(|i| 300 + (i % 1000) as u32).collect(), output);
    request.stop.ignore_eos = true;
    request
}

fn first_token(stream: &mut RequestStream) {
    while let Some(event) = stream.blocking_next() {
        if matches!(event, Event::Delta { .. }) {
            return;
        }
    }
    panic!("the request ended without a token");
}

fn decodes(handle: &EngineHandle) {
    println!("{:>8} {:>10} {:>8}", "clients", "tokens/s", "ratio");
    // Fastest of some rounds, the numbers of clients taking turns.
    let clients = [1, 2, 4, 8, 16];
    let mut best = [0f64; 5];
    for _ in 0..ROUNDS {
        for (best, n) in best.iter_mut().zip(clients) {
            let mut streams: Vec<_> = (0..n).map(|_| handle.submit(request(32, OUTPUT)).expect("accepted")).collect();
            streams.iter_mut().for_each(first_token);
            let begin = Instant::now();
            for stream in &mut streams {
                while stream.blocking_next().is_some() {}
            }
            *best = best.max((n * (OUTPUT - 1)) as f64 / begin.elapsed().as_secs_f64());
        }
    }
    for (rate, n) in best.iter().zip(clients) {
        println!("{n:>8} {rate:>10.0} {:>8.2}", rate / best[0]);
    }
}

/// Time to the first token of a short request that comes in the middle of a 3,000-token prefill, in steps of the whole
/// budget.
fn short_beside_long(handle: &EngineHandle, budget: usize) {
    let full_step = {
        let begin = Instant::now();
        let mut stream = handle.submit(request(budget, 1)).expect("accepted");
        while stream.blocking_next().is_some() {}
        begin.elapsed()
    };
    let long = handle.submit(request(3000, 1)).expect("accepted");
    let before = handle.stats().steps;
    while handle.stats().steps < before + 2 {
        std::thread::sleep(Duration::from_micros(200));
    }
    let (begin, steps) = (Instant::now(), handle.stats().steps);
    let mut short = handle.submit(request(20, 1)).expect("accepted");
    first_token(&mut short);
    println!(
        "a 20-token request beside a 3,000-token prefill: first token after {:.0} ms, {} steps; a step of {budget} \
         tokens takes {:.0} ms",
        begin.elapsed().as_secs_f64() * 1e3,
        handle.stats().steps - steps,
        full_step.as_secs_f64() * 1e3,
    );
    drop(long);
}
