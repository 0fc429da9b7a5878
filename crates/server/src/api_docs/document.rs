//! The OpenAPI document of all routes.
//!
//! It is put together from the schemas that `schemars` derives for the types of requests and answers.
use crate::http::error::ErrorCode;
use crate::http::operation::{EVENTS, MakeSchema, Operation};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where the schemas of types stand.
const SCHEMAS: &str = "/components/schemas";
/// What can go wrong with every route.
const ALWAYS: [ErrorCode; 2] = [ErrorCode::NotAllowed, ErrorCode::Internal];
/// What can go wrong with every route that needs a model.
const WITH_MODEL: [ErrorCode; 5] = [
    ErrorCode::InvalidApiKey,
    ErrorCode::ModelLoading,
    ErrorCode::ShuttingDown,
    ErrorCode::EngineEnded,
    ErrorCode::TooManyConnections,
];

/// The document. `guarded` are the routes that ask for the API key, `open` those that do not.
pub fn document(guarded: &[(&'static str, Operation)], open: &[(&'static str, Operation)]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = SCHEMAS.into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for (path, operation, is_guarded) in
        guarded.iter().map(|(path, o)| (path, o, true)).chain(open.iter().map(|(path, o)| (path, o, false)))
    {
        // A parameter of several segments is one in OpenAPI.
        let at = paths.entry(path.replace("{*", "{")).or_insert_with(|| json!({}));
        at[operation.method] = described(path, operation, is_guarded, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Error".into(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tallow",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An inference server with OpenAI's interface, and what clients of vLLM, llama.cpp and \
                            SGLang ask for. /v1 may be left out of paths.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {
                "type": "http",
                "scheme": "bearer",
                "description": "The key of --api-key, where the server has one.",
            }},
        },
    })
}

fn described(path: &str, operation: &Operation, is_guarded: bool, generator: &mut SchemaGenerator) -> Value {
    let mut told = json!({"summary": operation.summary, "responses": responses(operation, is_guarded, generator)});
    let parameters: Vec<Value> = path_parameters(path).chain(query_parameters(&operation.query, generator)).collect();
    if !parameters.is_empty() {
        told["parameters"] = parameters.into();
    }
    if !operation.body.is_empty() {
        let schema = body_schema(operation, generator);
        told["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if is_guarded {
        told["security"] = json!([{"key": []}, {}]);
    }
    told
}

fn body_schema(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut properties = properties(&operation.body, generator);
    for field in &operation.needed {
        properties.get_mut(*field).into_iter().for_each(without_null);
    }
    let mut schema = json!({"type": "object", "properties": properties, "required": operation.needed});
    if !operation.alternatives.is_empty() {
        let only = |field: &&str| {
            let others = operation.alternatives.iter().filter(|other| *other != field);
            let mut allowed: Map<String, Value> =
                others.map(|other| ((*other).to_owned(), json!({"type": "null"}))).collect();
            allowed.insert((*field).to_owned(), json!({"not": {"type": "null"}}));
            json!({"properties": allowed, "required": [field]})
        };
        schema["oneOf"] = operation.alternatives.iter().map(only).collect();
    }
    schema
}

/// Takes null from the types that a value may have.
fn without_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = &types[..] {
            schema["type"] = kind.clone();
        }
    }
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    })
}

fn query_parameters(types: &[MakeSchema], generator: &mut SchemaGenerator) -> Vec<Value> {
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({"name": name, "in": "query", "description": description, "schema": schema})
    };
    properties(types, generator).into_iter().map(parameter).collect()
}

/// The fields of all `types`. One that is left out or null is the same to the server.
fn properties(types: &[MakeSchema], generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut all = Map::new();
    for make in types {
        let mut schema = make(generator).to_value();
        if let Some(Value::Object(properties)) = schema.get_mut("properties").map(Value::take) {
            all.extend(properties);
        }
    }
    for field in all.values_mut().filter_map(Value::as_object_mut) {
        if field.get("default") == Some(&Value::Null) {
            field.remove("default");
        }
    }
    all
}

fn responses(operation: &Operation, is_guarded: bool, generator: &mut SchemaGenerator) -> Value {
    let content = operation.answers.iter().map(|(media_type, make)| {
        let schema = make.map_or_else(|| json!({"type": "string"}), |make| make(generator).to_value());
        let schema = if *media_type == EVENTS { event_schema(&schema) } else { schema };
        ((*media_type).to_owned(), json!({"schema": schema}))
    });
    let content: Map<String, Value> = content.collect();
    let mut responses = Map::from_iter([("200".to_owned(), json!({"description": "The answer", "content": content}))]);
    let common = ALWAYS.iter().chain(if is_guarded { &WITH_MODEL[..] } else { &[] });
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for code in operation.errors.iter().chain(common) {
        let line = format!("`{}`: {}", code.name(), code.meaning());
        let lines = by_status.entry(code.status().as_u16()).or_default();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for (status, lines) in by_status {
        let schema = match operation.error_form {
            Some(make) => make(generator).to_value(),
            None => json!({"$ref": format!("#{SCHEMAS}/Error")}),
        };
        let told = json!({"description": lines.join("\n"), "content": {"application/json": {"schema": schema}}});
        responses.insert(status.to_string(), told);
    }
    responses.into()
}

/// An event of a stream, whose data is JSON of the schema `data`.
fn event_schema(data: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["data"],
        "properties": {
            "event": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        },
    })
}

fn error_schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let param = json!({"type": ["string", "null"], "description": "The path of the field that is at fault."});
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": text("What is wrong: the field, its value and what is allowed."),
                "type": text("OpenAI's kind of errors."),
                "param": param,
                "code": text("The name by which clients tell errors apart."),
            },
        }},
    })
}
