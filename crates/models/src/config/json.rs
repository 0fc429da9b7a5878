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
        let mut fields = read_fields(&path)?;
        let text = fields.remove("text_config");
        let is_wrapper = text.is_some();
        if let Some(Value::Object(text)) = text {
            // The wrapper's architectures name the wrapper.
            fields.remove("architectures");
            fields.extend(text.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Ok(ConfigJson { path, fields, is_wrapper })
    }

    /// Reads a file of fields beside `config.json`; `None` if there is no such file.
    ///
    /// Errors: a file that cannot be read, or that is not a JSON object.
    pub fn read_optional(path: PathBuf) -> Result<Option<Self>, ModelError> {
        if !path.exists() {
            return Ok(None);
        }
        let fields = read_fields(&path)?;
        Ok(Some(ConfigJson { path, fields, is_wrapper: false }))
    }

    /// An error about a field. `message` continues the sentence that the field's name begins.
    pub fn error(&self, field: &'static str, message: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.path.clone(), field, message: message.into() }
    }

    /// The value of a field, or `None` where it is missing.
    ///
    /// Errors: a value of another type.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, field: &'static str) -> Result<Option<T>, ModelError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|e| self.error(field, format!("is {value}: {e}")))
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A whole number of at least 1. What is less stands for none, as in files that write -1 or 0 for no limit.
    ///
    /// Errors: a value that is no whole number.
    pub fn positive(&self, field: &'static str) -> Result<Option<usize>, ModelError> {
        let Some(number) = self.get::<i64>(field)? else { return Ok(None) };
        let positive = usize::try_from(number).ok().filter(|n| *n > 0);
        if positive.is_none() {
            tracing::info!("{}: {field} is {number}, which is read as none", self.path.display());
        }
        Ok(positive)
    }

    /// The token ids of a field that holds one or a list. Null and numbers that are no id, such as -1, are left out.
    ///
    /// Errors: a value that is no number.
    pub fn ids(&self, field: &'static str) -> Result<Option<Vec<u32>>, ModelError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let entries = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let mut ids = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => ids.push(id),
                None if entry.is_null() || entry.is_number() => {
                    tracing::info!(
                        "{}: {field} has {entry}, which is no token id; it is left out",
                        self.path.display()
                    );
                }
                None => return Err(self.error(field, format!("is {value}; it must be a token id or a list of them"))),
            }
        }
        Ok(Some(ids))
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

/// The fields of a JSON object. Numbers such as 50.0, which some programs write for whole ones, are whole numbers.
///
/// Errors: a file that cannot be read, or that is not a JSON object.
fn read_fields(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let mut value = read_json(path)?;
    make_whole(&mut value);
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(ModelError::file(path, "is not a JSON object")),
    }
}

fn make_whole(value: &mut Value) {
    // Whole numbers up to here are the same as a float and as an integer.
    const EXACT: f64 = (1u64 << 53) as f64;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= EXACT) {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_whole),
        Value::Object(map) => map.values_mut().for_each(make_whole),
        _ => {}
    }
}
