//! Sends answers, whole or streamed.
use crate::generation::{Generation, Tally};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::sse;
use crate::openai::answer::{AnswerChoice, AnswerFormat};
use crate::openai::usage::Usage;
use axum::Json;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use engine::Event;
use futures_util::{Stream, stream};
use std::collections::{BTreeMap, VecDeque};

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As one JSON object.
    Whole,
    /// As server-sent events.
    Streamed { usage: StreamedUsage },
}

impl Delivery {
    /// Errors: `prompt_logprobs` is asked for in a stream, whose answer chunks have no place for it.
    pub fn check_prompt_logprobs(self, prompt_logprobs: Option<usize>) -> Result<(), ApiError> {
        if prompt_logprobs.is_some() && self != Delivery::Whole {
            let message = "prompt_logprobs does not go with stream: true; completions have echo and logprobs for it";
            return Err(ApiError::invalid("prompt_logprobs", message));
        }
        Ok(())
    }
}

/// Where a streamed answer tells how many tokens it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamedUsage {
    Nowhere,
    /// In an answer chunk without choices that follows the last choice's end (OpenAI's `include_usage`).
    AtTheEnd,
    /// There, and in every answer chunk for the choice that it is about, so far (vLLM's `continuous_usage_stats`).
    Everywhere,
}

/// Answers an HTTP request with what `generation` brings, in the form of `format`.
///
/// Errors: a whole answer fails. The failure of a streamed one is an event of the stream.
pub async fn respond<F: AnswerFormat>(
    mut format: F,
    mut generation: Generation,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    match delivery {
        Delivery::Streamed { usage } => {
            generation.admitted().await;
            Ok(sse::respond(AnswerStream::new(format, generation, usage).events()))
        }
        Delivery::Whole => {
            let answer = generation.collect().await?;
            let usage = Usage::from(&answer.tally);
            let prompt_logprobs = format.prompt_logprobs(&answer);
            let choices = format.choices(answer);
            let mut envelope = format.header().envelope(F::OBJECT, choices);
            envelope.usage = Some(Some(usage));
            envelope.prompt_token_ids = format.prompt_token_ids();
            envelope.prompt_logprobs = prompt_logprobs;
            Ok(Json(envelope).into_response())
        }
    }
}

/// An answer in answer chunks: those of the format, then one with the usage if the client asked for it, then `[DONE]`.
/// An error comes as an event of its own before `[DONE]`, since the status has been sent by then.
struct AnswerStream<F> {
    format: F,
    generation: Generation,
    usage: StreamedUsage,
    tally: Tally,
    /// The tokens of each prompt, and of each choice so far by prompt and choice, for the usage of choices.
    prompt_tallies: BTreeMap<usize, Tally>,
    choice_tokens: BTreeMap<(usize, usize), usize>,
    /// No answer chunk has been written yet.
    at_start: bool,
    /// Texts of events that have not been sent.
    ready: VecDeque<String>,
    ended: bool,
}

impl<F: AnswerFormat> AnswerStream<F> {
    fn new(format: F, generation: Generation, usage: StreamedUsage) -> Self {
        AnswerStream {
            format,
            generation,
            usage,
            tally: Tally::default(),
            prompt_tallies: BTreeMap::new(),
            choice_tokens: BTreeMap::new(),
            at_start: true,
            ready: VecDeque::new(),
            ended: false,
        }
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
                tracing::warn!(id = self.format.header().id, %error, "a streamed answer failed");
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
                let usage = match self.usage {
                    StreamedUsage::Everywhere => Some(self.choice_usage(prompt, &event)),
                    StreamedUsage::Nowhere | StreamedUsage::AtTheEnd => None,
                };
                for choice in self.format.answer_chunks(prompt, event) {
                    self.write(vec![choice], usage.clone())?;
                }
            }
            None => {
                self.ended = true;
                if self.usage != StreamedUsage::Nowhere {
                    self.write(Vec::new(), Some(Usage::from(&self.tally)))?;
                }
            }
        }
        Ok(())
    }

    /// The tokens of a prompt and of the choice of it that an event is about, this event included.
    fn choice_usage(&mut self, prompt: usize, event: &Event) -> Usage {
        let mut tally = *self.prompt_tallies.entry(prompt).or_default();
        match event {
            Event::Prompt { .. } => {
                tally.add(event);
                self.prompt_tallies.insert(prompt, tally);
            }
            Event::Delta { choice, .. } => *self.choice_tokens.entry((prompt, *choice)).or_default() += 1,
            Event::Admitted(_) | Event::Finished { .. } | Event::Embedded { .. } | Event::Failed(_) => {}
        }
        if let Event::Delta { choice, .. } | Event::Finished { choice, .. } = event {
            tally.completion = self.choice_tokens.get(&(prompt, *choice)).copied().unwrap_or(0);
        }
        Usage::from(&tally)
    }

    /// Makes one answer chunk. If the client asked for the usage, it is null in answer chunks that do not tell it.
    fn write(&mut self, choices: Vec<AnswerChoice<F::ChunkChoice>>, usage: Option<Usage>) -> Result<(), ApiError> {
        let mut envelope = self.format.header().envelope(F::ANSWER_CHUNK_OBJECT, choices);
        envelope.usage = (self.usage != StreamedUsage::Nowhere).then_some(usage);
        envelope.prompt_token_ids = self.format.prompt_token_ids().filter(|_| self.at_start);
        let text = serde_json::to_string(&envelope).map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?;
        self.ready.push_back(text);
        self.at_start = false;
        Ok(())
    }
}
