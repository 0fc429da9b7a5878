//! What a plan says by a model's headers is what its start does.
use super::stop;
use engine::{EngineConfig, KvOptions, MemoryTerm, PlannedMachine, StartPlan, forecast, plan, start};
use turboquant::PRESETS;

/// Every bundled model.
const MODELS: [&str; 9] = [
    "demo",
    "eval",
    "tiny-llama31",
    "tiny-llama-yarn",
    "tiny-mistral",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-qwen3moe",
    "tiny-qwen35",
];

fn bytes(plan: &StartPlan, name: &str) -> u64 {
    plan.terms.iter().filter(|term| term.name.contains(name)).map(|term| term.bytes).sum()
}

#[test]
fn a_start_takes_what_its_plan_says() {
    for model in ["demo", "tiny-llama31", "tiny-qwen3moe", "tiny-qwen35"] {
        let config = EngineConfig {
            kv_cache_memory: Some(16 << 20),
            max_num_seqs: Some(8),
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

/// Every model with every preset, in memory of which the cache takes what is left.
#[test]
fn the_forecast_of_every_preset_is_what_its_start_takes() {
    for model in MODELS {
        let base = EngineConfig {
            memory: Some(400 << 20),
            max_num_seqs: Some(4),
            ..EngineConfig::new(testkit::repo(&format!("models/{model}")))
        };
        let forecast = forecast(&base, None).unwrap();
        assert_eq!(forecast.presets.len(), PRESETS.len());
        for row in &forecast.presets {
            let kv = KvOptions::parse(row.preset.name, None, None, 32, "auto").unwrap();
            let engine = start(&EngineConfig { kv, ..base.clone() });
            let (engine, expected) = match (engine, &row.plan) {
                (Ok(engine), Ok(plan)) => (engine, plan),
                // A head size that the preset does not store.
                (Err(error), Err(expected)) => {
                    assert_eq!(error.to_string(), expected.to_string(), "{model} {}", row.preset.name);
                    continue;
                }
                (start, _) => panic!("{model} {}: {:?} but {:?}", row.preset.name, start.err(), row.plan),
            };
            let (info, budget) = (engine.0.info(), expected.budget);
            let settled = (budget.num_blocks, budget.max_model_len, budget.num_snapshots);
            assert_eq!(
                settled,
                (info.num_blocks, info.max_model_len, info.num_snapshots),
                "{model} {}",
                row.preset.name
            );
            assert_eq!(expected.layout.bytes_per_block(), info.bytes_per_block);
            assert_eq!(row.max_context, info.max_model_len, "{model} {}", row.preset.name);
            stop(engine);
        }
    }
}

#[test]
fn memory_that_is_named_bounds_all_and_another_machine_is_planned_for() {
    const NAMED: u64 = 1 << 30;
    let base = EngineConfig {
        max_num_seqs: Some(1024),
        max_num_batched_tokens: 1024,
        ..EngineConfig::new(testkit::repo("models/demo"))
    };
    let sum = |plan: &StartPlan| plan.terms.iter().map(|term| term.bytes).sum::<u64>();
    let named = plan(&EngineConfig { memory: Some(NAMED), ..base.clone() }).unwrap();
    // All of it, but for less than a block.
    assert!(sum(&named) <= NAMED && sum(&named) + named.kv.layout.bytes_per_block() as u64 > NAMED);
    let machine = PlannedMachine { total: 1 << 50, free: 1 << 49 };
    let there = forecast(&base, Some(machine)).unwrap();
    assert_eq!((there.total_memory, there.free_memory), (Some(1 << 50), Some(1 << 49)));
    assert!(sum(&there.start.unwrap()) > NAMED);
    for (memory, told) in [(6, "6 bytes; write a unit"), (50 << 20, "--memory names 52428800 in all")] {
        let error = plan(&EngineConfig { memory: Some(memory), ..base.clone() }).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let error = plan(&EngineConfig { memory: Some(1 << 60), ..base }).unwrap_err().to_string();
    assert!(error.starts_with("--memory: is 1152921504606846976 bytes; this machine"), "{error}");
}

/// A longer context than the model's is an error, unless several models share the setting.
#[test]
fn a_context_beyond_the_models_is_an_error_unless_several_models_share_it() {
    let model = EngineConfig::new(testkit::repo("models/demo"));
    let own = plan(&model).unwrap().kv.budget.max_model_len;
    let beyond = EngineConfig { max_model_len: Some(own + 1), ..model };
    let error = plan(&beyond).unwrap_err().to_string();
    assert!(error.contains(&format!("is {}; it must lie in [2, {own}]", own + 1)), "{error}");
    let shared = plan(&EngineConfig { context_is_cap: true, ..beyond }).unwrap();
    assert_eq!(shared.kv.budget.max_model_len, own);
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
