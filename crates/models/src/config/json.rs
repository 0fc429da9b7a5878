//! The fields of a `config.json`.
use crate::checkpoint::read_json;
use crate::error::ModelError;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The fields of a `config.json`, each checked when it is read. A field that is `null` counts as missing.
pub(crate) struct ConfigJson {
    /// Where the file lies, for errors.
    pub path: PathBuf,
    fields: Map<String, Value>,
    /// Whether the file describes a multimodal model, whose text part these fields are.
    pub is_wrapper: bool,
}

impl ConfigJson {
    /// Reads the file of a model folder. The fields of a multimodal model's text part (`text_config`) replace those
    /// beside it.
    ///
    /// Errors: a missing file, or one that is not a JSON object.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let Value::Object(mut fields) = read_json(&path)? else {
            return Err(ModelError::file(&path, "is not a JSON object"));
        };
        let text = fields.remove("text_config");
        let is_wrapper = text.is_some();
        if let Some(Value::Object(text)) = text {
            // The wrapper's architectures name the wrapper.
            fields.remove("architectures");
            fields.extend(text.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Ok(ConfigJson { path, fields, is_wrapper })
    }

    /// An error about a field. `message` continues the sentence that the field's name begins.
    pub fn error(&self, field: &'static str, message: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.path.clone(), field, message: message.into() }
    }

    /// The value of a field, or `None` where it is missing.
    ///
    /// Errors: a value of another type.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, field: &'static str) -> Result<Option<T>, ModelError> {
        let Some(value) = self.fields.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|e| self.error(field, format!("is {value}: {e}")))
    }

    /// A field that is false where it is missing.
    pub fn flag(&self, field: &'static str) -> Result<bool, ModelError> {
        Ok(self.get(field)?.unwrap_or(false))
    }

    /// A size that must be there, from 1 to 2^28: no model is larger, and products of two such sizes stay exact.
    pub fn size(&self, field: &'static str) -> Result<usize, ModelError> {
        self.check_size(field, self.get(field)?, 1 << 28)
    }

    /// [`Self::size`], or `default` where the field is missing.
    pub fn size_or(&self, field: &'static str, default: usize) -> Result<usize, ModelError> {
        self.check_size(field, self.get(field)?.or(Some(default)), 1 << 28)
    }

    /// Checks that `value`, read for `field`, is there and from 1 to `largest`.
    pub fn check_size(&self, field: &'static str, value: Option<usize>, largest: usize) -> Result<usize, ModelError> {
        match value {
            Some(n) if (1..=largest).contains(&n) => Ok(n),
            Some(n) => Err(self.error(field, format!("is {n}; it must lie in [1, {largest}]"))),
            None => Err(self.error(field, "is missing")),
        }
    }
}
