//! The progress of downloads, starts and measurements: bars on a terminal; elsewhere downloads and the loading of
//! weights are lines of the log.
use engine::{StartPhase, StartProgress};
use indicatif::{ProgressBar, ProgressStyle};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Returns a bar that counts to `length`, with the text `what` in front and the estimated time in all.
pub fn counting_bar(what: impl Into<Cow<'static, str>>, length: u64) -> ProgressBar {
    let style = style("{msg} {bar:40} {pos}/{len} {elapsed} of about {duration}");
    ProgressBar::new(length).with_style(style).with_message(what)
}

/// Returns a bar that counts bytes; `None` if the standard error is no terminal.
fn byte_bar(total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    Some(ProgressBar::new(total).with_style(style("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Shows the download of a model's files, one after the other.
#[derive(Default)]
pub struct Downloads(Mutex<Option<Download>>);

struct Download {
    file: String,
    bar: Option<ProgressBar>,
    tenths: Tenths,
}

impl Downloads {
    fn with(&self, f: impl FnOnce(&mut Option<Download>)) {
        f(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()));
    }
}

impl hub::DownloadProgress for Downloads {
    fn begin(&self, file: &str, total: u64, done: u64) {
        let bar = byte_bar(total).map(|bar| bar.with_message(file.to_owned()));
        if let Some(bar) = &bar {
            // Bytes from an earlier try must not count towards the speed.
            bar.set_position(done);
            bar.reset_eta();
        } else {
            tracing::info!(
                "fetching {file}, {total} bytes{}",
                if done > 0 { ", a part of which is there" } else { "" }
            );
        }
        let download = Download { file: file.to_owned(), bar, tenths: Tenths::new(total) };
        self.with(|current| *current = Some(download));
    }

    fn at(&self, done: u64) {
        self.with(|current| match current {
            Some(Download { bar: Some(bar), .. }) => bar.set_position(done),
            Some(Download { file, tenths, .. }) => {
                if let Some(percent) = tenths.reached(done) {
                    tracing::info!("fetching {file}: {percent} %");
                }
            }
            None => {}
        });
    }

    fn end(&self) {
        self.with(|current| {
            if let Some(bar) = current.take().and_then(|download| download.bar) {
                bar.finish_and_clear();
            }
        });
    }
}

/// Shows the progress of a start: bars on a terminal; elsewhere the loading of weights is lines of the log, and the
/// engine's own lines tell of the rest.
pub fn starting() -> StartProgress {
    let state: Mutex<Option<(StartPhase, Option<ProgressBar>, Tenths)>> = Mutex::new(None);
    StartProgress(Arc::new(move |phase, done, total| {
        let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
        if state.as_ref().is_none_or(|(current, ..)| *current != phase) {
            *state = Some((phase, phase_bar(phase, total), Tenths::new(total)));
        }
        match state.as_mut() {
            Some((_, Some(bar), _)) if done >= total => bar.finish_and_clear(),
            Some((_, Some(bar), _)) => bar.set_position(done),
            Some((StartPhase::Loading, None, tenths)) => {
                if let Some(percent) = tenths.reached(done) {
                    tracing::info!("loading the weights: {percent} %");
                }
            }
            _ => {}
        }
    }))
}

/// Returns a bar for a phase of a start; `None` if the standard error is no terminal.
fn phase_bar(phase: StartPhase, total: u64) -> Option<ProgressBar> {
    let (what, counts) = match phase {
        StartPhase::Loading => return byte_bar(total).map(|bar| bar.with_message("loading the weights")),
        StartPhase::Calibration => ("measuring the model's keys, once for a model", "{pos}/{len} tokens {eta}"),
        StartPhase::PresetKl => ("measuring what presets lose, once for a model", "{pos}/{len} tokens {eta}"),
        StartPhase::WarmUp => ("compiling the GPU's kernels", "{elapsed}"),
    };
    let bar = byte_bar(total)?;
    bar.enable_steady_tick(Duration::from_millis(200));
    Some(bar.with_style(style(&format!("{{msg}} {{wide_bar}} {counts}"))).with_message(what))
}

/// Reports each tenth of a download once.
struct Tenths {
    total: u64,
    /// The last tenth that was reported.
    reported: u64,
}

impl Tenths {
    fn new(total: u64) -> Self {
        Tenths { total, reported: 0 }
    }

    /// Returns the percentage, if another tenth has been reached.
    fn reached(&mut self, done: u64) -> Option<u64> {
        let tenth = done.saturating_mul(10) / self.total.max(1);
        let another = tenth > self.reported;
        self.reported = self.reported.max(tenth);
        another.then_some(tenth * 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenth_is_said_once() {
        let mut tenths = Tenths::new(200);
        let said: Vec<u64> = (0..=200).filter_map(|done| tenths.reached(done)).collect();
        assert_eq!(said, (1..=10).map(|i| i * 10).collect::<Vec<_>>());
        assert_eq!(Tenths::new(0).reached(0), None);
    }
}
