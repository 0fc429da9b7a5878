//! From what names a model to files.
use crate::args::PullArgs;
use crate::progress::{self, Downloads};
use crate::settings::Settings;
use crate::{catalog, demo, output};
use anyhow::{Result, bail};
use bytesize::ByteSize;
use catalog::KnownModel;
use engine::EngineConfig;
use hub::{HubConfig, HubError, ModelName};
use std::path::{Path, PathBuf};

/// `tallow pull`.
pub async fn pull(args: PullArgs) -> Result<()> {
    let name = hub_name(&args.model)?;
    let mut path = download(&name, &args.revision).await?;
    if args.verify {
        match verified(&path).await {
            Err(error @ HubError::Damaged { .. }) => {
                tracing::warn!("{error}");
                path = download(&name, &args.revision).await?;
            }
            other => other?,
        }
    }
    output::line(format_args!("{}", path.display()));
    Ok(())
}

/// Reads a model's weights and compares them with their hashes.
async fn verified(path: &Path) -> Result<(), HubError> {
    tracing::info!("verifying {}", path.display());
    let bytes = tokio::task::block_in_place(|| hub::verify(path))?;
    tracing::info!("{} of weights are as the hub has them", ByteSize::b(bytes));
    Ok(())
}

/// The model of the hub that a command names, by its name there or by a short one.
///
/// Errors: the text names none.
pub fn hub_name(text: &str) -> Result<ModelName> {
    let found = catalog::find(text).map_or(text, |known| known.hub);
    match ModelName::parse(without_address(found).unwrap_or(found)) {
        Some(name) => Ok(name),
        None => bail!(
            "{text} is no model of the hub: it must be ORG/NAME, ORG/NAME:QUANT, or a short name such as {}",
            catalog::nearest(text)
        ),
    }
}

/// Where the settings say that the model is.
pub enum ModelSource {
    /// A folder or a file of this machine.
    Local(PathBuf),
    /// A model of the hub.
    Hub(ModelName),
    /// A model of the hub that has a short name.
    Known(&'static KnownModel),
}

impl ModelSource {
    /// Errors: a name that is neither a path nor of the hub.
    pub fn of(settings: &Settings) -> Result<Self> {
        match settings.model.as_deref() {
            None => demo::folder().map(ModelSource::Local),
            Some(model) => Self::of_text(model),
        }
    }

    /// What a text on the command line names.
    ///
    /// Errors: those of [`Self::of`].
    pub fn of_text(model: &str) -> Result<Self> {
        Self::named(model, Path::new(""))
    }

    /// What `model` names. A path is relative to the folder `here`.
    ///
    /// Errors: a path that leads nowhere, with the names that there are. It is never taken for a name of the hub, which
    /// would tell the hub what is called how on this machine.
    fn named(model: &str, here: &Path) -> Result<Self> {
        let path = here.join(model);
        if path.exists() {
            return Ok(ModelSource::Local(path));
        }
        if let Some(known) = catalog::find(model) {
            return Ok(ModelSource::Known(known));
        }
        let address = without_address(model);
        let name = ModelName::parse(address.unwrap_or(model));
        match name {
            Some(name) if address.is_some() || !is_path(model, here) => Ok(ModelSource::Hub(name)),
            name => bail!("{}", no_such_path(model, &path, name.is_some())),
        }
    }
}

/// How a name begins that is of the hub whatever there is on this machine.
const HUB_ADDRESSES: [&str; 4] = ["https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/"];

/// The name after the hub's address; `None` where a text does not begin with one.
fn without_address(model: &str) -> Option<&str> {
    HUB_ADDRESSES.iter().find_map(|address| model.strip_prefix(address))
}

/// Whether a text that names nothing on this machine is meant as a path all the same.
fn is_path(model: &str, here: &Path) -> bool {
    let lower = model.to_lowercase();
    let folder = model.split_once('/').map(|(folder, _)| folder);
    model.starts_with(['.', '/', '~'])
        || [".gguf", ".safetensors"].iter().any(|end| lower.ends_with(end))
        || model.matches('/').count() > 1
        || folder.is_some_and(|folder| here.join(folder).is_dir())
}

/// What is said of a path that leads nowhere.
fn no_such_path(model: &str, path: &Path, is_name: bool) -> String {
    if let Ok(target) = path.read_link() {
        return format!("{model} is a link to {}, where there is nothing", target.display());
    }
    let mut message = format!("{model}: there is no such file or folder here");
    message += &names_near(path).unwrap_or_default();
    if model.starts_with('~') {
        message += "; a shell puts your home folder in the place of ~, nothing else does";
    } else if is_name {
        message += &format!("; for the model of that name on the hub, write {}{model}", HUB_ADDRESSES[0]);
    } else if !model.contains('/') {
        let near = catalog::nearest(model);
        message += &format!("; a model of the hub is named ORG/NAME, or has a short name, such as {near}");
    }
    message
}

/// The names in the last folder of a path that there is, those like the missing one first.
fn names_near(path: &Path) -> Option<String> {
    const SHOWN: usize = 5;
    let is_folder = |folder: &&Path| folder.as_os_str().is_empty() || folder.is_dir();
    let folder = path.ancestors().skip(1).find(is_folder)?;
    let missing = path.strip_prefix(folder).ok()?.components().next()?.as_os_str().to_string_lossy().into_owned();
    let read = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names = std::fs::read_dir(read).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    let likeness = |name: &str| strsim::jaro_winkler(&missing.to_lowercase(), &name.to_lowercase());
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)).then_with(|| a.cmp(b)));
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    names.truncate(SHOWN);
    match names.is_empty() {
        true => Some(format!("; {} is empty", read.display())),
        false => Some(format!("; {} has {}{more}", read.display(), names.join(", "))),
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
    let (mut config, name) = configured(settings, source)?;
    if let Some(name) = name {
        config.model = download(&name, &settings.revision).await?;
    }
    config.progress = Some(progress::starting());
    Ok(config)
}

/// What a plan is made of: as [`fetch`], but a model of the hub that is not here comes into `folder` without its
/// weights.
///
/// Errors: as [`fetch`]'s.
pub async fn headers(settings: &Settings, source: ModelSource, folder: &Path) -> Result<EngineConfig> {
    let (mut config, name) = configured(settings, source)?;
    if let Some(name) = name {
        config.model = hub::fetch_headers(&HubConfig::from_env()?, &name, &settings.revision, folder).await?;
    }
    Ok(config)
}

/// The name by which clients ask for a model where no flag says another.
pub fn served_name(settings: &Settings, source: ModelSource) -> Result<String> {
    Ok(configured(settings, source)?.0.model_name())
}

/// What the engine is started with, and the model of the hub whose path has yet to be found.
fn configured(settings: &Settings, source: ModelSource) -> Result<(EngineConfig, Option<ModelName>)> {
    let mut config = settings.engine.clone();
    let (name, called) = match source {
        ModelSource::Local(path) => {
            config.model = path;
            return Ok((config, None));
        }
        ModelSource::Hub(name) => (name.clone(), name.to_string()),
        ModelSource::Known(known) => (hub_name(known.name)?, known.name.to_owned()),
    };
    config.served_model_name.get_or_insert(called);
    Ok((config, Some(name)))
}

async fn download(name: &ModelName, revision: &str) -> Result<PathBuf> {
    Ok(hub::fetch(&HubConfig::from_env()?, name, revision, &Downloads::default()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with `models/demo` and `models/tiny.gguf`.
    fn here() -> tempfile::TempDir {
        let here = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(here.path().join("models/demo")).unwrap();
        std::fs::write(here.path().join("models/tiny.gguf"), "GGUF").unwrap();
        here
    }

    #[test]
    fn what_there_is_is_a_path_and_other_names_are_of_the_hub() {
        let here = here();
        let named = |model: &str| ModelSource::named(model, here.path());
        for path in ["models/demo", "./models/demo", "models/tiny.gguf", "models"] {
            assert!(matches!(named(path), Ok(ModelSource::Local(_))), "{path}");
        }
        for name in
            ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-GGUF:Q8_0", "hf.co/models/x", "https://huggingface.co/models/x"]
        {
            assert!(matches!(named(name), Ok(ModelSource::Hub(_))), "{name}");
        }
    }

    #[test]
    fn a_mistyped_path_is_never_a_name_of_the_hub() {
        let here = here();
        let refusal = |model: &str| match ModelSource::named(model, here.path()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{model} is taken for a model"),
        };
        for path in ["org/x.gguf", "org/x.GGUF", "org/model.safetensors", "a/b/c", "/no/such", "../no-model", "demo"] {
            assert!(refusal(path).contains("no such file or folder here"), "{path}");
        }
        let message = refusal("models/dmo");
        assert!(
            message.contains("has demo, tiny.gguf; for the model of that name on the hub, write https://"),
            "{message}"
        );
        let message = refusal("models/tinny.gguf");
        assert!(message.contains("has tiny.gguf, demo"), "{message}");
        assert!(refusal("modles/demo/x").contains("has models"));
        assert!(refusal("~/models/demo").contains("a shell puts"));
        std::os::unix::fs::symlink("gone", here.path().join("models/link")).unwrap();
        assert!(refusal("models/link").contains("is a link to gone"));
    }
}
