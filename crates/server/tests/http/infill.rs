//! Fill-in-the-middle: `suffix` of completions, and llama.cpp's `/infill`.
use crate::common::{Options, Script, Server, TEXT, TOKENIZER, completion_body, error, start, start_with};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use text::Tokenizer;

const COMPLETIONS: &str = "/v1/completions";
pub const INFILL: &str = "/infill";
/// The ids of the tokens of [`CODER`].
const PREFIX: u32 = 12288;
const SUFFIX: u32 = PREFIX + 1;
const MIDDLE: u32 = PREFIX + 2;
const REPOSITORY: u32 = PREFIX + 3;
const SEPARATOR: u32 = PREFIX + 4;
const PAD: u32 = PREFIX + 5;

/// The demo's tokenizer with the tokens of Qwen2.5-Coder.
pub static CODER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let read = |file: &str| std::fs::read(testkit::repo("models/demo").join(file)).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&read("tokenizer.json")).unwrap();
    let names = ["fim_prefix", "fim_suffix", "fim_middle", "repo_name", "file_sep", "fim_pad"];
    for (name, id) in names.into_iter().zip(PREFIX..) {
        let mut token = tokenizer["added_tokens"][0].clone();
        (token["id"], token["content"], token["special"]) = (json!(id), json!(format!("<|{name}|>")), json!(false));
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), read("tokenizer_config.json")).unwrap();
    Arc::new(Tokenizer::from_dir(dir.path()).unwrap())
});

async fn coder(script: Script) -> Server {
    start(Options { tokenizer: CODER.clone(), script, ..Default::default() }).await
}

fn ids(parts: &[Result<&str, u32>]) -> Vec<u32> {
    let part = |part: &Result<&str, u32>| match part {
        Ok(text) => TOKENIZER.encode(text, false).unwrap(),
        Err(id) => vec![*id],
    };
    TOKENIZER.bos_id().into_iter().chain(parts.iter().flat_map(part)).collect()
}

#[tokio::test]
async fn an_answer_lies_between_prompt_and_suffix() {
    let server = coder(Script::Answer(TEXT)).await;
    let body = json!({"prompt": "def f(", "suffix": "):\n  pass", "stop_token_ids": [7]});
    let answer = server.ask(COMPLETIONS, completion_body(body)).await;
    assert_eq!(answer["choices"][0]["text"], TEXT);
    let request = server.last_request();
    assert_eq!(request.prompt, ids(&[Err(PREFIX), Ok("def f("), Err(SUFFIX), Ok("):\n  pass"), Err(MIDDLE)]));
    assert!(!request.begins_text);
    // What the model begins behind the middle ends it.
    let mut ends = request.stop.stop_token_ids;
    ends.sort_unstable();
    assert_eq!(ends, [7, REPOSITORY, SEPARATOR, PAD]);
    // An empty suffix asks for nothing, and several prompts have one suffix.
    server.ask(COMPLETIONS, completion_body(json!({"prompt": "def f(", "suffix": ""}))).await;
    assert_eq!(server.last_request().prompt, ids(&[Ok("def f(")]));
    server.ask(COMPLETIONS, completion_body(json!({"prompt": ["a", "b"], "suffix": "<|fim_middle|>"}))).await;
    let inner = server.last_request().prompt.into_iter().filter(|id| *id >= PREFIX);
    assert_eq!(inner.collect::<Vec<_>>(), [PREFIX, SUFFIX, MIDDLE]);
}

#[tokio::test]
async fn a_suffix_that_cannot_be_kept_is_refused() {
    let server = coder(Script::Answer("x")).await;
    for more in [
        json!({"suffix": "end", "prompt": [5, 6]}),
        json!({"suffix": "end", "echo": true}),
        json!({"suffix": "end", "truncate_prompt_tokens": 5}),
    ] {
        let (status, code, param, _) = error(server.post(COMPLETIONS, &completion_body(more.clone())).await).await;
        assert_eq!((status, code.as_str(), param.as_str()), (400, "invalid_value", Some("suffix")), "{more}");
    }
    let other = start_with(Script::Answer("x")).await;
    for (path, body, field) in [
        (COMPLETIONS, completion_body(json!({"suffix": "end"})), "suffix"),
        (INFILL, json!({"input_prefix": "a", "input_suffix": "b"}), "input_suffix"),
    ] {
        let (status, code, param, object) = error(other.post(path, &body).await).await;
        assert_eq!((status, code.as_str(), param.as_str()), (400, "unsupported_parameter", Some(field)));
        assert!(object["message"].as_str().unwrap().contains("vocabulary has no tokens"), "{object}");
    }
}

#[tokio::test]
async fn infill_takes_llama_cpps_fields_and_answers_in_its_form() {
    let server = coder(Script::Answer(TEXT)).await;
    let body = json!({
        "input_prefix": "def f(", "input_suffix": "):", "prompt": "a, ", "n_predict": 500, "seed": -1, "top_k": 40,
        "repeat_penalty": 1.25, "stop": ["\n\n"], "n_indent": 4, "samplers": ["top_k", "infill"], "cache_prompt": true,
        "t_max_predict_ms": 250, "n_probs": 0,
        "input_extra": [{"filename": "b.py", "text": "y = 2"}],
    });
    let answer = server.ask(INFILL, body).await;
    let request = server.last_request();
    let mut parts = vec![Err(REPOSITORY), Ok("myproject\n"), Err(SEPARATOR), Ok("b.py\ny = 2\n")];
    parts.extend([Err(SEPARATOR), Ok("filename\n"), Err(PREFIX), Ok("def f("), Err(SUFFIX), Ok("):"), Err(MIDDLE)]);
    parts.push(Ok("a, "));
    assert_eq!(request.prompt, ids(&parts));
    assert_eq!((request.sampling.seed, request.sampling.top_k, request.sampling.top_p), (None, 40, 0.9));
    assert_eq!((request.sampling.repetition_penalty, request.stop.max_tokens), (1.25, Some(500)));
    assert_eq!(request.stop.stop, ["\n\n"]);
    assert!(request.stop.stop_token_ids.contains(&PAD));

    let tokens = TOKENIZER.encode(TEXT, false).unwrap().len();
    assert_eq!((&answer["content"], &answer["stop"]), (&json!(TEXT), &json!(true)));
    assert_eq!((&answer["stop_type"], &answer["truncated"]), (&json!("eos"), &json!(false)));
    assert_eq!((&answer["tokens_predicted"], &answer["tokens"]), (&json!(tokens), &json!([])));
    assert_eq!((&answer["tokens_evaluated"], &answer["tokens_cached"]), (&json!(request.prompt.len()), &json!(1)));
    assert_eq!(answer["timings"]["cache_n"], 1);
    let timings = &answer["timings"];
    assert_eq!((&timings["prompt_n"], &timings["predicted_n"]), (&json!(request.prompt.len() - 1), &json!(tokens)));
    assert!(timings["predicted_ms"].as_f64().unwrap() >= 0.0);
}

#[tokio::test]
async fn infill_tells_its_end_its_tokens_and_the_fields_that_are_wanted() {
    let server = coder(Script::Answer(TEXT)).await;
    let gap = |more: Value| {
        let mut body = json!({"input_prefix": "a", "input_suffix": "b"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let short = server.ask(INFILL, gap(json!({"n_predict": 2, "return_tokens": true}))).await;
    assert_eq!((&short["stop_type"], &short["tokens"].as_array().unwrap().len()), (&json!("limit"), &2));
    // Nothing is filled in where no token is asked for, but the prompt is computed.
    let none = server.ask(INFILL, gap(json!({"n_predict": 0}))).await;
    assert_eq!((&none["content"], &none["tokens_predicted"]), (&json!(""), &json!(0)));
    assert_eq!(none["tokens_evaluated"], server.last_request().prompt.len());
    server.ask(INFILL, gap(json!({"max_tokens": 4}))).await;
    assert_eq!(server.last_request().stop.max_tokens, Some(4));
    let wanted = json!({"response_fields": ["content", "timings/prompt_n", "no/such"]});
    let selected = server.ask(INFILL, gap(wanted)).await;
    let keys: Vec<_> = selected.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["content", "timings/prompt_n"]);
    let stopped = coder(Script::Stopped("x")).await.ask(INFILL, gap(json!({"stop": ["\n"]}))).await;
    assert_eq!((&stopped["stop_type"], &stopped["stopping_word"]), (&json!("word"), &json!("\n")));

    let mut streamed = gap(json!({"stream": true}));
    streamed["n_predict"] = json!(-1);
    let text = server.post(INFILL, &streamed).await.text().await.unwrap();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = events.map(|event| serde_json::from_str(event).unwrap()).collect();
    let (last, others) = events.split_last().unwrap();
    assert!(others.len() > 3 && others.iter().all(|event| event["stop"] == false), "{text}");
    assert_eq!((&last["stop"], &last["stop_type"]), (&json!(true), &json!("eos")));
    let content: String = events.iter().filter_map(|event| event["content"].as_str()).collect();
    assert_eq!(content, TEXT);
    let failing = coder(Script::FailLate).await.post(INFILL, &streamed).await.text().await.unwrap();
    assert!(failing.trim_end().ends_with('}') && failing.contains("step_failed"), "{failing}");
}

#[tokio::test]
async fn what_infill_does_not_do_is_refused() {
    let server = coder(Script::Answer("x")).await;
    for (more, code, field) in [
        (json!({"mirostat": 2}), "unsupported_parameter", "mirostat"),
        (json!({"grammar": "root ::= \"a\""}), "unsupported_parameter", "grammar"),
        (json!({"n_probs": 3}), "unsupported_parameter", "n_probs"),
        (json!({"n_predict": -2}), "invalid_value", "n_predict"),
        (json!({"input_prefix": 5}), "invalid_value", "input_prefix"),
        (json!({"input_extra": [{"filename": "a"}]}), "invalid_value", "input_extra[0]"),
        (json!({"repeat_penalty": 0}), "invalid_value", "repeat_penalty"),
        (json!({"temperature": -1}), "invalid_value", "temperature"),
        (json!({"input_prefix": "word ".repeat(200)}), "context_length_exceeded", "input_prefix"),
    ] {
        let (status, named, param, object) = error(server.post(INFILL, &more).await).await;
        assert_eq!((status, named.as_str(), param.as_str()), (400, code, Some(field)), "{more}: {object}");
    }
    assert!(server.seen.requests.lock().unwrap().is_empty());
}
