//! Methods of Python's strings, lists and dictionaries that minijinja-contrib lacks, or has with fewer arguments.
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Calls a method that minijinja does not have itself.
///
/// Errors: a method that is not known, arguments that it does not take.
pub(super) fn call_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let ours = match value.kind() {
        ValueKind::String => value.as_str().map_or(Ok(None), |text| string_method(state, text, method, args))?,
        ValueKind::Seq => list_method(value, method, args)?,
        ValueKind::Map if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match ours {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let at = list.try_iter()?.position(|item| item == *wanted);
            at.map(|at| Some(Value::from(at))).ok_or_else(|| invalid("index: the value is not in the list"))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(Some(list.clone()))
        }
        _ => Ok(None),
    }
}

fn string_method(state: &mut State, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let value = match method {
        "split" | "rsplit" => parts(text, method, args)?,
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let right = method == "rpartition";
            let cut = if right { text.rsplit_once(separator) } else { text.split_once(separator) };
            let parts = match cut {
                Some((before, after)) => [before, separator, after],
                None if right => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (before, part) = slice(text, start, end);
            let at = if method.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
            match at {
                Some(at) => Value::from(before + part[..at].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(invalid("index: the text is not found")),
            }
        }
        "startswith" | "endswith" if args.len() > 1 => {
            let (wanted, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let part = Value::from(slice(text, start, end).1);
            return part.call_method(state, method, std::slice::from_ref(wanted)).map(Some);
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let rest = if method == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Value::from(rest.unwrap_or(text))
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap =
                |c: char| if c.is_lowercase() { c.to_uppercase().collect() } else { c.to_lowercase().to_string() };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "center" | "ljust" | "rjust" | "zfill" => Value::from(padded(state, text, method, args)?),
        "splitlines" => {
            let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.map_or_else(|| kwargs.get::<Option<bool>>("keepends"), |k| Ok(Some(k)))?;
            kwargs.assert_all_used()?;
            lines(text, keep.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "istitle" | "isidentifier" | "isdecimal" | "isprintable" => {
            let () = from_args(args)?;
            Value::from(is(text, method))
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// Returns the result of `split` or `rsplit`.
fn parts(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit, kwargs): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.map_or_else(|| kwargs.get::<Option<&str>>("sep"), |s| Ok(Some(s)))?;
    let limit = limit.map_or_else(|| kwargs.get::<Option<i64>>("maxsplit"), |n| Ok(Some(n)))?;
    kwargs.assert_all_used()?;
    if separator == Some("") {
        return Err(invalid("split: the separator is empty"));
    }
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let parts = if method == "split" { split(text, separator, limit) } else { rsplit(text, separator, limit) };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn split<'a>(text: &'a str, separator: Option<&str>, limit: usize) -> Vec<&'a str> {
    if let Some(separator) = separator {
        return text.splitn(limit.saturating_add(1), separator).collect();
    }
    let (mut parts, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).filter(|_| parts.len() < limit).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    parts
}

fn rsplit<'a>(text: &'a str, separator: Option<&str>, limit: usize) -> Vec<&'a str> {
    let mut parts = Vec::new();
    if let Some(separator) = separator {
        parts.extend(text.rsplitn(limit.saturating_add(1), separator));
    } else {
        let mut rest = text.trim_end();
        while !rest.is_empty() {
            let space = rest.char_indices().rfind(|(_, c)| c.is_whitespace()).filter(|_| parts.len() < limit);
            let start = space.map_or(0, |(at, c)| at + c.len_utf8());
            parts.push(&rest[start..]);
            rest = rest[..start].trim_end();
        }
    }
    parts.reverse();
    parts
}

/// A text's lines, which end where Python's do.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(ENDS).unwrap_or(rest.len());
        let long =
            if rest[end..].starts_with("\r\n") { 2 } else { rest[end..].chars().next().map_or(0, char::len_utf8) };
        parts.push(&rest[..if keep_ends { end + long } else { end }]);
        rest = &rest[end + long..];
    }
    parts
}

/// `text[start:end]` as Python slices, and the number of characters before it.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let count = text.chars().count();
    let place = |at: i64| usize::try_from(if at < 0 { at.saturating_add(count as i64) } else { at }).unwrap_or(0);
    let (start, end) = (start.map_or(0, place), end.map_or(count, place).min(count));
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    if start >= end { (start, "") } else { (start, &text[byte(start)..byte(end)]) }
}

/// Each word begins with a capital; a word is a run of letters, so that an apostrophe ends one.
fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

fn padded(state: &State, text: &str, method: &str, args: &[Value]) -> Result<String, Error> {
    let (width, fill): (i64, Option<char>) = from_args(args)?;
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    state.consume_fuel(missing as u64 / 64)?;
    let fill = |n: usize| String::from(fill.unwrap_or(' ')).repeat(n);
    Ok(match method {
        "ljust" => text.to_owned() + &fill(missing),
        "rjust" => fill(missing) + text,
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        _ => {
            // Python puts the odd space to the left where the width is odd.
            let left = missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1);
            fill(left) + text + &fill(missing - left)
        }
    })
}

fn is(text: &str, method: &str) -> bool {
    match method {
        "isdecimal" => !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()),
        "isprintable" => text.chars().all(|c| c == ' ' || !(c.is_control() || c.is_whitespace())),
        "isidentifier" => {
            let mut chars = text.chars();
            chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && chars.all(|c| c.is_alphanumeric() || c == '_')
        }
        _ => {
            let (mut cased, mut after_cased) = (false, false);
            for c in text.chars() {
                let (upper, lower) = (c.is_uppercase(), c.is_lowercase());
                if (upper && after_cased) || (lower && !after_cased) {
                    return false;
                }
                after_cased = upper || lower;
                cased |= after_cased;
            }
            cased
        }
    }
}
