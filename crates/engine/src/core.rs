//! The engine loop.
//!
//! One thread owns scheduler, model and requests, so nothing in it needs a lock. Each round takes in the messages that have
//! come, runs one step, and hands out its tokens. A step that fails or panics fails the requests that were in it; their blocks
//! free themselves and the loop goes on.
use crate::choice::{Choice, Ends};
use crate::error::EngineError;
use crate::handle::{EngineInbox, EngineStats, Message, QueuePermit, RequestId};
use crate::metrics::Metrics;
use crate::request::{Event, GenerationRequest, TokenLogprob};
use crate::runner::{Logits, ModelRunner, Row, Want};
use crate::sampler::{self, SamplerState};
use scheduler::{Chunk, NewRequest, Scheduler, SeqId, Step};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use text::Tokenizer;
use tokio::sync::mpsc::UnboundedSender;

/// How often an idle engine looks whether its deadline has come, beside every message.
const IDLE_CHECK: Duration = Duration::from_secs(1);

pub(crate) struct Engine {
    pub scheduler: Scheduler,
    pub runner: ModelRunner,
    pub inbox: EngineInbox,
    pub tokenizer: Arc<Tokenizer>,
    pub eos: Vec<u32>,
    pub max_model_len: usize,
    pub metrics: Metrics,
    pub requests: BTreeMap<RequestId, Request>,
    /// Seeds requests that name none.
    pub next_seed: u64,
    pub steps: u64,
    pub deadline: Option<Instant>,
}

/// A request between submission and its last event.
pub(crate) struct Request {
    request: GenerationRequest,
    events: UnboundedSender<Event>,
    choices: BTreeMap<u32, Choice>,
    queued: Option<QueuePermit>,
    prompt_logprobs: Vec<Option<TokenLogprob>>,
    submitted: Instant,
    scheduled: Option<Instant>,
    first_token: Option<Instant>,
}

impl Engine {
    /// Runs until shutdown, or until every handle and stream is gone.
    pub fn run(mut self) {
        loop {
            if !self.receive() {
                break;
            }
            if !self.scheduler.is_idle() {
                self.step();
            }
            self.publish();
        }
        self.fail_all(&EngineError::ShutDown);
        self.publish();
    }

    /// Takes in what has come; waits if there is nothing else to do. False if the loop shall end.
    fn receive(&mut self) -> bool {
        loop {
            let idle = self.scheduler.is_idle();
            if let Some(deadline) = self.deadline
                && (idle || Instant::now() >= deadline)
            {
                return false;
            }
            if idle {
                self.check_conservation();
                self.publish();
            }
            let message = match idle {
                true => self.inbox.messages.recv_timeout(IDLE_CHECK),
                false => self.inbox.messages.try_recv().map_err(|e| match e {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) if idle => {}
                Err(RecvTimeoutError::Timeout) => return true,
                // Nobody is left who could read an answer.
                Err(RecvTimeoutError::Disconnected) => return !idle,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit { id, request, events, queued } => self.submit(id, *request, events, queued),
            Message::Abort(id) => self.end(id),
            Message::Shutdown(deadline) => self.deadline = Some(deadline),
        }
    }

    fn submit(
        &mut self,
        id: RequestId,
        request: GenerationRequest,
        events: UnboundedSender<Event>,
        queued: QueuePermit,
    ) {
        let new = NewRequest {
            key: id.0,
            client: request.client.clone(),
            prompt: request.prompt.clone(),
            choices: request.n as u32,
            max_len: request.max_len(self.max_model_len),
        };
        if let Err(error) = self.scheduler.add(new) {
            let _ = events.send(Event::Failed(EngineError::Refused(error.into())));
            return;
        }
        let seed = self.next_seed;
        self.next_seed = self.next_seed.wrapping_add(1);
        let choices = (0..request.n as u32).map(|choice| {
            let sampler = SamplerState::new(request.sampling.clone(), seed, choice, &request.prompt);
            (choice, Choice::new(choice as usize, sampler, &request.stop, &self.tokenizer, events.clone()))
        });
        let state = Request {
            choices: choices.collect(),
            request,
            events,
            queued: Some(queued),
            prompt_logprobs: Vec::new(),
            submitted: Instant::now(),
            scheduled: None,
            first_token: None,
        };
        self.requests.insert(id, state);
    }

    fn step(&mut self) {
        let step = self.scheduler.schedule();
        self.mark_scheduled(&step);
        self.steps += 1;
        self.metrics.step(step.num_tokens());
        let work = catch_unwind(AssertUnwindSafe(|| {
            let requests = &self.requests;
            let logits =
                self.runner.run(&step, &self.scheduler, |chunk| want(requests, chunk)).map_err(|e| e.to_string())?;
            self.accept(&step, logits)
        }));
        let error = match work {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => panic_message(&*panic),
        };
        tracing::error!(%error, requests = step.chunks.len(), "a step failed; its requests are ended");
        for chunk in &step.chunks {
            self.fail(RequestId(chunk.seq.request), &EngineError::StepFailed(error.clone()));
        }
    }

    fn mark_scheduled(&mut self, step: &Step) {
        for chunk in &step.chunks {
            let Some(request) = self.requests.get_mut(&RequestId(chunk.seq.request)) else { continue };
            if request.queued.take().is_some() {
                request.scheduled = Some(Instant::now());
                self.metrics.queue_time(request.submitted.elapsed());
            }
        }
    }

    /// Samples from a step's logits and takes the tokens in.
    fn accept(&mut self, step: &Step, mut logits: Logits) -> Result<(), String> {
        let mut sampled = Vec::new();
        for (at, chunk) in step.chunks.iter().enumerate() {
            let Some(request) = self.requests.get_mut(&RequestId(chunk.seq.request)) else { continue };
            request.take_prompt_logprobs(chunk, logits.all(at));
            if chunk.samples.is_empty() {
                continue;
            }
            let Some(mut row) = logits.last(at) else { return Err("a chunk came without logits".into()) };
            request.announce_prompt();
            for index in chunk.samples.clone() {
                let Some(choice) = request.choices.get_mut(&index) else { continue };
                let not_numbers = "the model's logits are not numbers";
                let (token, logprob) = match (&mut row, request.request.logprobs) {
                    (Row::Largest(largest), _) => (choice.sampler.sample_largest(largest).ok_or(not_numbers)?, None),
                    // Sampling may change the logits, which nobody looks at after.
                    (Row::Whole(row), None) if chunk.samples.len() == 1 => {
                        (choice.sampler.sample(row).ok_or(not_numbers)?, None)
                    }
                    (Row::Whole(row), top) => {
                        let token = choice.sampler.sample(&mut row.to_vec()).ok_or(not_numbers)?;
                        (token, top.map(|top| sampler::logprob(row, token, top)))
                    }
                };
                sampled.push((SeqId { request: chunk.seq.request, choice: index }, token, logprob));
            }
        }
        self.scheduler.update(step, &sampled.iter().map(|(id, token, _)| (*id, *token)).collect::<Vec<_>>());
        for (id, token, logprob) in sampled {
            self.deliver(id, token, logprob);
        }
        Ok(())
    }

    fn deliver(&mut self, id: SeqId, token: u32, logprob: Option<TokenLogprob>) {
        let key = RequestId(id.request);
        let Some(request) = self.requests.get_mut(&key) else { return };
        if request.first_token.is_none() {
            request.first_token = Some(Instant::now());
            self.metrics.prefill_time(request.scheduled.unwrap_or(request.submitted).elapsed());
        }
        let stop = &request.request.stop;
        let ends = if stop.stop_token_ids.contains(&token) {
            Some(Ends::StopToken)
        } else {
            (!stop.ignore_eos && self.eos.contains(&token)).then_some(Ends::Eos)
        };
        let full = self.scheduler.sequence(id).is_none_or(|s| s.is_full());
        let Some(choice) = request.choices.get_mut(&id.choice) else { return };
        if choice.push(token, logprob, ends, full) {
            request.choices.remove(&id.choice);
            self.scheduler.finish(id);
            if request.choices.is_empty() {
                self.metrics.decode_time(request.first_token.unwrap_or(request.submitted).elapsed());
                self.requests.remove(&key);
            }
        }
    }

    /// Ends a request without a word: its client has gone, or has all it wants.
    fn end(&mut self, id: RequestId) {
        if self.requests.remove(&id).is_some() {
            self.scheduler.abort(id.0);
        }
    }

    fn fail(&mut self, id: RequestId, error: &EngineError) {
        if let Some(request) = self.requests.remove(&id) {
            tracing::warn!(id = request.request.id, %error, "a request is ended");
            let _ = request.events.send(Event::Failed(error.clone()));
        }
        self.scheduler.abort(id.0);
    }

    fn fail_all(&mut self, error: &EngineError) {
        let ids: Vec<_> = self.requests.keys().copied().collect();
        ids.into_iter().for_each(|id| self.fail(id, error));
    }

    fn publish(&self) {
        let pool = self.scheduler.pool();
        self.inbox.set_stats(EngineStats {
            running: self.scheduler.num_running(),
            waiting: self.scheduler.num_waiting(),
            blocks_used: pool.num_used(),
            blocks_free: pool.num_free(),
            preemptions: self.scheduler.num_preemptions(),
            steps: self.steps,
        });
    }

    /// Whenever nothing runs, every block must be free.
    fn check_conservation(&self) {
        let used = self.scheduler.pool().num_used();
        match self.scheduler.check() {
            Ok(()) if used == 0 => {}
            Ok(()) => tracing::error!(used, "blocks are in use while nothing runs"),
            Err(error) => tracing::error!(%error, "block conservation is violated"),
        }
    }
}

/// Log-probabilities take all logits of a row, a sampler what it needs.
fn want(requests: &BTreeMap<RequestId, Request>, chunk: &Chunk) -> Want {
    let Some(r) = requests.get(&RequestId(chunk.seq.request)) else { return Want::Last };
    let prompt_left = r.prompt_logprobs.len() < r.request.prompt.len();
    if r.request.prompt_logprobs.is_some() && prompt_left && chunk.seq.choice == 0 {
        return Want::All;
    }
    let samplers = chunk.samples.clone().filter_map(|index| r.choices.get(&index)).map(|choice| &choice.sampler);
    let needs = samplers.map(SamplerState::needs).try_fold(1, |most, needs| Some(needs?.max(most)));
    match (needs, r.request.logprobs) {
        (Some(count), None) => Want::Largest(count),
        _ => Want::Last,
    }
}

impl Request {
    /// Log-probabilities of the prompt's tokens after those of a chunk; what a preempted prefill had is not taken twice.
    fn take_prompt_logprobs<'a>(&mut self, chunk: &Chunk, logits: impl Iterator<Item = &'a [f32]>) {
        let Some(top) = self.request.prompt_logprobs else { return };
        let prompt = &self.request.prompt;
        if self.prompt_logprobs.is_empty() {
            self.prompt_logprobs.push(None);
        }
        for (position, row) in (chunk.start..).zip(logits) {
            let next = position + 1;
            if next == self.prompt_logprobs.len() && next < prompt.len() {
                self.prompt_logprobs.push(Some(sampler::logprob(row, prompt[next], top)));
            }
        }
    }

    /// Tells the client, once, that its prompt is computed.
    fn announce_prompt(&mut self) {
        if self.first_token.is_none() {
            let logprobs = self.request.prompt_logprobs.map(|_| self.prompt_logprobs.clone());
            let tokens = self.request.prompt.len();
            let _ = self.events.send(Event::Prompt { tokens, cached_tokens: 0, logprobs });
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "without a message".into()))
}
