//! `tallow eval`: what each K/V pair costs a model.
use crate::args::EvalArgs;
use crate::settings::Settings;
use crate::{model, output, plot, progress};
use anyhow::{Context, Result};
use engine::{CentreMode, EngineConfig, KvOptions, ModelBundle};
use measure::{NeedleOptions, NeedleRow, QualityOptions, QualityReport, Scheme, needles, quality};
use serde::Serialize;

/// The text that is judged where none is named: the beginning of wikitext-2's test split.
const TEXT: &str = include_str!("../../../data/wikitext2-test-sample.txt");

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    quality: QualityReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needles: Vec<NeedleRow>,
}

/// Runs the command: prints tables, writes what `--json` and `--plot` ask for.
pub async fn eval(args: EvalArgs) -> Result<()> {
    let settings = Settings::read(args.model.config.as_deref(), &(&args.model, &args.kv))?;
    let config = model::engine_config(&settings).await?;
    let pool = engine::compute_pool(config.threads)?;
    tokio::task::block_in_place(|| pool.install(|| judge(args, &config))).map_err(|error| settings.explain(error))
}

fn judge(args: EvalArgs, config: &EngineConfig) -> Result<()> {
    let bundle = engine::load(config)?;
    let text = match &args.text {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("--text {}", path.display()))?,
        None => TEXT.to_owned(),
    };
    let name = config.model_name();
    let options = QualityOptions {
        window: args.window.min(bundle.model_config.max_position_embeddings),
        schemes: schemes(&config.kv),
    };
    let mut tokens = bundle.tokenizer.encode(&text, false)?;
    tokens.truncate(args.tokens);
    let bar = progress::count("quality", tokens.len() as u64);
    let report = quality(&bundle, &name, &tokens, &options, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    bundle.files.check()?;
    output::print(format_args!("{}", quality_table(&report)));
    let needles = if args.needles { retrieval(&bundle, &text, &args, &config.kv)? } else { Vec::new() };
    bundle.files.check()?;
    let report = Report { quality: report, needles };
    output::json(args.json.as_deref(), &report)?;
    // The plot comes last: not every report has something to show.
    output::plot(args.plot.as_deref(), || plot::quality(&report.quality))
}

/// The pair that the flags name, or every pair.
fn schemes(kv: &KvOptions) -> Vec<Scheme> {
    Scheme::named(kv).map_or_else(|| Scheme::every_pair(kv.centre), |named| vec![named])
}

fn quality_table(report: &QualityReport) -> String {
    let mut out = format!(
        "{}: {} layers, {} tokens in windows of {}, perplexity {:.3} with an {} cache\n\n",
        report.model, report.layers, report.tokens, report.window, report.perplexity_exact, report.exact
    );
    out += "| K | V | bits | centred | nats | KL | KL p99 | same top-1 |\n|---|---|---|---|---|---|---|---|\n";
    for r in &report.rows {
        let centred = if r.centred { "yes" } else { "" };
        out += &format!(
            "| {} | {} | {:.2} | {centred} | {:+.5} | {:.5} | {:.4} | {:.2} % |\n",
            r.k,
            r.v,
            r.bits,
            r.nats,
            r.kl,
            r.kl_p99,
            100.0 * r.top1
        );
    }
    out
}

/// Pass keys with the most exact cache and the pair that the flags name, or each preset.
fn retrieval(bundle: &ModelBundle, text: &str, args: &EvalArgs, kv: &KvOptions) -> Result<Vec<NeedleRow>> {
    let limit = bundle.model_config.max_position_embeddings;
    let lengths: Vec<usize> = args.needle_lengths.iter().map(|n| (*n).min(limit)).collect();
    let options = NeedleOptions { lengths, depths: args.needle_depths, texts: args.needle_texts };
    let exact = Scheme::exact(bundle.device.tensors());
    let mut schemes = vec![(exact.names().0, exact)];
    match Scheme::named(kv) {
        Some(named) => {
            let (k, v) = named.names();
            schemes.push((format!("{k}/{v}"), named));
        }
        None => schemes.extend(Scheme::presets(CentreMode::Auto).map(|(name, scheme)| (name.to_owned(), scheme))),
    }
    let texts = schemes.len() * options.lengths.len() * options.texts;
    let bar = progress::count("retrieval", texts as u64);
    let mut all = Vec::new();
    let heads = options.lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" | ");
    output::line(format_args!("\n| cache | {heads} | all |\n|---|{}", "---|".repeat(options.lengths.len() + 1)));
    for (name, scheme) in schemes {
        let rows = needles(bundle, &scheme, text, &options, || bar.inc(1))?;
        let share = |rows: &mut dyn Iterator<Item = &NeedleRow>| {
            let (found, digits) = rows.fold((0, 0), |(f, d), r| (f + r.recalled, d + r.digits));
            format!("{:.1} %", 100.0 * found as f64 / digits as f64)
        };
        let by_length: Vec<_> =
            options.lengths.iter().map(|n| share(&mut rows.iter().filter(|r| r.length == *n))).collect();
        let all_lengths = share(&mut rows.iter());
        bar.suspend(|| output::line(format_args!("| {name} | {} | {all_lengths} |", by_length.join(" | "))));
        all.extend(rows);
    }
    bar.finish_and_clear();
    Ok(all)
}
