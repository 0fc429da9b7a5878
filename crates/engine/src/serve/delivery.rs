//! From what a step gave to its requests: tokens are sampled and delivered, drafts verified, vectors handed over.
//!
//! A draft's rows are sampled in order, by the path that every token takes, each once the token before has been
//! delivered and was the one that was drafted. What a choice may draw next, and whether it has ended, is therefore
//! known as if its tokens were computed one at a time.
use super::active_request::{SampleError, SampledToken};
use super::choice::EndToken;
use super::engine_loop::{Engine, prefix_report};
use super::handle::RequestId;
use super::prefix_cache::PrefixEvent;
use super::request::{Event, GenerationRequest};
use super::runner::StepOutput;
use crate::error::EngineError;
use scheduler::{Chunk, PrefixReport, SeqId, Step};
use std::time::Instant;
use text::ConstraintError;

/// The outcome of a step for its sequences.
#[derive(Default)]
struct Outcome {
    /// The tokens that were drawn, those of one sequence in order.
    tokens: Vec<(SeqId, u32)>,
    /// Choices that have ended.
    ended: Vec<SeqId>,
    /// Choices whose constraint cannot be followed.
    failed: Vec<(SeqId, ConstraintError)>,
}

impl Engine {
    /// Takes in what a step gave: samples from logits, delivers the tokens and tells the scheduler of them, and hands
    /// over the vectors of prompts that are whole.
    pub(super) fn take(&mut self, step: &Step, mut output: StepOutput) -> Result<(), String> {
        let (mut sampled, mut embedded) = (Vec::new(), Vec::new());
        let mut outcome = Outcome::default();
        for (at, chunk) in step.chunks.iter().enumerate() {
            let Some(request) = self.requests.get_mut(&RequestId(chunk.seq.request)) else { continue };
            if let Some(pooled) = &mut request.pooled {
                pooled.add(chunk, output.hidden_states(at));
                if !chunk.samples.is_empty() {
                    embedded.push((chunk.seq, pooled.vector().ok_or("the model's hidden states are not numbers")?));
                }
                continue;
            }
            if request.request.prompt_logprobs.is_some() {
                let take = |row: usize, logits: &[f32]| request.take_prompt_logprob(chunk.start + row, logits);
                self.runner.each_logits(&output, at, take).map_err(|e| e.to_string())?;
            }
            if chunk.samples.is_empty() {
                request.log_progress(chunk.start + chunk.len, Instant::now());
                continue;
            }
            if request.first_token.is_none() {
                let report = prefix_report(&self.scheduler, chunk);
                request.announce_prompt(&report);
                request.request.log_loss(&report, &self.tokenizer);
                self.inbox.note_prefix(PrefixEvent { id: request.request.id.clone(), report });
            }
            for (id, token) in self.sample(chunk, at, 0, &mut output, &mut outcome)? {
                sampled.push((at, id, token));
            }
        }
        // Nobody is sent a token before all chunks' logits are known to be numbers.
        for (at, id, token) in sampled {
            self.take_sampled(&step.chunks[at], at, (id, token), &mut output, &mut outcome)?;
        }
        self.scheduler.update(step, &outcome.tokens);
        embedded.into_iter().for_each(|(id, vector)| self.deliver_vector(id, vector));
        outcome.ended.into_iter().for_each(|id| self.scheduler.finish(id));
        for (id, error) in outcome.failed {
            self.fail(RequestId(id.request), &EngineError::ConstraintFailed(error.to_string()));
        }
        let replays = self.scheduler.replays(step);
        self.runner.replay(step, &self.scheduler, &output, &replays).map_err(|e| e.to_string())
    }

    /// Samples the next token of each choice of a chunk, from the row that is `place` places after its own last one.
    ///
    /// Errors: logits that are not numbers.
    fn sample(
        &mut self,
        chunk: &Chunk,
        at: usize,
        place: usize,
        output: &mut StepOutput,
        outcome: &mut Outcome,
    ) -> Result<Vec<(SeqId, SampledToken)>, String> {
        let Some(request) = self.requests.get_mut(&RequestId(chunk.seq.request)) else { return Ok(Vec::new()) };
        let Some(row) = output.sampled(at, place) else { return Err("a chunk came without logits".into()) };
        match request.sample(row, chunk.samples.clone()) {
            Ok(tokens) => {
                let with_id = |sampled: SampledToken| (SeqId { choice: sampled.choice, ..chunk.seq }, sampled);
                Ok(tokens.into_iter().map(with_id).collect())
            }
            Err(SampleError::Constraint(error)) => {
                outcome.failed.push((chunk.seq, error));
                Ok(Vec::new())
            }
            Err(error @ SampleError::NotNumbers) => Err(error.to_string()),
        }
    }

    /// Delivers the token that was sampled after a chunk's own last token. As long as the token that was drawn is the
    /// one of the chunk's draft, the next is drawn from the row after it and delivered too.
    ///
    /// Errors: logits that are not numbers.
    fn take_sampled(
        &mut self,
        chunk: &Chunk,
        at: usize,
        first: (SeqId, SampledToken),
        output: &mut StepOutput,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let (key, (id, mut token)) = (RequestId(chunk.seq.request), first);
        if let Some(request) = self.requests.get_mut(&key) {
            request.note_draft(id.choice, chunk.draft.len());
        }
        let mut accepted = 0;
        loop {
            let drawn = token.token;
            let goes_on = self.deliver(id, token, outcome);
            if !goes_on || chunk.draft.get(accepted) != Some(&drawn) || !self.can_sample(id, at, accepted + 1, output) {
                break;
            }
            let Some((_, next)) = self.sample(chunk, at, accepted + 1, output, outcome)?.pop() else { break };
            accepted += 1;
            token = next;
            if let Some(request) = self.requests.get_mut(&key) {
                request.note_accepted(id.choice);
            }
        }
        if !chunk.draft.is_empty() {
            self.metrics.draft(chunk.draft.len(), accepted);
        }
        Ok(())
    }

    /// Finds out what a choice may draw after the token that it has just been given, and whether that can be drawn
    /// from a row of what the step gave.
    fn can_sample(&mut self, id: SeqId, at: usize, place: usize, output: &mut StepOutput) -> bool {
        let request = self.requests.get_mut(&RequestId(id.request));
        let Some(choice) = request.and_then(|request| request.choices.get_mut(&id.choice)) else { return false };
        if choice.is_held() {
            choice.prepare();
        }
        output.sampled(at, place).is_some_and(|row| choice.can_sample(&row))
    }

    /// Hands a token to its choice, and ends the choice where the token does. True if the choice goes on.
    fn deliver(&mut self, id: SeqId, sampled: SampledToken, outcome: &mut Outcome) -> bool {
        let (key, token) = (RequestId(id.request), sampled.token);
        outcome.tokens.push((id, token));
        let Some(request) = self.requests.get_mut(&key) else { return false };
        if request.first_token.is_none() {
            request.first_token = Some(Instant::now());
            self.metrics.prefill_time(request.scheduled.unwrap_or(request.submitted).elapsed());
        }
        request.answer_tokens += 1;
        let ends = request.request.end_token(token, &self.eos);
        let max_len = request.request.max_len(self.inbox.info().max_model_len);
        let Some(choice) = request.choices.get_mut(&id.choice) else { return false };
        let full = request.request.prompt.len() as u64 + choice.sampler.tokens_drawn() >= max_len as u64;
        match choice.push(token, sampled.logprob, ends, full) {
            Ok(false) => return true,
            Ok(true) => outcome.ended.push(id),
            Err(error) => {
                outcome.failed.push((id, error));
                return false;
            }
        }
        request.choices.remove(&id.choice);
        if request.choices.is_empty() {
            self.metrics.decode_time(request.first_token.unwrap_or(request.submitted).elapsed());
            self.metrics.inference_time(request.scheduled.unwrap_or(request.submitted).elapsed());
            request.log_end("answered");
            self.requests.remove(&key);
        }
        false
    }

    /// Hands a prompt's vector to its request, which ends.
    fn deliver_vector(&mut self, id: SeqId, vector: Vec<f32>) {
        self.scheduler.finish(id);
        let Some(mut request) = self.requests.remove(&RequestId(id.request)) else { return };
        request.announce_prompt(&PrefixReport::default());
        let computing = request.scheduled.unwrap_or(request.submitted).elapsed();
        self.metrics.prefill_time(computing);
        self.metrics.inference_time(computing);
        request.log_end("embedded");
        // A client that has gone misses nothing.
        let _ = request.events.send(Event::Embedded { vector });
    }
}

impl GenerationRequest {
    /// Why a token ends the text, if it does. `turn_ends`: the model's.
    fn end_token(&self, token: u32, turn_ends: &[u32]) -> Option<EndToken> {
        if self.stop.stop_token_ids.contains(&token) {
            return Some(EndToken::Stop);
        }
        // A constraint that lets the answer end has nothing to say of what would follow.
        let ignored = self.stop.ignore_eos && self.constraint.is_none();
        (!ignored && turn_ends.contains(&token)).then_some(EndToken::Eos)
    }
}
