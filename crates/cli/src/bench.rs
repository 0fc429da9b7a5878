//! `tallow bench`: how fast a model prefills and decodes with each K/V pair.
use crate::args::BenchArgs;
use crate::settings::Settings;
use crate::{model, output, plot};
use anyhow::Result;
use engine::{EngineConfig, KvOptions};
use measure::{BenchOptions, BenchRow, Scheme, speed};
use turboquant::{Format, KvPair};

/// Runs the command: prints a table, writes what `--json` and `--plot` ask for.
pub async fn bench(args: BenchArgs) -> Result<()> {
    let settings = Settings::read(args.model.config.as_deref(), &(&args.model, &args.kv, &args.step))?;
    let config = model::engine_config(&settings).await?;
    tokio::task::block_in_place(|| measure(args, &config)).map_err(|error| settings.explain(error))
}

fn measure(args: BenchArgs, config: &EngineConfig) -> Result<()> {
    let bundle = engine::load(config)?;
    let options = BenchOptions {
        contexts: args.contexts,
        batches: args.batches,
        steps: args.steps,
        chunk: config.max_num_batched_tokens,
    };
    output::line(format_args!(
        "| K | V | context | sequences | prefill, tok/s | decode, tok/s | KV bytes a token |\n|{}",
        "---|".repeat(7)
    ));
    let line = |r: &BenchRow| {
        let BenchRow { k, v, context, batch, prefill, decode, kv_bytes_per_token: bytes } = r;
        output::line(format_args!("| {k} | {v} | {context} | {batch} | {prefill:.1} | {decode:.1} | {bytes:.0} |"));
    };
    let schemes = schemes(&config.kv);
    let rows = engine::compute_pool(config.threads)?.install(move || -> Result<_> {
        let rows = speed(&bundle, &schemes, &options, line)?;
        bundle.files.check()?;
        Ok(rows)
    })?;
    output::plot(args.plot.as_deref(), |picture| plot::speed(&rows, picture))?;
    output::json(args.json.as_deref(), &rows)
}

/// The presets, or bf16 and the pair that the flags name.
fn schemes(kv: &KvOptions) -> Vec<Scheme> {
    match Scheme::named(kv) {
        Some(named) => vec![Scheme::Pair { pair: KvPair::both(Format::Bf16), centre: kv.centre }, named],
        None => Scheme::presets(kv.centre).map(|(_, scheme)| scheme).collect(),
    }
}
