//! Constraints: every text that one lets pass is one of its grammar.
#![allow(clippy::unwrap_used)] // helpers of tests
use serde_json::{Value, json};
use std::sync::Arc;
use text::{
    AnswerParser, AnswerPart, AnswerSyntax, CallGrammar, Constraint, ConstraintError, ConstraintFactory, Grammar,
    Tokenizer, Tool, ToolCallFormat,
};

/// Numbers that look random, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_dir(&testkit::repo("models/demo")).unwrap())
}

fn factory(tokenizer: &Arc<Tokenizer>) -> ConstraintFactory {
    let ends: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    // As many logits as models pad their vocabularies to.
    ConstraintFactory::new(tokenizer, &ends, tokenizer.vocab_size() + 37).unwrap()
}

/// A constraint on a whole answer.
fn constraint(factory: &ConstraintFactory, grammar: &Grammar) -> Result<Constraint, ConstraintError> {
    factory.answer(Some(grammar), None, None).map(|answer| answer.from_start)
}

/// Whether the answer may end here: whether a turn end may come next.
fn may_end(constraint: &mut Constraint) -> bool {
    constraint.mask().unwrap().allows(tokenizer().eos_id().unwrap())
}

/// A text drawn at random from what the constraint allows; `None` if it did not end within `most` tokens.
fn draw(tokenizer: &Tokenizer, mut constraint: Constraint, dice: &mut Dice, most: usize) -> Option<String> {
    let end = tokenizer.eos_id().unwrap();
    let mut ids = Vec::new();
    while ids.len() < most {
        if constraint.is_complete() {
            return Some(tokenizer.decode(&ids, true));
        }
        let mask = constraint.mask().unwrap();
        let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32 + 37).filter(|id| mask.allows(*id)).collect();
        assert!(!allowed.is_empty());
        if mask.allows(end) && dice.below(2) == 0 {
            return Some(tokenizer.decode(&ids, true));
        }
        let id = allowed[dice.below(allowed.len())];
        if id == end {
            return Some(tokenizer.decode(&ids, true));
        }
        constraint.consume(id).unwrap();
        ids.push(id);
    }
    None
}

#[test]
fn whatever_is_drawn_at_random_is_of_the_grammar() {
    let tokenizer = tokenizer();
    let factory = factory(&tokenizer);
    let schema = json!({
        "type": "object",
        "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "integer", "minimum": 3, "maximum": 40}},
        "required": ["a", "b"],
        "additionalProperties": false,
    });
    let choice = vec!["red".to_owned(), "dark \"red\"".into(), "blue\n".into()];
    let mut dice = Dice(1);
    let mut ended = [0; 4];
    for _ in 0..100 {
        let mut of = |grammar: &Grammar| draw(&tokenizer, constraint(&factory, grammar).unwrap(), &mut dice, 60);
        if let Some(text) = of(&Grammar::Json(schema.clone())) {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value["a"] == "x" || value["a"] == "yy", "{text}");
            assert!((3..=40).contains(&value["b"].as_i64().unwrap()), "{text}");
            assert_eq!(value.as_object().unwrap().len(), 2);
            ended[0] += 1;
        }
        if let Some(text) = of(&Grammar::Choice(choice.clone())) {
            assert!(choice.contains(&text), "{text:?}");
            ended[1] += 1;
        }
        if let Some(text) = of(&Grammar::Regex(r"[0-9]{3}-(ab|é)+".into())) {
            let rest = text.get(4..).unwrap().replace("ab", "").replace('é', "");
            assert!(text[..3].parse::<u32>().is_ok() && &text[3..4] == "-" && rest.is_empty(), "{text}");
            ended[2] += 1;
        }
        if let Some(text) = of(&Grammar::Rules("start: \"(\" start \")\" | \"x\"".into())) {
            let depth = text.len() / 2;
            assert_eq!(text, "(".repeat(depth) + "x" + &")".repeat(depth));
            ended[3] += 1;
        }
    }
    assert!(ended.iter().all(|n| *n > 20), "too few texts ended: {ended:?}");
}

/// JSON in GBNF, as llama.cpp's users write it.
const JSON: &str = r##"
root   ::= object # the whole
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9])? ws
ws ::= | " " | "\n" [ \t]{0,20}
"##;

#[test]
fn grammars_of_llama_cpp_are_held_character_by_character() {
    let tokenizer = tokenizer();
    let factory = factory(&tokenizer);
    let mut dice = Dice(3);
    let mut drawn = |rules: &str, most| {
        let constraint = constraint(&factory, &Grammar::Rules(rules.into())).unwrap();
        draw(&tokenizer, constraint, &mut dice, most)
    };
    let mut ended = 0;
    for _ in 0..150 {
        if let Some(text) = drawn(JSON, 200) {
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(value.is_object());
            ended += 1;
        }
    }
    assert!(ended > 3, "{ended} texts ended");
    // The longest match would take "if" for the word alone.
    let word = constraint(&factory, &Grammar::Rules("root ::= \"if\" | [a-z]+".into())).unwrap();
    for text in ["if", "iffy", "i", "x"] {
        let mut word = word.clone();
        assert!(word.consume_text(text) && may_end(&mut word), "{text}");
    }
    for (rules, problem) in [
        ("root ::= \"a", "line 1: \"\" stands where the rest of a text or class should"),
        ("root ::= other", "the rule other is used but not defined"),
        ("other ::= \"a\"", "there is no rule root"),
        ("root ::= \"a\"\n)", "line 2: \")\" stands where the name of a rule should"),
        ("root ::= [z-a]", "the range 'z' to 'a' is empty"),
    ] {
        let error = constraint(&factory, &Grammar::Rules(rules.into())).unwrap_err().to_string();
        assert_eq!(error, problem, "{rules}");
    }
}

fn tools() -> Vec<Tool> {
    let parameters = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "enum": ["a.rs", "b \"c\".rs"]},
            "line": {"type": "integer", "minimum": 1, "maximum": 300},
            "deep": {"type": "boolean"},
            "note": {"type": "string"},
        },
        "required": ["path", "line"],
        "additionalProperties": false,
    });
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tool = |name: &str, parameters: &Value| Tool { name: name.into(), parameters: parameters.clone() };
    vec![tool("read", &parameters), tool("stop", &none)]
}

/// The answer's parts, put together: its text, and each call's name and arguments.
fn read(format: ToolCallFormat, tools: &[Tool], text: &str) -> (String, Vec<(String, String)>) {
    let syntax = AnswerSyntax { calls: Some(format), thought: None };
    let mut parser = AnswerParser::new(&syntax, false, tools);
    let mut parts = Vec::new();
    parser.push(text, &mut parts);
    parser.finish(&mut parts);
    let mut calls: Vec<(String, String)> = Vec::new();
    for part in &parts {
        match (part, calls.last_mut()) {
            (AnswerPart::CallOpened { name }, _) => calls.push((name.clone(), String::new())),
            (AnswerPart::CallArguments(more), Some((_, arguments))) => *arguments += more,
            _ => {}
        }
    }
    let closed = parts.iter().filter(|part| **part == AnswerPart::CallClosed).count();
    assert_eq!(closed, calls.len(), "{format}: {text}");
    (AnswerPart::text_of(&parts), calls)
}

/// A model without any sense, which is held to tools from its first token, calls them rightly.
#[test]
fn calls_that_are_drawn_at_random_are_calls_of_the_tools() {
    let tokenizer = tokenizer();
    let factory = factory(&tokenizer);
    let mut dice = Dice(2);
    let tools = tools();
    for &format in ToolCallFormat::ALL {
        let (mut seen, mut notes) = ([0; 3], 0);
        for single in [false, true] {
            let grammar = CallGrammar { format, tools: &tools, single, exact: true };
            let whole = factory.answer(None, Some(&grammar), None).unwrap().from_start;
            for _ in 0..30 {
                let Some(text) = draw(&tokenizer, whole.clone(), &mut dice, 400) else { continue };
                let (rest, calls) = read(format, &tools, &text);
                assert_eq!(rest, "", "{format}: {text}");
                assert!(!calls.is_empty() && (calls.len() == 1 || !single), "{format}: {text}");
                seen[2] += usize::from(calls.len() > 1);
                for (name, arguments) in calls {
                    let arguments: Value = serde_json::from_str(&arguments).unwrap();
                    match name.as_str() {
                        "stop" => assert_eq!(arguments, json!({})),
                        "read" => {
                            let paths = [json!("a.rs"), json!("b \"c\".rs")];
                            assert!(paths.contains(&arguments["path"]), "{format}: {text}");
                            let line = arguments["line"].as_i64().unwrap();
                            assert!((1..=300).contains(&line), "{format}: {text}");
                            assert!(arguments.get("deep").is_none_or(Value::is_boolean), "{format}: {text}");
                            assert!(arguments.get("note").is_none_or(Value::is_string), "{format}: {text}");
                            notes += usize::from(arguments.get("note").is_some());
                        }
                        other => panic!("{format}: {other} is no tool: {text}"),
                    }
                    seen[usize::from(name == "stop")] += 1;
                }
            }
        }
        // A free text that ends with a tag hardly ends by chance.
        let ends = notes > 0 || format == ToolCallFormat::QwenXml;
        assert!(seen[0] > 5 && seen[1] > 5 && ends, "{format}: {seen:?}, {notes} notes");
        // These have one call a section.
        let sections = [ToolCallFormat::QwenXml];
        assert!(seen[2] > 0 || sections.contains(&format), "{format} never called two: {seen:?}");
    }
}

/// As many tools as an agent with many servers of tools brings: one of them is called, with arguments of its schema.
#[test]
fn one_of_five_hundred_tools_is_called() {
    let tokenizer = tokenizer();
    let factory = factory(&tokenizer);
    let mut dice = Dice(3);
    let tool = |n: usize| Tool {
        name: format!("tool_{n}"),
        parameters: json!({
            "type": "object",
            "properties": {"n": {"const": n}},
            "required": ["n"],
            "additionalProperties": false,
        }),
    };
    let tools: Vec<Tool> = (0..500).map(tool).collect();
    for &format in ToolCallFormat::ALL {
        let grammar = CallGrammar { format, tools: &tools, single: true, exact: true };
        let whole = factory.answer(None, Some(&grammar), None).unwrap().from_start;
        let text = (0..5).find_map(|_| draw(&tokenizer, whole.clone(), &mut dice, 400)).unwrap();
        let (_, calls) = read(format, &tools, &text);
        let (name, arguments) = &calls[0];
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        assert_eq!(format!("tool_{}", arguments["n"]), *name, "{format}: {text}");
    }
}

#[test]
fn a_text_between_tags_goes_up_to_the_tag_that_closes_it() {
    let tokenizer = tokenizer();
    let tools = tools();
    let grammar = CallGrammar { format: ToolCallFormat::QwenXml, tools: &tools, single: false, exact: true };
    let mut calls = factory(&tokenizer).calls(&grammar).unwrap();
    let head = "\n<function=read>\n<parameter=path>\na.rs\n</parameter>\n<parameter=line>\n3\n</parameter>\n";
    assert!(calls.consume_text(&format!("{head}<parameter=note>\na <b>\n</parameters>\n")));
    assert!(!may_end(&mut calls));
    assert!(calls.consume_text("</function>\n</parameter>\n</function>"));
    assert!(may_end(&mut calls) && !calls.is_complete());
    assert!(calls.consume_text("\n</tool_call>") && calls.is_complete());
}

#[test]
fn a_grammar_of_no_text_is_refused_at_once() {
    let tokenizer = tokenizer();
    let factory = factory(&tokenizer);
    let endless = json!({"$ref": "#/$defs/t", "$defs": {"t": {"$ref": "#/$defs/t"}}});
    for grammar in [
        Grammar::Json(endless),
        Grammar::Json(json!(false)),
        Grammar::Json(json!({"type": "integer", "minimum": 3, "maximum": 2})),
        Grammar::Regex("(?=a)b".into()),
    ] {
        let error = constraint(&factory, &grammar).expect_err(&format!("{grammar:?}"));
        assert!(matches!(error, ConstraintError::Grammar(_)), "{grammar:?}: {error}");
    }
    // The empty text is one.
    let mut empty = constraint(&factory, &Grammar::Rules("root ::= \"\"".into())).unwrap();
    assert!(may_end(&mut empty));
}
