//! Plots, where one says more than a table.
use anyhow::{Result, anyhow};
use measure::{BenchRow, QualityReport};
use plotters::coord::Shift;
use plotters::prelude::*;
use turboquant::{Format, Side};

/// The size of a chart in points.
const CHART: (u32, u32) = (860, 560);

/// Rows of a chart that share a colour: bits, KL, pair.
struct PlotSeries {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64, String)>,
}

/// Draws bits an element (to the right) against KL (upwards, logarithmic) as SVG text: a chart a text, two in a row.
///
/// Errors: a report without a pair that can be shown.
pub fn quality<'a>(model: &str, texts: impl Iterator<Item = (&'a str, &'a QualityReport)>) -> Result<String> {
    let charts: Vec<_> = texts
        .map(|(text, report)| (format!("{model}, {text}"), &*report.exact, series(report)))
        .filter(|(.., series)| series.iter().any(|s| !s.points.is_empty()))
        .collect();
    if charts.is_empty() {
        return Err(anyhow!("the plot: no pair of the report can be shown"));
    }
    let columns = charts.len().min(2);
    let rows = charts.len().div_ceil(columns);
    let mut svg = String::new();
    {
        let size = (CHART.0 * columns as u32, CHART.1 * rows as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, (title, exact, series)) in root.split_evenly((rows, columns)).iter().zip(&charts) {
            draw_quality(area, title, exact, series).map_err(|e| anyhow!("the plot: {e}"))?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn series(report: &QualityReport) -> [PlotSeries; 4] {
    let points = |keep: &dyn Fn(&str, bool) -> bool| {
        let rows = report.rows.iter().filter(|r| r.kl > 0.0 && keep(&r.k, r.centred));
        rows.map(|r| (r.bits, r.kl, if r.k == r.v { r.k.clone() } else { format!("{}/{}", r.k, r.v) })).collect()
    };
    let is_rotated = |k: &str| k.ends_with(" rotated");
    let is_ggml = |k: &str| k.starts_with("ggml");
    // Formats with one scale a vector. The others have the names of another system, and 16 bits are off the axis.
    let is_ours = |k: &str| Format::parse(Side::K, k).is_ok_and(|format| format.has_one_scale());
    let series = |name, colour, points| PlotSeries { name, colour, points };
    [
        series("llama.cpp's types", RGBColor(170, 170, 170), points(&|k, _| is_ggml(k) && !is_rotated(k))),
        series("llama.cpp's types, rotated", RGBColor(90, 90, 90), points(&|k, _| is_ggml(k) && is_rotated(k))),
        series("plain", RGBColor(210, 120, 40), points(&|k, centred| is_ours(k) && !centred)),
        series("centred", RGBColor(30, 100, 180), points(&|k, centred| is_ours(k) && centred)),
    ]
}

/// Draws one chart; at least one of the series has a point.
fn draw_quality(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    exact: &str,
    series: &[PlotSeries],
) -> Result<(), Box<dyn std::error::Error>> {
    let all = series.iter().flat_map(|s| &s.points);
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d(1.5f64..9.5, (low / 2.0..high * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("bits an element, metadata included")
        .y_desc(format!("KL from the {exact} cache, nats a token"))
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for PlotSeries { name, colour, points } in series.iter().filter(|s| !s.points.is_empty()) {
        let dots = points.iter().map(|(x, y, _)| Circle::new((*x, *y), 4, colour.filled()));
        chart.draw_series(dots)?.label(*name).legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
        let labels = points.iter().map(|(x, y, name)| Text::new(name.clone(), (*x + 0.07, *y), ("sans-serif", 12)));
        chart.draw_series(labels)?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}

/// Draws context against decode speed, a line for each pair and number of sequences, as SVG text.
pub fn speed(rows: &[BenchRow]) -> Result<String> {
    let mut svg = String::new();
    draw_speed(rows, &mut svg).map_err(|e| anyhow!("the plot: {e}"))?;
    Ok(svg)
}

fn draw_speed(rows: &[BenchRow], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, CHART).into_drawing_area();
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
