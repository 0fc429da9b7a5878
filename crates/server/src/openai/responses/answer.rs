//! Responses, whole and streamed.
use super::events::{EventError, EventQueue, ResponseEvent};
use super::object::{ResponseObject, ResponseState};
use super::store::{ResponseStore, StoredResponse};
use super::writer::ItemWriter;
use crate::generation::{Generation, Tally};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::sse;
use crate::openai::token_names::{DrawnToken, TokenNames};
use axum::Json;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use engine::{Event, FinishReason, TokenLogprob};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use text::AnswerPart;

/// Writes a response from the engine's events.
pub struct ResponseWriter {
    response: ResponseObject,
    items: ItemWriter,
    /// How log-probabilities name tokens, if they are asked for.
    token_names: Option<TokenNames>,
    /// Log-probabilities of tokens whose text has not come.
    logprobs: Vec<DrawnToken>,
    tally: Tally,
    events: EventQueue,
    /// Where the response goes when it has ended, if it is to be kept.
    store: Option<Keeping>,
}

/// Where a response goes when it has ended.
pub struct Keeping {
    pub store: Arc<ResponseStore>,
    /// The items of the request's input.
    pub input: Vec<Value>,
}

impl ResponseWriter {
    /// A writer of `response`, which holds what is known before the answer. `token_names` asks for log-probabilities.
    pub fn new(
        response: ResponseObject,
        items: ItemWriter,
        token_names: Option<TokenNames>,
        store: Option<Keeping>,
    ) -> Self {
        let mut writer = ResponseWriter {
            response,
            items,
            token_names,
            logprobs: Vec::new(),
            tally: Tally::default(),
            events: EventQueue::default(),
            store,
        };
        writer.tell("response.created");
        writer.tell(ResponseState::InProgress.event());
        writer
    }

    fn has_ended(&self) -> bool {
        self.response.status != ResponseState::InProgress
    }

    /// Adds an event that carries the response so far.
    fn tell(&mut self, kind: &'static str) {
        let response = Some(Box::new(self.response.clone()));
        self.events.push(ResponseEvent { kind, response, ..ResponseEvent::default() });
    }

    /// Takes in an event of the engine.
    fn take(&mut self, event: Event) {
        self.tally.add(&event);
        match event {
            // A failure is an error of the generation.
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } | Event::Failed(_) => {}
            Event::Delta { parts, logprob, in_thought, .. } => {
                self.note(logprob.as_ref().filter(|_| !in_thought));
                self.take_parts(parts);
            }
            Event::Finished { parts, reason, .. } => {
                self.take_parts(parts);
                let complete = reason != FinishReason::Length;
                let state = if complete {
                    ResponseState::Completed
                } else {
                    self.response.incomplete_details = Some(json!({"reason": "max_output_tokens"}));
                    ResponseState::Incomplete
                };
                self.end(state, complete);
            }
        }
    }

    fn note(&mut self, logprob: Option<&TokenLogprob>) {
        if let (Some(names), Some(logprob)) = (&self.token_names, logprob) {
            self.logprobs.push(names.logprob(logprob));
        }
    }

    fn take_parts(&mut self, parts: Vec<AnswerPart>) {
        for part in parts {
            if !matches!(part, AnswerPart::Text(_)) {
                // They are of a tag, or of what is no text.
                self.logprobs.clear();
            }
            self.items.take(part, &mut self.logprobs, &mut self.response.output, &mut self.events);
        }
    }

    /// The answer has failed.
    fn fail(&mut self, error: &ApiError) {
        tracing::warn!(id = self.response.id, %error, "a response failed");
        let mut told = error.to_json();
        let mut field = |name: &str| told["error"][name].take();
        let error = EventError { code: field("code"), message: field("message"), param: field("param") };
        self.response.error = Some(json!({"code": error.code, "message": error.message}));
        self.events.push(ResponseEvent { kind: "error", error: Some(error), ..ResponseEvent::default() });
        self.end(ResponseState::Failed, false);
    }

    fn end(&mut self, state: ResponseState, complete: bool) {
        self.items.finish(complete, &mut self.response.output, &mut self.events);
        self.response.end(state, &self.tally);
        // Kept before it is told, so that the next request finds it.
        if let Some(Keeping { store, input }) = self.store.take() {
            let text = serde_json::to_string(&self.response).unwrap_or_default();
            let response = serde_json::from_str(&text).unwrap_or_default();
            let previous = self.response.previous_response_id.clone();
            store.keep(&self.response.id, StoredResponse { response, input, previous });
        }
        self.tell(state.event());
    }
}

/// Sends a whole response.
///
/// Errors: the answer fails.
pub async fn send_whole(mut writer: ResponseWriter, mut generation: Generation) -> Result<Response, ApiError> {
    while !writer.has_ended() {
        let (_, event) = generation.next().await.unwrap_or_else(|| Err(ended_early()))?;
        writer.take(event);
        // Nobody reads them; the items that they tell of stay.
        writer.events.take();
    }
    Ok(Json(writer.response).into_response())
}

/// Sends a response in events. If there is no answer, the stream tells why.
pub async fn send_stream(writer: ResponseWriter, mut generation: Result<Generation, ApiError>) -> Response {
    if let Ok(generation) = &mut generation {
        generation.admitted().await;
    }
    let stream = ResponseStream { writer, generation, ready: VecDeque::new() };
    sse::respond(stream.events())
}

/// A response in events. It ends with `response.completed`, `response.incomplete` or `response.failed`.
struct ResponseStream {
    writer: ResponseWriter,
    generation: Result<Generation, ApiError>,
    ready: VecDeque<ResponseEvent>,
}

impl ResponseStream {
    fn events(self) -> impl Stream<Item = SseEvent> + Send + 'static {
        stream::unfold(self, |mut response| async move {
            let event = response.next().await?;
            let text = serde_json::to_string(&event).unwrap_or_default();
            Some((SseEvent::default().event(event.kind).data(text), response))
        })
    }

    async fn next(&mut self) -> Option<ResponseEvent> {
        loop {
            self.ready.extend(self.writer.events.take());
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.writer.has_ended() {
                return None;
            }
            match &mut self.generation {
                Err(error) => self.writer.fail(error),
                Ok(generation) => match generation.next().await.unwrap_or_else(|| Err(ended_early())) {
                    Ok((_, event)) => self.writer.take(event),
                    Err(error) => self.writer.fail(&error),
                },
            }
        }
    }
}

fn ended_early() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the engine ended before the answer did")
}
