//! The fields of `tokenizer_config.json` that text handling needs.
use crate::error::TextError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

pub(crate) struct TokenizerConfig {
    pub path: PathBuf,
    fields: Map<String, Value>,
}

impl TokenizerConfig {
    /// A configuration of the given fields. Errors name `path` as the file they come from.
    pub fn new(path: PathBuf, fields: Map<String, Value>) -> Self {
        TokenizerConfig { path, fields }
    }

    /// Reads `tokenizer_config.json` in the folder `dir`. Without the file the configuration is empty.
    ///
    /// Errors: a file that cannot be read, or that is no JSON object.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer_config.json");
        let fields = match read_optional(&path)? {
            None => Map::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| TextError::Parse { path: path.clone(), message: e.to_string() })?,
        };
        Ok(TokenizerConfig { path, fields })
    }

    /// A field's value; `None` if it is null or missing.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// The value of a field that is true or false.
    ///
    /// Errors: another value.
    pub fn flag(&self, field: &'static str) -> Result<Option<bool>, TextError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(field, format!("{other}; it must be true or false"))),
        }
    }

    /// All special tokens with their roles (`bos_token`, `eos_token`, ..). A file writes a token as a string or as
    /// `{"content": ..}`.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter(|(role, _)| role.ends_with("_token")).filter_map(|(role, value)| {
            let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((role.as_str(), content))
        })
    }

    /// All special tokens with their roles, as owned texts.
    pub fn special_token_roles(&self) -> Vec<(String, String)> {
        self.special_tokens().map(|(role, token)| (role.to_owned(), token.to_owned())).collect()
    }

    /// The special token of one role.
    pub fn special_token(&self, role: &str) -> Option<&str> {
        self.special_tokens().find(|(r, _)| *r == role).map(|(_, content)| content)
    }

    /// An error about one field of the file.
    pub fn wrong(&self, field: &'static str, message: impl Into<String>) -> TextError {
        TextError::Field { path: self.path.clone(), field, message: message.into() }
    }
}

/// A file's text; `None` if there is no such file.
///
/// Errors: any other reason why it cannot be read.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, TextError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}
