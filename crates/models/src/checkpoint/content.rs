//! What a file holds, whatever its name says: downloads leave other things in the place of a model's files.
use crate::error::ModelError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of a file's begin that are looked at.
const HEAD: u64 = 512;
/// Bytes of a file's end that are looked at.
const TAIL: i64 = 64;

/// What is wrong with a file that begins with `head`, if it is none of a model's at all. The message continues a
/// sentence that begins with the file's name.
pub(super) fn foreign(head: &[u8]) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    if head.is_empty() {
        Some("is empty; fetch it again")
    } else if begins(b"version https://git-lfs") {
        Some(
            "is a Git LFS pointer in the place of the file; run `git lfs pull` in its folder, or name the model as \
             ORG/NAME to have it fetched",
        )
    } else if begins(b"<!doctype") || begins(b"<html") || begins(b"<head") || begins(b"<?xml") {
        Some(
            "is a web page, such as a browser or curl saves where a log-in is asked for; name the model as ORG/NAME to \
             have it fetched, with HF_TOKEN set if it is gated",
        )
    } else if head.starts_with(b"PK\x03\x04") {
        Some("is a ZIP archive, as PyTorch's .bin and .pt files are; take the model's safetensors or a GGUF file of it")
    } else if [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"].iter().any(|magic| head.starts_with(magic)) {
        Some("is compressed; unpack it first")
    } else if [&b"lmgg"[..], b"fmgg", b"tjgg", b"algg"].iter().any(|magic| head.starts_with(magic)) {
        Some("is of a format before GGUF, which nothing reads any more; take a GGUF file of the model")
    } else if head.len() >= 16 && head.iter().all(|byte| *byte == 0) {
        Some("begins with zeros, as a download does that has reserved its place and not ended; fetch it again")
    } else {
        None
    }
}

/// The begin of a file.
///
/// Errors: a file that cannot be read.
pub(super) fn head(path: &Path) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| ModelError::file(path, e))?;
    file.take(HEAD).read_to_end(&mut bytes).map_err(|e| ModelError::file(path, e))?;
    Ok(bytes)
}

/// Checks that a JSON file of a model is none of the things that [`foreign`] knows, and that its object ends.
///
/// Errors: it is not so. A file that is not there is none.
pub(super) fn check_json(path: &Path) -> Result<(), ModelError> {
    if !path.exists() {
        return Ok(());
    }
    let head = head(path)?;
    if let Some(message) = foreign(&head) {
        return Err(ModelError::file(path, message));
    }
    if head.trim_ascii_start().starts_with(b"{") {
        let mut tail = Vec::new();
        let mut file = File::open(path).map_err(|e| ModelError::file(path, e))?;
        // A file that is shorter is read from its begin.
        let _ = file.seek(SeekFrom::End(-TAIL));
        file.read_to_end(&mut tail).map_err(|e| ModelError::file(path, e))?;
        let tail = tail.trim_ascii_end();
        if !tail.is_empty() && !tail.ends_with(b"}") {
            return Err(ModelError::file(path, "ends too early: its last brace is missing; fetch it again"));
        }
    }
    Ok(())
}

/// Checks that a chat template is none of the things that [`foreign`] knows, but for an empty file.
///
/// Errors: it is one of them.
pub(super) fn check_template(path: &Path) -> Result<(), ModelError> {
    let head = if path.exists() { head(path)? } else { Vec::new() };
    match foreign(&head) {
        Some(message) if !head.is_empty() => Err(ModelError::file(path, message)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_downloads_leave_is_told_from_files_of_models() {
        for (head, word) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2145\nsize 12345\n", "git lfs pull"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\xef\xbb\xbf\n <HTML lang=en>", "web page"),
            (b"PK\x03\x04archive/data.pkl", "PyTorch"),
            (b"\x1f\x8b\x08", "compressed"),
            (b"tjgg\x03\0\0\0", "before GGUF"),
            (&[0; 32], "zeros"),
        ] {
            assert!(foreign(head).is_some_and(|told| told.contains(word)), "{word}");
        }
        let safetensors = [&b"\x58\0\0\0\0\0\0\0"[..], b"{\"a\": {}}"].concat();
        for head in [&b"GGUF\x03\0\0\0"[..], &safetensors, b"{\"a\": 1}", b"{", b"\n{% if messages %}", b"<|im_start|>"]
        {
            assert_eq!(foreign(head), None);
        }
    }
}
