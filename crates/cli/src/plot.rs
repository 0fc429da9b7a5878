//! Plots, where one says more than a table.
use anyhow::{Result, anyhow};
use engine::eval::QualityReport;
use plotters::prelude::*;

/// Bits an element against KL, both axes as they are met: fewer bits to the left, less loss below. SVG text.
pub fn quality(report: &QualityReport) -> Result<String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|e| anyhow!("the plot: {e}"))?;
    Ok(svg)
}

type Error = Box<dyn std::error::Error>;

fn draw(report: &QualityReport, svg: &mut String) -> Result<(), Error> {
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

/// Points of equal treatment of all layers: bits, KL, pair.
fn select(report: &QualityReport, keep: impl Fn(&str, bool) -> bool) -> Vec<(f64, f64, String)> {
    let rows = report.rows.iter().filter(|r| r.boundary_layers == 0 && r.kl > 0.0 && keep(&r.k, r.centred));
    rows.map(|r| (r.bits, r.kl, if r.k == r.v { r.k.clone() } else { format!("{}/{}", r.k, r.v) })).collect()
}
