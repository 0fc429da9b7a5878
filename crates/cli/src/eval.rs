//! `tallow eval`: what each K/V pair costs a model.
use crate::args::{EvalArgs, Pairs};
use crate::settings::Settings;
use crate::text_file::read_text;
use crate::{model, output, plot, progress};
use anyhow::{Context, Result};
use engine::{CentreMode, EngineConfig, KvOptions, ModelBundle};
use measure::{
    JudgedText, NeedleOptions, NeedleRow, NotJudged, QualityReport, Scheme, TextLengths, needles, quality, wikitext,
    windows,
};
use serde::Serialize;

#[derive(Serialize)]
struct EvalReport {
    /// The model's name.
    model: String,
    /// Layers that own a cache.
    layers: usize,
    texts: Vec<TextReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needles: Vec<NeedleRow>,
}

/// What every scheme costs on one text.
#[derive(Serialize)]
struct TextReport {
    /// The text's name.
    text: String,
    /// What a reader has to know of how the text was made for this model, or why it was not judged.
    note: Option<String>,
    /// The results; `None` for a text that the model cannot be given.
    #[serde(flatten)]
    quality: Option<QualityReport>,
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
    let file = args.text.as_deref().map(|path| read_text(path).with_context(|| format!("--text {}", path.display())));
    let file = file.transpose()?;
    let mut report = EvalReport {
        model: config.model_name(),
        layers: bundle.model.geometry().layers.len(),
        texts: Vec::new(),
        needles: Vec::new(),
    };
    output::print(format_args!("{}: {} layers\n", report.model, report.layers));
    let schemes = schemes(&bundle, &args, &config.kv);
    let lengths = TextLengths {
        tokens: args.tokens,
        window: args.window.min(bundle.model_config.max_position_embeddings),
        document: args.document_tokens,
    };
    if let Some(text) = &file {
        let sequences = windows(&bundle, text, lengths.tokens, lengths.window)?;
        report.texts.push(judge_text(&bundle, "file", Ok(JudgedText::of(sequences)), &schemes)?);
    } else {
        for text in &args.texts {
            let sequences = text.sequences(&bundle, &lengths);
            report.texts.push(judge_text(&bundle, text.name(), sequences, &schemes)?);
        }
    }
    if args.needles {
        report.needles = retrieval(&bundle, file.as_deref().unwrap_or(wikitext()), &args, &config.kv)?;
        bundle.files.check()?;
    }
    output::json(args.json.as_deref(), &report)?;
    // The plot comes last: not every report has something to show.
    output::plot(args.plot.as_deref(), |picture| {
        let judged = report.texts.iter().filter_map(|text| Some((&*text.text, text.quality.as_ref()?)));
        plot::quality(&report.model, judged, picture)
    })
}

/// The pair that the flags name, or those that `--pairs` does.
fn schemes(bundle: &ModelBundle, args: &EvalArgs, kv: &KvOptions) -> Vec<Scheme> {
    Scheme::named(kv).map_or_else(
        || match args.pairs {
            Pairs::Presets => Scheme::presets_and_rivals(bundle, kv.centre),
            Pairs::All => Scheme::every_pair(bundle, kv.centre),
        },
        |named| vec![named],
    )
}

/// Judges one text and prints its section.
fn judge_text(
    bundle: &ModelBundle,
    name: &str,
    text: Result<JudgedText, NotJudged>,
    schemes: &[Scheme],
) -> Result<TextReport> {
    let (note, quality) = match text {
        Ok(JudgedText { sequences, note }) => {
            let bar = progress::counting_bar(format!("quality, {name}"), 0);
            let report = quality(bundle, &sequences, schemes, |done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            })?;
            bar.finish_and_clear();
            bundle.files.check()?;
            (note, Some(report))
        }
        Err(NotJudged::Unfit(reason)) => (Some(format!("Not judged. {reason}")), None),
        Err(NotJudged::Failed(error)) => return Err(error.into()),
    };
    let report = TextReport { text: name.to_owned(), note, quality };
    output::print(format_args!("{}", section(&report)));
    Ok(report)
}

fn section(report: &TextReport) -> String {
    let mut out = format!("\n### {}\n", report.text);
    if let Some(note) = &report.note {
        out += &format!("\n{note}\n");
    }
    report.quality.iter().for_each(|quality| out += &quality_table(quality));
    out
}

fn quality_table(report: &QualityReport) -> String {
    let sequences = match report.sequences {
        1 => "one sequence".to_owned(),
        n => format!("{n} sequences of {}", report.longest),
    };
    let mut out = format!(
        "\n{} tokens in {sequences}, perplexity {:.3} with an {} cache\n\n",
        report.tokens, report.perplexity_exact, report.exact
    );
    // KL by position says no more where there is one range.
    let ranges = if report.position_ranges.len() > 1 { &report.position_ranges[..] } else { &[] };
    out += "| K | V | bits | centred | nats | KL | KL p99 | same top-1 |";
    ranges.iter().for_each(|range| out += &format!(" KL at {}-{} |", range.start, range.end - 1));
    out += &format!("\n|{}\n", "---|".repeat(8 + ranges.len()));
    for r in &report.rows {
        let centred = if r.centred { "yes" } else { "" };
        out += &format!(
            "| {} | {} | {:.2} | {centred} | {:+.5} | {:.5} | {:.4} | {:.2} % |",
            r.k,
            r.v,
            r.bits,
            r.nats,
            r.kl,
            r.kl_p99,
            100.0 * r.top1
        );
        r.kl_by_position.iter().take(ranges.len()).for_each(|kl| out += &format!(" {kl:.5} |"));
        out += "\n";
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
    let bar = progress::counting_bar("retrieval", texts as u64);
    let mut all = Vec::new();
    let heads = options.lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" | ");
    output::line(format_args!(
        "\n### pass keys\n\n| cache | {heads} | all |\n|---|{}",
        "---|".repeat(options.lengths.len() + 1)
    ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Picture;
    use measure::{PositionRange, QualityRow};

    /// A text of two ranges of positions, with one pair that has a place in a plot if its KL is above 0.
    fn text(name: &str, kl: f64) -> TextReport {
        let row = QualityRow {
            k: "ggml4 rotated".into(),
            v: "ggml4 rotated".into(),
            centred: false,
            bits: 4.5,
            nats: 0.01,
            kl,
            kl_p99: 0.5,
            kl_by_position: vec![0.25, 0.75],
            top1: 0.875,
        };
        let range = |start, end| PositionRange { start, end, tokens: end - start };
        let quality = QualityReport {
            tokens: 3000,
            sequences: 1,
            longest: 3000,
            exact: "f32".into(),
            nll_exact: 0.0,
            perplexity_exact: 1.0,
            position_ranges: vec![range(0, 2048), range(2048, 3000)],
            rows: vec![row],
        };
        TextReport { text: name.into(), note: None, quality: Some(quality) }
    }

    #[test]
    fn long_texts_have_a_column_for_each_range_of_positions() {
        let table = "\n### document\n\n3000 tokens in one sequence, perplexity 1.000 with an f32 cache\n\n\
                     | K | V | bits | centred | nats | KL | KL p99 | same top-1 | KL at 0-2047 | KL at 2048-2999 |\n\
                     |---|---|---|---|---|---|---|---|---|---|\n\
                     | ggml4 rotated | ggml4 rotated | 4.50 |  | +0.01000 | 0.50000 | 0.5000 | 87.50 % | 0.25000 | \
                     0.75000 |\n";
        assert_eq!(section(&text("document", 0.5)), table);
        let mut short = text("wikitext", 0.5);
        short.quality.iter_mut().for_each(|quality| quality.position_ranges.truncate(1));
        assert!(!section(&short).contains("KL at"));
        let unfit = TextReport { text: "chat".into(), note: Some("Not judged. Why.".into()), quality: None };
        assert_eq!(section(&unfit), "\n### chat\n\nNot judged. Why.\n");
    }

    #[test]
    fn a_plot_has_a_chart_for_each_text_that_it_can_show() {
        let texts = [text("wikitext", 0.5), text("code", 0.1), text("exact", 0.0)];
        let charts = texts.iter().filter_map(|text| Some((&*text.text, text.quality.as_ref()?)));
        let svg = String::from_utf8(plot::quality("model", charts.clone(), Picture::Svg).unwrap()).unwrap();
        let shown = ["wikitext", "code", "exact"].map(|name| svg.contains(&format!("model, {name}")));
        assert_eq!(shown, [true, true, false]);
        let png = plot::quality("model", charts.clone(), Picture::Png).unwrap();
        let header = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap().info().size();
        assert_eq!(header, (4 * 860, 2 * 560), "two charts beside each other, at twice their points");
        assert!(plot::quality("model", charts.skip(2), Picture::Svg).is_err());
    }
}
