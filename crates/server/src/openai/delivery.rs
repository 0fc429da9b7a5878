//! Sends answers, whole or streamed.
use crate::generation::{Generation, Tally};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::sse;
use crate::openai::answer::{AnswerChoice, AnswerFormat, usage};
use axum::Json;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use openai_protocol::common::Usage;
use std::collections::VecDeque;

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As one JSON object.
    Whole,
    /// As server-sent events. `include_usage`: an answer chunk with the usage follows the last choice's end.
    Streamed { include_usage: bool },
}

/// Answers an HTTP request with what `generation` brings, in the form of `format`.
///
/// Errors: a whole answer fails. The failure of a streamed one is an event of the stream.
pub async fn respond<F: AnswerFormat>(
    mut format: F,
    generation: Generation,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    match delivery {
        Delivery::Streamed { include_usage } => {
            Ok(sse::respond(AnswerStream::new(format, generation, include_usage).events()))
        }
        Delivery::Whole => {
            let answer = generation.collect().await?;
            let usage = usage(&answer.tally);
            let choices = format.choices(answer);
            let mut envelope = format.header().envelope(F::OBJECT, choices);
            envelope.usage = Some(Some(usage));
            envelope.prompt_token_ids = format.prompt_token_ids();
            Ok(Json(envelope).into_response())
        }
    }
}

/// An answer in answer chunks: those of the format, then one with the usage if the client asked for it, then `[DONE]`.
/// An error comes as an event of its own before `[DONE]`, since the status has been sent by then.
struct AnswerStream<F> {
    format: F,
    generation: Generation,
    include_usage: bool,
    tally: Tally,
    /// No answer chunk has been written yet.
    at_start: bool,
    /// Texts of events that have not been sent.
    ready: VecDeque<String>,
    ended: bool,
}

impl<F: AnswerFormat> AnswerStream<F> {
    fn new(format: F, generation: Generation, include_usage: bool) -> Self {
        let (tally, ready) = (Tally::default(), VecDeque::new());
        AnswerStream { format, generation, include_usage, tally, at_start: true, ready, ended: false }
    }

    /// The events to send.
    fn events(self) -> impl Stream<Item = SseEvent> + Send + 'static {
        stream::unfold(self, |mut answer| async move {
            let text = answer.next().await?;
            Some((SseEvent::default().data(text), answer))
        })
    }

    /// The next event's text.
    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() && !self.ended {
            if let Err(error) = self.advance().await {
                tracing::warn!(%error, "a streamed answer failed");
                self.ended = true;
                self.ready.push_back(error.to_json().to_string());
            }
            if self.ended {
                self.ready.push_back("[DONE]".into());
            }
        }
        self.ready.pop_front()
    }

    /// Waits for an event of the engine, or for the end, and makes the answer chunks that follow from it.
    async fn advance(&mut self) -> Result<(), ApiError> {
        match self.generation.next().await.transpose()? {
            Some((prompt, event)) => {
                self.tally.add(&event);
                for choice in self.format.answer_chunks(prompt, event) {
                    self.write(vec![choice], None)?;
                }
            }
            None => {
                self.ended = true;
                if self.include_usage {
                    self.write(Vec::new(), Some(usage(&self.tally)))?;
                }
            }
        }
        Ok(())
    }

    /// Makes one answer chunk. If the client asked for the usage, it is null in all answer chunks but the last.
    fn write(&mut self, choices: Vec<AnswerChoice<F::ChunkChoice>>, usage: Option<Usage>) -> Result<(), ApiError> {
        let mut envelope = self.format.header().envelope(F::ANSWER_CHUNK_OBJECT, choices);
        envelope.usage = self.include_usage.then_some(usage);
        envelope.prompt_token_ids = self.format.prompt_token_ids().filter(|_| self.at_start);
        let text = serde_json::to_string(&envelope).map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?;
        self.ready.push_back(text);
        self.at_start = false;
        Ok(())
    }
}
