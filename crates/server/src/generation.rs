//! The engine's side of one HTTP request: the events of all its prompts in one stream, or collected to the whole
//! answer.
use crate::content::AnswerContent;
use crate::http::cache_header::FoundPrefixes;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::metrics::Meter;
use crate::http::state::{Active, ServedModel};
use engine::{
    DraftTokens, Event, FinishReason, GenerationRequest, MatchedStop, PrefixReport, RequestField, RequestStream,
    TokenLogprob,
};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the head of a streamed answer waits until it is known what was found of its prompts. A request that waits
/// longer for its first step is answered without that.
const ADMISSION_WAIT: Duration = Duration::from_millis(100);

/// The events of all prompts of an HTTP request. Dropping it cancels what runs.
pub struct Generation {
    events: SelectAll<BoxStream<'static, (usize, Event)>>,
    /// Events that came before [`next`](Self::next) asked for them.
    early: VecDeque<(usize, Event)>,
    found: FoundPrefixes,
    /// One for each prompt.
    meters: Vec<Meter>,
    /// Choices of each prompt.
    n: usize,
    /// Choices that have not ended.
    open: usize,
    /// Only the prompt is asked for, so the one token that the engine generates is left out.
    prompt_only: bool,
    _active: Active,
}

impl Generation {
    /// Submits one request for each prompt, all with the same number of choices. `name` gives the name that a field of
    /// an engine's request has for the client.
    ///
    /// Errors: the engine refuses one of the requests; then none of them runs.
    pub fn submit(
        served: &ServedModel,
        requests: Vec<GenerationRequest>,
        prompt_only: bool,
        name: impl Fn(RequestField) -> &'static str,
    ) -> Result<Self, ApiError> {
        let (prompts, limit) = (requests.len(), served.engine.queue_limit());
        // A queue that never takes so many is not full: it does not help to try again.
        if prompts > limit {
            let field = name(RequestField::Prompt);
            let message = format!("{field} holds {prompts} prompts; --max-queued-requests allows {limit} to wait");
            return Err(ApiError::invalid(field, message));
        }
        let mut generation = Generation {
            events: SelectAll::new(),
            early: VecDeque::new(),
            found: FoundPrefixes::of_answer(prompts),
            meters: Vec::new(),
            n: requests.first().map_or(0, |request| request.n),
            open: 0,
            prompt_only,
            _active: served.active.begin(),
        };
        for (prompt, request) in requests.into_iter().enumerate() {
            let (n, max_tokens) = (request.n, request.stop.max_tokens);
            let stream = served.engine.submit(request).map_err(|error| ApiError::refused(error, &name))?;
            generation.meters.push(Meter::new(served.metrics.clone(), n, max_tokens));
            generation.open += n;
            generation.events.push(with_prompt(prompt, stream));
        }
        Ok(generation)
    }

    /// Waits until it is known what was found of all prompts, and gives the sum. `None`: one of them fails or is not
    /// admitted within [`ADMISSION_WAIT`]. Events that come meanwhile are not lost.
    pub async fn admitted(&mut self) -> Option<PrefixReport> {
        let deadline = Instant::now() + ADMISSION_WAIT;
        while self.found.sum().is_none() {
            let received = timeout_at(deadline, self.receive()).await.ok().flatten()?;
            let failed = matches!(received, (_, Event::Failed(_)));
            self.early.push_back(received);
            if failed {
                return None;
            }
        }
        self.found.sum()
    }

    /// The engine's next event and the index of its prompt. A call may be dropped without a loss.
    async fn receive(&mut self) -> Option<(usize, Event)> {
        let (prompt, event) = self.events.next().await?;
        self.meters[prompt].event(&event);
        self.found.note(prompt, &event);
        Some((prompt, event))
    }

    /// The next event but for admissions, and the index of its prompt. `None` follows the end of all choices, or an
    /// error.
    pub async fn next(&mut self) -> Option<Result<(usize, Event), ApiError>> {
        while self.open > 0 {
            let received = match self.early.pop_front() {
                Some(early) => Some(early),
                None => self.receive().await,
            };
            let Some((prompt, mut event)) = received else {
                self.open = 0;
                return Some(Err(ApiError::new(ErrorCode::Internal, "the engine ended before the answer did")));
            };
            match &mut event {
                Event::Failed(error) => {
                    self.open = 0;
                    return Some(Err(error.clone().into()));
                }
                // A header tells of it, and an answer does not begin before its prompt is computed.
                Event::Admitted(_) => continue,
                Event::Delta { .. } if self.prompt_only => continue,
                Event::Embedded { .. } => self.open -= 1,
                Event::Finished { parts, reason, matched_stop, .. } => {
                    self.open -= 1;
                    if self.prompt_only {
                        parts.clear();
                        (*reason, *matched_stop) = (FinishReason::Length, None);
                    }
                }
                _ => {}
            }
            return Some(Ok((prompt, event)));
        }
        None
    }

    /// Waits for the end of all choices.
    pub async fn collect(mut self) -> Result<CollectedAnswer, ApiError> {
        let (prompts, n) = (self.meters.len(), self.n);
        let mut answer = CollectedAnswer {
            prompts: vec![PromptLogprobs::default(); prompts],
            choices: vec![CollectedChoice::default(); prompts * n],
            vectors: vec![Vec::new(); prompts],
            tally: Tally::default(),
        };
        while let Some(item) = self.next().await {
            let (prompt, event) = item?;
            answer.tally.add(&event);
            match event {
                Event::Prompt { logprobs, .. } => answer.prompts[prompt] = logprobs.unwrap_or_default(),
                Event::Delta { choice, parts, token, logprob, .. } => {
                    let choice = answer.choice(prompt, n, choice)?;
                    choice.content.extend(parts);
                    choice.tokens.push(token);
                    choice.logprobs.extend(logprob);
                }
                Event::Finished { choice, parts, reason, matched_stop, .. } => {
                    let choice = answer.choice(prompt, n, choice)?;
                    choice.content.extend(parts);
                    (choice.reason, choice.matched_stop) = (Some(reason), matched_stop);
                }
                Event::Embedded { vector } => answer.vectors[prompt] = vector,
                // `next` leaves out the one and makes an error of the other.
                Event::Admitted(_) | Event::Failed(_) => {}
            }
        }
        Ok(answer)
    }
}

fn with_prompt(prompt: usize, stream: RequestStream) -> BoxStream<'static, (usize, Event)> {
    stream::unfold(stream, move |mut stream| async move {
        let event = stream.next().await?;
        Some(((prompt, event), stream))
    })
    .boxed()
}

/// One entry for each token of a prompt, `None` for the first; empty if log-probabilities were not asked for.
pub type PromptLogprobs = Vec<Option<TokenLogprob>>;

/// Everything that the events of an HTTP request said.
pub struct CollectedAnswer {
    /// Log-probabilities of each prompt's tokens.
    pub prompts: Vec<PromptLogprobs>,
    /// The first prompt's choices, then the second's, and so on.
    pub choices: Vec<CollectedChoice>,
    /// Each prompt's vector; empty for prompts that were not to be embedded.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all prompts and choices.
    pub tally: Tally,
}

/// What the events said of one choice.
#[derive(Clone, Default)]
pub struct CollectedChoice {
    pub content: AnswerContent,
    pub tokens: Vec<u32>,
    /// One for each token if they were asked for, else none.
    pub logprobs: Vec<TokenLogprob>,
    /// `None` until the choice has ended.
    pub reason: Option<FinishReason>,
    /// The stop string or stop token that ended the text, if one did.
    pub matched_stop: Option<MatchedStop>,
}

impl CollectedAnswer {
    fn choice(&mut self, prompt: usize, n: usize, choice: usize) -> Result<&mut CollectedChoice, ApiError> {
        let known = self.choices.get_mut(prompt * n + choice);
        known.ok_or_else(|| ApiError::new(ErrorCode::Internal, format!("the engine speaks of choice {choice} of {n}")))
    }
}

/// Tokens of an HTTP request, as a protocol reports them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Tokens of all prompts.
    pub prompt: usize,
    /// Tokens of prompts that were in the cache already.
    pub cached: usize,
    /// Tokens of all choices.
    pub completion: usize,
    /// Those of them that belong to thoughts.
    pub thought: usize,
    /// What became of the tokens that were drafted for choices that have ended.
    pub drafts: DraftTokens,
}

impl Tally {
    /// Counts the tokens that an event is about.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Prompt { tokens, cached_tokens, .. } => {
                self.prompt += tokens;
                self.cached += cached_tokens;
            }
            Event::Delta { in_thought, .. } => {
                self.completion += 1;
                self.thought += usize::from(*in_thought);
            }
            Event::Finished { drafts, .. } => {
                self.drafts.accepted += drafts.accepted;
                self.drafts.rejected += drafts.rejected;
            }
            Event::Admitted(_) | Event::Embedded { .. } | Event::Failed(_) => {}
        }
    }
}
