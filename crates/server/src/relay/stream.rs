//! The body of an answer that is handed on. An event stream is passed on event by event, so that a server which ends in
//! the middle of one leaves no part of it behind, and the stream ends with an error as its protocol has them.
use super::answer_headers;
use crate::anthropic::error::ErrorMessage;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::ids::HttpRequestId;
use crate::http::operation::EVENTS;
use crate::http::state::Active;
use crate::openai::RESPONSES;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Value, json};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The bytes that end an event.
const END: &[u8] = b"\n\n";
/// How an event's text begins.
const DATA: &str = "data:";

/// A body whose request counts as active until it ends.
pub struct RelayedBody {
    body: Body,
    /// `None` for what is no event stream, and for a stream that has ended.
    events: Option<EventTail>,
    _active: Active,
}

/// The state of an event stream that is being passed on.
struct EventTail {
    form: EventForm,
    request_id: HttpRequestId,
    /// The bytes of an event whose end has not come.
    pending: Vec<u8>,
    /// The events with a text that have been passed on.
    count: u64,
    /// The text of the first of them.
    first: String,
}

/// How a protocol's stream tells of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventForm {
    OpenAi,
    Responses,
    Anthropic,
}

impl RelayedBody {
    /// Hands on an answer. `path` and `for_anthropic` tell the protocol.
    pub fn answer(
        response: Response,
        path: String,
        for_anthropic: bool,
        request_id: HttpRequestId,
        active: Active,
    ) -> Response {
        let (mut parts, body) = response.into_parts();
        parts.headers = answer_headers(parts.headers);
        let is_events =
            parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENTS.as_bytes()));
        let form = match () {
            () if for_anthropic => EventForm::Anthropic,
            () if path == RESPONSES => EventForm::Responses,
            () => EventForm::OpenAi,
        };
        let events =
            is_events.then(|| EventTail { form, request_id, pending: Vec::new(), count: 0, first: String::new() });
        Response::from_parts(parts, Body::new(RelayedBody { body, events, _active: active }))
    }
}

impl EventTail {
    /// Takes in bytes of the stream; gives those that are whole events.
    fn take(&mut self, bytes: &[u8]) -> Bytes {
        self.pending.extend_from_slice(bytes);
        let Some(end) = self.pending.windows(END.len()).rposition(|window| window == END) else { return Bytes::new() };
        let rest = self.pending.split_off(end + END.len());
        let whole = std::mem::replace(&mut self.pending, rest);
        for event in String::from_utf8_lossy(&whole).split("\n\n") {
            if let Some(text) = event.lines().find_map(|line| line.strip_prefix(DATA)) {
                if self.count == 0 {
                    self.first = text.trim().to_owned();
                }
                self.count += 1;
            }
        }
        whole.into()
    }

    /// The events that tell of an error, the last ones of the stream.
    fn failure(&self, error: &ApiError) -> Bytes {
        let text = match self.form {
            EventForm::OpenAi => format!("data: {}\n\ndata: [DONE]\n\n", error.to_json()),
            EventForm::Anthropic => {
                let message = ErrorMessage::new(error, self.request_id.shown());
                format!("event: error\ndata: {}\n\n", serde_json::to_string(&message).unwrap_or_default())
            }
            EventForm::Responses => self.failed_response(error),
        };
        text.into()
    }

    /// An error, and the response that the stream began with as one that has failed.
    fn failed_response(&self, error: &ApiError) -> String {
        let told = &error.to_json()["error"];
        let (code, message) = (&told["code"], &told["message"]);
        let event = json!({
            "type": "error", "sequence_number": self.count, "code": code, "message": message, "param": told["param"],
        });
        let mut text = format!("event: error\ndata: {event}\n\n");
        let first: Value = serde_json::from_str(&self.first).unwrap_or_default();
        if let Some(response) = first["response"].as_object() {
            let mut response = response.clone();
            response.insert("status".into(), "failed".into());
            response.insert("error".into(), json!({"code": code, "message": message}));
            let kind = "response.failed";
            let event = json!({"type": kind, "sequence_number": self.count + 1, "response": response});
            text += &format!("event: {kind}\ndata: {event}\n\n");
        }
        text
    }
}

impl HttpBody for RelayedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let Some(events) = &mut self.events else { return Poll::Ready(frame) };
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().map(|bytes| events.take(&bytes)).unwrap_or_default(),
                Some(Err(error)) => {
                    let error = ApiError::new(ErrorCode::ModelEnded, error.to_string());
                    tracing::warn!(id = events.request_id.shown(), %error, "a streamed answer failed");
                    let bytes = events.failure(&error);
                    (self.events, self.body) = (None, Body::empty());
                    bytes
                }
                None => {
                    let rest = std::mem::take(&mut events.pending);
                    (self.events, self.body) = (None, Body::empty());
                    rest.into()
                }
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.events.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
