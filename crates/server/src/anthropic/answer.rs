//! Answers, whole and streamed. A whole one is the message that the events of a streamed one add up to.
use super::blocks::BlockWriter;
use super::error::ErrorMessage;
use super::events::{AnswerEnding, MessageEvent, MessageFold, SentMessage, TokenUsage};
use crate::generation::{Generation, Tally};
use crate::http::error::ApiError;
use crate::http::sse;
use axum::Json;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use engine::{Event, FinishReason, MatchedStop};
use futures_util::stream;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;

/// How long a stream is silent before it sends a ping. Reading a long prompt takes minutes, and clients give up on a
/// stream without events.
const PING: Duration = Duration::from_secs(2);

/// What an answer is told by, beside what the model writes.
pub struct AnswerForm {
    /// An id that no other request has.
    pub unique: String,
    /// The id by which logs name the request.
    pub request_id: String,
    /// The model's name.
    pub model: String,
    /// Thoughts are told of, but not shown.
    pub omits_thoughts: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// Answers a request with what `generation` brings.
///
/// Errors: a whole answer fails. The failure of a streamed one is an event of the stream.
pub async fn respond(form: AnswerForm, generation: Generation, streamed: bool) -> Result<Response, ApiError> {
    let mut events = AnswerEvents {
        generation,
        writer: BlockWriter::new(&form.unique, form.omits_thoughts),
        tally: Tally::default(),
        ready: VecDeque::new(),
        ended: false,
    };
    let found = if streamed { events.generation.admitted().await } else { None };
    let cached = found.map_or(0, |found| found.reused());
    let read = Tally { prompt: form.prompt_tokens, cached, ..Tally::default() };
    let message = SentMessage::new(format!("msg_{}", form.unique), form.model, &read);
    if streamed {
        events.ready.extend([MessageEvent::MessageStart { message }, MessageEvent::Ping]);
        return Ok(stream_of(events, form.request_id));
    }
    let mut fold = MessageFold::new(message);
    while let Some(event) = events.next().await {
        fold.push(event?);
    }
    Ok(Json(fold.finish()).into_response())
}

fn stream_of(events: AnswerEvents, request_id: String) -> Response {
    sse::respond(stream::unfold(events, move |mut events| {
        let request_id = request_id.clone();
        async move {
            let next = match timeout(PING, events.next()).await {
                Ok(next) => next?,
                Err(_) => Ok(MessageEvent::Ping),
            };
            let next = next.unwrap_or_else(|error| {
                tracing::warn!(id = request_id, %error, "a streamed answer failed");
                MessageEvent::Error(ErrorMessage::new(&error, &request_id))
            });
            let json = serde_json::to_string(&next).unwrap_or_default();
            Some((SseEvent::default().event(next.name()).data(json), events))
        }
    }))
}

/// The events of an answer after the one that begins it.
struct AnswerEvents {
    generation: Generation,
    writer: BlockWriter,
    tally: Tally,
    /// Events that have not been given.
    ready: VecDeque<MessageEvent>,
    ended: bool,
}

impl AnswerEvents {
    /// The next event. `None` follows the last one, or an error. A call may be dropped without a loss.
    async fn next(&mut self) -> Option<Result<MessageEvent, ApiError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            match self.generation.next().await {
                Some(Ok((_, event))) => self.take(event),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => self.ended = true,
            }
        }
    }

    /// Takes in an event of the engine.
    fn take(&mut self, event: Event) {
        self.tally.add(&event);
        let mut events = Vec::new();
        match event {
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } | Event::Failed(_) => {}
            Event::Delta { parts, .. } => parts.into_iter().for_each(|part| self.writer.push(part, &mut events)),
            Event::Finished { parts, reason, matched_stop, .. } => {
                parts.into_iter().for_each(|part| self.writer.push(part, &mut events));
                self.writer.close(&mut events);
                let usage = TokenUsage::from(&self.tally);
                events.push(MessageEvent::MessageDelta { delta: ending(reason, matched_stop), usage });
                events.push(MessageEvent::MessageStop);
                self.ended = true;
            }
        }
        self.ready.extend(events);
    }
}

fn ending(reason: FinishReason, matched_stop: Option<MatchedStop>) -> AnswerEnding {
    match (reason, matched_stop) {
        (FinishReason::Length, _) => AnswerEnding { stop_reason: Some("max_tokens"), stop_sequence: None },
        (FinishReason::ToolCalls, _) => AnswerEnding { stop_reason: Some("tool_use"), stop_sequence: None },
        (FinishReason::Stop, Some(MatchedStop::Text(text))) => {
            AnswerEnding { stop_reason: Some("stop_sequence"), stop_sequence: Some(text) }
        }
        (FinishReason::Stop, _) => AnswerEnding { stop_reason: Some("end_turn"), stop_sequence: None },
    }
}
