//! Ids of requests and of their answers.
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The header by which clients and proxies give a request an id, and are told the id that it has.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of an id that a client gives.
const MAX_GIVEN: usize = 128;

/// Makes ids that no other request of this process has, nor, but for chance, one of another process.
pub struct RequestIds {
    process: u64,
    next: AtomicU64,
}

/// How a request is known to its client and in logs.
#[derive(Debug, Clone)]
pub struct HttpRequestId {
    /// The id that its client gave it.
    given: Option<HeaderValue>,
    /// An id that no other request has.
    own: String,
}

impl RequestIds {
    pub fn new() -> Self {
        RequestIds { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(0) }
    }

    /// The id of a request with these headers: the one that they name, or one that is made if they name none or one
    /// that is too long or has other characters than visible ones of ASCII.
    pub fn of(&self, headers: &HeaderMap) -> HttpRequestId {
        let readable = |value: &&HeaderValue| {
            (1..=MAX_GIVEN).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let own = format!("{:016x}{:08x}", self.process, self.next.fetch_add(1, Relaxed));
        HttpRequestId { given: headers.get(REQUEST_ID).filter(readable).cloned(), own }
    }
}

impl HttpRequestId {
    /// The id of the answer, which no other has, such as `chatcmpl-..` for the prefix `chatcmpl`.
    pub fn answer_id(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.own)
    }

    /// An id that no other request has, of letters and digits, from which the ids of an answer's pieces are made.
    pub fn unique(&self) -> &str {
        &self.own
    }

    /// The id as logs have it: the client's, or else one that the answer's id ends with.
    pub fn shown(&self) -> &str {
        self.given.as_ref().and_then(|given| given.to_str().ok()).unwrap_or(&self.own)
    }

    /// The id as the answer's header has it.
    pub fn to_header(&self) -> Option<HeaderValue> {
        self.given.clone().or_else(|| HeaderValue::try_from(&self.own).ok())
    }
}
