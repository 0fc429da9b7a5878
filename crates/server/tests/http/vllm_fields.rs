//! Fields that vLLM adds to OpenAI's requests and answers.
use crate::common::{CONTEXT, Options, Script, TEXT, TOKENIZER, chat_body, completion_body, start, start_with};
use serde_json::{Value, json};
use server::ServerConfig;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn a_prompt_is_cut_only_where_that_is_asked_for() {
    let server = start_with(Script::Answer(TEXT)).await;
    let ids: Vec<u32> = (300..300 + 2 * CONTEXT as u32).collect();
    for (more, kept) in [
        (json!({"truncate_prompt_tokens": 5}), &ids[ids.len() - 5..]),
        (json!({"truncate_prompt_tokens": 5, "truncation_side": "right"}), &ids[..5]),
        (json!({"truncate_prompt_tokens": -1}), &ids[ids.len() - CONTEXT + 1..]),
        (json!({"truncate_prompt_tokens": -1, "max_tokens": 28}), &ids[ids.len() - CONTEXT + 28..]),
    ] {
        let mut body = completion_body(more);
        body["prompt"] = json!(ids);
        let answer = server.ask(COMPLETIONS, body).await;
        assert_eq!(server.last_request().prompt, kept);
        assert_eq!(answer["usage"]["prompt_tokens"], kept.len());
    }
    // What is echoed is what the model saw.
    let body = json!({"prompt": "one two three", "echo": true, "truncate_prompt_tokens": 1, "max_tokens": 0});
    let echoed = server.ask(COMPLETIONS, completion_body(body)).await;
    assert_eq!(echoed["choices"][0]["text"], TOKENIZER.decode(&server.last_request().prompt, false));
    server.chat(json!({"truncate_prompt_tokens": 3})).await;
    let end = TOKENIZER.decode(&server.last_request().prompt, false);
    assert!("<|start_header_id|>assistant<|end_header_id|>\n\n".ends_with(&end), "{end}");
}

#[tokio::test]
async fn answers_without_a_limit_have_the_servers() {
    let config = ServerConfig { port: 0, max_tokens_default: Some(3), ..Default::default() };
    let server = start(Options { config, ..Default::default() }).await;
    server.chat(json!({})).await;
    assert_eq!(server.last_request().stop.max_tokens, Some(3));
    server.ask(COMPLETIONS, completion_body(json!({"max_tokens": 5}))).await;
    assert_eq!(server.last_request().stop.max_tokens, Some(5));
    server.chat(json!({"max_completion_tokens": 4})).await;
    assert_eq!(server.last_request().stop.max_tokens, Some(4));
}

/// The completion tokens that the answer chunks of a choice tell, in order.
fn counted(chunks: &[Value], index: usize) -> Vec<u64> {
    let of_choice = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
    of_choice.map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_usage_so_far_is_in_every_answer_chunk_on_request() {
    let server = start_with(Script::Answer(TEXT)).await;
    for options in
        [json!({"continuous_usage_stats": true}), json!({"include_usage": true, "continuous_usage_stats": true})]
    {
        for (path, body) in [(CHAT, chat_body(json!({"n": 2}))), (COMPLETIONS, completion_body(json!({"n": 2})))] {
            let mut body = body;
            body["stream_options"] = options.clone();
            let mut chunks = server.stream(path, body).await;
            let prompt = server.last_request().prompt.len();
            let whole = chunks.pop().unwrap();
            assert_eq!(whole["choices"], json!([]), "{path}");
            assert!(chunks.iter().all(|chunk| chunk["usage"]["prompt_tokens"] == prompt), "{path}");
            let tokens = TOKENIZER.encode(TEXT, false).unwrap().len() as u64;
            for index in 0..2 {
                let counts = counted(&chunks, index);
                assert!(counts.is_sorted() && counts.last() == Some(&tokens), "{path}: {counts:?}");
                // Where a text is held back there is no answer chunk, so that some numbers may be missing.
                assert!(counts.len() > 3, "{path}: {counts:?}");
            }
            assert_eq!(whole["usage"]["completion_tokens"], 2 * tokens);
        }
    }
    let off = json!({"stream_options": {"include_usage": false, "continuous_usage_stats": true}});
    let chunks = server.stream(CHAT, chat_body(off)).await;
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn a_chat_answer_begins_with_the_message_that_it_continues_where_that_is_echoed() {
    let server = start_with(Script::Answer(" 1}")).await;
    let begun = |content: Value, more: Value| {
        let mut body = json!({"echo": true, "messages": [
            {"role": "user", "content": "Write JSON."}, {"role": "assistant", "content": content}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let parts = json!([{"type": "text", "text": "Sure:"}, {"type": "text", "text": "{\"a\":"}]);
    for (content, echoed) in [(json!("{\"a\":"), "{\"a\":"), (parts, "Sure:\n{\"a\":")] {
        let body = begun(content, json!({"continue_final_message": true}));
        let answer = server.ask(CHAT, body.clone()).await;
        assert_eq!(answer["choices"][0]["message"]["content"], format!("{echoed} 1}}"));
        let chunks = server.stream(CHAT, body).await;
        let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(texts.collect::<String>(), format!("{echoed} 1}}"));
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    }
    // A user's message is no beginning of an answer.
    let answer = server.chat(json!({"echo": true})).await;
    assert_eq!(answer["choices"][0]["message"]["content"], " 1}");
}

#[tokio::test]
async fn a_chat_answer_has_the_log_probabilities_of_its_prompt() {
    let server = start_with(Script::Answer(TEXT)).await;
    let answer = server.chat(json!({"prompt_logprobs": 1})).await;
    let places = answer["prompt_logprobs"].as_array().unwrap();
    let ids = server.last_request().prompt;
    assert_eq!((places.len(), &places[0]), (ids.len(), &Value::Null));
    assert_eq!(places[1][ids[1].to_string()]["logprob"], -1.5);
    assert!(server.chat(json!({})).await.get("prompt_logprobs").is_none());
}

/// Clients read these keys without looking whether they are there.
#[tokio::test]
async fn an_answer_has_the_keys_that_clients_read_also_where_they_are_null() {
    let server = start_with(Script::Answer(TEXT)).await;
    let null = |value: &Value, key: &str| assert!(value.get(key).is_some_and(Value::is_null), "{key} in {value}");
    let chat = server.chat(json!({})).await;
    let choice = &chat["choices"][0];
    ["logprobs", "stop_reason"].iter().for_each(|key| null(choice, key));
    null(&choice["message"], "refusal");
    assert!(chat["usage"]["prompt_tokens_details"].is_object());
    let completion = server.ask(COMPLETIONS, completion_body(json!({}))).await;
    ["logprobs", "stop_reason"].iter().for_each(|key| null(&completion["choices"][0], key));
    for (path, body) in [(CHAT, chat_body(json!({}))), (COMPLETIONS, completion_body(json!({})))] {
        let chunks = server.stream(path, body).await;
        let (last, others) = chunks.split_last().unwrap();
        others.iter().for_each(|chunk| null(&chunk["choices"][0], "finish_reason"));
        ["logprobs", "stop_reason"].iter().for_each(|key| null(&last["choices"][0], key));
    }
}
