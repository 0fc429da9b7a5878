//! Answers as server-sent events.
use crate::error::ApiError;
use crate::generation::Generation;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use engine::Event;
use futures_util::stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// A long prefill says nothing; comments at this interval keep proxies from closing the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a protocol puts events into chunks of JSON text.
pub(crate) trait Chunks: Send + 'static {
    /// The chunks that an event leads to, often one.
    fn event(&mut self, prompt: usize, event: Event) -> Result<Vec<String>, ApiError>;

    /// The chunks after the last event.
    fn end(&mut self) -> Result<Vec<String>, ApiError>;
}

/// Streams a generation. An error comes as an event of its own, since the status is sent by then; the last event is `[DONE]`.
/// When the client goes away the response is dropped, and the generation with it.
pub(crate) fn respond(generation: Generation, chunks: impl Chunks) -> Response {
    let state = Streaming { generation, chunks, ready: VecDeque::new(), ended: false };
    let events = stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, Infallible>(SseEvent::default().data(text)), state))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    // Some reverse proxies hold responses back unless told not to.
    ([("x-accel-buffering", "no")], Sse::new(events).keep_alive(keep_alive)).into_response()
}

struct Streaming<C> {
    generation: Generation,
    chunks: C,
    ready: VecDeque<String>,
    ended: bool,
}

impl<C: Chunks> Streaming<C> {
    /// The next event's data.
    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() && !self.ended {
            let chunks = match self.generation.next().await {
                Some(Ok((prompt, event))) => self.chunks.event(prompt, event),
                Some(Err(error)) => Err(error),
                None => {
                    self.ended = true;
                    self.chunks.end()
                }
            };
            match chunks {
                Ok(chunks) => self.ready.extend(chunks),
                Err(error) => {
                    tracing::warn!(%error, "a streamed answer failed");
                    self.ended = true;
                    self.ready.push_back(error.to_json().to_string());
                }
            }
            if self.ended {
                self.ready.push_back("[DONE]".into());
            }
        }
        self.ready.pop_front()
    }
}
