//! A machine that is short of memory while the engine runs.
use super::wrapped_model::launch_wrapped;
use super::{Answer, answers, config, idle_within, prompt, stop};
use engine::{
    DiskLimit, DiskOptions, DiskWriteState, EngineConfig, EngineHandle, Event, GenerationRequest, PressureLevel,
    PressureReading, PressureSensor, PressureSource, RequestStream, SubmitError, start,
};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A sensor that reads what a test says.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<PressureLevel>>);

impl Told {
    fn source(&self) -> Option<PressureSource> {
        let told = self.clone();
        Some(PressureSource(Arc::new(move || Some(Box::new(told.clone())))))
    }

    /// Has the sensor read a level, and waits until the engine goes by it.
    fn set(&self, level: PressureLevel, handle: &EngineHandle) {
        *self.0.lock().unwrap() = level;
        while handle.stats().pressure != level {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl PressureSensor for Told {
    fn read(&mut self) -> PressureReading {
        PressureReading { level: *self.0.lock().unwrap(), cause: "the test says so".into() }
    }
}

/// How long a step takes at least, so that many are left when a level has been read.
const STEP: Duration = Duration::from_millis(3);

/// An engine whose steps take a while.
fn slow(config: &EngineConfig) -> (EngineHandle, JoinHandle<()>) {
    launch_wrapped(config, |_| {
        std::thread::sleep(STEP);
        Ok(())
    })
}

fn request(i: usize) -> GenerationRequest {
    // 400 steps of 3 ms are several times the interval between two readings.
    let mut request = GenerationRequest::greedy(prompt(i), 400);
    request.stop.ignore_eos = true;
    request
}

fn finish(mut stream: RequestStream) -> Answer {
    answers(&mut stream, 1).unwrap().remove(0)
}

/// Waits until a token has come, and leaves the stream to go on.
fn first_token(stream: &mut RequestStream) {
    while !matches!(stream.blocking_next(), Some(Event::Delta { .. })) {}
}

#[test]
fn critical_refuses_and_preempts_and_what_was_accepted_gets_its_answer() {
    let calm = start(&config()).unwrap();
    let want: Vec<Answer> = (0..6).map(|i| finish(calm.0.submit(request(i)).unwrap())).collect();
    stop(calm);

    let told = Told::default();
    let engine = slow(&EngineConfig { max_num_seqs: Some(4), pressure: told.source(), ..config() });
    let mut streams: Vec<_> = (0..6).map(|i| engine.0.submit(request(i)).unwrap()).collect();
    streams[..4].iter_mut().for_each(first_token);

    told.set(PressureLevel::Critical, &engine.0);
    for shed in 1..=3 {
        assert_eq!(engine.0.submit(request(0)).err(), Some(SubmitError::MemoryPressure));
        assert_eq!(engine.0.num_shed(), shed);
    }
    // The step that follows is told of by the next statistics.
    let steps = engine.0.stats().steps;
    while engine.0.stats().steps < steps + 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = engine.0.stats();
    assert_eq!((stats.running, stats.waiting, stats.preemptions), (1, 5, 3));

    told.set(PressureLevel::Normal, &engine.0);
    streams.push(engine.0.submit(request(5)).unwrap());
    let missing = [vec![1; 4], vec![0; 3]].concat();
    for (i, stream) in streams.into_iter().enumerate() {
        let (got, want) = (finish(stream), &want[i.min(5)]);
        assert_eq!(got.tokens, want.tokens[missing[i]..], "request {i}");
    }
    idle_within(&engine.0, Duration::from_secs(1));
    stop(engine);
}

#[test]
fn requests_that_may_not_be_admitted_can_leave_and_do_not_hold_up_a_shutdown() {
    let told = Told::default();
    let engine = slow(&EngineConfig { max_num_seqs: Some(1), pressure: told.source(), ..config() });
    let mut running = engine.0.submit(request(0)).unwrap();
    first_token(&mut running);
    let (left, mut waits) = (engine.0.submit(request(1)).unwrap(), engine.0.submit(request(2)).unwrap());
    told.set(PressureLevel::Critical, &engine.0);
    drop((running, left));
    while engine.0.stats().running + engine.0.stats().waiting > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    engine.0.shutdown(Duration::from_millis(50));
    engine.1.join().unwrap();
    assert_eq!(answers(&mut waits, 1).unwrap_err(), engine::EngineError::ShutDown);
}

#[test]
fn a_warning_drops_snapshots_and_pauses_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let disk = DiskOptions { dir: dir.path().to_path_buf(), limit: DiskLimit::Bytes(1 << 28), writes_per_day: 1 << 32 };
    let config = EngineConfig {
        kv_cache_memory: Some(64 << 20),
        max_num_seqs: Some(4),
        disk_cache: Some(disk),
        pressure: told.source(),
        ..EngineConfig::new(testkit::repo("models/tiny-qwen35"))
    };
    let engine = start(&config).unwrap();
    let ids: Vec<u32> = testkit::Golden::read("tiny-qwen35").prompts.iter().flat_map(|p| p.ids.clone()).collect();
    let text: Vec<u32> = ids.iter().cycle().take(300).copied().collect();
    let ask = || finish(engine.0.submit(GenerationRequest::greedy(text.clone(), 8)).unwrap());
    let state = || engine.0.disk().unwrap().write_state;
    let want = ask();
    idle_within(&engine.0, Duration::from_secs(5));
    assert!(engine.0.stats().snapshots > 0);

    told.set(PressureLevel::Warn, &engine.0);
    assert_eq!((engine.0.stats().snapshots, state()), (0, DiskWriteState::Paused));
    assert_eq!(ask(), want);
    idle_within(&engine.0, Duration::from_secs(5));
    assert_eq!(engine.0.stats().snapshots, 0);

    told.set(PressureLevel::Normal, &engine.0);
    assert_ne!(state(), DiskWriteState::Paused);
    assert_eq!(ask(), want);
    idle_within(&engine.0, Duration::from_secs(5));
    assert!(engine.0.stats().snapshots > 0);
    stop(engine);
}
