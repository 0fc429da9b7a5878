//! Plots, where one says more than a table.
use anyhow::{Result, anyhow};
use measure::{BenchRow, QualityReport};
use plotters::prelude::*;

/// Draws bits an element (to the right) against KL (upwards, logarithmic) as SVG text.
///
/// Errors: a report without a pair that can be shown.
pub fn quality(report: &QualityReport) -> Result<String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|e| anyhow!("the plot: {e}"))?;
    Ok(svg)
}

fn draw(report: &QualityReport, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let series = [
        ("llama.cpp's types", RGBColor(150, 150, 150), select(report, |k, _| k.starts_with("ggml"))),
        ("plain", RGBColor(210, 120, 40), select(report, |k, centred| k.starts_with("tq") && !centred)),
        ("centred", RGBColor(30, 100, 180), select(report, |k, centred| k.starts_with("tq") && centred)),
    ];
    let root = SVGBackend::with_string(svg, (860, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let all = series.iter().flat_map(|s| &s.2);
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.1), high.max(p.1)));
    if low > high {
        return Err("no pair of the report can be shown".into());
    }
    let title = format!("{}: what a KV cache of so many bits an element costs", report.model);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d(1.5f64..9.5, (low / 2.0..high * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("bits an element, metadata included")
        .y_desc("KL from the f32 cache, nats a token")
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .draw()?;
    for (name, colour, points) in &series {
        let dots = points.iter().map(|(x, y, _)| Circle::new((*x, *y), 4, colour.filled()));
        chart.draw_series(dots)?.label(*name).legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
        let labels = points.iter().map(|(x, y, name)| Text::new(name.clone(), (*x + 0.07, *y), ("sans-serif", 12)));
        chart.draw_series(labels)?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// Draws context against decode speed, a line for each pair and number of sequences, as SVG text.
pub fn speed(rows: &[BenchRow]) -> Result<String> {
    let mut svg = String::new();
    draw_speed(rows, &mut svg).map_err(|e| anyhow!("the plot: {e}"))?;
    Ok(svg)
}

fn draw_speed(rows: &[BenchRow], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (860, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let span = |of: &dyn Fn(&BenchRow) -> f64| {
        rows.iter().map(of).fold((f64::MAX, 0f64), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ((near, far), (_, fast)) = (span(&|r| r.context as f64), span(&|r| r.decode));
    let mut chart = ChartBuilder::on(&root)
        .caption("decode speed by context", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d((near / 1.2..far * 1.2).log_scale(), 0f64..fast * 1.1)?;
    chart.configure_mesh().x_desc("tokens in the cache").y_desc("tokens a second, all sequences").draw()?;
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in rows {
        let name = format!("{}/{} x {}", row.k, row.v, row.batch);
        let point = (row.context as f64, row.decode);
        match lines.iter_mut().find(|line| line.0 == name) {
            Some(line) => line.1.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    for (i, (name, points)) in lines.into_iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        let series = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        chart.draw_series(series)?.label(name).legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// The points of a series: bits, KL, pair.
fn select(report: &QualityReport, keep: impl Fn(&str, bool) -> bool) -> Vec<(f64, f64, String)> {
    let rows = report.rows.iter().filter(|r| r.kl > 0.0 && keep(&r.k, r.centred));
    rows.map(|r| (r.bits, r.kl, if r.k == r.v { r.k.clone() } else { format!("{}/{}", r.k, r.v) })).collect()
}
