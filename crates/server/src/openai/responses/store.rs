//! Responses that later requests can go on from, in memory and within bounds.
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Responses at most.
    pub responses: usize,
    /// Bytes of memory at most, as [`weight`] estimates them.
    pub bytes: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        StoreLimits { responses: 1000, bytes: 64 << 20 }
    }
}

/// A response with what it answers.
#[derive(Debug)]
pub struct StoredResponse {
    /// The response object.
    pub response: Value,
    /// The items of its request's input.
    pub input: Vec<Value>,
    /// The id of the response that it goes on from.
    pub previous: Option<String>,
}

impl StoredResponse {
    fn output(&self) -> &[Value] {
        self.response.get("output").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Its items in the order of the conversation.
    pub fn items(&self) -> impl Iterator<Item = &Value> {
        self.input.iter().chain(self.output())
    }
}

/// Responses that later requests can go on from. When there are too many, those go that were used least lately.
#[derive(Debug)]
pub struct ResponseStore {
    limits: StoreLimits,
    stored: Mutex<Stored>,
}

#[derive(Debug, Default)]
struct Stored {
    responses: HashMap<String, StoredEntry>,
    /// Where items are, by their ids: the id of a response and a number among its items.
    items: HashMap<String, (String, usize)>,
    bytes: usize,
    /// Counts what is done with the responses.
    clock: u64,
}

#[derive(Debug)]
struct StoredEntry {
    stored: Arc<StoredResponse>,
    bytes: usize,
    used: u64,
}

impl ResponseStore {
    /// An empty store.
    pub fn new(limits: StoreLimits) -> Self {
        ResponseStore { limits, stored: Mutex::default() }
    }

    /// Keeps a response, unless it is larger than all that may be kept.
    pub fn keep(&self, id: &str, response: StoredResponse) {
        let bytes = weight(&response.response) + response.input.iter().map(weight).sum::<usize>();
        if bytes > self.limits.bytes {
            tracing::warn!(id, bytes, "a response is larger than all that may be stored, and is not");
            return;
        }
        let mut stored = self.lock();
        stored.remove(id);
        for (number, item) in response.items().enumerate() {
            if let Some(item) = item.get("id").and_then(Value::as_str) {
                stored.items.insert(item.to_owned(), (id.to_owned(), number));
            }
        }
        stored.bytes += bytes;
        let used = stored.tick();
        stored.responses.insert(id.to_owned(), StoredEntry { stored: Arc::new(response), bytes, used });
        while stored.bytes > self.limits.bytes || stored.responses.len() > self.limits.responses {
            let oldest = stored.responses.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            stored.remove(&oldest);
        }
    }

    /// The response `id` with all that it goes on from, the first one first. `Err` names the one that is not stored.
    pub fn chain(&self, id: &str) -> Result<Vec<Arc<StoredResponse>>, String> {
        let mut stored = self.lock();
        let used = stored.tick();
        let (mut chain, mut next) = (Vec::new(), Some(id.to_owned()));
        while let Some(id) = next {
            let Some(entry) = stored.responses.get_mut(&id) else { return Err(id) };
            entry.used = used;
            next = entry.stored.previous.clone();
            chain.push(entry.stored.clone());
        }
        chain.reverse();
        Ok(chain)
    }

    /// The response `id`.
    pub fn get(&self, id: &str) -> Option<Arc<StoredResponse>> {
        let mut stored = self.lock();
        let used = stored.tick();
        let entry = stored.responses.get_mut(id)?;
        entry.used = used;
        Some(entry.stored.clone())
    }

    /// Forgets the response `id`. False if it is not stored.
    pub fn remove(&self, id: &str) -> bool {
        self.lock().remove(id)
    }

    /// The item `id` of a request or a response that is stored.
    pub fn item(&self, id: &str) -> Option<Value> {
        let stored = self.lock();
        let (response, number) = stored.items.get(id)?;
        stored.responses.get(response)?.stored.items().nth(*number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.responses.remove(id) else { return false };
        self.bytes -= entry.bytes;
        for item in entry.stored.items().filter_map(|item| item.get("id")?.as_str()) {
            // A later request may have sent the same item, which is then to be found with that request.
            if self.items.get(item).is_some_and(|(response, _)| response == id) {
                self.items.remove(item);
            }
        }
        true
    }
}

/// The bytes of memory that a value takes, roughly.
fn weight(value: &Value) -> usize {
    /// What a field of an object takes beside its name and its value.
    const FIELD: usize = 64;
    let own = size_of::<Value>();
    match value {
        Value::String(text) => own + text.len(),
        Value::Array(items) => own + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => {
            own + fields.iter().map(|(name, value)| FIELD + name.len() + weight(value)).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn response(number: usize, previous: Option<&str>) -> StoredResponse {
        StoredResponse {
            response: json!({"output": [{"id": format!("msg_{number}"), "text": "x".repeat(1000)}]}),
            input: vec![json!({"id": format!("in_{number}")})],
            previous: previous.map(str::to_owned),
        }
    }

    #[test]
    fn what_was_used_least_lately_goes_first() {
        let one = response(0, None);
        let room_for_three = 3 * (weight(&one.response) + weight(&one.input[0])) + 100;
        let by_bytes = StoreLimits { responses: 100, bytes: room_for_three };
        for limits in [StoreLimits { responses: 3, bytes: 1 << 20 }, by_bytes] {
            let store = ResponseStore::new(limits);
            store.keep("0", response(0, None));
            store.keep("1", response(1, Some("0")));
            store.keep("2", response(2, None));
            // A conversation that goes on keeps all of its responses.
            assert_eq!(store.chain("1").unwrap().len(), 2);
            store.keep("3", response(3, Some("1")));
            assert!(store.get("2").is_none() && store.item("msg_2").is_none(), "{limits:?}");
            let chain = store.chain("3").unwrap();
            assert_eq!(chain[0].input[0]["id"], "in_0");
            assert_eq!(store.item("msg_3").unwrap()["id"], "msg_3");

            assert!(store.remove("0") && !store.remove("0"));
            assert_eq!(store.chain("3").unwrap_err(), "0");
            store.remove("1");
            store.remove("3");
            let stored = store.lock();
            assert_eq!((stored.bytes, stored.items.len(), stored.responses.len()), (0, 0, 0));
        }
    }

    #[test]
    fn a_response_that_is_too_large_pushes_out_no_others() {
        let store = ResponseStore::new(StoreLimits { responses: 10, bytes: 3000 });
        store.keep("0", response(0, None));
        let large = json!({"output": [{"text": "x".repeat(3001)}]});
        store.keep("1", StoredResponse { response: large, input: Vec::new(), previous: None });
        assert!(store.get("0").is_some() && store.get("1").is_none());
    }
}
