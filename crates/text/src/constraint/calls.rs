//! The grammars of tool calls, format by format. Each is of a call section from after the tag that opens it, so that
//! it can begin where the parser of the answer sees one open.
use super::grammar::{JsonStyle, json_term, literal};
use crate::answer::{Tool, ToolCallFormat};
use crate::tokenizer::Tokenizer;
use serde_json::{Map, Value};

/// White space that models may write between tags and what they enclose.
const SPACE: &str = "call_space: /[ \\n]{1,4}/\n";

/// The tool calls that an answer may hold.
#[derive(Debug, Clone, Copy)]
pub struct CallGrammar<'a> {
    /// How the model writes them.
    pub format: ToolCallFormat,
    /// The tools that may be called, at least one.
    pub tools: &'a [Tool],
    /// One call alone.
    pub single: bool,
    /// Refuse schemas with keywords that cannot be held; otherwise these keywords are passed over.
    pub exact: bool,
}

impl CallGrammar<'_> {
    /// The tag that opens a section, as a term; empty if there is none.
    pub(super) fn opening(&self, tokenizer: &Tokenizer) -> String {
        match self.format {
            ToolCallFormat::Hermes | ToolCallFormat::QwenXml => tag(tokenizer, "<tool_call>"),
            ToolCallFormat::Mistral => tag(tokenizer, "[TOOL_CALLS]"),
            ToolCallFormat::DeepSeek => tag(tokenizer, "<｜tool▁calls▁begin｜>"),
            ToolCallFormat::LlamaJson | ToolCallFormat::Pythonic => String::new(),
        }
    }

    /// Rules of which `calls` is a section from after the tag that opens it.
    pub(super) fn rules(&self, tokenizer: &Tokenizer) -> String {
        match self.format {
            ToolCallFormat::Hermes => self.hermes(tokenizer),
            ToolCallFormat::QwenXml => self.qwen_xml(tokenizer),
            ToolCallFormat::LlamaJson => self.llama_json(),
            ToolCallFormat::Pythonic => self.pythonic(),
            ToolCallFormat::Mistral => self.mistral(tokenizer),
            ToolCallFormat::DeepSeek => self.deep_seek(tokenizer),
        }
    }

    /// How arguments are written.
    fn style(&self) -> JsonStyle {
        if self.exact { JsonStyle::Python } else { JsonStyle::PythonInPart }
    }

    /// One alternative for each tool as the rule `call`.
    fn alternatives(&self, one: impl Fn(&Tool) -> String) -> String {
        let alternatives: Vec<String> = self.tools.iter().map(one).collect();
        format!("call: {}\n", alternatives.join("\n    | "))
    }

    /// `{"name": .., KEY: {..}}` for each tool as the rule `call`.
    fn objects(&self, key: &str) -> String {
        self.alternatives(|tool| {
            let head = format!("{{\"name\": {}, \"{key}\": ", Value::from(tool.name.as_str()));
            format!("{} {} \"}}\"", literal(&head), arguments(tool, self.style()))
        })
    }

    /// `item` once, or several of it with `separator` between them.
    fn repeated(&self, item: &str, separator: &str) -> String {
        if self.single { item.to_owned() } else { format!("{item} ({separator} {item})*") }
    }

    fn hermes(&self, tokenizer: &Tokenizer) -> String {
        let (close, list) = (tag(tokenizer, "</tool_call>"), self.repeated("call", "\", \""));
        let calls = format!("calls: call_space? (call | \"[\" {list} \"]\") call_space? {close}\n");
        calls + &self.objects("arguments") + SPACE
    }

    fn qwen_xml(&self, tokenizer: &Tokenizer) -> String {
        let close = tag(tokenizer, "</tool_call>");
        let mut rules = format!("calls: call_space? call (call_space? {close})?\n");
        let mut values = String::new();
        for (i, tool) in self.tools.iter().enumerate() {
            let mut body = literal(&format!("<function={}>\n", tool.name));
            for (j, (name, schema, required)) in properties(tool).enumerate() {
                let value = format!("value_{i}_{j}");
                let head = literal(&format!("<parameter={name}>\n"));
                body += &format!(" ({head} {value}){}", if required { "" } else { "?" });
                values += &format!("{value}: {}\n", xml_value(&schema, self.style()));
            }
            values += &format!("call_{i}: {body} \"</function>\"\n");
        }
        let alternatives: Vec<String> = (0..self.tools.len()).map(|i| format!("call_{i}")).collect();
        rules += &format!("call: {}\n", alternatives.join(" | "));
        rules + &values + XML_TEXT + SPACE
    }

    fn llama_json(&self) -> String {
        let calls = self.repeated("call", "\";\" call_space?");
        format!("calls: call_space? {calls}\n") + &self.objects("parameters") + SPACE
    }

    fn pythonic(&self) -> String {
        let calls = self.repeated("call", "\", \"");
        format!("calls: \"[\" {calls} \"]\"\n")
            + &self.alternatives(|tool| python_call(tool, self.style()))
            + PYTHON_VALUE
    }

    fn mistral(&self, tokenizer: &Tokenizer) -> String {
        // Vocabularies with this token are of models that name the tool before it.
        if tokenizer.token_id("[ARGS]").is_some() {
            let separator = tag(tokenizer, "[ARGS]");
            let call = |tool: &Tool| format!("{} {separator} {}", literal(&tool.name), arguments(tool, self.style()));
            return String::from("calls: call\n") + &self.alternatives(call);
        }
        let calls = self.repeated("call", "\", \"");
        format!("calls: call_space? \"[\" {calls} \"]\"\n") + &self.objects("arguments") + SPACE
    }

    fn deep_seek(&self, tokenizer: &Tokenizer) -> String {
        let tag = |text| tag(tokenizer, text);
        let (begin, separator, end) = (tag("<｜tool▁call▁begin｜>"), tag("<｜tool▁sep｜>"), tag("<｜tool▁call▁end｜>"));
        let calls = self.repeated("one_call", "call_space?");
        let close = tag("<｜tool▁calls▁end｜>");
        let mut rules = format!("calls: call_space? {calls} call_space? {close}\n");
        rules += &format!("one_call: {begin} call {end}\n");
        rules += &self.alternatives(|tool| {
            let (fenced, name) = (literal(&format!("{}\n```json\n", tool.name)), literal(&tool.name));
            let arguments = arguments(tool, self.style());
            format!("\"function\" {separator} {fenced} {arguments} \"\\n```\" | {name} {separator} {arguments}")
        });
        rules + SPACE
    }
}

/// A tag as a term. It is one token where the vocabulary has it as a special one, and text otherwise.
pub(super) fn tag(tokenizer: &Tokenizer, text: &str) -> String {
    match tokenizer.token_id(text).filter(|id| tokenizer.is_special(*id)) {
        Some(id) => format!("<[{id}]>"),
        None => literal(text),
    }
}

/// A tool's arguments as a term. They are an object, whatever the schema says.
fn arguments(tool: &Tool, style: JsonStyle) -> String {
    let mut schema = match &tool.parameters {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    if !schema.contains_key("type") && !schema.contains_key("$ref") {
        schema.insert("type".into(), "object".into());
    }
    json_term(&Value::Object(schema), style)
}

/// The properties of a tool's arguments: name, schema, whether it is required.
fn properties(tool: &Tool) -> impl Iterator<Item = (&str, Value, bool)> {
    let required = tool.parameters.get("required").and_then(Value::as_array);
    let is_required = move |name: &str| required.is_some_and(|list| list.iter().any(|entry| entry == name));
    let properties = tool.parameters.get("properties").and_then(Value::as_object);
    let definitions: Vec<(&str, &Value)> =
        ["$defs", "definitions"].into_iter().filter_map(|key| Some((key, tool.parameters.get(key)?))).collect();
    properties.into_iter().flatten().map(move |(name, schema)| {
        let mut schema = schema.clone();
        if let Value::Object(schema) = &mut schema {
            // What the schema of a property refers to lies in the whole.
            schema.extend(definitions.iter().map(|(key, value)| ((*key).to_owned(), (*value).clone())));
        }
        (name.as_str(), schema, is_required(name))
    })
}

/// A text up to the tag that closes it, which is part of the rule.
const XML_TEXT: &str = "xml_text[suffix=\"\\n</parameter>\\n\"]: /(?s:.*)/\n";

/// A parameter's value and its closing tag as a term: strings stand as they are, all else is JSON.
fn xml_value(schema: &Value, style: JsonStyle) -> String {
    let value = match texts(schema) {
        Some(texts) => format!("({})", texts.join(" | ")),
        None if schema.get("type").and_then(Value::as_str) == Some("string") => return "xml_text".into(),
        None => json_term(schema, style),
    };
    format!("{value} \"\\n</parameter>\\n\"")
}

/// The values that a schema's `enum` or `const` lists, if all of them are strings, as terms.
fn texts(schema: &Value) -> Option<Vec<String>> {
    listed_values(schema)?.iter().map(|value| value.as_str().map(literal)).collect()
}

/// The values that a schema's `enum` or `const` lists; `None` if it has neither.
fn listed_values(schema: &Value) -> Option<&[Value]> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(list)), _) if !list.is_empty() => Some(list),
        (None, Some(value)) => Some(std::slice::from_ref(value)),
        _ => None,
    }
}

/// A value as Python writes it.
const PYTHON_VALUE: &str = r#"
python_value: python_string | python_number | "True" | "False" | "None" | python_list | python_dict
python_list: "[" (python_value (", " python_value)*)? "]"
python_dict: "{" (python_string ": " python_value (", " python_string ": " python_value)*)? "}"
python_string: /"([^"\\\n]|\\["\\nrt])*"/
python_number: /-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?/
"#;

/// `NAME(KEY=VALUE, ..)` with the required parameters first, each kind in the schema's order.
fn python_call(tool: &Tool, style: JsonStyle) -> String {
    let (mut required, mut optional) = (Vec::new(), Vec::new());
    for (name, schema, is_required) in properties(tool) {
        let parameter = format!("{} {}", literal(&format!("{name}=")), python_term(&schema, style));
        if is_required { required.push(parameter) } else { optional.push(parameter) }
    }
    let separator = "\", \"";
    let head = literal(&format!("{}(", tool.name));
    let mut body = required.join(&format!(" {separator} "));
    if required.is_empty() {
        // Any run of the optional ones, in order: a first one, then those after it.
        let runs = (0..optional.len()).map(|first| {
            let rest = optional[first + 1..].iter().map(|next| format!(" ({separator} {next})?"));
            format!("{}{}", optional[first], rest.collect::<String>())
        });
        body = runs.map(|run| format!("({run})")).collect::<Vec<_>>().join(" | ");
        body = if body.is_empty() { body } else { format!("({body})?") };
    } else {
        body += &optional.iter().map(|next| format!(" ({separator} {next})?")).collect::<String>();
    }
    format!("{head} {body} \")\"")
}

/// A value as Python writes it. What Python writes as JSON is held to the whole schema, all else to its type.
fn python_term(schema: &Value, style: JsonStyle) -> String {
    if let Some(values) = python_scalars(schema) {
        return format!("({})", values.join(" | "));
    }
    if is_written_as_json(schema) {
        return json_term(schema, style);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => "(\"True\" | \"False\")".into(),
        Some("null") => "\"None\"".into(),
        Some("array") => "python_list".into(),
        Some("object") => "python_dict".into(),
        _ => "python_value".into(),
    }
}

/// The values that a schema's `enum` or `const` lists, as Python writes them and as terms; `None` if one of them is a
/// list or an object.
fn python_scalars(schema: &Value) -> Option<Vec<String>> {
    let scalar = |value: &Value| match value {
        Value::Null => Some(literal("None")),
        Value::Bool(true) => Some(literal("True")),
        Value::Bool(false) => Some(literal("False")),
        Value::String(_) | Value::Number(_) => Some(literal(&value.to_string())),
        Value::Array(_) | Value::Object(_) => None,
    };
    listed_values(schema)?.iter().map(scalar).collect()
}

/// Whether no value of the schema holds true, false or null, which Python writes otherwise.
fn is_written_as_json(schema: &Value) -> bool {
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().all(|value| value.is_string() || value.is_number());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string" | "integer" | "number") => true,
        Some("array") => schema.get("items").is_some_and(is_written_as_json),
        _ => false,
    }
}
