//! `tallow bench`: how fast a model prefills and decodes with each K/V pair.
use crate::args::BenchArgs;
use crate::settings::Settings;
use crate::text_file::read_text;
use crate::{model, output, plot};
use anyhow::{Context, Result};
use bytesize::ByteSize;
use engine::{EngineConfig, KvOptions};
use measure::{BenchOptions, BenchRow, DraftSpeed, Scheme, drafts, speed};
use std::path::Path;
use turboquant::{Format, KvPair};

/// Runs the command: prints a table, writes what `--json` and `--plot` ask for.
pub async fn bench(args: BenchArgs) -> Result<()> {
    let settings = Settings::read(args.model.config.as_deref(), &(&args.model, &args.kv, &args.step))?;
    let config = model::engine_config(&settings).await?;
    tokio::task::block_in_place(|| measure(args, &config)).map_err(|error| settings.explain(error))
}

fn measure(args: BenchArgs, config: &EngineConfig) -> Result<()> {
    // A wrong file is refused before minutes are spent.
    let earlier = args.compare.as_deref().map(read).transpose()?;
    let bundle = engine::load(config)?;
    let options = BenchOptions {
        contexts: args.contexts,
        batches: args.batches,
        steps: args.steps,
        chunk: config.max_num_batched_tokens,
        rounds: args.rounds,
    };
    let columns =
        "K | V | context | sequences | prefill, tok/s | first token, s | decode, tok/s | memory | KV bytes a token";
    output::line(format_args!("| {columns} |\n|{}", "---|".repeat(columns.split('|').count())));
    let schemes = schemes(&config.kv);
    let rounds = options.rounds;
    let rows = engine::compute_pool(config.threads)?.install(move || -> Result<_> {
        let rows = speed(&bundle, &schemes, &options, print_row)?;
        bundle.files.check()?;
        Ok(rows)
    })?;
    if let (Some(earlier), Some(path)) = (&earlier, &args.compare) {
        print_comparison(&rows, earlier, path);
    }
    if let Some(speed) = drafts(config, rounds)? {
        print_drafts(&speed);
    }
    output::plot(args.plot.as_deref(), |picture| plot::speed(&rows, picture))?;
    output::json(args.json.as_deref(), &rows)
}

fn print_row(row: &BenchRow) {
    let BenchRow { k, v, context, batch, prefill, first_token, decode, resident_bytes, kv_bytes_per_token } = row;
    let memory = match resident_bytes {
        0 => "-".to_owned(),
        bytes => ByteSize::b(*bytes).to_string(),
    };
    output::line(format_args!(
        "| {k} | {v} | {context} | {batch} | {prefill} | {first_token:.2} | {decode} | {memory} | \
         {kv_bytes_per_token:.0} |"
    ));
}

fn print_drafts(speed: &DraftSpeed) {
    let DraftSpeed { alone, drafted, drafts } = speed;
    let ratio = drafted.over(*alone);
    output::line(format_args!(
        "\nAn answer that repeats its prompt: {drafted} tok/s with drafts, {alone} without, {ratio:.2} times as fast; \
         {} of {} drafted tokens were accepted.",
        drafts.accepted,
        drafts.accepted + drafts.rejected
    ));
}

/// The rows of an earlier run.
///
/// Errors: a file that cannot be read or was not written by this command.
fn read(path: &Path) -> Result<Vec<BenchRow>> {
    let named = || format!("--compare {}", path.display());
    let text = read_text(path).with_context(named)?;
    let rows = serde_json::from_str(&text).context("it must be what `tallow bench --json` of this version writes");
    rows.with_context(named)
}

/// Prints how many times as fast each row is as its counterpart in the file at `path`.
fn print_comparison(rows: &[BenchRow], earlier: &[BenchRow], path: &Path) {
    let path = path.display();
    output::line(format_args!("\nTimes the speed in {path}:\n"));
    output::line(format_args!("| K | V | context | sequences | prefill | decode |\n|{}", "---|".repeat(6)));
    for row in rows {
        let BenchRow { k, v, context, batch, prefill, decode, .. } = row;
        let ratios = match row.counterpart(earlier) {
            Some(then) => format!("{:.2} | {:.2}", prefill.over(then.prefill), decode.over(then.decode)),
            None => "not measured then | not measured then".to_owned(),
        };
        output::line(format_args!("| {k} | {v} | {context} | {batch} | {ratios} |"));
    }
}

/// The presets, or bf16 and the pair that the flags name.
fn schemes(kv: &KvOptions) -> Vec<Scheme> {
    match Scheme::named(kv) {
        Some(named) => vec![Scheme::Pair { pair: KvPair::both(Format::Bf16), centre: kv.centre }, named],
        None => Scheme::presets(kv.centre).map(|(_, scheme)| scheme).collect(),
    }
}
