//! A model that fails.
use super::wrapped_model::launch_wrapped;
use super::{answer, answers, config, idle_within, prompt, stop};
use engine::GenerationRequest;
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
