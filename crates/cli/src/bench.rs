//! `tallow bench`: how fast a model prefills and decodes with each K/V pair.
use crate::args::BenchArgs;
use crate::model;
use crate::plot;
use crate::settings::Settings;
use anyhow::{Context, Result};
use engine::bench::{BenchOptions, BenchRow, speed};
use engine::eval::Scheme;
use engine::{EngineConfig, KvFlags, PRESETS};
use turboquant::Format;

pub async fn bench(args: BenchArgs) -> Result<()> {
    let settings = Settings::read(args.settings.model.config.as_deref(), &args.settings)?;
    let config = model::engine_config(&settings).await?;
    tokio::task::block_in_place(|| measure(args, &config))
}

fn measure(args: BenchArgs, config: &EngineConfig) -> Result<()> {
    let loaded = engine::load(config)?;
    let options = BenchOptions {
        contexts: args.contexts,
        batches: args.batches,
        steps: args.steps,
        chunk: config.max_num_batched_tokens,
    };
    println!("| K | V | context | sequences | prefill, tok/s | decode, tok/s | KV bytes a token |");
    println!("|---|---|---|---|---|---|---|");
    let line = |r: &BenchRow| {
        let BenchRow { k, v, context, batch, prefill, decode, kv_bytes_per_token: bytes } = r;
        println!("| {k} | {v} | {context} | {batch} | {prefill:.1} | {decode:.1} | {bytes:.0} |");
    };
    let schemes = schemes(&config.kv);
    let rows = engine::compute_pool(config.threads)?.install(move || speed(&loaded, &schemes, &options, line))?;
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::speed(&rows)?).with_context(|| format!("--plot {}", path.display()))?;
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, json + "\n").with_context(|| format!("--json {}", path.display()))?;
    }
    Ok(())
}

/// The presets, or bf16 and the pair that the flags name.
fn schemes(kv: &KvFlags) -> Vec<Scheme> {
    let centre = kv.centre;
    let pair = |k, v| Scheme::Pair { k, v, centre };
    match kv.named_pair() {
        Some((k, v)) => vec![pair(Format::Bf16, Format::Bf16), pair(k, v)],
        None => PRESETS.iter().map(|(_, k, v)| pair(*k, *v)).collect(),
    }
}
