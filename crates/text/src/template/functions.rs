//! The functions and filters that transformers adds to Jinja for chat templates.
use super::python_json::{PythonJson, python_float};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use std::fmt::Write;
use thiserror::Error as ThisError;

/// The work that one rendering may take: 1 for each instruction, and 1 for each 64 bytes of text. That is far more than
/// a conversation of the longest context takes, and it bounds the text to a quarter of a GiB.
pub(super) const FUEL: u64 = 1 << 22;
/// The work that rendering a probe may take, which is a conversation of two messages.
pub(super) const PROBE_FUEL: u64 = 1 << 18;
/// The most spaces by which `tojson` indents a level. Python has no limit, and no template is known to use more than 4.
const MAX_INDENT: usize = 32;

/// The message of `raise_exception`, kept apart from failures of the template itself.
#[derive(Debug, ThisError)]
#[error("{0}")]
struct Raised(String);

/// A Jinja environment with the settings of `_compile_jinja_template` in transformers, and without templates.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(super::python::call_method);
    minijinja_contrib::add_to_environment(&mut environment);
    super::jinja::add_to(&mut environment);
    environment.set_formatter(write);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// Writes a value into a prompt.
fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        let number = f64::try_from(value.clone())?;
        if number.is_finite() {
            return Ok(out.write_str(&python_float(number))?);
        }
    }
    escape_formatter(out, state, value)
}

/// The text that a template gave to `raise_exception`, if that is why it failed.
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return Some(message.clone());
        }
        cause = inner.source();
    }
    None
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The local time in a `strftime` format.
///
/// Errors: an unknown format.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown format {format:?}")))?;
    Ok(text)
}

/// The name of a template variable that no template can name, since it has spaces: a map from a tool call's arguments,
/// as [`to_json`] writes them, to the same arguments as the model wrote them. With it a repeated prompt is equal to the
/// earlier prompt and answer token by token, so that its prefix is known.
pub(super) const WRITTEN_ARGUMENTS: &str = "arguments as written";

/// Writes JSON as Python's `json.dumps` does, with transformers' default of `ensure_ascii=False`. In contrast to
/// Jinja's own filter it escapes nothing for HTML, and it writes arguments of tool calls as the model wrote them (see
/// [`WRITTEN_ARGUMENTS`]).
fn to_json(state: &State, value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let failed = |message: String| Error::new(ErrorKind::InvalidOperation, format!("tojson: {message}"));
    let indent: Option<usize> = kwargs.get("indent")?;
    if let Some(indent) = indent.filter(|n| *n > MAX_INDENT) {
        return Err(failed(format!("indent is {indent}; it must be at most {MAX_INDENT}")));
    }
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    kwargs.assert_all_used()?;
    let mut style = PythonJson::new(indent, ensure_ascii.unwrap_or(false));
    if let Some(separators) = separators {
        let [item, key] = <[String; 2]>::try_from(separators)
            .map_err(|s| failed(format!("separators has {} entries; it must have two", s.len())))?;
        (style.item_separator, style.key_separator) = (item, key);
    }
    let is_plain = style == PythonJson::new(None, false) && sort_keys != Some(true);
    let mut value = serde_json::to_value(&value).map_err(|e| failed(e.to_string()))?;
    if sort_keys == Some(true) {
        value.sort_all_objects();
    }
    let text = style.dump(&value).map_err(|e| failed(e.to_string()))?;
    let written = state.lookup(WRITTEN_ARGUMENTS).filter(|_| is_plain && value.is_object());
    Ok(match written {
        Some(written) => with_written(text, &written),
        None => text,
    })
}

/// Returns the JSON with arguments of tool calls as the model wrote them. `json` is a call's arguments, or contains
/// them as the value of a key `arguments`.
fn with_written(json: String, written: &Value) -> String {
    let as_written = |python: &str| written.get_attr(python).ok()?.as_str().map(str::to_owned);
    if let Some(all) = as_written(&json) {
        return all;
    }
    let mut out = json;
    for python in written.try_iter().into_iter().flatten() {
        let Some((python, arguments)) = python.as_str().and_then(|python| Some((python, as_written(python)?))) else {
            continue;
        };
        let member = |arguments: &str| format!("\"arguments\": {arguments}");
        if out.contains(&member(python)) {
            out = out.replace(&member(python), &member(&arguments));
        }
    }
    out
}
