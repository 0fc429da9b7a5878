//! The grammars that constraints are made of.
use super::{ConstraintError, first_line, gbnf};
use serde_json::{Value, json};

/// White space between the tokens of JSON. Without a bound a model may write it without end.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,32}";

/// The form that an answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// JSON that a schema validates.
    Json(Value),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// One of some texts.
    Choice(Vec<String>),
    /// A text of a grammar, in llguidance's variant of Lark's notation with a rule `start`, or in GBNF, llama.cpp's
    /// notation, with a rule `root`.
    Rules(String),
}

impl Grammar {
    /// Any JSON object.
    pub fn json_object() -> Self {
        Grammar::Json(json!({"type": "object"}))
    }

    /// The rules of this grammar in Lark's notation, the first of them called `name`.
    ///
    /// Errors: a grammar without a rule `start`, or an empty list of texts.
    pub(super) fn rules(&self, name: &str) -> Result<String, ConstraintError> {
        match self {
            Grammar::Json(schema) => Ok(format!("{name}: {}\n", json_term(schema, JsonStyle::Flexible))),
            Grammar::Regex(regex) => {
                let regex = llguidance::regex_to_lark(regex, "");
                Ok(format!("{name}: /{regex}/\n"))
            }
            Grammar::Choice(texts) if texts.is_empty() => {
                Err(ConstraintError::Grammar("it has no text to choose from".into()))
            }
            Grammar::Choice(texts) => {
                let texts = texts.iter().map(|text| literal(text)).collect::<Vec<_>>();
                Ok(format!("{name}: {}\n", texts.join(" | ")))
            }
            Grammar::Rules(rules) => Ok(format!("{name}: %lark {{\n{}\n}}\n", lark(rules)?)),
        }
    }
}

/// Rules in Lark's notation, whichever they are in.
fn lark(rules: &str) -> Result<String, ConstraintError> {
    if !gbnf::is_gbnf(rules) {
        return Ok(rules.to_owned());
    }
    gbnf::to_lark(rules).map_err(ConstraintError::Grammar)
}

/// How JSON is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonStyle {
    /// With any white space between tokens, up to a bound.
    Flexible,
    /// As Python's `json.dumps` and the filter `tojson` of templates write it, which models were trained on: what a
    /// template writes of a past call is then what the model has written.
    Python,
    /// As Python writes it, of a schema that is held only as far as its keywords are known.
    PythonInPart,
}

/// JSON of a schema as a term of Lark's notation.
pub(crate) fn json_term(schema: &Value, style: JsonStyle) -> String {
    let mut schema = match schema {
        Value::Bool(_) => json!({"allOf": [schema]}),
        other => other.clone(),
    };
    let options = match style {
        JsonStyle::Flexible => json!({"whitespace_pattern": WHITESPACE}),
        JsonStyle::Python | JsonStyle::PythonInPart => json!({
            "whitespace_flexible": false,
            "item_separator": ", ",
            "key_separator": ": ",
            "lenient": style == JsonStyle::PythonInPart,
        }),
    };
    if let Value::Object(map) = &mut schema {
        map.insert("x-guidance".into(), options);
    }
    format!("%json {schema}")
}

/// A text as a term of Lark's notation.
pub(crate) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The error of the library in few words. It names the keyword that is not known.
pub(super) fn refused(error: &anyhow::Error) -> ConstraintError {
    ConstraintError::Grammar(first_line(&format!("{error:#}")))
}
