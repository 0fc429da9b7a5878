//! Fields that are refused, each by its path.
use crate::common::{CONTEXT, Script, chat_body, completion_body, error, start_with};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn wrong_fields_are_named() {
    let server = start_with(Script::Answer("x")).await;
    for (more, param) in [
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"top_p": -0.1}), "top_p"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"logit_bias": {"99999": 1}}), "logit_bias"),
        (json!({"logit_bias": {"five": 1}}), "logit_bias"),
        (json!({"allowed_token_ids": []}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [99999]}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [9], "response_format": {"type": "json_object"}}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [5, -1]}), "allowed_token_ids[1]"),
        (json!({"min_tokens": 5, "max_tokens": 4}), "min_tokens"),
        (json!({"min_tokens": CONTEXT}), "min_tokens"),
        (json!({"min_tokens": 1, "allowed_token_ids": [7], "stop_token_ids": [7]}), "min_tokens"),
        (json!({"logprob_token_ids": [5]}), "logprob_token_ids"),
        (json!({"truncate_prompt_tokens": 0}), "truncate_prompt_tokens"),
        (json!({"truncate_prompt_tokens": CONTEXT}), "truncate_prompt_tokens"),
        (json!({"truncate_prompt_tokens": 120, "max_tokens": 10}), "truncate_prompt_tokens"),
        (json!({"truncate_prompt_tokens": 5, "truncation_side": "up"}), "truncation_side"),
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"seed": "x"}), "seed"),
        (json!({"stop": 5}), "stop"),
        (json!({"stop": ["a", 5]}), "stop[1]"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": vec!["s"; 65]}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 3}}), "stream_options.include_usage"),
        (json!({"user": 5}), "user"),
        (json!({"model": 5}), "model"),
    ] {
        for (path, body) in [(CHAT, chat_body(more.clone())), (COMPLETIONS, completion_body(more.clone()))] {
            let (status, code, named, object) = error(server.post(path, &body).await).await;
            assert_eq!(
                (status, code.as_str(), named.as_str()),
                (400, "invalid_value", Some(param)),
                "{path} {more}: {object}"
            );
            let field = param.split(['.', '[']).next().unwrap();
            assert!(object["message"].as_str().unwrap().contains(field), "{object}");
        }
    }
    assert!(server.seen.requests.lock().unwrap().is_empty());
    let (.., object) = error(server.post(CHAT, &chat_body(json!({"max_tokens": -1}))).await).await;
    assert_eq!(object["message"], "max_tokens: invalid value: integer `-1`, expected an integer of at least 0");
}

#[tokio::test]
async fn words_that_are_none_and_lists_in_the_place_of_objects_are_named() {
    let server = start_with(Script::Answer("x")).await;
    for (more, param) in [
        (json!({"bad_words": "no"}), "bad_words"),
        (json!({"bad_words": ["no", " "]}), "bad_words[1]"),
        (json!({"bad_words": ["x".repeat(1001)]}), "bad_words[0]"),
        (json!({"bad_words": vec!["no"; 1001]}), "bad_words"),
        // serde alone would take the elements for the fields in their order.
        (json!({"stream": true, "stream_options": [true, false]}), "stream_options"),
    ] {
        let (status, code, named, object) = error(server.post(CHAT, &chat_body(more.clone())).await).await;
        assert_eq!((status, code.as_str(), named.as_str()), (400, "invalid_value", Some(param)), "{more}: {object}");
    }
}

#[tokio::test]
async fn wrong_fields_of_one_endpoint_are_named() {
    let server = start_with(Script::Answer("x")).await;
    let too_long = vec![5; CONTEXT];
    for (path, body, param) in [
        (CHAT, json!({"model": "demo"}), "messages"),
        (CHAT, chat_body(json!({"messages": []})), "messages"),
        (CHAT, chat_body(json!({"messages": [{"role": "user", "content": 3}]})), "messages[0].content"),
        (
            CHAT,
            chat_body(json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})),
            "messages[0].content[0]",
        ),
        (CHAT, chat_body(json!({"top_logprobs": 2})), "top_logprobs"),
        (CHAT, chat_body(json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (CHAT, chat_body(json!({"logprobs": 3})), "logprobs"),
        (CHAT, chat_body(json!({"logprobs": true, "logprob_token_ids": [99999]})), "logprob_token_ids"),
        (CHAT, chat_body(json!({"logprobs": true, "logprob_token_ids": vec![5; 129]})), "logprob_token_ids"),
        (CHAT, chat_body(json!({"prompt_logprobs": 21})), "prompt_logprobs"),
        (CHAT, chat_body(json!({"prompt_logprobs": 1, "stream": true})), "prompt_logprobs"),
        (CHAT, chat_body(json!({"chat_template_kwargs": 3})), "chat_template_kwargs"),
        (COMPLETIONS, json!({"model": "demo"}), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": []})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": {}})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": [[]]})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": ["a", 5]})), "prompt"),
        (COMPLETIONS, completion_body(json!({"prompt": [5, -1]})), "prompt[1]"),
        (COMPLETIONS, completion_body(json!({"prompt": [[5], [5, "a"]]})), "prompt[1][1]"),
        (COMPLETIONS, completion_body(json!({"prompt": [12288]})), "prompt"),
        (COMPLETIONS, completion_body(json!({"logprobs": 21})), "logprobs"),
        (COMPLETIONS, completion_body(json!({"prompt_logprobs": 21})), "prompt_logprobs"),
        (COMPLETIONS, completion_body(json!({"prompt_logprobs": 1, "stream": true})), "prompt_logprobs"),
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 5}), "prompt"),
        ("/tokenize", chat_body(json!({"prompt": "both"})), "prompt"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": [5, "a"]}), "tokens[1]"),
        ("/detokenize", json!({"tokens": [12288]}), "tokens"),
    ] {
        let (status, code, named, object) = error(server.post(path, &body).await).await;
        assert_eq!(
            (status, code.as_str(), named.as_str()),
            (400, "invalid_value", Some(param)),
            "{path} {body}: {object}"
        );
    }
    for (path, body, param) in [
        (COMPLETIONS, completion_body(json!({"prompt": too_long})), "prompt"),
        (CHAT, chat_body(json!({"messages": [{"role": "user", "content": "word ".repeat(CONTEXT)}]})), "messages"),
    ] {
        let (status, code, named, object) = error(server.post(path, &body).await).await;
        assert_eq!((status, code.as_str(), named.as_str()), (400, "context_length_exceeded", Some(param)));
        assert_eq!(object["n_ctx"], CONTEXT);
        let n_prompt_tokens = object["n_prompt_tokens"].as_u64().unwrap();
        assert!(n_prompt_tokens >= CONTEXT as u64);
        // Agents know by these words that the conversation has to be made shorter.
        let told = format!(
            "prompt is too long: {n_prompt_tokens} tokens > {} maximum; this model's maximum context length is \
             {CONTEXT} tokens",
            CONTEXT - 1
        );
        assert!(object["message"].as_str().unwrap().starts_with(&told), "{object}");
    }
}

#[tokio::test]
async fn what_is_not_supported_is_refused_and_not_ignored() {
    let server = start_with(Script::Answer("x")).await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (field, value) in [
        // The demo model's template has no way to call tools.
        ("tools", tool.clone()),
        ("functions", tool),
        ("best_of", json!(2)),
    ] {
        for (path, body) in
            [(CHAT, chat_body(json!({field: value}))), (COMPLETIONS, completion_body(json!({field: value})))]
        {
            let (status, code, named, object) = error(server.post(path, &body).await).await;
            assert_eq!(
                (status, code.as_str(), named.as_str()),
                (400, "unsupported_parameter", Some(field)),
                "{object}"
            );
            assert!(object["message"].as_str().unwrap().contains(field));
        }
    }
}
