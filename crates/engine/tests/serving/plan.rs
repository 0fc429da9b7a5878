//! What a plan says by a model's headers is what its start does.
use super::stop;
use engine::{EngineConfig, MemoryTerm, StartPlan, plan, start};

fn bytes(plan: &StartPlan, name: &str) -> u64 {
    plan.terms.iter().filter(|term| term.name.contains(name)).map(|term| term.bytes).sum()
}

#[test]
fn a_start_takes_what_its_plan_says() {
    for model in ["demo", "tiny-llama31", "tiny-qwen3moe", "tiny-qwen35"] {
        let config = EngineConfig {
            kv_cache_memory: Some(16 << 20),
            max_num_seqs: 8,
            ..EngineConfig::new(testkit::repo(&format!("models/{model}")))
        };
        let plan = plan(&config).unwrap();
        let engine = start(&config).unwrap();
        let info = engine.0.info();
        let budget = plan.kv.budget;
        let settled = (budget.num_blocks, budget.max_model_len, budget.num_snapshots);
        assert_eq!(settled, (info.num_blocks, info.max_model_len, info.num_snapshots), "{model}");
        assert_eq!((plan.kv.pair.k.name(), &plan.model_type), (&*info.k_quant, &info.model_type), "{model}");
        assert_eq!(bytes(&plan, "weights"), info.weight_bytes, "{model}");
        let cache = bytes(&plan, "KV cache");
        assert_eq!(cache, (info.num_blocks * info.bytes_per_block) as u64, "{model}");
        let states = bytes(&plan, "recurrent states") + bytes(&plan, "snapshots");
        assert_eq!(states > 0, model == "tiny-qwen35");
        // All that was named, but for less than a block and a snapshot.
        assert!(cache + states <= 16 << 20 && cache + states > 15 << 20, "{model}: {cache} {states}");
        stop(engine);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_every_term() {
    let config = EngineConfig { kv_cache_memory: Some(1 << 60), ..EngineConfig::new(testkit::repo("models/demo")) };
    let error = plan(&config).err().unwrap().to_string();
    assert!(error.starts_with("--kv-cache-memory: is 1152921504606846976 bytes"), "{error}");
    for term in ["weights in their files", "activations of the largest step", "tokenizer and token masks", "margin"] {
        assert!(error.contains(term), "{term}: {error}");
    }
    let fits = plan(&EngineConfig { kv_cache_memory: Some(1 << 20), ..config }).unwrap();
    assert!(fits.terms.iter().all(|MemoryTerm { bytes, .. }| *bytes < 1 << 30));
}
