//! How downloads, quantising and measuring get on: bars on a terminal; downloads and quantising are log lines
//! elsewhere.
use engine::LoadProgress;
use indicatif::{ProgressBar, ProgressStyle};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};

/// A bar that counts to `length`, with what it counts in front and the time it takes in all.
pub fn count(what: impl Into<Cow<'static, str>>, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {elapsed} of about {duration}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}

/// A bar of bytes; `None` where nobody looks at a terminal.
fn bar(total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    Some(ProgressBar::new(total).with_style(style))
}

/// Tells how the files of a model are fetched, one after the other.
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
    fn begin(&self, file: &str, total: u64, have: u64) {
        let bar = bar(total).map(|bar| bar.with_message(file.to_owned()));
        if let Some(bar) = &bar {
            // What is there already has no speed.
            bar.set_position(have);
            bar.reset_eta();
        } else {
            tracing::info!(
                "fetching {file}, {total} bytes{}",
                if have > 0 { ", a part of which is there" } else { "" }
            );
        }
        let download = Download { file: file.to_owned(), bar, tenths: Tenths::new(total) };
        self.with(|current| *current = Some(download));
    }

    fn at(&self, have: u64) {
        self.with(|current| match current {
            Some(Download { bar: Some(bar), .. }) => bar.set_position(have),
            Some(Download { file, tenths, .. }) => {
                if let Some(percent) = tenths.reached(have) {
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

/// Tells how the weights are quantised at load.
pub fn quantising() -> LoadProgress {
    let state: Mutex<Option<(Option<ProgressBar>, Tenths)>> = Mutex::new(None);
    LoadProgress(Arc::new(move |done, total| {
        let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
        let (bar, tenths) = state.get_or_insert_with(|| (bar(total), Tenths::new(total)));
        match bar {
            Some(bar) => {
                bar.set_message("quantising");
                bar.set_position(done);
                if done >= total {
                    bar.finish_and_clear();
                }
            }
            None => {
                if let Some(percent) = tenths.reached(done) {
                    tracing::info!("quantising the weights: {percent} %");
                }
            }
        }
    }))
}

/// Says each tenth of a way once.
struct Tenths {
    total: u64,
    last: u64,
}

impl Tenths {
    fn new(total: u64) -> Self {
        Tenths { total, last: 0 }
    }

    /// The percentage, if another tenth has been reached.
    fn reached(&mut self, done: u64) -> Option<u64> {
        let tenth = done.saturating_mul(10) / self.total.max(1);
        let another = tenth > self.last;
        self.last = self.last.max(tenth);
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
