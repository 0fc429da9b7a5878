//! Plots, where one says more than a table.
use anyhow::{Result, anyhow, ensure};
use measure::{BenchRow, QualityReport};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;
use turboquant::{Format, Side};

/// The size of a chart in units, of which an SVG's pixel is one.
const CHART: (u32, u32) = (860, 560);

/// Pixels of a unit, along each side, in a PNG.
const PIXELS_PER_UNIT: u32 = 2;

/// The kind of picture that a plot is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    Svg,
    Png,
}

impl Picture {
    /// The kind that the name of a file ends with: PNG, or else SVG.
    pub fn of(path: Option<&Path>) -> Self {
        let end = path.and_then(Path::extension);
        if end.is_some_and(|end| end.eq_ignore_ascii_case("png")) { Picture::Png } else { Picture::Svg }
    }
}

/// The shapes of a picture, whose sizes are told in units times `scale`.
trait Drawing {
    fn draw<DB: DrawingBackend<ErrorType: 'static>>(&self, root: &DrawingArea<DB, Shift>, scale: u32) -> Drawn;
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a picture of `size` units.
fn picture(kind: Picture, size: (u32, u32), drawing: &impl Drawing) -> Result<Vec<u8>> {
    // A font of the program's own: a machine may have none, and a picture looks alike everywhere.
    let font = plotters::style::register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    ensure!(font.is_ok(), "the plot: its font cannot be read");
    let error = |e: Box<dyn std::error::Error>| anyhow!("the plot: {e}");
    match kind {
        Picture::Svg => {
            let mut svg = String::new();
            drawing.draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area(), 1).map_err(error)?;
            Ok(svg.into_bytes())
        }
        Picture::Png => {
            let (width, height) = (size.0 * PIXELS_PER_UNIT, size.1 * PIXELS_PER_UNIT);
            let mut pixels = vec![0u8; (3 * width * height) as usize];
            let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            drawing.draw(&root, PIXELS_PER_UNIT).map_err(error)?;
            drop(root);
            let mut png = Vec::new();
            let mut encoder = png::Encoder::new(&mut png, width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header()?.write_image_data(&pixels)?;
            Ok(png)
        }
    }
}

/// The report's rows that are drawn in one colour: of each its bits an element, its KL and the name of its pair.
struct PlotSeries {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64, String)>,
}

/// Draws bits an element (to the right) against KL (upwards, logarithmic): a chart a text, two in a row.
///
/// Errors: a report without a pair that can be shown.
pub fn quality<'a>(
    model: &str,
    texts: impl Iterator<Item = (&'a str, &'a QualityReport)>,
    kind: Picture,
) -> Result<Vec<u8>> {
    let charts: Vec<_> = texts
        .map(|(text, report)| QualityChart {
            title: format!("{model}, {text}"),
            exact: report.exact.clone(),
            series: series(report),
        })
        .filter(|chart| chart.series.iter().any(|s| !s.points.is_empty()))
        .collect();
    if charts.is_empty() {
        return Err(anyhow!("the plot: no pair of the report can be shown"));
    }
    let grid_columns = charts.len().min(2);
    let charts = QualityCharts { grid_columns, grid_rows: charts.len().div_ceil(grid_columns), charts };
    picture(kind, (CHART.0 * grid_columns as u32, CHART.1 * charts.grid_rows as u32), &charts)
}

/// A chart; at least one of the series has a point.
struct QualityChart {
    title: String,
    /// The format of the cache that the others are judged against.
    exact: String,
    series: [PlotSeries; 4],
}

struct QualityCharts {
    grid_columns: usize,
    grid_rows: usize,
    charts: Vec<QualityChart>,
}

impl Drawing for QualityCharts {
    fn draw<DB: DrawingBackend<ErrorType: 'static>>(&self, root: &DrawingArea<DB, Shift>, scale: u32) -> Drawn {
        root.fill(&WHITE)?;
        for (area, chart) in root.split_evenly((self.grid_rows, self.grid_columns)).iter().zip(&self.charts) {
            chart.draw(area, scale)?;
        }
        Ok(root.present()?)
    }
}

fn series(report: &QualityReport) -> [PlotSeries; 4] {
    let points = |keep: &dyn Fn(&str, bool) -> bool| {
        let rows = report.rows.iter().filter(|r| r.kl > 0.0 && keep(&r.k, r.centred));
        rows.map(|r| (r.bits, r.kl, if r.k == r.v { r.k.clone() } else { format!("{}/{}", r.k, r.v) })).collect()
    };
    let is_rotated = |k: &str| k.ends_with(" rotated");
    let is_ggml = |k: &str| k.starts_with("ggml");
    // Formats with one scale a vector count as ours. Those with scale groups have llama.cpp's names and would be taken
    // for its types; formats of 16 bits lie beyond the axis.
    let is_ours = |k: &str| Format::parse(Side::K, k).is_ok_and(|format| format.has_one_scale());
    let series = |name, colour, points| PlotSeries { name, colour, points };
    [
        series("llama.cpp's types", RGBColor(170, 170, 170), points(&|k, _| is_ggml(k) && !is_rotated(k))),
        series("llama.cpp's types, rotated", RGBColor(90, 90, 90), points(&|k, _| is_ggml(k) && is_rotated(k))),
        series("plain", RGBColor(210, 120, 40), points(&|k, centred| is_ours(k) && !centred)),
        series("centred", RGBColor(30, 100, 180), points(&|k, centred| is_ours(k) && centred)),
    ]
}

impl Drawing for QualityChart {
    fn draw<DB: DrawingBackend<ErrorType: 'static>>(&self, area: &DrawingArea<DB, Shift>, scale: u32) -> Drawn {
        let QualityChart { title, exact, series } = self;
        let all = series.iter().flat_map(|s| &s.points);
        let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.1), high.max(p.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 20 * scale))
            .margin(12 * scale)
            .x_label_area_size(42 * scale)
            .y_label_area_size(70 * scale)
            .build_cartesian_2d(1.5f64..9.5, (low / 2.0..high * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("bits an element, metadata included")
            .y_desc(format!("KL from the {exact} cache, nats a token"))
            .y_label_formatter(&|y| format!("{y:.0e}"))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 12 * scale))
            .draw()?;
        for PlotSeries { name, colour, points } in series.iter().filter(|s| !s.points.is_empty()) {
            let dots = points.iter().map(|(x, y, _)| Circle::new((*x, *y), 4 * scale, colour.filled()));
            chart.draw_series(dots)?.label(*name).legend(legend(*colour, scale));
            let labels = points.iter();
            let labels =
                labels.map(|(x, y, name)| Text::new(name.clone(), (*x + 0.07, *y), ("sans-serif", 12 * scale)));
            chart.draw_series(labels)?;
        }
        let labels = ("sans-serif", 12 * scale);
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .border_style(BLACK)
            .label_font(labels)
            .draw()?;
        Ok(())
    }
}

/// The sign of a series beside its name.
fn legend(colour: impl Color, scale: u32) -> impl Fn((i32, i32)) -> Circle<(i32, i32), u32> {
    let style = colour.filled();
    move |(x, y)| Circle::new((x + 8 * scale as i32, y), 4 * scale, style)
}

/// Draws context against decode speed, a line for each pair and number of sequences.
pub fn speed(rows: &[BenchRow], kind: Picture) -> Result<Vec<u8>> {
    picture(kind, CHART, &SpeedChart(rows))
}

struct SpeedChart<'a>(&'a [BenchRow]);

impl Drawing for SpeedChart<'_> {
    fn draw<DB: DrawingBackend<ErrorType: 'static>>(&self, root: &DrawingArea<DB, Shift>, scale: u32) -> Drawn {
        root.fill(&WHITE)?;
        let span = |of: &dyn Fn(&BenchRow) -> f64| {
            self.0.iter().map(of).fold((f64::MAX, 0f64), |(low, high), x| (low.min(x), high.max(x)))
        };
        let ((near, far), (_, fast)) = (span(&|r| r.context as f64), span(&|r| r.decode.median));
        let mut chart = ChartBuilder::on(root)
            .caption("decode speed by context", ("sans-serif", 20 * scale))
            .margin(12 * scale)
            .x_label_area_size(42 * scale)
            .y_label_area_size(70 * scale)
            .build_cartesian_2d((near / 1.2..far * 1.2).log_scale(), 0f64..fast * 1.1)?;
        let (labels, mut mesh) = (("sans-serif", 12 * scale), chart.configure_mesh());
        mesh.x_desc("tokens in the cache").y_desc("tokens a second, all sequences").label_style(labels);
        mesh.x_label_formatter(&|x| format!("{x:.0}")).y_label_formatter(&|y| format!("{y:.0}")).draw()?;
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for row in self.0 {
            let name = format!("{}/{} x {}", row.k, row.v, row.batch);
            let point = (row.context as f64, row.decode.median);
            match lines.iter_mut().find(|line| line.0 == name) {
                Some(line) => line.1.push(point),
                None => lines.push((name, vec![point])),
            }
        }
        for (i, (name, points)) in lines.into_iter().enumerate() {
            let colour = Palette99::pick(i).to_rgba();
            let series = LineSeries::new(points, colour.stroke_width(2 * scale)).point_size(3 * scale);
            chart.draw_series(series)?.label(name).legend(legend(colour, scale));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .label_font(labels)
            .draw()?;
        Ok(root.present()?)
    }
}
