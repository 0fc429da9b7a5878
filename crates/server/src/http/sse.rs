//! Answers as server-sent events.
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use std::convert::Infallible;
use std::time::Duration;

/// How often a silent stream sends a comment. A long prefill sends nothing, and proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Sends `events` as they come. When the client goes away the response is dropped, and `events` with it.
pub fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let body = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive);
    // Some reverse proxies hold responses back unless this header tells them not to.
    ([("x-accel-buffering", "no")], body).into_response()
}
