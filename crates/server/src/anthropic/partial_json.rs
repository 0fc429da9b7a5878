//! The input of a tool call whose JSON may have been cut off.
use serde_json::{Map, Value};

/// How many places a text is cut at before it is given up. The last place is right unless a key or the text itself is
/// broken.
const MAX_TRIES: usize = 4;

/// The JSON object that `text` is, or as many of its members as are complete if it was cut off. Empty for anything
/// else.
pub fn object_of(text: &str) -> Map<String, Value> {
    if let Ok(object) = serde_json::from_str(text) {
        return object;
    }
    let places = places_to_cut(text);
    let object = |(end, open): &(usize, Vec<u8>)| {
        let mut json = text.get(..*end)?.to_owned();
        json.extend(open.iter().rev().map(|bracket| if *bracket == b'{' { '}' } else { ']' }));
        serde_json::from_str(&json).ok()
    };
    places.iter().find_map(object).unwrap_or_default()
}

/// The last places after which nothing is half written, the last one first, each with the brackets that are open
/// there.
fn places_to_cut(text: &str) -> Vec<(usize, Vec<u8>)> {
    let mut places = Vec::new();
    let (mut open, mut in_string, mut escaped) = (Vec::new(), false, false);
    let mut note = |end, open: &[u8]| {
        places.truncate(MAX_TRIES - 1);
        places.insert(0, (end, open.to_vec()));
    };
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => {
                in_string = !in_string;
                if !in_string {
                    note(i + 1, &open);
                }
            }
            _ if in_string => {}
            b'{' | b'[' => {
                open.push(byte);
                note(i + 1, &open);
            }
            b'}' | b']' => {
                open.pop();
                note(i + 1, &open);
            }
            b',' => note(i, &open),
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_complete_is_kept_wherever_the_text_ends() {
        for (text, kept) in [
            ("", json!({})),
            ("{", json!({})),
            (r#"{"a"#, json!({})),
            (r#"{"a": "#, json!({})),
            (r#"{"a": "x\""#, json!({})),
            (r#"{"a": "x\"{""#, json!({"a": "x\"{"})),
            (r#"{"a": "x\"{", "b"#, json!({"a": "x\"{"})),
            (r#"{"a": "x", "b": ["#, json!({"a": "x", "b": []})),
            (r#"{"a": "x", "b": [12"#, json!({"a": "x", "b": []})),
            (r#"{"a": "x", "b": [12, "#, json!({"a": "x", "b": [12]})),
            (r#"{"a": "x", "b": [12, {"c": nul"#, json!({"a": "x", "b": [12, {}]})),
            (r#"{"a": "x", "b": [12, {"c": null}"#, json!({"a": "x", "b": [12, {"c": null}]})),
            (r#"{"a": "x", "b": [12, {"c": null}], "d": 1.5"#, json!({"a": "x", "b": [12, {"c": null}]})),
            (r#"{"a": "x", "d": 1.5, "e": "漢"}"#, json!({"a": "x", "d": 1.5, "e": "漢"})),
        ] {
            assert_eq!(Value::Object(object_of(text)), kept, "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_empty_one() {
        for text in ["", "3", "[1, 2", "null", "read the file", "}}}", "{]", "{\"a\" 1, \"b\": 2, \"c\": {\"d\": 3"] {
            assert!(object_of(text).is_empty(), "{text}");
        }
    }
}
