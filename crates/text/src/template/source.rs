//! The sources of chat templates: a model's folder, a GGUF file, or a file that a user names in their place.
use super::ChatTemplate;
use crate::config::{TokenizerConfig, read_optional};
use crate::error::TextError;
use crate::gguf;
use crate::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The name of the template for requests without tools, or for all requests.
pub(super) const DEFAULT: &str = "default";

/// The texts of templates, and the file that they come from.
pub(super) struct Sources {
    pub path: PathBuf,
    /// Each template's name and text.
    pub templates: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Compiles the chat template in a model's folder: `chat_template.jinja`, or the `chat_template` of
    /// `tokenizer_config.json`. `None` if the folder has neither. What is wrong with a template is its
    /// [`problem`](Self::problem) and no error, since a model without a template still completes texts.
    ///
    /// Errors: a `tokenizer_config.json` that cannot be read.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::from_dir(dir)?;
        let file = dir.join("chat_template.jinja");
        let sources = match read_optional(&file) {
            Ok(Some(text)) => Ok(Some(Sources { path: file, templates: vec![(DEFAULT.to_owned(), text)] })),
            Ok(None) => configured(&config),
            Err(e) => Err(e),
        };
        Ok(Self::with_config(sources, &config))
    }

    /// Compiles the chat template in the metadata of the GGUF file at `path`. `None` if it has none. What is wrong with
    /// the template is its [`problem`](Self::problem) and no error.
    ///
    /// Errors: malformed metadata.
    pub fn from_gguf(metadata: &::gguf::Metadata<'_>, path: &Path) -> Result<Option<Self>, TextError> {
        let config = gguf::config(metadata, path)?;
        Ok(Self::with_config(configured(&config), &config))
    }

    /// Compiles the chat template in the file `path`, for the model of `tokenizer`.
    ///
    /// Errors: a file that cannot be read, a template that is empty or does not compile.
    pub fn from_file(path: &Path, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        let sources = Sources { path: path.to_owned(), templates: vec![(DEFAULT.to_owned(), text)] };
        Self::compile(sources, tokenizer.special_token_roles().to_vec())
    }

    fn with_config(sources: Result<Option<Sources>, TextError>, config: &TokenizerConfig) -> Option<Self> {
        let compiled = sources.transpose()?.and_then(|sources| Self::compile(sources, config.special_token_roles()));
        Some(compiled.unwrap_or_else(Self::broken))
    }
}

/// Returns the templates in `tokenizer_config.json`; `None` if it has none.
///
/// Errors: a `chat_template` of another form, a list without a "default" one.
fn configured(config: &TokenizerConfig) -> Result<Option<Sources>, TextError> {
    const FIELD: &str = "chat_template";
    let Some(value) = config.get(FIELD) else {
        return Ok(None);
    };
    let wrong_form = || config.wrong(FIELD, "it must be a string or a list of {\"name\": .., \"template\": ..}");
    let named = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        text("name").zip(text("template")).ok_or_else(wrong_form)
    };
    let templates = match value {
        Value::String(text) => vec![(DEFAULT.to_owned(), text.clone())],
        Value::Array(entries) => entries.iter().map(named).collect::<Result<Vec<_>, _>>()?,
        _ => return Err(wrong_form()),
    };
    if !templates.iter().any(|(name, _)| name == DEFAULT) {
        return Err(config.wrong(FIELD, "the list has no template named \"default\""));
    }
    Ok(Some(Sources { path: config.path.clone(), templates }))
}

/// Replaces the statements `{% generation %}` and `{% endgeneration %}`, which mark the text that transformers trains
/// on; when a prompt is rendered, they have no effect. Since minijinja cannot be given statements of its own, the pair
/// becomes `{% if true %}` and `{% endif %}`, with its whitespace control.
pub(super) fn without_generation_statements(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, statement) = rest.split_at(start + 2);
        let Some(end) = statement.find("%}") else {
            break;
        };
        let (inside, after) = statement.split_at(end);
        out.push_str(before);
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&inside.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&inside.replacen(word, "endif", 1)),
            _ => out.push_str(inside),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_statements_keep_their_whitespace_control() {
        let source = "{%- generation -%}a{% if generation %}b{% endif %}{%+ endgeneration %} generation {% x";
        let expected = "{%- if true -%}a{% if generation %}b{% endif %}{%+ endif %} generation {% x";
        assert_eq!(without_generation_statements(source), expected);
    }
}
