//! What the cache holds: models are listed, deleted and verified.
use crate::cache::Cache;
use crate::{HubConfig, HubError, ModelName, files};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// Its name, with the quantisation of a GGUF file.
    pub name: ModelName,
    /// The commit that its files are of; empty where no file has come whole.
    pub commit: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// When the last of them came.
    pub fetched: SystemTime,
    /// A file that is not there; `None` for a model that is whole.
    pub missing: Option<String>,
}

/// The models in the cache by their names.
///
/// Errors: a folder that cannot be read.
pub fn list(config: &HubConfig) -> Result<Vec<CachedModel>, HubError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&config.cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let repo = name.strip_prefix("models--").map(|rest| rest.replacen("--", "/", 1));
        let Some(ModelName { repo, .. }) = repo.as_deref().and_then(ModelName::parse) else { continue };
        let cache = Cache::new(&config.cache, &repo);
        let before = found.len();
        for commit in cache.commits() {
            let all = cache.files(&commit)?;
            for name in files::models(&repo, &all) {
                found.push(model(&cache, name, &commit, &all)?);
            }
        }
        if found.len() == before {
            found.extend(unfinished(&cache, repo));
        }
    }
    found.sort_by(|a, b| (&a.name.repo, &a.name.quant, &a.commit).cmp(&(&b.name.repo, &b.name.quant, &b.commit)));
    Ok(found)
}

fn model(cache: &Cache, name: ModelName, commit: &str, all: &[String]) -> Result<CachedModel, HubError> {
    let folder = cache.commit_folder(commit);
    let wanted = wanted(&folder, &name, all)?;
    let metadata = || wanted.iter().filter_map(|file| folder.join(file).metadata().ok());
    Ok(CachedModel {
        bytes: metadata().map(|file| file.len()).sum(),
        fetched: metadata().filter_map(|file| file.modified().ok()).max().unwrap_or(SystemTime::UNIX_EPOCH),
        missing: wanted.iter().find(|file| !folder.join(file).exists()).cloned(),
        commit: commit.to_owned(),
        name,
    })
}

/// A repository of which nothing but parts of files has come.
fn unfinished(cache: &Cache, repo: String) -> Option<CachedModel> {
    let parts: Vec<_> = cache.blobs().iter().filter_map(|path| path.metadata().ok()).collect();
    let fetched = parts.iter().filter_map(|part| part.modified().ok()).max()?;
    let bytes = parts.iter().map(|part| part.len()).sum();
    let missing = Some("the end of a file".to_owned());
    Some(CachedModel { name: ModelName { repo, quant: None }, commit: String::new(), bytes, fetched, missing })
}

/// The files of a model in the folder of a commit, which has `all` files.
fn wanted(folder: &Path, name: &ModelName, all: &[String]) -> Result<Vec<String>, HubError> {
    let mut wanted = files::choose(name, all)?;
    if wanted.iter().any(|file| file == files::INDEX) {
        wanted.extend(files::shards(&folder.join(files::INDEX))?);
    }
    Ok(wanted)
}

/// Deletes a model from the cache: one quantisation, or all that there is of a repository. Returns the bytes that are
/// free again.
///
/// Errors: a model that is not there, files that cannot be deleted.
pub fn remove(config: &HubConfig, name: &ModelName) -> Result<u64, HubError> {
    let there: Vec<CachedModel> = list(config)?.into_iter().filter(|model| model.name.repo == name.repo).collect();
    let asked = |model: &CachedModel| match (&name.quant, &model.name.quant) {
        (Some(asked), Some(quant)) => asked.eq_ignore_ascii_case(quant),
        (asked, _) => asked.is_none(),
    };
    let (gone, kept): (Vec<_>, Vec<_>) = there.into_iter().partition(asked);
    if gone.is_empty() {
        return Err(HubError::Absent { model: name.to_string(), folder: config.cache.clone() });
    }
    let cache = Cache::new(&config.cache, &name.repo);
    let size = |paths: &[PathBuf]| paths.iter().filter_map(|p| p.metadata().ok()).map(|m| m.len()).sum::<u64>();
    if kept.is_empty() {
        let bytes = size(&cache.blobs());
        std::fs::remove_dir_all(cache.folder()).map_err(|e| HubError::file(cache.folder(), e))?;
        return Ok(bytes);
    }
    for model in gone {
        let folder = cache.commit_folder(&model.commit);
        for file in wanted(&folder, &model.name, &cache.files(&model.commit)?)? {
            let link = folder.join(file);
            std::fs::remove_file(&link).map_err(|e| HubError::file(&link, e))?;
        }
    }
    let mut linked = BTreeSet::new();
    for commit in cache.commits() {
        let folder = cache.commit_folder(&commit);
        linked.extend(cache.files(&commit)?.iter().filter_map(|file| folder.join(file).canonicalize().ok()));
    }
    let is_free = |blob: &PathBuf| blob.canonicalize().is_ok_and(|path| !linked.contains(&path));
    let free: Vec<PathBuf> = cache.blobs().into_iter().filter(is_free).collect();
    let bytes = size(&free);
    free.iter().try_for_each(|blob| std::fs::remove_file(blob).map_err(|e| HubError::file(blob, e)))?;
    Ok(bytes)
}

/// Reads all of a model's files whose names in the cache are hashes of what they hold, as those of weights are. `model`
/// is the path that [`crate::fetch`] gave. Returns the bytes that were read.
///
/// Errors: [`HubError::Damaged`] for a file that holds something else, which is deleted.
pub fn verify(model: &Path) -> Result<u64, HubError> {
    let entries = || std::fs::read_dir(model).map_err(|e| HubError::file(model, e));
    let files = match model.is_dir() {
        true => entries()?.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect(),
        false => gguf::shards(model),
    };
    let check = |path: PathBuf| {
        let blob = path.canonicalize().map_err(|e| HubError::file(&path, e))?;
        check_content(&blob, &blob.file_name().unwrap_or_default().to_string_lossy())
    };
    files.into_iter().map(check).sum()
}

/// Checks a file against its etag, which for a large file is the SHA-256 of its content. Returns the bytes that were
/// read: 0 where the etag is another.
///
/// Errors: [`HubError::Damaged`] for a file that holds something else, which is deleted; one that cannot be read.
pub(crate) fn check_content(path: &Path, etag: &str) -> Result<u64, HubError> {
    if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(0);
    }
    let mut file = File::open(path).map_err(|e| HubError::file(path, e))?;
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).map_err(|e| HubError::file(path, e))? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found.eq_ignore_ascii_case(etag) {
        return Ok(bytes);
    }
    std::fs::remove_file(path).map_err(|e| HubError::file(path, e))?;
    Err(HubError::Damaged { path: path.to_owned() })
}
