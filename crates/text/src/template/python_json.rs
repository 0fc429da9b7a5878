//! JSON with the spaces of Python's `json.dumps`, since models have been trained on tools and arguments written that
//! way.
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// The arguments of `json.dumps`, and where the writing stands.
#[derive(PartialEq)]
pub(super) struct PythonJson {
    /// The text between two items.
    pub item_separator: String,
    /// The text between a key and its value.
    pub key_separator: String,
    /// Spaces of each level; each item then has a line of its own.
    indent: Option<usize>,
    /// Whether characters outside of ASCII are escaped.
    ensure_ascii: bool,
    depth: usize,
    /// The innermost open list or object has no item yet.
    empty: bool,
}

impl PythonJson {
    pub fn new(indent: Option<usize>, ensure_ascii: bool) -> Self {
        // With an indent, Python leaves out the space that would end each line.
        let item_separator = if indent.is_some() { "," } else { ", " };
        PythonJson {
            item_separator: item_separator.into(),
            key_separator: ": ".into(),
            indent,
            ensure_ascii,
            depth: 0,
            empty: true,
        }
    }

    /// Writes `value`.
    pub fn dump(self, value: &Value) -> serde_json::Result<String> {
        let mut out = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut out, self))?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.new_line(out)?;
        }
        self.empty = false;
        out.write_all(bracket)
    }

    fn before_item<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.item_separator.as_bytes())?;
        }
        self.empty = false;
        self.new_line(out)
    }

    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(indent) => write!(out, "\n{:1$}", "", indent * self.depth),
            None => Ok(()),
        }
    }
}

impl Formatter for PythonJson {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.before_item(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.before_item(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key_separator.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        out.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ensure_ascii {
            return out.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            // Marks of ours (`marks`) must be found again; Python would escape these characters, which stand for
            // nothing.
            if c.is_ascii() || ('\u{FDD0}'..='\u{FDEF}').contains(&c) {
                write!(out, "{c}")?;
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }
}

/// A finite number as Python writes it: the shortest digits that are read as the same number, with an exponent below
/// 1e-4 and from 1e16 on.
pub(super) fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => {
            let plain = value.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // Expected texts: Python's repr.
    #[test]
    fn numbers_are_pythons() {
        for (value, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (123456.75, "123456.75"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(python_float(value), expected);
        }
    }

    // Expected texts: Python 3.12's json.dumps of the same value.
    #[test]
    fn spaces_are_pythons() {
        let value = json!({"a": [1, 2.5, null], "b": {}, "c": [], "d": {"é": "\"<&>'\n😀"}});
        let dump = |indent, ascii| PythonJson::new(indent, ascii).dump(&value).unwrap();
        assert_eq!(dump(None, false), r#"{"a": [1, 2.5, null], "b": {}, "c": [], "d": {"é": "\"<&>'\n😀"}}"#);
        assert_eq!(
            dump(None, true),
            r#"{"a": [1, 2.5, null], "b": {}, "c": [], "d": {"\u00e9": "\"<&>'\n\ud83d\ude00"}}"#
        );
        let indented = [
            r#"{"#,
            r#"  "a": ["#,
            r#"    1,"#,
            r#"    2.5,"#,
            r#"    null"#,
            r#"  ],"#,
            r#"  "b": {},"#,
            r#"  "c": [],"#,
            r#"  "d": {"#,
            r#"    "é": "\"<&>'\n😀""#,
            r#"  }"#,
            r#"}"#,
        ];
        assert_eq!(dump(Some(2), false), indented.join("\n"));
    }
}
