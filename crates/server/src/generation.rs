//! The engine's side of one HTTP request: its prompts' event streams, merged, and the whole answer.
use crate::error::{ApiError, ErrorCode};
use crate::metrics::Meter;
use crate::state::Loaded;
use engine::{
    Event, FinishReason, GenerationRequest, MatchedStop, RequestField, RequestStream, SubmitError, TokenLogprob,
};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use openai_protocol::common::Usage;
use tokio::sync::watch;

/// Events of all prompts of a request. Dropping it cancels what runs.
pub(crate) struct Generation {
    events: SelectAll<BoxStream<'static, (usize, Event)>>,
    meters: Vec<Meter>,
    /// Choices that have not ended.
    open: usize,
    /// Only the prompt is asked for, so the one token that the engine generates is left out.
    prompt_only: bool,
    _active: Active,
}

/// Counts a request as active while it lives.
struct Active(watch::Sender<usize>);

impl Active {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Active(count.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Generation {
    /// Submits one request a prompt; if one is refused, none runs.
    /// `name` gives the name that a field of the engine's request has for the client.
    pub fn submit(
        loaded: &Loaded,
        requests: Vec<GenerationRequest>,
        prompt_only: bool,
        name: impl Fn(RequestField) -> &'static str,
    ) -> Result<Self, ApiError> {
        let mut generation = Generation {
            events: SelectAll::new(),
            meters: Vec::new(),
            open: 0,
            prompt_only,
            _active: Active::new(&loaded.active),
        };
        let prompts = requests.len();
        let refused = |error: SubmitError| match error {
            SubmitError::QueueFull { limit } if prompts > limit => {
                let message = format!("prompt holds {prompts} prompts; --max-queued-requests allows {limit} to wait");
                ApiError::invalid("prompt", message)
            }
            other => ApiError::refused(other, &name),
        };
        for (prompt, request) in requests.into_iter().enumerate() {
            let (n, max_tokens) = (request.n, request.stop.max_tokens);
            let stream = loaded.engine.submit(request).map_err(refused)?;
            generation.meters.push(Meter::new(loaded.recorders.clone(), n, max_tokens));
            generation.open += n;
            generation.events.push(numbered(prompt, stream));
        }
        Ok(generation)
    }

    /// The next event and its prompt's number; `None` when all choices have ended, or after an error.
    pub async fn next(&mut self) -> Option<Result<(usize, Event), ApiError>> {
        while self.open > 0 {
            let Some((prompt, mut event)) = self.events.next().await else {
                self.open = 0;
                return Some(Err(ApiError::new(ErrorCode::Internal, "the engine ended before the answer did")));
            };
            self.meters[prompt].event(&event);
            match &mut event {
                Event::Failed(error) => {
                    self.open = 0;
                    return Some(Err(error.clone().into()));
                }
                Event::Delta { .. } if self.prompt_only => continue,
                Event::Finished { text, reason, matched_stop, .. } => {
                    self.open -= 1;
                    if self.prompt_only {
                        text.clear();
                        (*reason, *matched_stop) = (FinishReason::Length, None);
                    }
                }
                _ => {}
            }
            return Some(Ok((prompt, event)));
        }
        None
    }

    /// Waits for everything.
    pub async fn collect(mut self, prompts: usize, n: usize) -> Result<Answer, ApiError> {
        let mut answer = Answer {
            prompts: vec![PromptLogprobs::default(); prompts],
            choices: vec![ChoiceAnswer::default(); prompts * n],
            tally: Tally::default(),
        };
        while let Some(item) = self.next().await {
            let (prompt, event) = item?;
            answer.tally.add(&event);
            match event {
                Event::Prompt { logprobs, .. } => answer.prompts[prompt] = logprobs.unwrap_or_default(),
                Event::Delta { choice, text, token, logprob } => {
                    let choice = answer.choice(prompt, n, choice)?;
                    choice.text += &text;
                    choice.tokens.push(token);
                    choice.logprobs.extend(logprob);
                }
                Event::Finished { choice, text, reason, matched_stop } => {
                    let choice = answer.choice(prompt, n, choice)?;
                    choice.text += &text;
                    (choice.reason, choice.matched_stop) = (Some(reason), matched_stop);
                }
                // `next` has made an error of it.
                Event::Failed(_) => {}
            }
        }
        Ok(answer)
    }
}

fn numbered(prompt: usize, stream: RequestStream) -> BoxStream<'static, (usize, Event)> {
    stream::unfold(stream, move |mut stream| async move {
        let event = stream.next().await?;
        Some(((prompt, event), stream))
    })
    .boxed()
}

pub(crate) type PromptLogprobs = Vec<Option<TokenLogprob>>;

/// Everything that a request's events said.
pub(crate) struct Answer {
    /// Log-probabilities of each prompt's tokens, if they were asked for.
    pub prompts: Vec<PromptLogprobs>,
    /// The first prompt's choices, then the second's, and so on.
    pub choices: Vec<ChoiceAnswer>,
    pub tally: Tally,
}

#[derive(Clone, Default)]
pub(crate) struct ChoiceAnswer {
    pub text: String,
    pub tokens: Vec<u32>,
    pub logprobs: Vec<TokenLogprob>,
    pub reason: Option<FinishReason>,
    pub matched_stop: Option<MatchedStop>,
}

impl Answer {
    fn choice(&mut self, prompt: usize, n: usize, choice: usize) -> Result<&mut ChoiceAnswer, ApiError> {
        let known = self.choices.get_mut(prompt * n + choice);
        known.ok_or_else(|| ApiError::new(ErrorCode::Internal, format!("the engine speaks of choice {choice} of {n}")))
    }
}

/// Tokens counted for `usage`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
}

impl Tally {
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Prompt { tokens, cached_tokens, .. } => {
                self.prompt_tokens += tokens;
                self.cached_tokens += cached_tokens;
            }
            Event::Delta { .. } => self.completion_tokens += 1,
            Event::Finished { .. } | Event::Failed(_) => {}
        }
    }

    pub fn usage(&self) -> Usage {
        let usage = Usage::from_counts(self.prompt_tokens as u32, self.completion_tokens as u32);
        usage.with_cached_tokens(self.cached_tokens as u32)
    }
}

/// OpenAI's word for it.
pub(crate) fn finish_reason(reason: FinishReason) -> String {
    match reason {
        FinishReason::Stop => "stop".into(),
        FinishReason::Length => "length".into(),
    }
}
