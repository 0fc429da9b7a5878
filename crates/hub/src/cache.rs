//! The official client's cache on disk.
use crate::HubError;
use std::path::{Component, Path, PathBuf};

/// The part of the cache that holds one repository.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The part for `repo` of the cache in the folder `root`.
    pub fn new(root: &Path, repo: &str) -> Self {
        Cache { folder: root.join(format!("models--{}", repo.replace('/', "--"))) }
    }

    /// The folder of the repository.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The contents of files, and what has come of contents that are being fetched.
    pub fn blobs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.join("blobs")).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// The folder with the files of a commit.
    pub fn commit_folder(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit that a branch or tag named when it was last fetched. A commit whose files are here names itself.
    pub fn reference(&self, revision: &str) -> Option<String> {
        if let Ok(commit) = std::fs::read_to_string(self.folder.join("refs").join(revision)) {
            return Some(commit.trim().to_owned()).filter(|commit| is_commit(commit));
        }
        (is_commit(revision) && self.commit_folder(revision).is_dir()).then(|| revision.to_owned())
    }

    /// The commits of which the cache has files.
    pub fn commits(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("snapshots")).into_iter().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| is_commit(name));
        names.sort();
        names
    }

    /// Remembers the commit that `revision` names.
    ///
    /// Errors: the file cannot be written.
    pub fn set_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        std::fs::write(&path, commit).map_err(|e| HubError::file(&path, e))
    }

    /// The paths of all files of a commit, relative to its folder, in order.
    ///
    /// Errors: a folder that cannot be read.
    pub fn files(&self, commit: &str) -> Result<Vec<String>, HubError> {
        let root = self.commit_folder(commit);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(|e| HubError::file(&folder, e))? {
                let path = entry.map_err(|e| HubError::file(&folder, e))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(relative) = path.strip_prefix(&root) {
                    files.push(relative.to_string_lossy().into_owned());
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The path of the content with this etag.
    ///
    /// Errors: an etag that is no name of a file, a folder that cannot be made.
    pub fn blob(&self, etag: &str) -> Result<PathBuf, HubError> {
        let path = self.folder.join("blobs").join(etag);
        if etag.is_empty() || !etag.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            return Err(HubError::file(&path, "is no name for a file's content"));
        }
        create_parent(&path)?;
        Ok(path)
    }

    /// Links to `blob` from the folder of `commit`, under the name `file`.
    ///
    /// Errors: a link or folder that cannot be made.
    pub fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<(), HubError> {
        let path = self.commit_folder(commit).join(file);
        create_parent(&path)?;
        let depth = Path::new(file).components().count() + 1;
        let up: PathBuf = std::iter::repeat_n("..", depth).collect();
        let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(HubError::file(&path, e)),
            _ => {}
        }
        match std::os::unix::fs::symlink(target, &path) {
            // Another process has fetched the same file meanwhile.
            Err(_) if path.exists() => Ok(()),
            linked => linked.map_err(|e| HubError::file(&path, e)),
        }
    }
}

/// Whether a file's name in a repository is a path below the repository's root.
pub(crate) fn is_below(file: &str) -> bool {
    !file.is_empty() && Path::new(file).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Whether a text is the name of a commit: 40 hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|e| HubError::file(folder, e))
}
