//! A model that fails, and a device that does.
use super::wrapped_device::WrappedDevice;
use super::wrapped_model::launch_wrapped;
use super::{answer, answers, config, idle_within, prompt, stop};
use engine::{GenerationRequest, SubmitError, launch, load};
use std::sync::Arc;
use std::time::Duration;

const PANICS: u32 = 77;
const FAILS: u32 = 78;

/// Panics, or fails, on one token.
fn fail_on_a_token(tokens: &[u32]) -> candle_core::Result<()> {
    assert!(!tokens.contains(&PANICS), "token {PANICS} was computed");
    if tokens.contains(&FAILS) {
        candle_core::bail!("token {FAILS} was computed");
    }
    Ok(())
}

#[test]
fn a_step_that_fails_ends_its_requests_and_nothing_else() {
    let engine = launch_wrapped(&config(), fail_on_a_token);
    let want = answer(&engine.0, GenerationRequest::greedy(prompt(3), 10));
    for token in [PANICS, FAILS] {
        let mut stream = engine.0.submit(GenerationRequest::greedy(vec![300, token], 10)).unwrap();
        let error = answers(&mut stream, 1).unwrap_err();
        assert!(error.to_string().contains(&format!("token {token} was computed")), "{error}");
        idle_within(&engine.0, Duration::from_secs(1));
        assert_eq!(answer(&engine.0, GenerationRequest::greedy(prompt(3), 10)), want);
    }
    stop(engine);
}

#[test]
fn a_device_that_fails_ends_the_engine_with_its_reason() {
    let config = config();
    let mut bundle = load(&config).unwrap();
    let device = Arc::new(WrappedDevice::default());
    bundle.device = device.clone();
    let (handle, thread) = launch(&config, bundle).unwrap();
    answer(&handle, GenerationRequest::greedy(prompt(3), 4));
    assert_eq!(handle.failure(), None);
    *device.failure.lock().unwrap() = Some("the GPU failed: out of memory".to_owned());
    let mut stream = handle.submit(GenerationRequest::greedy(prompt(3), 4)).unwrap();
    answers(&mut stream, 1).unwrap_err();
    thread.join().unwrap();
    assert_eq!(handle.failure(), Some("the GPU failed: out of memory"));
    let refused = handle.submit(GenerationRequest::greedy(prompt(3), 4)).err();
    assert_eq!(refused, Some(SubmitError::ShuttingDown));
}
