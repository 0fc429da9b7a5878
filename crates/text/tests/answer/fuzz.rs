//! Answers made of anything, and answers written by the rules, in random pieces.
use super::{THINK, Whole, join, parse, tools};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use text::{AnswerParser, AnswerSyntax, ToolCallFormat};

/// What answers have, whole and broken.
const SNIPPETS: [&str; 88] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<function=",
    "<function=f>",
    "</function>",
    "<parameter=city>",
    "<parameter=x>",
    "<parameter=area>",
    "</parameter>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "```json\n",
    "\n```",
    "function",
    "get_weather",
    "f",
    "g",
    "<",
    "</",
    "<t",
    "<tool_",
    "call>",
    "<｜tool▁call",
    "｜>",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "=",
    ">",
    ",",
    ";",
    ":",
    "\"",
    "'",
    "\\",
    "\\\"",
    "\\u00e9",
    "\\ud83d",
    "\\ude00",
    "\\x41",
    "\\",
    "\n",
    "\n\n",
    " ",
    "\t",
    "é",
    "😀",
    "\u{0}",
    "true",
    "None",
    "null",
    "nul",
    "-1.5e3",
    "0",
    "01",
    "a",
    "Paris",
    "\"name\"",
    "\"name\": \"f\"",
    "{\"name\": \"f\", \"arguments\": ",
    "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
    "{\"arguments\": {\"a\": 1}, ",
    "\"arguments\": {}",
    "{}",
    "{\"a\": [1, {\"b\": \"c\"}]}",
    "\"{\\\"a\\\": 1}\"",
    "[f(a=1)",
    "f(a='b', c=[1, {'d': None}])",
    "\"\"\"",
    "[]",
    ", ",
    "\"id\": \"x\"",
    "\"x\": [",
    "1]",
    "<think",
    "think>",
];

fn answer() -> impl Strategy<Value = String> {
    let noise = prop_oneof![8 => select(&SNIPPETS[..]).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(noise, 0..24).prop_map(|pieces| pieces.concat())
}

fn syntax() -> impl Strategy<Value = AnswerSyntax> {
    let calls = prop_oneof![12 => select(ToolCallFormat::ALL).prop_map(Some), 1 => Just(None)];
    (calls, any::<bool>()).prop_map(|(calls, thinks)| AnswerSyntax { thought: THINK.filter(|_| thinks), calls })
}

/// Cuts a text at these places.
fn cut<'t>(text: &'t str, places: &[Index]) -> Vec<&'t str> {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut at: Vec<usize> = places.iter().map(|place| ends[place.index(ends.len())]).chain([0, text.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

/// What a parser says of itself.
fn state(parser: &AnswerParser) -> (bool, Option<String>) {
    (parser.in_thought(), parser.open_call().map(str::to_owned))
}

/// A value with all that strings and numbers may have, which Python's notation keeps.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), select(&SNIPPETS[..]).prop_map(str::to_owned)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(|number| Value::from((number * 8.0).round() / 8.0)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        let object = prop::collection::vec((text.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// What the next part of a well-formed answer is.
#[derive(Debug, Clone)]
enum Written {
    Text(String),
    Thought(String),
    Call(String, Map<String, Value>),
}

fn written() -> impl Strategy<Value = Written> {
    let word = select(vec!["Let me see.", "a < b", "x\n\n  y", "é [1]", "{} ; \"", "Done"]).prop_map(str::to_owned);
    let key = select(vec!["city", "days", "wind", "area", "x"]).prop_map(str::to_owned);
    let arguments = prop::collection::vec((key, value()), 0..4).prop_map(|pairs| pairs.into_iter().collect());
    prop_oneof![
        word.clone().prop_map(Written::Text),
        word.prop_map(Written::Thought),
        (select(vec!["get_weather", "f"]).prop_map(str::to_owned), arguments).prop_map(|(f, a)| Written::Call(f, a)),
    ]
}

/// A value as Python writes it.
fn python(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "None".into(),
        Value::Bool(value) => if *value { "True" } else { "False" }.into(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(python).collect())),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{}: {}", python(&json!(key)), python(value)));
            format!("{{{}}}", joined(pairs.collect()))
        }
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n")),
        Value::Number(number) => number.to_string(),
    }
}

/// The call as models of a format write it, without what opens and closes a section, and the arguments that are meant.
fn call(format: ToolCallFormat, name: &str, arguments: &Map<String, Value>) -> (String, Map<String, Value>) {
    let mut meant = arguments.clone();
    let json = json!(arguments).to_string();
    let text = match format {
        ToolCallFormat::Hermes => format!("{{\"name\": \"{name}\", \"arguments\": {json}}}"),
        ToolCallFormat::LlamaJson => format!("{{\"name\": \"{name}\", \"parameters\": {json}}}"),
        ToolCallFormat::Mistral => format!("{name}[ARGS]{json}"),
        ToolCallFormat::DeepSeek => {
            format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{json}\n```<｜tool▁call▁end｜>")
        }
        ToolCallFormat::Pythonic => {
            let pairs = arguments.iter().map(|(key, value)| format!("{key}={}", python(value)));
            format!("{name}({})", pairs.collect::<Vec<_>>().join(", "))
        }
        ToolCallFormat::QwenXml => {
            let pairs = meant.iter_mut().map(|(key, value)| {
                // Values stand between tags as they are: one that holds the closing tag is cut, a string that reads
                // like another type becomes that one, and 3.0 is the integer 3.
                let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
                if value.to_string().contains("</parameter>") || (key == "days" && is_whole) {
                    *value = json!(3);
                }
                let is_text = name == "get_weather" && key == "city";
                if is_text && !value.is_string() {
                    *value = json!("Paris, \"x\"\n<parameter=y>");
                } else if !is_text && value.is_string() {
                    *value = json!([value.clone()]);
                }
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                format!("<parameter={key}>\n{text}\n</parameter>\n")
            });
            let pairs: String = pairs.collect();
            format!("<function={name}>\n{pairs}</function>")
        }
    };
    (text, meant)
}

/// An answer of these parts as models of a format write it, and what it means.
fn write(format: ToolCallFormat, parts: &[Written]) -> (String, Vec<Whole>) {
    let (mut text, mut meant) = (String::new(), Vec::new());
    for part in parts {
        match (part, meant.last()) {
            // Two texts would be one.
            (Written::Text(_), Some(Whole::Text(_))) | (Written::Thought(_), Some(Whole::Thought(_))) => {}
            (Written::Text(words), _) => {
                text += words;
                meant.push(super::text(words));
            }
            (Written::Thought(words), _) => {
                text += &format!("\n<think>\n{words}\n</think>\n\n");
                meant.push(super::thought(words));
            }
            // Calls without a tag are all of the answer but its thoughts.
            (Written::Call(..), _) if format == ToolCallFormat::Pythonic && !only_thoughts(&meant) => {}
            (Written::Call(name, arguments), _) => {
                let (written, arguments) = call(format, name, arguments);
                let (open, close) = match format {
                    ToolCallFormat::Hermes | ToolCallFormat::QwenXml => ("\n<tool_call>\n", "\n</tool_call>"),
                    ToolCallFormat::LlamaJson if only_thoughts(&meant) => ("", ""),
                    ToolCallFormat::LlamaJson => ("<|python_tag|>", ""),
                    ToolCallFormat::Pythonic => ("[", "]"),
                    ToolCallFormat::Mistral => ("[TOOL_CALLS]", ""),
                    ToolCallFormat::DeepSeek => ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
                };
                text += &[open, &written, close].concat();
                meant.push(super::call(name, &json!(arguments).to_string()));
            }
        }
    }
    (text, meant)
}

fn only_thoughts(meant: &[Whole]) -> bool {
    meant.iter().all(|part| matches!(part, Whole::Thought(_)))
}

/// Parts with arguments as values are compared: JSON may be spaced otherwise.
fn comparable(parts: Vec<Whole>) -> Vec<(Whole, Value)> {
    let comparable = |part| match part {
        Whole::Call { name, arguments, closed } => {
            let value = serde_json::from_str(&arguments).unwrap_or_else(|e| panic!("{e}: {arguments}"));
            (Whole::Call { name, arguments: String::new(), closed }, value)
        }
        other => (other, Value::Null),
    };
    parts.into_iter().map(comparable).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testkit::cases(400)))]

    #[test]
    fn any_answer_is_the_same_in_any_pieces(
        answer in answer(),
        places in prop::collection::vec(any::<Index>(), 0..12),
        syntax in syntax(),
        in_thought: bool,
    ) {
        let parser = || AnswerParser::new(&syntax, in_thought, &tools());
        let whole = parse(parser(), [answer.as_str()]);
        let mut characters = [0; 4];
        let (mut single, mut parts) = (parser(), Vec::new());
        for c in answer.chars() {
            single.push(c.encode_utf8(&mut characters), &mut parts);
        }
        single.finish(&mut parts);
        prop_assert_eq!(&join(&parts), &whole, "by characters");

        let (mut pieces, mut parts, mut seen) = (parser(), Vec::new(), String::new());
        for piece in cut(&answer, &places) {
            pieces.push(piece, &mut parts);
            seen += piece;
            let mut at_once = parser();
            at_once.push(&seen, &mut Vec::new());
            prop_assert_eq!(state(&pieces), state(&at_once), "after {:?}", seen);
            prop_assert!(pieces.open_call().is_none_or(|raw| seen.ends_with(raw)));
        }
        pieces.finish(&mut parts);
        prop_assert_eq!(&join(&parts), &whole, "in pieces");

        for part in whole {
            if let Whole::Call { name, arguments, closed: true } = part {
                prop_assert!(!name.is_empty());
                prop_assert!(arguments.starts_with('{'), "{}", arguments);
                prop_assert!(serde_json::from_str::<IgnoredAny>(&arguments).is_ok(), "{}", arguments);
            }
        }
    }

    #[test]
    fn what_is_written_by_the_rules_is_read(
        parts in prop::collection::vec(written(), 0..6),
        places in prop::collection::vec(any::<Index>(), 0..12),
        format in select(ToolCallFormat::ALL),
    ) {
        let syntax = AnswerSyntax { thought: THINK, calls: Some(format) };
        let (answer, meant) = write(format, &parts);
        let read = parse(AnswerParser::new(&syntax, false, &tools()), cut(&answer, &places));
        prop_assert_eq!(comparable(read), comparable(meant), "{}", answer);
    }
}

/// An answer of a megabyte with every tag many times takes no time that anyone would notice, in one piece and in many.
#[test]
fn long_answers_are_read_once() {
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("{{\"a\": \"{}\"}}", "x\\n\\u00e9é <tool_call> ".repeat(50_000));
    for format in ToolCallFormat::ALL.iter().copied().filter(|format| *format != ToolCallFormat::Pythonic) {
        let syntax = AnswerSyntax { thought: THINK, calls: Some(format) };
        for arguments in [&deep, &long] {
            let answer = match format {
                ToolCallFormat::Hermes => {
                    format!("<tool_call>{{\"name\": \"f\", \"arguments\": {arguments}}}</tool_call>")
                }
                ToolCallFormat::LlamaJson => format!("{{\"name\": \"f\", \"parameters\": {arguments}}}"),
                ToolCallFormat::DeepSeek => {
                    format!("<｜tool▁call▁begin｜>f<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>")
                }
                ToolCallFormat::QwenXml => {
                    format!("<tool_call><function=f><parameter=a>{arguments}</parameter></function></tool_call>")
                }
                ToolCallFormat::Mistral | ToolCallFormat::Pythonic => format!("[TOOL_CALLS]f[ARGS]{arguments}"),
            };
            let expected = match format {
                ToolCallFormat::QwenXml => format!("{{\"a\": {arguments}}}"),
                _ => arguments.clone(),
            };
            let expected = [super::call("f", &expected)];
            let parser = || AnswerParser::new(&syntax, false, &tools());
            assert!(parse(parser(), [answer.as_str()]) == expected, "{format}");
            assert!(parse(parser(), answer.split_inclusive(['[', ']', ' '])) == expected, "{format}, in pieces");
        }
    }
    let nested = format!("[f(a={}{})]", "[".repeat(100_000), "]".repeat(100_000));
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::Pythonic) };
    let parser = AnswerParser::new(&syntax, false, &tools());
    assert!(parse(parser, [nested.as_str()]) == [super::call("f", &format!("{{\"a\": {}}}", &nested[5..200_005]))]);
}

/// What a parser does once for each of many tags must not be done to all of the text that follows.
#[test]
fn repeated_tags_take_linear_time() {
    for calls in ToolCallFormat::ALL.iter().copied().map(Some).chain([None]) {
        let syntax = AnswerSyntax { thought: THINK, calls };
        for (tag, snippet) in syntax.special_tags().iter().flat_map(|tag| SNIPPETS.map(|snippet| (tag, snippet))) {
            let unit = format!("{tag}{snippet}");
            let (mut parser, mut parts) = (AnswerParser::new(&syntax, false, &tools()), Vec::new());
            parser.push(&unit.repeat(10_000 / unit.len()), &mut parts);
            parser.finish(&mut parts);
            join(&parts);
        }
        // So much text that even copying what is left of it at each tag would be noticed.
        for tag in syntax.special_tags() {
            let (mut parser, mut parts) = (AnswerParser::new(&syntax, false, &tools()), Vec::new());
            parser.push(&format!("{tag}x ").repeat(100_000), &mut parts);
            parser.finish(&mut parts);
            join(&parts);
        }
    }
}
