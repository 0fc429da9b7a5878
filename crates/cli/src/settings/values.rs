//! Values of settings, one at a time.
use super::keys::{ValueKind, kind};
use crate::args::numbers;
use anyhow::{Error, Result, anyhow, bail};
use engine::{MAX_DRAFT_TOKENS, ToolCallFormat};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use serde::Deserialize;
use server::InvalidSetting;
use std::str::FromStr;
use std::time::Duration;

/// A layer with the value of one setting.
pub struct OneSetting(pub String, pub Value);

impl OneSetting {
    /// The value of an environment variable, which is text or a number by its setting's kind.
    pub fn of_text(key: String, text: String) -> Self {
        let value = match kind(&key) {
            Some(ValueKind::Port | ValueKind::Count) => text.trim().parse::<u64>().ok().map(Value::from),
            Some(ValueKind::Tokens) => numbers::tokens(&text).ok().map(Value::from),
            Some(ValueKind::Switch) => text.trim().to_lowercase().parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        OneSetting(key, value.unwrap_or_else(|| Value::from(text)))
    }
}

impl Provider for OneSetting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(Dict::from([(self.0.clone(), self.1.clone())])))
    }
}

/// A list of texts; in the environment one text with commas.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a list of texts, or one text with commas")]
pub enum TextList {
    List(Vec<String>),
    Joined(String),
}

impl TextList {
    /// What the texts say. `flag` is the flag's name.
    ///
    /// Errors: the first text that says nothing.
    pub fn parse<T: FromStr<Err = InvalidSetting>>(self, flag: &str) -> Result<Vec<T>> {
        let texts = match self {
            TextList::List(texts) => texts,
            TextList::Joined(text) => text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        };
        texts.iter().map(|text| text.parse().map_err(|e| anyhow!("{flag}: {e}"))).collect()
    }
}

/// What a value is read as. A refusal is given the name of those that are `known` which is spelt most like the value.
///
/// Errors: that of `read`.
pub fn one_of<T, E: Into<Error>>(
    value: &str,
    known: impl IntoIterator<Item = &'static str>,
    read: Result<T, E>,
) -> Result<T> {
    read.map_err(|error| match crate::nearest(value, known.into_iter()).filter(|near| *near != value) {
        Some(near) => anyhow!("{}; did you mean {near}?", error.into()),
        None => error.into(),
    })
}

/// Errors: no format of this name.
pub fn tool_call_format(name: &str) -> Result<ToolCallFormat> {
    let known = ToolCallFormat::ALL.iter().map(|format| format.name());
    one_of(name, known, name.parse().map_err(|e| anyhow!("--tool-call-format: {e}")))
}

/// The most tokens of a draft; 0 for `off`.
///
/// Errors: any text but `off` and a number in [1, [`MAX_DRAFT_TOKENS`]].
pub fn draft_tokens(text: &str) -> Result<usize> {
    match (text, text.parse()) {
        ("off", _) => Ok(0),
        (_, Ok(tokens)) if (1..=MAX_DRAFT_TOKENS).contains(&tokens) => Ok(tokens),
        _ => bail!("--speculate: is {text:?}; it must be off, or a number in [1, {MAX_DRAFT_TOKENS}]"),
    }
}

/// A value as its flag spells it.
pub fn flag_text(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Bool(_, value) => value.to_string(),
        Value::Array(_, items) => items.iter().map(flag_text).collect::<Vec<_>>().join(","),
        // Flags have no other values than these and whole numbers that are not negative.
        other => other.to_u128().map_or_else(String::new, |number| number.to_string()),
    }
}

/// A time that is given as a whole number with a unit.
///
/// Errors: any other text, and none at all.
pub fn duration(flag: &str, text: &str) -> Result<Duration> {
    const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
    let read = UNITS.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.trim().strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*seconds).filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds))
    });
    match read {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => bail!("{flag}: is {text:?}; it must be a whole number with a unit (s, m, h or d), such as 90s or 30m"),
    }
}

/// Errors: a text that is given and empty, by its name.
pub fn not_empty(name: &str, text: Option<&str>) -> Result<()> {
    match text {
        Some("") => bail!("{name}: is empty; leave it out for the default"),
        _ => Ok(()),
    }
}
