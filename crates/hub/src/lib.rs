//! Models from the Hugging Face hub. They are kept in the cache of the hub's official client, so that either program
//! finds what the other has fetched.
//!
//! In that cache the file `models--ORG--NAME/refs/REVISION` holds the name of a commit, and `snapshots/COMMIT/FILE` is
//! a link to `blobs/ETAG`.
#![warn(missing_docs)]

mod cache;
mod client;
mod error;
mod files;
mod headers;
mod http;
mod inventory;

use cache::Cache;
use client::{HubClient, Listing};
use std::fmt;
use std::path::{Path, PathBuf};

pub use error::HubError;
pub use http::{http, http_for};
pub use inventory::{CachedModel, list, remove, verify};

/// The name of a model: `ORG/NAME`, or `ORG/NAME:QUANT` for one of a repository's GGUF files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// The repository, `ORG/NAME`.
    pub repo: String,
    /// The quantisation of a GGUF file, such as `Q4_K_M`.
    pub quant: Option<String>,
}

impl ModelName {
    /// Reads a name; `None` for a text that names no repository, such as a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (repo, quant) = match text.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (text, None),
        };
        let word = |s: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !s.is_empty() && !s.starts_with(['.', '-']) && !s.contains("..") && s.chars().all(allowed)
        };
        let (organisation, name) = repo.split_once('/')?;
        let good = word(organisation) && word(name) && quant.is_none_or(word);
        good.then(|| ModelName { repo: repo.to_owned(), quant: quant.map(str::to_owned) })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quant {
            Some(quant) => write!(f, "{}:{quant}", self.repo),
            None => f.write_str(&self.repo),
        }
    }
}

/// Shows the progress of downloads. Files are downloaded one after the other.
pub trait DownloadProgress: Send + Sync {
    /// The download of a file of `total` bytes begins, of which `done` are there from an earlier try.
    fn begin(&self, file: &str, total: u64, done: u64);

    /// `done` bytes of the file are there.
    fn at(&self, done: u64);

    /// The file is there, or its download has failed.
    fn end(&self);
}

/// Where models come from and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The hub's address, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The folder that holds the `models--ORG--NAME` folders.
    pub cache: PathBuf,
    /// The access token, which private and gated models need.
    pub token: Option<String>,
    /// Whether models come from the cache alone.
    pub offline: bool,
}

impl HubConfig {
    /// Reads the environment as the official client does: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN` (or the
    /// file that `HF_TOKEN_PATH` names, or `token` in `HF_HOME`) and `HF_HUB_OFFLINE`, and their older names.
    ///
    /// Errors: the user has no home folder, and no variable names another one; a variable whose value cannot be used; a
    /// token that cannot be sent.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let default_home = || {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(dirs::home_dir()?.join(".cache")));
            cache.map(|cache| cache.join("huggingface"))
        };
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, get(name)?)));
        let home = folder(get("HF_HOME").map(|value| ("HF_HOME", value)))?;
        let home = home.or_else(default_home).ok_or(HubError::NoHome)?;
        let cache = folder(first(["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]))?.unwrap_or_else(|| home.join("hub"));
        let token = match first(["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
            Some((name, token)) => Some((name.to_owned(), token)),
            None => stored_token(&get("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| in_home(&path))),
        };
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            let message = "it must begin with https:// or http://";
            return Err(HubError::Variable { variable: "HF_ENDPOINT".into(), value: endpoint, message });
        }
        let on = |value: &str| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Ok(HubConfig {
            endpoint,
            cache,
            token: token.map(checked_token).transpose()?.flatten(),
            offline: first(["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).is_some_and(|(_, value)| on(&value)),
        })
    }
}

/// The folder that a variable names.
///
/// Errors: it names something else.
fn folder(named: Option<(&'static str, String)>) -> Result<Option<PathBuf>, HubError> {
    let Some((variable, value)) = named else { return Ok(None) };
    let path = in_home(&value);
    if path.exists() && !path.is_dir() {
        let message = "it must be a folder, or not be there yet";
        return Err(HubError::Variable { variable: variable.into(), value, message });
    }
    Ok(Some(path))
}

/// A path in which `~` stands for the user's home.
fn in_home(path: &str) -> PathBuf {
    let home = || path.strip_prefix("~/").and_then(|rest| Some(dirs::home_dir()?.join(rest)));
    home().unwrap_or_else(|| PathBuf::from(path))
}

/// The token that the official client has stored, with the file's name.
fn stored_token(path: &Path) -> Option<(String, String)> {
    match std::fs::read_to_string(path) {
        Ok(token) => Some((path.display().to_string(), token)),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!("no token is sent to the hub: {}: {error}", path.display());
            }
            None
        }
    }
}

/// The token without the white space around it; `None` if that is all.
///
/// Errors: characters that no header can carry, or white space inside.
fn checked_token((place, token): (String, String)) -> Result<Option<String>, HubError> {
    let token = token.trim();
    match token.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(Some(token.to_owned()).filter(|token| !token.is_empty())),
        false => Err(HubError::Token { place }),
    }
}

/// Fetches the files of a model that the cache does not have. Returns the path of the model's folder, or that of its
/// first GGUF file.
///
/// Errors: an unknown repository, revision or quantisation; a refusal, with what would help; a download that fails
/// several times (what has come stays, and the next call goes on from there); a model that the cache does not have
/// whole while there is no connection or the hub itself fails.
pub async fn fetch(
    config: &HubConfig,
    model: &ModelName,
    revision: &str,
    progress: &dyn DownloadProgress,
) -> Result<PathBuf, HubError> {
    if !revision_is_sound(revision) {
        return Err(HubError::Revision { revision: revision.to_owned() });
    }
    let cache = Cache::new(&config.cache, &model.repo);
    if config.offline {
        return cached(&cache, model, revision, "HF_HUB_OFFLINE is set");
    }
    let client = HubClient::new(config, model)?;
    let listing = match client.list(revision).await {
        Err(error) if error.is_transient() => {
            let path = cached(&cache, model, revision, &error.to_string())?;
            tracing::warn!("{error}; {model} is taken from the cache as it is");
            return Ok(path);
        }
        other => other?,
    };
    match fetch_listed(&client, &cache, model, revision, listing, progress).await {
        // A cache that cannot be written may still have the model as it was.
        Err(error @ HubError::File { .. }) => match cached(&cache, model, revision, "") {
            Ok(path) => {
                tracing::warn!("{error}; {model} is taken from the cache as it is");
                Ok(path)
            }
            Err(_) => Err(error),
        },
        other => other,
    }
}

/// Fetches what tells of a model's shapes and sizes: its configuration and the headers of its weights, which are some
/// megabytes at most. Where the cache has the model whole, the path is that of the cache; otherwise the files come into
/// `folder`, where zeros are in the place of all weights.
///
/// Errors: the errors of [`fetch`], and weights that have no header.
pub async fn fetch_headers(
    config: &HubConfig,
    model: &ModelName,
    revision: &str,
    folder: &Path,
) -> Result<PathBuf, HubError> {
    if !revision_is_sound(revision) {
        return Err(HubError::Revision { revision: revision.to_owned() });
    }
    let cache = Cache::new(&config.cache, &model.repo);
    let cached = cached(&cache, model, revision, "HF_HUB_OFFLINE is set");
    if config.offline || cached.is_ok() {
        return cached;
    }
    let client = HubClient::new(config, model)?;
    let Listing { commit, files } = client.list(revision).await?;
    headers::fetch(&client, &commit, files::choose(model, &files)?, folder).await
}

/// Fetches what the cache lacks of a commit that the hub has told of.
async fn fetch_listed(
    client: &HubClient,
    cache: &Cache,
    model: &ModelName,
    revision: &str,
    listing: Listing,
    progress: &dyn DownloadProgress,
) -> Result<PathBuf, HubError> {
    let folder = cache.commit_folder(&listing.commit);
    let mut wanted = files::choose(model, &listing.files)?;
    let mut next = 0;
    while let Some(file) = wanted.get(next).cloned() {
        client.fetch(cache, &listing.commit, &file, progress).await?;
        if file == files::INDEX {
            wanted.extend(files::shards(&folder.join(&file))?);
        }
        next += 1;
    }
    if cache.reference(revision).as_ref() != Some(&listing.commit)
        && let Err(error) = cache.set_reference(revision, &listing.commit)
    {
        tracing::warn!("{model} is there, but without the hub it will not be found: {error}");
    }
    Ok(files::model_path(&folder, &wanted))
}

/// The path of a model that the cache has whole. `reason` tells why the hub is not asked.
///
/// Errors: [`HubError::NotCached`].
fn cached(cache: &Cache, model: &ModelName, revision: &str, reason: &str) -> Result<PathBuf, HubError> {
    let missing = |what: String| HubError::NotCached { model: model.to_string(), reason: reason.to_owned(), what };
    let no_revision = || match &cache.commits()[..] {
        [] => format!("revision {revision}"),
        commits => {
            format!("revision {revision} (there are commits, which --revision can name: {})", commits.join(", "))
        }
    };
    let commit = cache.reference(revision).ok_or_else(|| missing(no_revision()))?;
    let folder = cache.commit_folder(&commit);
    if !folder.is_dir() {
        return Err(missing(format!("commit {commit}, which is revision {revision},")));
    }
    let mut wanted = files::choose(model, &cache.files(&commit)?).map_err(|e| missing(e.to_string()))?;
    if wanted.iter().any(|file| file == files::INDEX) {
        wanted.extend(files::shards(&folder.join(files::INDEX))?);
    }
    match wanted.iter().find(|file| !folder.join(file).exists()) {
        Some(file) => Err(missing(file.clone())),
        None => Ok(files::model_path(&folder, &wanted)),
    }
}

/// Whether a text can be a branch, tag or commit. It becomes a part of paths in the cache and of addresses.
fn revision_is_sound(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    !revision.is_empty()
        && revision.chars().all(allowed)
        && revision.split('/').all(|p| !p.is_empty() && !p.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_told_from_paths() {
        let name = ModelName::parse("Qwen/Qwen3-0.6B-GGUF:Q4_K_M").unwrap();
        assert_eq!((name.repo.as_str(), name.quant.as_deref()), ("Qwen/Qwen3-0.6B-GGUF", Some("Q4_K_M")));
        assert_eq!(ModelName::parse("Qwen/Qwen3-0.6B").unwrap().quant, None);
        for other in ["./model", "../x", "a/b/c", "/abs", "model", "a/../b", "a/b:", "a b/c", "a/.b"] {
            assert_eq!(ModelName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_environment_is_read_as_the_official_client_does() {
        let read = |pairs: &[(&str, &str)]| {
            let get = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_owned());
            HubConfig::from_variables(get).unwrap()
        };
        let config = read(&[("HF_HOME", "/h"), ("HF_TOKEN", "t"), ("HF_HUB_OFFLINE", "True")]);
        assert_eq!((config.cache, config.token, config.offline), ("/h/hub".into(), Some("t".into()), true));
        let config = read(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c"), ("HF_ENDPOINT", "http://e")]);
        assert_eq!((config.cache, config.endpoint.as_str(), config.offline), ("/c".into(), "http://e", false));
        assert_eq!(read(&[("XDG_CACHE_HOME", "/x")]).cache, PathBuf::from("/x/huggingface/hub"));
    }

    #[test]
    fn odd_values_are_read_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("file"), "hf_stored\n").unwrap();
        std::fs::write(path("empty"), "\n").unwrap();
        let read = |pairs: &[(&str, &str)]| {
            let get = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_owned());
            HubConfig::from_variables(|name| get(name).or_else(|| (name == "HF_HOME").then(|| path("home"))))
        };
        let token = |pairs: &[(&str, &str)]| read(pairs).unwrap().token;
        assert_eq!(token(&[("HF_TOKEN", "hf_x\n")]).as_deref(), Some("hf_x"));
        assert_eq!(token(&[("HF_TOKEN_PATH", &path("file"))]).as_deref(), Some("hf_stored"));
        assert_eq!(token(&[("HF_TOKEN_PATH", &path("empty"))]), None);
        // A folder in the place of the file.
        assert_eq!(token(&[("HF_TOKEN_PATH", folder.path().to_str().unwrap())]), None);
        assert!(read(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        for (name, value, told) in [
            ("HF_TOKEN", "hf_x\nhf_y", "HF_TOKEN has a blank, a line break"),
            ("HF_HOME", &*path("file"), "it must be a folder"),
            ("HF_HUB_CACHE", &path("file"), "it must be a folder"),
            ("HF_ENDPOINT", "huggingface.co", "it must begin with https://"),
        ] {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(told) && !message.contains("hf_x"), "{message}");
        }
    }

    #[test]
    fn a_revision_does_not_lead_out_of_the_cache() {
        for (revision, sound) in [("main", true), ("refs/pr/1", true), ("v1.0", true), ("../x", false), ("a//b", false)]
        {
            assert_eq!(revision_is_sound(revision), sound, "{revision}");
        }
    }
}
