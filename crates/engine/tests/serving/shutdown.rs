//! What a shutdown leaves to requests that run and to those that arrive.
use super::*;

#[test]
fn shutdown_lets_what_runs_finish_and_aborts_at_the_limit() {
    let engine = start(&config()).unwrap();
    let mut quick = engine.0.submit(GenerationRequest::greedy(prompt(1), 4)).unwrap();
    engine.0.shutdown(Duration::from_secs(20));
    assert_eq!(engine.0.submit(GenerationRequest::greedy(prompt(1), 4)).err(), Some(SubmitError::ShuttingDown));
    assert_eq!(answers(&mut quick, 1).unwrap()[0].tokens.len(), 4);
    engine.1.join().unwrap();

    let engine = start(&config()).unwrap();
    let mut slow = GenerationRequest::greedy(prompt(1), 3000);
    slow.stop.ignore_eos = true;
    let mut stream = engine.0.submit(slow).unwrap();
    engine.0.shutdown(Duration::from_millis(100));
    engine.1.join().unwrap();
    assert_eq!(answers(&mut stream, 1).unwrap_err(), EngineError::ShutDown);
}

/// Requests that come in while the engine ends: each is refused, answered or failed.
#[test]
fn a_shutdown_leaves_no_request_without_a_last_event() {
    for _ in 0..4 {
        let engine = start(&config()).unwrap();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let handle = engine.0.clone();
                std::thread::spawn(move || {
                    let mut streams = Vec::new();
                    loop {
                        match handle.submit(GenerationRequest::greedy(prompt(2), 1)) {
                            Ok(stream) => streams.push(stream),
                            Err(SubmitError::QueueFull { .. }) => {}
                            Err(_) => return streams,
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(5));
        engine.0.shutdown(Duration::ZERO);
        engine.1.join().unwrap();
        for mut stream in clients.into_iter().flat_map(|c| c.join().unwrap()) {
            let last = std::iter::from_fn(|| stream.blocking_next()).last();
            assert!(matches!(last, Some(Event::Finished { .. } | Event::Failed(_))), "{last:?}");
        }
    }
}
