//! Answers of `/infill`, whole and as events.
use crate::generation::{Generation, Tally};
use crate::http::error::ApiError;
use axum::response::sse::Event as SseEvent;
use engine::{Event, FinishReason, MatchedStop};
use futures_util::{Stream, stream};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use text::AnswerPart;

/// An answer that grows.
pub struct InfillAnswer {
    model: String,
    return_tokens: bool,
    /// The fields that the client wants, by path; `None`: all.
    response_fields: Option<Vec<String>>,
    content: String,
    tokens: Vec<u32>,
    tally: Tally,
    submitted: Instant,
    /// When the prompt had been computed.
    prompt_end: Option<Instant>,
    ended: bool,
}

impl InfillAnswer {
    /// The answer to a request that has just been submitted.
    pub fn new(model: String, return_tokens: bool, response_fields: Option<Vec<String>>) -> Self {
        InfillAnswer {
            model,
            return_tokens,
            response_fields,
            content: String::new(),
            tokens: Vec::new(),
            tally: Tally::default(),
            submitted: Instant::now(),
            prompt_end: None,
            ended: false,
        }
    }

    /// Waits for the end and gives the whole answer.
    ///
    /// Errors: the engine fails.
    pub async fn collect(mut self, mut generation: Generation) -> Result<Value, ApiError> {
        let mut last = Value::Null;
        while let Some(item) = generation.next().await {
            let (_, event) = item?;
            self.take(&event);
            if let Event::Finished { reason, matched_stop, .. } = event {
                let (content, tokens) = (std::mem::take(&mut self.content), std::mem::take(&mut self.tokens));
                let tokens = if self.return_tokens { tokens } else { Vec::new() };
                last = self.last(&content, &tokens, reason, matched_stop);
            }
        }
        Ok(last)
    }

    /// The answer as events, each with the text that is new. An error is an event too.
    pub fn events(self, generation: Generation) -> impl Stream<Item = SseEvent> + Send + 'static {
        stream::unfold((self, generation), |(mut answer, mut generation)| async move {
            while !answer.ended {
                let data = match generation.next().await? {
                    Ok((_, event)) => answer.event(event),
                    Err(error) => {
                        answer.ended = true;
                        Some(error.to_json())
                    }
                };
                if let Some(data) = data {
                    return Some((SseEvent::default().data(data.to_string()), (answer, generation)));
                }
            }
            None
        })
    }

    /// What is sent after an event of the engine, if anything is.
    fn event(&mut self, event: Event) -> Option<Value> {
        self.take(&event);
        let content = std::mem::take(&mut self.content);
        if let Event::Finished { reason, matched_stop, .. } = event {
            self.ended = true;
            return Some(self.last(&content, &[], reason, matched_stop));
        }
        if content.is_empty() {
            return None;
        }
        let tokens = std::mem::take(&mut self.tokens);
        Some(self.selected(json!({
            "index": 0,
            "content": content,
            "tokens": tokens,
            "stop": false,
            "tokens_predicted": self.tally.completion,
            "tokens_evaluated": self.tally.prompt,
        })))
    }

    fn take(&mut self, event: &Event) {
        self.tally.add(event);
        match event {
            Event::Admitted(_) => {}
            Event::Prompt { .. } => self.prompt_end = Some(Instant::now()),
            Event::Delta { parts, token, .. } => {
                self.add(parts);
                self.tokens.push(*token);
            }
            Event::Finished { parts, .. } => self.add(parts),
            Event::Embedded { .. } | Event::Failed(_) => {}
        }
    }

    /// An answer that continues a text has parts of text alone.
    fn add(&mut self, parts: &[AnswerPart]) {
        for part in parts {
            if let AnswerPart::Text(text) = part {
                self.content += text;
            }
        }
    }

    /// What tells the end, with the content that has not been sent.
    fn last(&self, content: &str, tokens: &[u32], reason: FinishReason, matched_stop: Option<MatchedStop>) -> Value {
        let (stop_type, stopping_word) = match (reason, matched_stop) {
            (FinishReason::Length, _) => ("limit", String::new()),
            (FinishReason::Stop, Some(MatchedStop::Text(word))) => ("word", word),
            (FinishReason::Stop | FinishReason::ToolCalls, _) => ("eos", String::new()),
        };
        self.selected(json!({
            "index": 0,
            "content": content,
            "tokens": tokens,
            "stop": true,
            "model": self.model,
            "tokens_predicted": self.tally.completion,
            "tokens_evaluated": self.tally.prompt,
            "tokens_cached": self.tally.cached,
            "truncated": false,
            "stop_type": stop_type,
            "stopping_word": stopping_word,
            "timings": self.timings(),
        }))
    }

    /// How long prompt and answer took, from the submission on.
    fn timings(&self) -> Value {
        let now = Instant::now();
        let prompt_end = self.prompt_end.unwrap_or(now);
        let mut timings = Map::from_iter([("cache_n".to_owned(), Value::from(self.tally.cached))]);
        let mut add = |name: &str, tokens: usize, time: Duration| {
            let (ms, tokens_f) = (time.as_secs_f64() * 1e3, tokens as f64);
            timings.insert(format!("{name}_n"), tokens.into());
            timings.insert(format!("{name}_ms"), ms.into());
            timings.insert(format!("{name}_per_token_ms"), (ms / tokens_f.max(1.0)).into());
            timings.insert(format!("{name}_per_second"), (tokens_f * 1e3 / ms.max(1e-3)).into());
        };
        add("prompt", self.tally.prompt - self.tally.cached, prompt_end - self.submitted);
        add("predicted", self.tally.completion, now - prompt_end);
        timings.into()
    }

    /// The fields that the client wants of an answer. One of an object inside it, such as `timings/prompt_n`, is moved
    /// out of it under its whole path.
    fn selected(&self, answer: Value) -> Value {
        let Some(wanted) = &self.response_fields else { return answer };
        let field = |path: &String| Some((path.clone(), answer.pointer(&format!("/{path}"))?.clone()));
        wanted.iter().filter_map(field).collect::<Map<_, _>>().into()
    }
}
