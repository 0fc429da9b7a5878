//! Responses that are kept, over HTTP.
use crate::common::{Server, error};
use crate::responses::{RESPONSES, body, events, server};
use serde_json::{Value, json};

async fn json_of(server: &Server, path: &str) -> Value {
    server.get(&format!("{RESPONSES}/{path}")).await.json().await.unwrap()
}

fn id_of(response: &Value) -> String {
    response["id"].as_str().unwrap().to_owned()
}

const ANSWER: &str = "<think>\nHm.\n</think>\n\nIt is Ann.";

#[tokio::test]
async fn a_conversation_goes_on_from_a_response_as_from_its_items() {
    let server = server(ANSWER).await;
    let ask = |more: Value| server.ask(RESPONSES, body(more));
    let first = ask(json!({"input": "I am Ann.", "instructions": "Be terse.", "store": true})).await;
    let second = json!({"input": "Who am I?", "previous_response_id": id_of(&first), "store": true});
    // A response that was streamed is stored as well.
    let streamed = events(&server, body(second)).await.last().unwrap()["response"].clone();
    assert_eq!(streamed["previous_response_id"], first["id"]);
    let third = ask(json!({"input": "And now?", "previous_response_id": id_of(&streamed)})).await;
    let by_response = server.last_request().prompt;

    let mut items = vec![json!({"role": "user", "content": "I am Ann."})];
    items.extend(first["output"].as_array().unwrap().clone());
    items.push(json!({"role": "user", "content": "Who am I?"}));
    items.extend(streamed["output"].as_array().unwrap().clone());
    items.push(json!({"role": "user", "content": "And now?"}));
    ask(json!({"input": items})).await;
    assert_eq!(by_response, server.last_request().prompt);

    // References stand for the items.
    let refer = |item: &Value| json!({"type": "item_reference", "id": item["id"]});
    let references: Vec<Value> =
        items.iter().map(|item| if item.get("id").is_some() { refer(item) } else { item.clone() }).collect();
    ask(json!({"input": references})).await;
    assert_eq!(by_response, server.last_request().prompt);

    // The third was not to be stored.
    let (status, code, param, whole) =
        error(server.post(RESPONSES, &body(json!({"previous_response_id": id_of(&third)}))).await).await;
    assert_eq!((status, code.as_str(), param), (404, "response_not_found", json!("previous_response_id")));
    assert!(whole["message"].as_str().unwrap().contains(&id_of(&third)), "{whole}");
}

#[tokio::test]
async fn a_stored_response_is_read_and_deleted() {
    let server = server(ANSWER).await;
    let first = server.ask(RESPONSES, json!({"input": "One", "include": ["message.output_text.logprobs"]})).await;
    let id = id_of(&first);
    assert_eq!(json_of(&server, &id).await, first);
    let input = json!([{"role": "user", "content": "Two"}, {"role": "user", "content": "Three", "id": "msg_mine"}]);
    let second = server.ask(RESPONSES, json!({"input": input, "previous_response_id": id})).await;

    let path = format!("{}/input_items", id_of(&second));
    let page = json_of(&server, &path).await;
    let items = page["data"].as_array().unwrap();
    assert_eq!((items.len(), &page["has_more"], &page["object"]), (5, &json!(false), &json!("list")));
    // The newest first, unless asked otherwise.
    assert_eq!((&items[0]["id"], &page["first_id"]), (&json!("msg_mine"), &json!("msg_mine")));
    assert_eq!((&items[4]["type"], &items[4]["content"][0]["text"]), (&json!("message"), &json!("One")));
    assert!(items.iter().all(|item| item["id"].is_string()));
    let oldest = json_of(&server, &format!("{path}?order=asc&limit=2")).await;
    assert_eq!((&oldest["data"][0], &oldest["has_more"]), (&items[4], &json!(true)));
    let last = oldest["last_id"].as_str().unwrap();
    let next = json_of(&server, &format!("{path}?order=asc&limit=100&after={last}")).await;
    assert_eq!((&next["data"][2], next["data"].as_array().unwrap().len()), (&items[0], 3));
    for (query, param) in [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=x", "after")] {
        let (status, _, named, _) = error(server.get(&format!("{RESPONSES}/{path}?{query}")).await).await;
        assert_eq!((status, named), (400, json!(param)));
    }
    let (status, ..) = error(server.get(&format!("{RESPONSES}/{id}?stream=true")).await).await;
    assert_eq!(status, 400);

    let delete = || server.client.delete(format!("{}{RESPONSES}/{id}", server.url)).send();
    let deleted: Value = delete().await.unwrap().json().await.unwrap();
    assert_eq!(deleted, json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(error(delete().await.unwrap()).await.0, 404);
    // What went on from it cannot any more.
    for path in [id.clone(), path] {
        let (status, code, _, whole) = error(server.get(&format!("{RESPONSES}/{path}")).await).await;
        assert_eq!((status, code.as_str()), (404, "response_not_found"));
        assert!(whole["message"].as_str().unwrap().contains(&id), "{whole}");
    }
}

#[tokio::test]
async fn no_more_than_a_thousand_responses_are_stored() {
    let server = server("ok").await;
    let first = server.ask(RESPONSES, json!({"input": "x"})).await;
    let second = server.ask(RESPONSES, json!({"input": "x"})).await;
    for i in 0..999 {
        if i == 500 {
            // A response that is used stays.
            assert_eq!(json_of(&server, &id_of(&first)).await, first);
        }
        server.ask(RESPONSES, json!({"input": "x"})).await;
    }
    assert_eq!(json_of(&server, &id_of(&first)).await, first);
    assert_eq!(error(server.get(&format!("{RESPONSES}/{}", id_of(&second))).await).await.0, 404);
}
