//! From what names a model to files, and how that gets on.
use crate::args::PullArgs;
use crate::demo;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use engine::{EngineConfig, LoadProgress};
use hub::{HubConfig, ModelName, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// `tallow pull`.
pub async fn pull(args: PullArgs) -> Result<()> {
    let name = ModelName::parse(&args.model)
        .with_context(|| format!("{} is no model of the hub: it must be ORG/NAME or ORG/NAME:QUANT", args.model))?;
    let path = fetch(&name, &args.revision).await?;
    println!("{}", path.display());
    Ok(())
}

/// Where the settings say that the model is.
pub enum Place {
    Here(PathBuf),
    Hub(ModelName),
}

impl Place {
    /// Errors: a name that is neither a path nor of the hub.
    pub fn of(settings: &Settings) -> Result<Self> {
        match settings.model.as_deref() {
            None => demo::folder().map(Place::Here),
            Some(model) if Path::new(model).exists() => Ok(Place::Here(model.into())),
            Some(model) => match ModelName::parse(model) {
                Some(name) => Ok(Place::Hub(name)),
                None => bail!("{model}: there is no such folder or file, and it names no model of the hub (ORG/NAME)"),
            },
        }
    }
}

/// What the engine is started with; a model of the hub is fetched if the cache does not have it.
///
/// Errors: a download that fails.
pub async fn engine_config(settings: &Settings, place: Place) -> Result<EngineConfig> {
    let mut name = settings.served_model_name.clone();
    let path = match place {
        Place::Here(path) => path,
        Place::Hub(of_hub) => {
            name = name.or_else(|| Some(of_hub.to_string()));
            fetch(&of_hub, &settings.revision).await?
        }
    };
    let mut config = settings.engine(path)?;
    config.served_model_name = name;
    config.load_progress = config.weight_quant.map(|_| load_progress());
    Ok(config)
}

async fn fetch(name: &ModelName, revision: &str) -> Result<PathBuf> {
    Ok(hub::fetch(&HubConfig::from_env()?, name, revision, &Downloads::default()).await?)
}

fn bar(total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    Some(ProgressBar::new(total).with_style(style))
}

/// A bar on a terminal, log lines elsewhere.
#[derive(Default)]
struct Downloads(Mutex<Option<Download>>);

struct Download {
    file: String,
    bar: Option<ProgressBar>,
    steps: Steps,
}

impl Downloads {
    fn with(&self, f: impl FnOnce(&mut Option<Download>)) {
        f(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()));
    }
}

impl Progress for Downloads {
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
        let download = Download { file: file.to_owned(), bar, steps: Steps::new(total) };
        self.with(|current| *current = Some(download));
    }

    fn at(&self, have: u64) {
        self.with(|current| match current {
            Some(Download { bar: Some(bar), .. }) => bar.set_position(have),
            Some(Download { file, steps, .. }) => {
                if let Some(percent) = steps.reached(have) {
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

/// Of weights that are quantised at load: a bar on a terminal, log lines elsewhere.
fn load_progress() -> LoadProgress {
    let state: Mutex<Option<(Option<ProgressBar>, Steps)>> = Mutex::new(None);
    LoadProgress(Arc::new(move |done, total| {
        let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
        let (bar, steps) = state.get_or_insert_with(|| (bar(total), Steps::new(total)));
        match bar {
            Some(bar) => {
                bar.set_message("quantising");
                bar.set_position(done);
                if done >= total {
                    bar.finish_and_clear();
                }
            }
            None => {
                if let Some(percent) = steps.reached(done) {
                    tracing::info!("quantising the weights: {percent} %");
                }
            }
        }
    }))
}

/// Every tenth of a way, once.
struct Steps {
    total: u64,
    last: u64,
}

impl Steps {
    fn new(total: u64) -> Self {
        Steps { total, last: 0 }
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
        let mut steps = Steps::new(200);
        let said: Vec<u64> = (0..=200).filter_map(|done| steps.reached(done)).collect();
        assert_eq!(said, (1..=10).map(|i| i * 10).collect::<Vec<_>>());
        assert_eq!(Steps::new(0).reached(0), None);
    }
}
