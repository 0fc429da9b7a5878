//! What a repository tells of a model without its weights: configurations whole, and the headers of weights.
use crate::client::HubClient;
use crate::{HubError, files};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes that are asked for first of a file of weights. Headers of safetensors are mostly shorter.
const FIRST: u64 = 1 << 18;
/// Longest header that is read: what the library for safetensors believes.
const LONGEST: u64 = 100_000_000;

/// Whether a file says nothing of shapes and sizes.
fn is_text_alone(file: &str) -> bool {
    file.starts_with("tokenizer") || file.starts_with("chat_template")
}

/// Puts the `wanted` files of a commit into `folder`. Of weights the header is there and zeros are in the place of the
/// rest, which takes no room on a disk, so that whatever reads headers finds files of their full length. Returns the
/// path of the model.
///
/// Errors: a file that is not in the repository or cannot be fetched or written, weights without a header.
pub(crate) async fn fetch(
    client: &HubClient,
    commit: &str,
    mut wanted: Vec<String>,
    folder: &Path,
) -> Result<PathBuf, HubError> {
    let mut next = 0;
    while let Some(file) = wanted.get(next).cloned() {
        next += 1;
        if is_text_alone(&file) {
            continue;
        }
        let path = folder.join(&file);
        let (url, size) = client.locate(commit, &file).await?;
        let bytes = match file.rsplit('.').next() {
            Some("safetensors" | "gguf") => header(client, &url, &file, size).await?,
            _ => client.range(&url, 0, size).await?,
        };
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            let mut out = File::create(&path)?;
            out.write_all(&bytes)?;
            out.set_len(size)
        };
        write().map_err(|e| HubError::file(&path, e))?;
        if file == files::INDEX {
            wanted.extend(files::shards(&path)?);
        }
    }
    Ok(files::model_path(folder, &wanted))
}

/// The begin of a file of weights, its header included.
async fn header(client: &HubClient, url: &str, file: &str, size: u64) -> Result<Vec<u8>, HubError> {
    let answer = |message: String| HubError::Answer { url: url.to_owned(), message };
    let mut bytes = client.range(url, 0, size.min(FIRST)).await?;
    loop {
        let (have, most) = (bytes.len() as u64, size.min(LONGEST));
        match needed(file, &bytes).map_err(answer)? {
            needed if needed <= have => return Ok(bytes),
            _ if have == most => return Err(answer(format!("{file} has no header in its first {most} bytes"))),
            needed => bytes.extend(client.range(url, have, needed.min(most)).await?),
        }
    }
}

/// How many bytes of a file of weights must be read, by those that have been: the length of its header, or more than
/// there are where the header does not tell yet.
///
/// Errors: no header.
fn needed(file: &str, bytes: &[u8]) -> Result<u64, String> {
    let have = bytes.len() as u64;
    if file.ends_with(".gguf") {
        return match gguf::header_len(bytes) {
            Ok(length) => Ok((length as u64).min(have)),
            Err(gguf::GgufError::Truncated { .. }) => Ok((2 * have).max(FIRST)),
            Err(error) => Err(format!("{file} {error}")),
        };
    }
    match bytes.first_chunk::<8>() {
        Some(length) => Ok(u64::from_le_bytes(*length).saturating_add(8)),
        None => Err(format!("{file} ends after {have} bytes")),
    }
}
