//! From what names a model to files.
use crate::args::PullArgs;
use crate::demo;
use crate::progress::{self, Downloads};
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use engine::EngineConfig;
use hub::{HubConfig, ModelName};
use std::path::{Path, PathBuf};

/// `tallow pull`.
pub async fn pull(args: PullArgs) -> Result<()> {
    let name = ModelName::parse(&args.model)
        .with_context(|| format!("{} is no model of the hub: it must be ORG/NAME or ORG/NAME:QUANT", args.model))?;
    let path = download(&name, &args.revision).await?;
    println!("{}", path.display());
    Ok(())
}

/// Where the settings say that the model is.
pub enum ModelSource {
    /// A folder or a file of this machine.
    Local(PathBuf),
    Hub(ModelName),
}

impl ModelSource {
    /// Errors: a name that is neither a path nor of the hub.
    pub fn of(settings: &Settings) -> Result<Self> {
        match settings.model.as_deref() {
            None => demo::folder().map(ModelSource::Local),
            Some(model) if Path::new(model).exists() => Ok(ModelSource::Local(model.into())),
            Some(model) => match ModelName::parse(model) {
                Some(name) => Ok(ModelSource::Hub(name)),
                None => bail!("{model}: there is no such folder or file, and it names no model of the hub (ORG/NAME)"),
            },
        }
    }
}

/// What the engine is started with; a model of the hub is downloaded if the cache does not have it.
///
/// Errors: a name that names no model; a download that fails.
pub async fn engine_config(settings: &Settings) -> Result<EngineConfig> {
    fetch(settings, ModelSource::of(settings)?).await
}

/// What the engine is started with, for a source that is known already.
///
/// Errors: a download that fails.
pub async fn fetch(settings: &Settings, source: ModelSource) -> Result<EngineConfig> {
    let mut config = settings.engine.clone();
    config.model = match source {
        ModelSource::Local(path) => path,
        ModelSource::Hub(name) => {
            config.served_model_name.get_or_insert_with(|| name.to_string());
            download(&name, &settings.revision).await?
        }
    };
    config.load_progress = config.weight_quant.map(|_| progress::quantising());
    Ok(config)
}

async fn download(name: &ModelName, revision: &str) -> Result<PathBuf> {
    Ok(hub::fetch(&HubConfig::from_env()?, name, revision, &Downloads::default()).await?)
}
