//! Chat templates as models ship them, rendered the way transformers' `apply_chat_template` does.
mod functions;
mod messages;
mod python_json;

use crate::config::{TokenizerConfig, read_optional};
use crate::error::TextError;
use crate::gguf;
use messages::ContentFormat;
use minijinja::value::Serde;
use minijinja::{Environment, Value as Variable};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the template for requests without tools, or for all requests.
const DEFAULT: &str = "default";
/// The name of the template for requests with tools, which some models ship beside the other.
const TOOL_USE: &str = "tool_use";

/// A model's chat template: messages in, the prompt's text out.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, String)>,
    content_format: ContentFormat,
}

impl ChatTemplate {
    /// Compiles the chat template in a model's folder: `chat_template.jinja`, or the `chat_template` of
    /// `tokenizer_config.json`. `None` if the folder has neither.
    ///
    /// Errors: a file that is not readable, a template that does not compile, a list without a "default" one.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::from_dir(dir)?;
        let file = dir.join("chat_template.jinja");
        let (path, sources) = match read_optional(&file)? {
            Some(source) => (file, vec![(DEFAULT.to_owned(), source)]),
            None => match configured(&config)? {
                Some(sources) => (config.path.clone(), sources),
                None => return Ok(None),
            },
        };
        Self::with_config(path, sources, &config).map(Some)
    }

    /// Compiles the chat template in the metadata of the GGUF file at `path`. `None` if it has none.
    ///
    /// Errors: a template that does not compile.
    pub fn from_gguf(metadata: &::gguf::Metadata<'_>, path: &Path) -> Result<Option<Self>, TextError> {
        let config = gguf::config(metadata, path)?;
        let sources = configured(&config)?;
        sources.map(|sources| Self::with_config(path.to_owned(), sources, &config)).transpose()
    }

    fn with_config(path: PathBuf, sources: Vec<(String, String)>, config: &TokenizerConfig) -> Result<Self, TextError> {
        let special_tokens = config.special_tokens().map(|(role, token)| (role.to_owned(), token.to_owned())).collect();
        Self::compile(path, sources, special_tokens)
    }

    fn compile(
        path: PathBuf,
        sources: Vec<(String, String)>,
        special_tokens: Vec<(String, String)>,
    ) -> Result<Self, TextError> {
        let wrong = |e: minijinja::Error| TextError::Template { path: path.clone(), message: describe(&e) };
        let mut environment = functions::environment().map_err(wrong)?;
        for (name, source) in sources {
            let source = without_generation_tags(&source);
            environment.add_template_owned(name, source).map_err(wrong)?;
        }
        let mut template = ChatTemplate { environment, special_tokens, content_format: ContentFormat::Text };
        template.content_format = template.probe_content_format();
        Ok(template)
    }

    /// The prompt for `messages`, which are in OpenAI's form. Text parts of a message are joined with newlines where
    /// the template reads strings. `kwargs` are the template's own variables, such as `enable_thinking`; they cannot
    /// replace those that every template is given.
    ///
    /// Errors: messages of a shape that no template takes; what the template raises or fails with; a template that does
    /// not end.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, TextError> {
        let messages = messages::normalize(messages, self.content_format)?;
        self.render_normalized(&messages, tools, add_generation_prompt, kwargs)
    }

    fn render_normalized(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, TextError> {
        let variable = |value: &Value| Variable::from(Serde(value));
        let mut context: BTreeMap<String, Variable> =
            kwargs.iter().map(|(name, value)| (name.clone(), variable(value))).collect();
        let tokens = self.special_tokens.iter();
        context.extend(tokens.map(|(role, token)| (role.clone(), Variable::from(token.as_str()))));
        context.extend([
            ("messages".to_owned(), variable(messages)),
            ("tools".to_owned(), tools.map_or(Variable::from(()), variable)),
            ("documents".to_owned(), Variable::from(())),
            ("add_generation_prompt".to_owned(), Variable::from(add_generation_prompt)),
        ]);
        let name = if tools.is_some() && self.has(TOOL_USE) { TOOL_USE } else { DEFAULT };
        let template = self.environment.get_template(name).map_err(|e| TextError::Render(describe(&e)))?;
        template.render(Variable::from(context)).map_err(|e| match functions::raised(&e) {
            Some(message) => TextError::Raised(message),
            None => TextError::Render(describe(&e)),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.environment.templates().any(|(n, _)| n == name)
    }

    /// Finds out which form of content the template reads, by rendering one message in both.
    fn probe_content_format(&self) -> ContentFormat {
        const NEEDLE: &str = "content-probe";
        let shows = |content: Value| {
            let messages = json!([{"role": "user", "content": content}]);
            let text = self.render_normalized(&messages, None, false, &Map::new());
            text.is_ok_and(|text| text.contains(NEEDLE))
        };
        if !shows(json!(NEEDLE)) && shows(json!([{"type": "text", "text": NEEDLE}])) {
            ContentFormat::Parts
        } else {
            ContentFormat::Text
        }
    }
}

/// The templates in `tokenizer_config.json`, with their names.
///
/// Errors: a `chat_template` of another form, a list without a "default" one.
fn configured(config: &TokenizerConfig) -> Result<Option<Vec<(String, String)>>, TextError> {
    const FIELD: &str = "chat_template";
    let Some(value) = config.get(FIELD) else {
        return Ok(None);
    };
    let wrong = || config.wrong(FIELD, "it must be a string or a list of {\"name\": .., \"template\": ..}");
    let named = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        text("name").zip(text("template")).ok_or_else(wrong)
    };
    let sources = match value {
        Value::String(source) => vec![(DEFAULT.to_owned(), source.clone())],
        Value::Array(entries) => entries.iter().map(named).collect::<Result<Vec<_>, _>>()?,
        _ => return Err(wrong()),
    };
    if !sources.iter().any(|(name, _)| name == DEFAULT) {
        return Err(config.wrong(FIELD, "the list has no template named \"default\""));
    }
    Ok(Some(sources))
}

/// An error with its causes.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}

/// Replaces the tags `{% generation %}` and `{% endgeneration %}`, which mark what transformers trains on. For a prompt
/// they make a block like any other. Since minijinja can be given no tags, the pair becomes `{% if true %}` and `{%
/// endif %}`, with its whitespace control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        let Some(end) = tag.find("%}") else {
            break;
        };
        let (inside, after) = tag.split_at(end);
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
    fn generation_tags_keep_their_whitespace_control() {
        let source = "{%- generation -%}a{% if generation %}b{% endif %}{%+ endgeneration %} generation {% x";
        let expected = "{%- if true -%}a{% if generation %}b{% endif %}{%+ endif %} generation {% x";
        assert_eq!(without_generation_tags(source), expected);
    }
}
