//! A request between its submission and its last event.
use super::choice::ActiveChoice;
use super::handle::{QueuePermit, RequestId};
use super::pooled_prompt::PooledPrompt;
use super::request::{DraftTokens, Event, GenerationRequest, TokenLogprob};
use super::runner::{ChunkNeed, LogitsRow};
use super::sampler::{self, SamplerState};
use scheduler::{Chunk, PrefixReport, Step};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use text::{ConstraintError, Tokenizer};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

/// The target of the log's lines about requests.
const REQUESTS: &str = "request";
/// How often the log tells how far a prompt is read that takes long.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A token that has been drawn for a choice.
pub(super) struct SampledToken {
    /// The number of the choice.
    pub choice: u32,
    pub token: u32,
    /// Its log-probability, if asked for.
    pub logprob: Option<TokenLogprob>,
}

/// Why no token can be drawn.
#[derive(Debug, Error)]
pub(super) enum SampleError {
    /// The request's constraint cannot be followed.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The model is at fault.
    #[error("the model's logits are not numbers")]
    NotNumbers,
}

/// A request between its submission and its last event.
pub(super) struct ActiveRequest {
    /// The request's parameters.
    pub request: GenerationRequest,
    /// The receiver of its events.
    pub events: UnboundedSender<Event>,
    /// The choices that have not ended, by their numbers; none if the prompt is to be embedded.
    pub choices: BTreeMap<u32, ActiveChoice>,
    /// The sum that the prompt's vector is made of, if the prompt is to be embedded.
    pub pooled: Option<PooledPrompt>,
    /// Its place in the queue, until it is first scheduled.
    pub queued: Option<QueuePermit>,
    /// One entry for each prompt token that has been computed, `None` for the first; empty unless asked for.
    prompt_logprobs: Vec<Option<TokenLogprob>>,
    /// Tokens of the prompt that were known.
    cached_tokens: usize,
    /// Tokens that have been drawn for its choices.
    pub answer_tokens: usize,
    /// The counts of its choices' drafted tokens.
    pub drafts: DraftTokens,
    /// When it arrived.
    pub submitted: Instant,
    /// When its first step began.
    pub scheduled: Option<Instant>,
    /// When the log last told how far its prompt is read.
    progress_told: Option<Instant>,
    /// When its first token was sampled.
    pub first_token: Option<Instant>,
}

impl ActiveRequest {
    /// A request that has just arrived. `seed` serves where it names none; `turn_ends` are the model's; `pooled` takes
    /// the hidden states of a prompt that is to be embedded.
    pub fn new(
        request: GenerationRequest,
        seed: u64,
        events: UnboundedSender<Event>,
        queued: QueuePermit,
        tokenizer: &Arc<Tokenizer>,
        turn_ends: &[u32],
        pooled: Option<PooledPrompt>,
    ) -> Self {
        let min_tokens = request.stop.min_tokens;
        let ends: Arc<[u32]> = if min_tokens > 0 { request.stop.ends(turn_ends).collect() } else { Arc::default() };
        let num_choices = if pooled.is_some() { 0 } else { request.n };
        let choices = (0..num_choices as u32).map(|choice| {
            let sampler = SamplerState::new(request.sampling.clone(), seed, choice, &request.prompt)
                .with_min_tokens(min_tokens, ends.clone());
            (choice, ActiveChoice::new(choice as usize, sampler, &request, tokenizer, events.clone()))
        });
        ActiveRequest {
            choices: choices.collect(),
            pooled,
            request,
            events,
            queued: Some(queued),
            prompt_logprobs: Vec::new(),
            cached_tokens: 0,
            answer_tokens: 0,
            drafts: DraftTokens::default(),
            submitted: Instant::now(),
            scheduled: None,
            progress_told: None,
            first_token: None,
        }
    }

    /// Returns which results of a chunk are needed: hidden states, or logits. Log-probabilities need whole rows, a
    /// sampler perhaps a few of the largest.
    pub fn need(&self, chunk: &Chunk) -> ChunkNeed {
        if let Some(pooled) = &self.pooled {
            return pooled.need(chunk);
        }
        let prompt_left = self.prompt_logprobs.len() < self.request.prompt.len();
        if self.request.prompt_logprobs.is_some() && prompt_left && chunk.seq.choice == 0 {
            return ChunkNeed::AllLogits;
        }
        let choices = chunk.samples.clone().filter_map(|index| self.choices.get(&index));
        let needs = choices.map(ActiveChoice::needs).try_fold(1, |most, needs| Some(needs?.max(most)));
        match (needs, self.request.logprobs) {
            (Some(count), None) => ChunkNeed::LargestLogits(count),
            _ => ChunkNeed::LastLogits,
        }
    }

    /// Samples the next token of each of some choices from the logits of the token before: choice, token and, if asked
    /// for, its log-probability.
    ///
    /// Errors: a constraint cannot be followed, or no logit is a number.
    pub fn sample(&mut self, mut row: LogitsRow<'_>, choices: Range<u32>) -> Result<Vec<SampledToken>, SampleError> {
        let alone = choices.len() == 1;
        let mut sampled = Vec::with_capacity(choices.len());
        for index in choices {
            let Some(choice) = self.choices.get_mut(&index) else { continue };
            let (token, logprob) = match (&mut row, self.request.logprobs) {
                (LogitsRow::Largest(largest), _) => (Ok(choice.sample_largest(largest)), None),
                // Sampling may change the logits, which nobody looks at after.
                (LogitsRow::Whole(row), None) if alone => (choice.sample(row), None),
                (LogitsRow::Whole(row), top) => {
                    let token = choice.sample(&mut row.to_vec());
                    let logprob = |token| top.map(|top| self.request.answer_logprob(row, token, top));
                    let known = token.as_ref().ok().copied().flatten().and_then(logprob);
                    (token, known)
                }
            };
            let token = token?.ok_or(SampleError::NotNumbers)?;
            sampled.push(SampledToken { choice: index, token, logprob });
        }
        Ok(sampled)
    }

    /// Counts the tokens of a draft for one of its choices, none of which has been accepted yet.
    pub fn note_draft(&mut self, choice: u32, tokens: usize) {
        let own = self.choices.get_mut(&choice).map(|choice| &mut choice.drafts);
        [Some(&mut self.drafts), own].into_iter().flatten().for_each(|drafts| drafts.rejected += tokens);
    }

    /// Counts a token of the last draft as accepted.
    pub fn note_accepted(&mut self, choice: u32) {
        let own = self.choices.get_mut(&choice).map(|choice| &mut choice.drafts);
        for drafts in [Some(&mut self.drafts), own].into_iter().flatten() {
            drafts.rejected -= 1;
            drafts.accepted += 1;
        }
    }

    /// Takes the log-probability of the prompt token that follows the one at `position`, whose logits these are. What a
    /// prefill had before it was preempted is not taken twice.
    pub fn take_prompt_logprob(&mut self, position: usize, logits: &[f32]) {
        let Some(top) = self.request.prompt_logprobs else { return };
        let prompt = &self.request.prompt;
        if self.prompt_logprobs.is_empty() {
            self.prompt_logprobs.push(None);
        }
        let next = position + 1;
        if next == self.prompt_logprobs.len() && next < prompt.len() {
            self.prompt_logprobs.push(Some(sampler::logprob(logits, prompt[next], top)));
        }
    }

    /// Tells the client that its prompt is computed.
    pub fn announce_prompt(&mut self, report: &PrefixReport) {
        self.cached_tokens = report.reused();
        let logprobs = self.request.prompt_logprobs.map(|_| self.prompt_logprobs.clone());
        let tokens = self.request.prompt.len();
        let _ = self.events.send(Event::Prompt { tokens, cached_tokens: self.cached_tokens, logprobs });
    }

    /// Says in the log that `computed` tokens of its prompt are known or computed, unless that was told lately.
    pub fn log_progress(&mut self, computed: usize, now: Instant) {
        let Some(scheduled) = self.scheduled else { return };
        if now - self.progress_told.unwrap_or(scheduled) < PROGRESS_INTERVAL {
            return;
        }
        self.progress_told = Some(now);
        let (total, seconds) = (self.request.prompt.len(), (now - scheduled).as_secs());
        let id = &self.request.id;
        tracing::info!(target: REQUESTS, id, "reading the prompt: {computed} of {total} tokens after {seconds} s");
    }

    /// Says in the log what became of the request, and what it took.
    pub fn log_end(&self, outcome: &str) {
        let begin = self.scheduled.unwrap_or(self.submitted);
        let prefill = match self.first_token {
            Some(first) => first - begin,
            // It ended while its prompt was computed, or before.
            None => self.scheduled.map_or(Duration::ZERO, |scheduled| scheduled.elapsed()),
        };
        let decode = self.first_token.map_or(Duration::ZERO, |first| first.elapsed());
        // The first token is prefill's.
        let rate = self.answer_tokens.saturating_sub(1) as f64 / decode.as_secs_f64().max(1e-9);
        tracing::info!(
            target: REQUESTS,
            id = self.request.id,
            prompt_tokens = self.request.prompt.len(),
            cached_tokens = self.cached_tokens,
            answer_tokens = self.answer_tokens,
            draft_tokens = self.drafts.accepted + self.drafts.rejected,
            accepted_tokens = self.drafts.accepted,
            queue_ms = (begin - self.submitted).as_millis() as u64,
            prefill_ms = prefill.as_millis() as u64,
            tokens_per_second = (10.0 * rate).round() / 10.0,
            "{outcome}"
        );
    }
}

/// The choices that a step samples for and that are held to a constraint.
pub(super) fn held_choices<'a>(
    requests: &'a mut BTreeMap<RequestId, ActiveRequest>,
    step: &Step,
) -> Vec<&'a mut ActiveChoice> {
    let sampled: HashMap<RequestId, Vec<Range<u32>>> = step.chunks.iter().fold(HashMap::new(), |mut map, chunk| {
        map.entry(RequestId(chunk.seq.request)).or_default().push(chunk.samples.clone());
        map
    });
    let of_step = requests.iter_mut().filter_map(|(id, request)| Some((sampled.get(id)?, request)));
    let choices = of_step.flat_map(|(samples, request)| {
        let choices = request.choices.iter_mut();
        choices.filter_map(move |(index, choice)| samples.iter().any(|s| s.contains(index)).then_some(choice))
    });
    choices.filter(|choice| choice.is_held()).collect()
}

impl GenerationRequest {
    /// The log-probability of a token of the answer, with those of the tokens that the request names, or else of the
    /// `top` most likely ones.
    fn answer_logprob(&self, logits: &[f32], token: u32, top: usize) -> TokenLogprob {
        match self.logprob_token_ids.as_slice() {
            [] => sampler::logprob(logits, token, top),
            named => sampler::logprob_with(logits, token, named),
        }
    }
}
