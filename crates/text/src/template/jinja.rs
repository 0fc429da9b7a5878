//! Jinja2's tests, filters and functions where minijinja's differ.
use super::python::{call_method, lines};
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, functions};
use std::collections::BTreeMap;

/// Adds what minijinja lacks, or has otherwise than Jinja2.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_test("callable", is_callable);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("center", center);
    environment.add_filter("indent", indent);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("truncate", truncate);
    for name in ["escape", "e", "forceescape"] {
        environment.add_filter(name, escape);
    }
    environment.add_filter(super::percent::FILTER, percent);
    environment.add_function("dict", dict);
}

/// Whether Python can iterate over a value. It cannot over none.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Whether a value has a length and items, as texts and dictionaries have.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined => true,
        ValueKind::Iterable => value.len().is_some(),
        _ => false,
    }
}

/// Functions and macros: objects without items.
fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain && value.as_object().is_some()
}

/// The argument at its place, or by its name.
fn argument<T>(value: Option<T>, name: &str, kwargs: &Kwargs) -> Result<Option<T>, Error>
where
    T: for<'a> minijinja::value::ArgType<'a, Output = T>,
{
    value.map_or_else(|| kwargs.get::<Option<T>>(name), |value| Ok(Some(value)))
}

/// A number of a text, or the default, which is 0.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = argument(default, "default", &kwargs)?.unwrap_or(Value::from(0));
    filters::int(state, &trimmed(value), Some(default), base, kwargs)
}

/// A number of a text, or the default, which is 0.0.
fn float(state: &State, value: &Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = argument(default, "default", &kwargs)?.unwrap_or(Value::from(0.0));
    filters::float(state, &trimmed(value), Some(default), kwargs)
}

/// The value, a text without the space around it, which Python's `int` and `float` leave out.
fn trimmed(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| Value::from(text.trim()))
}

fn default(value: &Value, other: Option<Value>, boolean: Option<bool>, kwargs: Kwargs) -> Result<Value, Error> {
    let other = argument(other, "default_value", &kwargs)?.unwrap_or_else(|| Value::from(""));
    let boolean = argument(boolean, "boolean", &kwargs)?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let missing = value.is_undefined() || (boolean && !value.is_true());
    Ok(if missing { other } else { value.clone() })
}

fn center(state: &mut State, value: &Value, width: Option<i64>) -> Result<Value, Error> {
    call_method(state, &Value::from(value.to_string()), "center", &[Value::from(width.unwrap_or(80))])
}

/// A text with its lines indented by a number of spaces, or by a text.
fn indent(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    const MOST: usize = 1 << 10;
    let args = by_name(&["width", "first", "blank"], args)?;
    let width = args.get::<Option<Value>>("width")?.unwrap_or(Value::from(4));
    let (first, blank) = (args.get::<Option<bool>>("first")?, args.get::<Option<bool>>("blank")?);
    args.assert_all_used()?;
    let by = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(width)?.min(MOST)),
    };
    let text = value.to_string() + "\n";
    let lines = lines(&text, false);
    state.consume_fuel((lines.len() * by.len()) as u64 / 64)?;
    let mut out = if first.unwrap_or(false) { by.clone() } else { String::new() };
    for (i, line) in lines.into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
            out.push_str(if line.is_empty() && !blank.unwrap_or(false) { "" } else { &by });
        }
        out.push_str(line);
    }
    Ok(out)
}

/// A text with characters escaped as in a URL; pairs become a query.
fn urlencode(value: &Value) -> Result<String, Error> {
    let part = |value: &Value| {
        let text = filters::urlencode(&Value::from(value.to_string()))?;
        Ok::<_, Error>(text.replace('/', "%2F").replace("%20", "+"))
    };
    let pairs: Vec<(Value, Value)> = match value.kind() {
        ValueKind::Map => {
            value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect::<Result<_, Error>>()?
        }
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()?
            .map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)))
            .collect::<Result<_, Error>>()?,
        _ => return filters::urlencode(&Value::from(value.to_string())),
    };
    let parts = pairs.iter().map(|(key, value)| Ok(format!("{}={}", part(key)?, part(value)?)));
    Ok(parts.collect::<Result<Vec<_>, Error>>()?.join("&"))
}

/// Arguments of a filter that minijinja takes by their names alone.
fn by_name(names: &[&'static str], args: Rest<ValueOrKwargs>) -> Result<Kwargs, Error> {
    let mut named: BTreeMap<String, Value> = BTreeMap::new();
    let mut names = names.iter();
    for value in args.into_values() {
        if value.is_kwargs() {
            for key in value.try_iter()? {
                named.insert(key.to_string(), value.get_item(&key)?);
            }
        } else {
            let name = names.next().ok_or_else(|| Error::from(ErrorKind::TooManyArguments))?;
            named.insert((*name).to_owned(), value);
        }
    }
    Ok(named.into_iter().collect())
}

fn dictsort(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    filters::dictsort(value, by_name(&["case_sensitive", "by", "reverse"], args)?)
}

fn truncate(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    minijinja_contrib::filters::truncate(state, value, by_name(&["length", "killwords", "end", "leeway"], args)?)
}

fn escape(value: &Value) -> Value {
    let mut out = String::new();
    for c in value.to_string().chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            other => out.push(other),
        }
    }
    Value::from(out)
}

/// Python's `text % value`: a tuple is several values, a dictionary has names.
fn percent(state: &mut State, format: &Value, value: &Value) -> Result<Value, Error> {
    let mut args = vec![format.clone()];
    if value.is_tuple() {
        args.extend(value.try_iter()?);
    } else if value.kind() == ValueKind::Map && format.as_str().is_some_and(|text| text.contains("%(")) {
        let pairs = value.try_iter()?.map(|key| Ok((key.to_string(), value.get_item(&key)?)));
        args.push(Kwargs::from_iter(pairs.collect::<Result<Vec<_>, Error>>()?).into());
    } else {
        args.push(value.clone());
    }
    state.apply_filter("format", &args)
}

/// A dictionary of another one or of pairs, and of names.
fn dict(from: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let Some(pairs) = from.as_ref().filter(|from| matches!(from.kind(), ValueKind::Seq | ValueKind::Iterable)) else {
        return functions::dict(from, kwargs);
    };
    let mut named: Vec<(String, Value)> = Vec::new();
    for pair in pairs.try_iter()? {
        named.push((pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?));
    }
    for name in kwargs.args() {
        named.push((name.to_owned(), kwargs.get::<Value>(name)?));
    }
    functions::dict(None, named.into_iter().collect())
}
