//! The fields that hold an answer to a form: OpenAI's, vLLM's, llama.cpp's and SGLang's.
use crate::http::error::{ApiError, ErrorCode};
use crate::turn::HeldTo;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use text::Grammar;

/// The fields that hold an answer to a form. One of them may be given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StructureFields {
    /// The form that the answer is held to, as in OpenAI's interface.
    response_format: Option<Value>,
    /// The form that the answer is held to, as in vLLM's.
    structured_outputs: Option<Value>,
    /// A JSON schema that the answer is held to (vLLM's older name).
    guided_json: Option<Value>,
    /// A regular expression that the answer is held to (vLLM's older name).
    guided_regex: Option<String>,
    /// Texts, one of which the answer is (vLLM's older name).
    guided_choice: Option<Vec<String>>,
    /// A grammar that the answer is held to (vLLM's older name).
    guided_grammar: Option<String>,
    /// A JSON schema that the answer is held to (llama.cpp's and SGLang's name).
    json_schema: Option<Value>,
    /// A grammar that the answer is held to (llama.cpp's name).
    grammar: Option<String>,
    /// A regular expression that the answer is held to (SGLang's name).
    regex: Option<String>,
    /// A grammar that the answer is held to (SGLang's name).
    ebnf: Option<String>,
}

impl StructureFields {
    /// What the answer is held to; `None` leaves it free.
    ///
    /// Errors: two fields at once, a form that is not known, a schema that is no JSON.
    pub fn resolve(self) -> Result<Option<HeldTo>, ApiError> {
        let given = [
            self.response_format.map(|format| response_format(&format)).transpose()?.flatten(),
            self.structured_outputs.map(|outputs| structured_outputs(&outputs)).transpose()?,
            self.guided_json.map(|schema| json("guided_json", &schema)).transpose()?,
            self.guided_regex.map(|regex| held("guided_regex", Grammar::Regex(regex))),
            self.guided_choice.map(|texts| held("guided_choice", Grammar::Choice(texts))),
            self.guided_grammar.map(|rules| held("guided_grammar", Grammar::Rules(rules))),
            self.json_schema.map(|schema| json("json_schema", &schema)).transpose()?,
            self.grammar.map(|rules| held("grammar", Grammar::Rules(rules))),
            self.regex.map(|regex| held("regex", Grammar::Regex(regex))),
            self.ebnf.map(|rules| held("ebnf", Grammar::Rules(rules))),
        ];
        let mut given = given.into_iter().flatten();
        let first = given.next();
        if let (Some(first), Some(second)) = (&first, given.next()) {
            let (first, second) = (first.field, second.field);
            let message = format!("{first} and {second} are given; an answer is held to one form");
            return Err(ApiError::invalid(second, message));
        }
        Ok(first)
    }
}

fn held(field: &'static str, grammar: Grammar) -> HeldTo {
    HeldTo { grammar, field }
}

/// JSON of a schema, which may be written as text.
fn json(field: &'static str, schema: &Value) -> Result<HeldTo, ApiError> {
    let schema = match schema {
        Value::String(text) => serde_json::from_str(text)
            .map_err(|e| ApiError::invalid(field, format!("{field} is a text that is no JSON: {e}")))?,
        other => other.clone(),
    };
    match schema {
        Value::Object(_) | Value::Bool(_) => Ok(held(field, Grammar::Json(schema))),
        other => Err(ApiError::invalid(field, format!("{field} is {other}; it must be a JSON schema"))),
    }
}

fn response_format(format: &Value) -> Result<Option<HeldTo>, ApiError> {
    const FIELD: &str = "response_format";
    let schema = format.get("schema").filter(|schema| !schema.is_null());
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") if schema.is_none() => Ok(Some(held(FIELD, Grammar::json_object()))),
        // llama.cpp's clients put a schema beside either type.
        Some("json_object" | "json_schema") if schema.is_some() => schema.map(|schema| json(FIELD, schema)).transpose(),
        Some("json_schema") => {
            let inner = format.get("json_schema").unwrap_or(&Value::Null);
            match inner.get("schema").filter(|schema| !schema.is_null()) {
                Some(schema) => json(FIELD, schema).map(Some),
                // Without one the answer is still to be JSON.
                None if inner.is_object() => Ok(Some(held(FIELD, Grammar::json_object()))),
                None => {
                    let path = "response_format.json_schema";
                    let message = format!("{path} is {inner}; it must be an object with a name and a schema");
                    Err(ApiError::invalid(path, message))
                }
            }
        }
        Some("grammar") => match format.get("grammar").and_then(Value::as_str) {
            Some(rules) => Ok(Some(held(FIELD, Grammar::Rules(rules.to_owned())))),
            None => Err(ApiError::invalid("response_format.grammar", "response_format.grammar must be a text")),
        },
        _ => {
            let kind = format.get("type").unwrap_or(&Value::Null);
            let message = format!("response_format.type is {kind}; it must be text, json_object or json_schema");
            Err(ApiError::invalid("response_format.type", message))
        }
    }
}

/// vLLM's object with one of several kinds of forms.
fn structured_outputs(outputs: &Value) -> Result<HeldTo, ApiError> {
    const FIELD: &str = "structured_outputs";
    let given = |name: &str| outputs.get(name).filter(|value| !value.is_null() && **value != Value::Bool(false));
    let text = |name: &str, value: &Value| {
        let path = format!("{FIELD}.{name}");
        let wrong = || ApiError::invalid(path.clone(), format!("{path} is {value}; it must be a text"));
        value.as_str().map(str::to_owned).ok_or_else(wrong)
    };
    if let Some(schema) = given("json") {
        return json(FIELD, schema);
    }
    if let Some(regex) = given("regex") {
        return Ok(held(FIELD, Grammar::Regex(text("regex", regex)?)));
    }
    if let Some(rules) = given("grammar") {
        return Ok(held(FIELD, Grammar::Rules(text("grammar", rules)?)));
    }
    if let Some(Value::Array(texts)) = given("choice") {
        let texts = texts.iter().map(|value| text("choice", value)).collect::<Result<_, _>>()?;
        return Ok(held(FIELD, Grammar::Choice(texts)));
    }
    if given("json_object").is_some() {
        return Ok(held(FIELD, Grammar::json_object()));
    }
    let message = format!("{FIELD} must have one of json, regex, choice, grammar and json_object");
    Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at(FIELD))
}
