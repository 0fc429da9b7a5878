//! The engine loop.
//!
//! One thread owns scheduler, model and requests, so nothing in it needs a lock. Each round takes in the messages that
//! have come, runs one step, and hands out its tokens. A step that fails or panics fails the requests that were in it;
//! their blocks free themselves and the loop goes on.
use super::active_request::{ActiveRequest, held_choices};
use super::archive::Archive;
use super::choice::ActiveChoice;
use super::handle::{EngineInbox, Message, QueuePermit, RequestId};
use super::idle_measurement::IdleMeasurement;
use super::metrics::Metrics;
use super::pooled_prompt::PooledPrompt;
use super::prefix_cache::PrefixCache;
use super::pressure::PressureWatch;
use super::request::{Event, GenerationRequest};
use super::runner::{ChunkNeed, ModelRunner, StepOutput};
use crate::error::EngineError;
use models::WeightFiles;
use scheduler::{Chunk, NewRequest, PrefixReport, Scheduler, SeqId, Step};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use text::Tokenizer;
use tokio::sync::mpsc::UnboundedSender;

/// How often an idle engine looks at least whether its deadline has come, beside every message.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// How long an engine that waits for the disk alone leaves messages unread.
const LOAD_WAIT: Duration = Duration::from_millis(10);

/// The engine, which its thread owns.
pub(crate) struct Engine {
    pub(super) scheduler: Scheduler,
    pub(super) runner: ModelRunner,
    /// The files that the model's weights lie in.
    pub(super) files: WeightFiles,
    pub(super) inbox: EngineInbox,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// The token ids that end an answer.
    pub(super) eos: Vec<u32>,
    pub(super) metrics: Metrics,
    pub(super) prefix_cache: PrefixCache,
    /// How short of memory the machine is.
    pub(super) memory: PressureWatch,
    /// The measurement that is made while there is nothing else to do.
    pub(super) idle_measurement: Option<IdleMeasurement>,
    pub(super) requests: BTreeMap<RequestId, ActiveRequest>,
    /// The seed of the next request that names none.
    next_seed: u64,
    /// Steps so far.
    pub(super) steps: u64,
    /// How many there were when blocks were last counted.
    pub(super) checked_step: Option<u64>,
    /// When the loop ends whatever still runs; `None` until a shutdown is asked for.
    deadline: Option<Instant>,
}

impl Engine {
    /// An engine without requests. `eos`: the token ids that end an answer.
    #[allow(clippy::too_many_arguments)] // one call, which names them
    pub fn new(
        scheduler: Scheduler,
        runner: ModelRunner,
        files: WeightFiles,
        inbox: EngineInbox,
        tokenizer: Arc<Tokenizer>,
        eos: Vec<u32>,
        metrics: Metrics,
        prefix_cache: PrefixCache,
        memory: PressureWatch,
    ) -> Self {
        Engine {
            scheduler,
            runner,
            files,
            inbox,
            tokenizer,
            eos,
            metrics,
            prefix_cache,
            memory,
            idle_measurement: None,
            requests: BTreeMap::new(),
            next_seed: std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64),
            steps: 0,
            checked_step: None,
            deadline: None,
        }
    }

    /// Runs until shutdown, until every handle and stream is gone, or until the model's weights or its device are lost.
    pub fn run(mut self) {
        let mut end = EngineError::ShutDown;
        while self.receive() {
            self.look_at_memory();
            self.prefix_cache.finish_loads(&mut self.scheduler, &self.runner, Duration::ZERO);
            let succeeded = self.scheduler.is_idle() || self.step();
            let weights = self.files.check().map_err(|e| e.to_string());
            // A device is asked only after an error, since it looks at all that it was given.
            let device = if succeeded { None } else { self.runner.model_ref().device.failure() };
            if let Some(error) = weights.err().or(device) {
                tracing::error!(%error, "the model cannot be served any more");
                self.inbox.fail(error.clone());
                end = EngineError::StepFailed(error);
                break;
            }
            self.publish();
        }
        self.fail_all(&end);
        // Lost weights and a lost device leave nothing that is worth keeping.
        if end == EngineError::ShutDown
            && let Some(archive) = &mut self.prefix_cache.archive
        {
            let deadline = self.deadline.unwrap_or_else(|| Instant::now() + IDLE_CHECK);
            archive.save_all(&self.scheduler, &self.runner, deadline);
        }
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
            let patience = self.memory.patience().map_or(IDLE_CHECK, |patience| patience.min(IDLE_CHECK));
            let message = match idle || self.scheduler.waits_for_memory() {
                // There is time to write to disk and to measure, a piece between two looks.
                true if idle && self.use_idle_time() => self.inbox.messages.recv_timeout(Duration::ZERO),
                true => self.inbox.messages.recv_timeout(patience),
                false => self.inbox.messages.try_recv().map_err(|e| match e {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            match message {
                Ok(message) => self.handle_message(message),
                Err(RecvTimeoutError::Timeout) => return true,
                // Nobody is left who could read an answer.
                Err(RecvTimeoutError::Disconnected) => return !idle,
            }
        }
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Submit { id, request, events, queued } => self.submit(id, *request, events, queued),
            Message::Abort(id) => self.cancel(id),
            Message::ClearCache => {
                self.scheduler.clear_cache();
                self.prefix_cache.archive.iter_mut().for_each(Archive::clear);
            }
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
            max_len: request.max_len(self.inbox.info().max_model_len),
            prefix: self.prefix_cache.identity.as_ref().and_then(|identity| request.prefix_use(identity)),
        };
        if let Err(error) = self.scheduler.add(new) {
            let _ = events.send(Event::Failed(EngineError::Refused(error.into())));
            return;
        }
        let seed = self.next_seed;
        self.next_seed = self.next_seed.wrapping_add(1);
        let pooling = self.inbox.info().pooling.as_ref().ok();
        let pooled = request.embedding.zip(pooling).map(|(params, pooling)| PooledPrompt::new(*pooling, params));
        let active = ActiveRequest::new(request, seed, events, queued, &self.tokenizer, &self.eos, pooled);
        self.requests.insert(id, active);
    }

    /// Runs a step. False if it failed, which ends its requests.
    fn step(&mut self) -> bool {
        let step = self.scheduler.schedule();
        if let Some(archive) = &mut self.prefix_cache.archive {
            archive.begin_step(&step, &self.runner);
        }
        if step.chunks.is_empty() {
            // Whatever runs waits for the disk.
            self.prefix_cache.finish_loads(&mut self.scheduler, &self.runner, LOAD_WAIT);
            return true;
        }
        self.mark_scheduled(&step);
        self.steps += 1;
        self.metrics.step(step.num_tokens());
        let begin = Instant::now();
        let work = catch_unwind(AssertUnwindSafe(|| {
            let output = self.compute(&step)?;
            let elapsed = begin.elapsed();
            self.scheduler.measured(&step, elapsed);
            self.prefix_cache.measured(step.num_tokens(), elapsed);
            // Nobody must see a token of weights that were not whole.
            self.files.check().map_err(|e| e.to_string())?;
            self.take(&step, output)
        }));
        let error = match work {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(panic) => panic_message(&*panic),
        };
        tracing::error!(%error, requests = step.chunks.len(), "a step failed; its requests are ended");
        for chunk in &step.chunks {
            self.fail(RequestId(chunk.seq.request), &EngineError::StepFailed(error.clone()));
        }
        false
    }

    /// Runs a step on the model. Which tokens may come next is found out meanwhile.
    fn compute(&mut self, step: &Step) -> Result<StepOutput, String> {
        let need = |chunk: &Chunk| (chunk.seq, need(&self.requests, chunk));
        let needs: HashMap<SeqId, ChunkNeed> = step.chunks.iter().map(need).collect();
        let need = |chunk: &Chunk| needs.get(&chunk.seq).cloned().unwrap_or(ChunkNeed::LastLogits);
        let held = held_choices(&mut self.requests, step);
        let (runner, scheduler) = (&mut self.runner, &self.scheduler);
        let output = if held.is_empty() {
            runner.run(step, scheduler, need)
        } else {
            std::thread::scope(|scope| {
                scope.spawn(|| held.into_iter().for_each(ActiveChoice::prepare));
                runner.run(step, scheduler, need)
            })
        };
        output.map_err(|e| e.to_string())
    }

    fn mark_scheduled(&mut self, step: &Step) {
        for chunk in &step.chunks {
            let Some(request) = self.requests.get_mut(&RequestId(chunk.seq.request)) else { continue };
            if request.queued.take().is_some() {
                request.scheduled = Some(Instant::now());
                self.metrics.queue_time(request.submitted.elapsed());
                let _ = request.events.send(Event::Admitted(prefix_report(&self.scheduler, chunk)));
            }
        }
    }

    /// Drops a request whose client has gone or has all it wants; no event is sent.
    fn cancel(&mut self, id: RequestId) {
        if let Some(request) = self.requests.remove(&id) {
            request.log_end("left by its client");
            self.scheduler.abort(id.0);
        }
    }

    /// Ends a request with an error.
    pub(super) fn fail(&mut self, id: RequestId, error: &EngineError) {
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
}

/// Returns how much was known of the prompt of a chunk's sequence.
pub(super) fn prefix_report(scheduler: &Scheduler, chunk: &Chunk) -> PrefixReport {
    scheduler.sequence(chunk.seq).and_then(|seq| seq.report()).cloned().unwrap_or_default()
}

/// Returns which results of a chunk are needed.
fn need(requests: &BTreeMap<RequestId, ActiveRequest>, chunk: &Chunk) -> ChunkNeed {
    let request = requests.get(&RequestId(chunk.seq.request));
    request.map_or(ChunkNeed::LastLogits, |request| request.need(chunk))
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "without a message".into()))
}
