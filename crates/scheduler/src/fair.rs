//! Whose request is next: the client that has had the least service (the virtual token counter of Sheng et al.,
//! "Fairness in Serving Large Language Models", OSDI 2024). A client that comes back after a pause starts level with
//! the least served of the active ones, so that idleness earns no credit.
use std::collections::{BTreeMap, VecDeque};

/// The service that a generated token counts for, in prompt tokens.
pub const OUTPUT_WEIGHT: u64 = 2;

/// What is known of a client that waits or is served.
#[derive(Debug)]
struct ClientShare<T> {
    /// The service it has had, in prompt tokens.
    served: u64,
    /// Its waiting requests, in order of arrival.
    waiting: VecDeque<T>,
    /// Requests admitted and not ended.
    active: usize,
}

impl<T> ClientShare<T> {
    fn idle(&self) -> bool {
        self.active == 0 && self.waiting.is_empty()
    }
}

/// Waiting requests by client, first come first served within one.
#[derive(Debug)]
pub struct FairQueue<T> {
    clients: BTreeMap<String, ClientShare<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { clients: BTreeMap::new() }
    }
}

impl<T> FairQueue<T> {
    /// Appends a request of a client.
    pub fn push(&mut self, client: &str, item: T) {
        let floor = self.clients.values().map(|c| c.served).min().unwrap_or(0);
        let new = || ClientShare { served: floor, waiting: VecDeque::new(), active: 0 };
        self.clients.entry(client.to_owned()).or_insert_with(new).waiting.push_back(item);
    }

    /// The request that [`FairQueue::pop`] would return. Among clients that have had the same service, the name
    /// decides.
    pub fn peek(&self) -> Option<&T> {
        self.next_client().and_then(|name| self.clients[name].waiting.front())
    }

    /// Removes the next request and returns it; its client counts as active until [`FairQueue::end`].
    pub fn pop(&mut self) -> Option<T> {
        let name = self.next_client()?.to_owned();
        let client = self.clients.get_mut(&name)?;
        client.active += 1;
        client.waiting.pop_front()
    }

    fn next_client(&self) -> Option<&str> {
        let waiting = self.clients.iter().filter(|(_, c)| !c.waiting.is_empty());
        waiting.min_by_key(|(_, c)| c.served).map(|(name, _)| name.as_str())
    }

    /// Adds to the service that a client has had, in prompt tokens.
    pub fn charge(&mut self, client: &str, service: u64) {
        if let Some(client) = self.clients.get_mut(client) {
            client.served += service;
        }
    }

    /// Notes that a request of a client, which had been popped, has ended.
    pub fn end(&mut self, client: &str) {
        if let Some(state) = self.clients.get_mut(client) {
            state.active = state.active.saturating_sub(1);
        }
        self.forget(client);
    }

    /// Removes the first waiting request for which `is_it` is true.
    pub fn remove(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let (name, at) = self
            .clients
            .iter()
            .find_map(|(name, client)| client.waiting.iter().position(&mut is_it).map(|at| (name.clone(), at)))?;
        let item = self.clients.get_mut(&name)?.waiting.remove(at);
        self.forget(&name);
        item
    }

    /// An idle client's counter is dropped: it would start level with the others again.
    fn forget(&mut self, client: &str) {
        if self.clients.get(client).is_some_and(ClientShare::idle) {
            self.clients.remove(client);
        }
    }

    /// Waiting requests.
    pub fn len(&self) -> usize {
        self.clients.values().map(|c| c.waiting.len()).sum()
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.clients.values().all(|c| c.waiting.is_empty())
    }

    /// Every client that waits or is served: its name, the service it has had, its waiting requests.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &VecDeque<T>)> {
        self.clients.iter().map(|(name, c)| (name.as_str(), c.served, &c.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_served_client_is_next() {
        let mut queue = FairQueue::default();
        for i in 0..3 {
            queue.push("greedy", i);
        }
        queue.push("modest", 10);
        assert_eq!(queue.pop(), Some(0));
        queue.charge("greedy", 500);
        assert_eq!(queue.pop(), Some(10));
        queue.charge("modest", 100);
        queue.push("modest", 11);
        assert_eq!(queue.pop(), Some(11));
        queue.charge("modest", 500);
        assert_eq!(queue.pop(), Some(1));
    }

    #[test]
    fn a_pause_earns_no_credit() {
        let mut queue = FairQueue::default();
        queue.push("a", 0);
        queue.pop();
        queue.charge("a", 1000);
        queue.push("b", 1);
        queue.push("a", 2);
        assert_eq!(queue.iter().map(|(n, s, _)| (n, s)).collect::<Vec<_>>(), [("a", 1000), ("b", 1000)]);
        queue.pop();
        queue.end("a");
        queue.end("a");
        assert_eq!(queue.remove(|i| *i == 1), Some(1));
        assert_eq!(queue.iter().count(), 0, "idle clients are forgotten");
    }
}
