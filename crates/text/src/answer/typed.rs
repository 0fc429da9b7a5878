//! Values that are written as text become JSON of the type that a tool's schema asks for.
use super::json::{JsonScanner, quoted};
use super::python::literal_to_json;
use super::schema::ParameterTypes;

/// A parameter's text as JSON. What is JSON of a type that the parameter may have is taken as it is; where the
/// parameter cannot be a string, so is JSON of any other type, or else a Python value. All else is a string.
pub(super) fn to_json(text: &str, types: ParameterTypes) -> String {
    let trimmed = text.trim();
    let may_be_string = types.has(ParameterTypes::STRING);
    if let Some(found) = json_types(trimmed)
        && (types.has(found) || !may_be_string)
    {
        let is_integer = types.has(ParameterTypes::INTEGER) && !types.has(ParameterTypes::NUMBER);
        return is_integer.then(|| whole_number(trimmed)).flatten().unwrap_or_else(|| trimmed.to_owned());
    }
    let is_none = trimmed == "None" && types.has(ParameterTypes::NULL) && types != ParameterTypes::ANY;
    let python = (is_none || !may_be_string).then(|| literal_to_json(trimmed)).flatten();
    python.filter(|json| !json.starts_with('"')).unwrap_or_else(|| quoted(text))
}

/// The types of a JSON value that is no string; `None` if the text is a string or no JSON.
fn json_types(text: &str) -> Option<ParameterTypes> {
    let types = match text.bytes().next()? {
        b'{' => ParameterTypes::OBJECT,
        b'[' => ParameterTypes::ARRAY,
        b't' | b'f' => ParameterTypes::BOOLEAN,
        b'n' => ParameterTypes::NULL,
        b'"' => return None,
        _ if whole_number(text).is_some() => ParameterTypes::INTEGER.or(ParameterTypes::NUMBER),
        _ => ParameterTypes::NUMBER,
    };
    JsonScanner::is_value(text).then_some(types)
}

/// A JSON number without its fraction, if it is a whole one.
fn whole_number(text: &str) -> Option<String> {
    let (digits, zeros) = text.split_once('.').unwrap_or((text, "0"));
    let is_whole =
        zeros.bytes().all(|byte| byte == b'0') && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_whole.then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::schema::ParameterTypes as T;

    #[test]
    fn values_have_the_type_of_the_schema() {
        let optional = T::STRING.or(T::NULL);
        for (text, types, json) in [
            ("5", T::INTEGER, "5"),
            (" 3.0\n", T::INTEGER, "3"),
            ("-12.00", T::INTEGER, "-12"),
            ("3.5", T::INTEGER, "3.5"),
            ("3.0", T::NUMBER, "3.0"),
            ("1e3", T::INTEGER, "1e3"),
            ("three", T::INTEGER, "\"three\""),
            ("true", T::BOOLEAN, "true"),
            ("True", T::BOOLEAN, "true"),
            ("None", T::BOOLEAN, "null"),
            ("{ \"a\" :1}", T::OBJECT, "{ \"a\" :1}"),
            ("{'a': [True]}", T::OBJECT, "{\"a\": [true]}"),
            ("{a}", T::OBJECT, "\"{a}\""),
            ("\"x\"", T::ARRAY, "\"\\\"x\\\"\""),
            // A string that may be something else.
            ("null", optional, "null"),
            ("None", optional, "null"),
            ("5", optional, "\"5\""),
            ("5", T::STRING.or(T::NUMBER), "5"),
            ("5.0", T::STRING.or(T::INTEGER), "5"),
            ("5.5", T::STRING.or(T::INTEGER), "\"5.5\""),
            ("[1", T::STRING.or(T::ARRAY), "\"[1\""),
            // What the schema does not know.
            ("5.0", T::ANY, "5.0"),
            ("[1]", T::ANY, "[1]"),
            ("None", T::ANY, "\"None\""),
            ("\"x\"", T::ANY, "\"\\\"x\\\"\""),
            ("a\n\t\u{1}b", T::ANY, "\"a\\n\\t\\u0001b\""),
            ("", T::ANY, "\"\""),
            (" ", T::INTEGER, "\" \""),
            ("-", T::INTEGER, "\"-\""),
        ] {
            assert_eq!(to_json(text, types), json, "{text:?} as {types:?}");
        }
    }
}
