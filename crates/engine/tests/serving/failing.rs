//! A model that fails.
use super::{answer, answers, config, idle_within, prompt, stop};
use attention::{ForwardContext, KvMeans, ModelGeometry, StateLayout};
use candle_core::Tensor;
use engine::{GenerationRequest, launch, load};
use models::Model;
use std::time::Duration;

/// Panics, or fails, on one token; otherwise the model it wraps.
struct Failing(Box<dyn Model>);

const PANICS: u32 = 77;
const FAILS: u32 = 78;

impl Model for Failing {
    fn geometry(&self) -> &ModelGeometry {
        self.0.geometry()
    }

    fn state_layout(&self) -> &StateLayout {
        self.0.state_layout()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn kv_bias(&self) -> Option<KvMeans> {
        self.0.kv_bias()
    }

    fn hidden_size(&self) -> usize {
        self.0.hidden_size()
    }

    fn has_head(&self) -> bool {
        self.0.has_head()
    }

    fn hidden_states(&self, tokens: &[u32], rows: &[u32], ctx: &ForwardContext<'_>) -> candle_core::Result<Tensor> {
        assert!(!tokens.contains(&PANICS), "token {PANICS} was computed");
        if tokens.contains(&FAILS) {
            candle_core::bail!("token {FAILS} was computed");
        }
        self.0.hidden_states(tokens, rows, ctx)
    }

    fn logits(&self, hidden_states: &Tensor) -> candle_core::Result<Tensor> {
        self.0.logits(hidden_states)
    }
}

#[test]
fn a_step_that_fails_ends_its_requests_and_nothing_else() {
    let config = config();
    let mut loaded = load(&config).unwrap();
    loaded.model = Box::new(Failing(loaded.model));
    let engine = launch(&config, loaded).unwrap();
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
