//! The types of tools' parameters, as their schemas name them.
use super::tool::Tool;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The tools of a request, as far as reading calls needs them.
#[derive(Debug, Clone)]
pub(super) struct KnownTools(Arc<HashMap<String, HashMap<String, ParameterTypes>>>);

impl KnownTools {
    pub fn new(tools: &[Tool]) -> Self {
        let parameters = |tool: &Tool| {
            let properties = tool.parameters.get("properties").and_then(Value::as_object).into_iter().flatten();
            properties.map(|(name, schema)| (name.clone(), ParameterTypes::of(schema))).collect()
        };
        KnownTools(Arc::new(tools.iter().map(|tool| (tool.name.clone(), parameters(tool))).collect()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a tool has this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The types that a parameter of a tool may have; any, if it is unknown.
    pub fn types(&self, tool: &str, parameter: &str) -> ParameterTypes {
        self.0.get(tool).and_then(|parameters| parameters.get(parameter)).copied().unwrap_or(ParameterTypes::ANY)
    }
}

/// The JSON types that a parameter may have, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ParameterTypes(u8);

impl ParameterTypes {
    pub const STRING: Self = ParameterTypes(1);
    pub const INTEGER: Self = ParameterTypes(2);
    pub const NUMBER: Self = ParameterTypes(4);
    pub const BOOLEAN: Self = ParameterTypes(8);
    pub const NULL: Self = ParameterTypes(16);
    pub const ARRAY: Self = ParameterTypes(32);
    pub const OBJECT: Self = ParameterTypes(64);
    /// Nothing is known.
    pub const ANY: Self = ParameterTypes(127);

    const NAMES: [(&str, Self); 7] = [
        ("string", Self::STRING),
        ("integer", Self::INTEGER),
        ("number", Self::NUMBER),
        ("boolean", Self::BOOLEAN),
        ("null", Self::NULL),
        ("array", Self::ARRAY),
        ("object", Self::OBJECT),
    ];
    /// How deep alternatives are looked into.
    const DEPTH: u8 = 4;

    /// Whether a value may have this type.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the types of both sets.
    pub fn or(self, other: Self) -> Self {
        ParameterTypes(self.0 | other.0)
    }

    fn of(schema: &Value) -> Self {
        Self::within(schema, Self::DEPTH)
    }

    fn within(schema: &Value, depth: u8) -> Self {
        let any_of = |schemas: &[Value]| match depth {
            0 => Self::ANY,
            _ => Self::union(schemas.iter().map(|schema| Self::within(schema, depth - 1))),
        };
        let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)?.as_array());
        match (schema.get("type"), alternatives) {
            (Some(Value::String(name)), _) => Self::named(name),
            (Some(Value::Array(names)), _) => Self::union(names.iter().filter_map(Value::as_str).map(Self::named)),
            (_, Some(schemas)) => any_of(schemas),
            _ => match (schema.get("enum"), schema.get("const")) {
                (Some(Value::Array(values)), _) => Self::union(values.iter().map(Self::of_value)),
                (_, Some(value)) => Self::of_value(value),
                _ => Self::ANY,
            },
        }
    }

    fn named(name: &str) -> Self {
        Self::NAMES.iter().find(|(known, _)| *known == name).map_or(Self::ANY, |(_, types)| *types)
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::STRING,
            Value::Number(number) if number.is_f64() => Self::NUMBER,
            Value::Number(_) => Self::INTEGER,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Null => Self::NULL,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    /// All of some types; any, if there are none.
    fn union(types: impl Iterator<Item = Self>) -> Self {
        match types.fold(0, |bits, types| bits | types.0) {
            0 => Self::ANY,
            bits => ParameterTypes(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_those_of_the_schema() {
        let union = |types: &[ParameterTypes]| ParameterTypes::union(types.iter().copied());
        let (string, null, integer) = (ParameterTypes::STRING, ParameterTypes::NULL, ParameterTypes::INTEGER);
        for (schema, expected) in [
            (json!({"type": "string"}), string),
            (json!({"type": ["string", "null"], "default": null}), union(&[string, null])),
            (json!({"anyOf": [{"type": "integer"}, {"oneOf": [{"type": "null"}]}]}), union(&[integer, null])),
            (json!({"enum": ["a", "b"]}), string),
            (json!({"const": 1}), integer),
            (json!({"type": "str"}), ParameterTypes::ANY),
            (json!({"$ref": "#/$defs/x"}), ParameterTypes::ANY),
            (json!({"anyOf": []}), ParameterTypes::ANY),
            (json!(true), ParameterTypes::ANY),
        ] {
            assert_eq!(ParameterTypes::of(&schema), expected, "{schema}");
        }
    }
}
