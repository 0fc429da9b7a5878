//! The settings by name: of what kind each is, and where its value came from.
use anyhow::{Error, anyhow};
use figment::error::{Actual, Kind};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What the value of a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Text, which may be of digits alone.
    Text,
    /// A TCP port.
    Port,
    /// A whole number.
    Count,
    /// A number of tokens; flags and the environment also take one such as 32k.
    Tokens,
    /// A number of bytes, with a unit or without.
    Bytes,
    /// True or false.
    Switch,
    /// A list of texts; in the environment one text with commas.
    Texts,
}

impl ValueKind {
    /// What is allowed, as the end of a sentence.
    fn allowed(self) -> &'static str {
        match self {
            ValueKind::Text => "text",
            ValueKind::Port => "a whole number from 0 to 65535",
            ValueKind::Count => "a whole number that is not negative",
            ValueKind::Tokens => "a number of tokens, such as 32768",
            ValueKind::Bytes => "a number of bytes, such as 2147483648 or 2GiB",
            ValueKind::Switch => "true or false",
            ValueKind::Texts => "a list of texts, or one text with commas",
        }
    }
}

/// All settings (a test compares them with `RawSettings`).
pub const KEYS: [(&str, ValueKind); 41] = [
    ("host", ValueKind::Text),
    ("port", ValueKind::Port),
    ("api_key", ValueKind::Text),
    ("cors_origin", ValueKind::Texts),
    ("allowed_host", ValueKind::Texts),
    ("model", ValueKind::Text),
    ("revision", ValueKind::Text),
    ("models_dir", ValueKind::Text),
    ("idle_unload", ValueKind::Text),
    ("weight_quant", ValueKind::Text),
    ("no_mmap", ValueKind::Switch),
    ("served_model_name", ValueKind::Text),
    ("chat_template", ValueKind::Text),
    ("chat_special_tokens", ValueKind::Switch),
    ("tool_call_format", ValueKind::Text),
    ("max_model_len", ValueKind::Tokens),
    ("max_tokens_default", ValueKind::Count),
    ("device", ValueKind::Text),
    ("decode_kernel", ValueKind::Text),
    ("gpu_products", ValueKind::Text),
    ("kv_preset", ValueKind::Text),
    ("k_quant", ValueKind::Text),
    ("v_quant", ValueKind::Text),
    ("kv_centre", ValueKind::Text),
    ("block_size", ValueKind::Count),
    ("memory", ValueKind::Bytes),
    ("kv_cache_memory", ValueKind::Bytes),
    ("no_prefix_cache", ValueKind::Switch),
    ("kv_disk_cache", ValueKind::Text),
    ("kv_disk_cache_dir", ValueKind::Text),
    ("kv_disk_writes_per_day", ValueKind::Bytes),
    ("max_num_seqs", ValueKind::Count),
    ("max_num_batched_tokens", ValueKind::Count),
    ("max_step_ms", ValueKind::Count),
    ("speculate", ValueKind::Text),
    ("max_queued_requests", ValueKind::Count),
    ("threads", ValueKind::Count),
    ("keep_alive_timeout", ValueKind::Count),
    ("read_timeout", ValueKind::Count),
    ("write_timeout", ValueKind::Count),
    ("shutdown_timeout", ValueKind::Count),
];

/// The kind of a setting; `None` for a key that is none.
pub fn kind(key: &str) -> Option<ValueKind> {
    KEYS.iter().find(|(known, _)| *known == key).map(|(_, kind)| *kind)
}

/// The setting whose name is spelt almost like `key`.
pub fn nearest(key: &str) -> Option<&'static str> {
    crate::nearest(key, KEYS.iter().map(|(known, _)| *known))
}

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in file.
    Defaults,
    /// A line of a configuration file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    Flag,
}

impl Origin {
    /// The place and the key, as the begin of a message about its value.
    fn of_key<'a>(&'a self, key: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Origin::Defaults => write!(f, "{key}"),
            Origin::File(path, line) => write!(f, "{}, line {line}: {key}", path.display()),
            Origin::Variable(name) => write!(f, "{name}:"),
            Origin::Flag => write!(f, "--{}:", key.replace('_', "-")),
        })
    }
}

/// Where the values of all settings came from.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// A later layer has the setting.
    pub fn set(&mut self, key: &str, origin: Origin) {
        self.0.insert(key.to_owned(), origin);
    }

    /// Where the value of a setting came from.
    pub fn of(&self, key: &str) -> &Origin {
        self.0.get(key).unwrap_or(&Origin::Defaults)
    }

    /// What is wrong with the values of the layers, each value with its place and what is allowed.
    pub fn explain_layers(&self, errors: figment::Error) -> Error {
        let messages: Vec<String> = errors.into_iter().map(|error| self.explain_value(&error)).collect();
        anyhow!("{}", messages.join("\n"))
    }

    fn explain_value(&self, error: &figment::Error) -> String {
        let key = match &error.kind {
            Kind::UnknownField(key, _) => key.clone(),
            _ => error.path.join("."),
        };
        let origin = self.of(&key);
        let place = origin.of_key(&key);
        let allowed = kind(&key).map(ValueKind::allowed);
        match (&error.kind, allowed) {
            (Kind::UnknownField(..), _) => {
                let nearest = nearest(&key).map(|near| format!("; did you mean {near}?"));
                format!("{place} is no setting{}", nearest.unwrap_or_default())
            }
            (Kind::InvalidType(value, _) | Kind::InvalidValue(value, _), Some(allowed)) => {
                format!("{place} is {}; it must be {allowed}", shown(value))
            }
            (_, Some(allowed)) => format!("{place} must be {allowed}"),
            (kind, None) => format!("{place} {kind}"),
        }
    }

    /// Names the file or the variable that a value came from where an error names only its flag.
    pub fn explain(&self, error: impl Into<Error>) -> Error {
        let error = error.into();
        let message = error.to_string();
        let flag = message.strip_prefix("--").and_then(|rest| rest.split([':', ' ']).next());
        match flag.and_then(|flag| self.0.get(&flag.replace('-', "_"))) {
            Some(Origin::File(path, line)) => error.context(format!("{}, line {line}", path.display())),
            Some(Origin::Variable(name)) => error.context(name.clone()),
            _ => error,
        }
    }
}

/// A wrong value.
fn shown(value: &Actual) -> String {
    match value {
        Actual::Str(text) => format!("{text:?}"),
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        other => format!("of another type ({other})"),
    }
}

/// The line of a TOML text that sets a top-level key, counted from 1.
pub fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        let rest = line.trim_start().trim_start_matches(['"', '\'']).strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(['=', '.']))
    };
    let table = |line: &str| line.trim_start().trim_start_matches('[').trim_start().starts_with(key);
    let lines = || text.lines().enumerate();
    let found = lines().find(|(_, line)| sets(line));
    let found = found.or_else(|| lines().find(|(_, line)| line.trim_start().starts_with('[') && table(line)));
    found.map_or(1, |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_line() {
        let text = "# port = 1\nports = 2\n \"port\" = 3\n[host]\nx = 1\n";
        assert_eq!((line_of(text, "port"), line_of(text, "host"), line_of(text, "ports")), (3, 4, 2));
    }

    #[test]
    fn only_what_is_almost_a_setting_is_taken_for_one() {
        assert_eq!(nearest("max_num_seq"), Some("max_num_seqs"));
        assert_eq!(nearest("kv_cahce_memory"), Some("kv_cache_memory"));
        for other in ["service_host", "namespace", "image", "home"] {
            assert_eq!(nearest(other), None, "{other}");
        }
    }
}
