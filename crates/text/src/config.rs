//! `tokenizer_config.json`, the parts that text handling needs.
use crate::error::TextError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

pub(crate) struct TokenizerConfig {
    pub path: PathBuf,
    fields: Map<String, Value>,
}

impl TokenizerConfig {
    /// `path`: where the fields come from, for errors.
    pub fn new(path: PathBuf, fields: Map<String, Value>) -> Self {
        TokenizerConfig { path, fields }
    }

    /// A model folder without the file has an empty configuration.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer_config.json");
        let fields = match read_optional(&path)? {
            None => Map::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| TextError::Parse { path: path.clone(), message: e.to_string() })?,
        };
        Ok(TokenizerConfig { path, fields })
    }

    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    pub fn flag(&self, field: &'static str) -> Result<Option<bool>, TextError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(field, format!("{other}; it must be true or false"))),
        }
    }

    /// All special tokens by role (`bos_token`, `eos_token`, ..): each is written as a string or as `{"content": ..}`.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter(|(role, _)| role.ends_with("_token")).filter_map(|(role, value)| {
            let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((role.as_str(), content))
        })
    }

    pub fn special_token(&self, role: &str) -> Option<&str> {
        self.special_tokens().find(|(r, _)| *r == role).map(|(_, content)| content)
    }

    pub fn wrong(&self, field: &'static str, message: impl Into<String>) -> TextError {
        TextError::Field { path: self.path.clone(), field, message: message.into() }
    }
}

/// A file's text; `None` if there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, TextError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}
