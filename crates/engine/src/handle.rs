//! The engine as its clients see it: submit a request, read its events, drop the stream to cancel.
use crate::error::SubmitError;
use crate::request::{Event, GenerationRequest, SamplingParams};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};
use text::{ChatTemplate, Tokenizer};
use tokio::sync::mpsc as events;

/// Names one request inside the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What is served, fixed at start.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The name clients ask for (`--served-model-name`, or the model's own).
    pub name: String,
    pub max_model_len: usize,
    pub vocab_size: usize,
    pub block_size: usize,
    pub num_blocks: usize,
    /// Bytes of one block over all layers.
    pub bytes_per_block: usize,
    pub max_num_seqs: usize,
    pub k_quant: String,
    pub v_quant: String,
    /// Sampling where a request leaves it open (`generation_config.json`).
    pub default_sampling: SamplingParams,
}

/// A moment's state, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    pub running: usize,
    pub waiting: usize,
    pub blocks_used: usize,
    pub blocks_free: usize,
    pub preemptions: u64,
    pub steps: u64,
}

/// What the engine thread receives.
pub enum Message {
    Submit {
        id: RequestId,
        request: Box<GenerationRequest>,
        events: events::UnboundedSender<Event>,
        queued: QueueSlot,
    },
    Abort(RequestId),
    /// Finish what runs until the deadline, then fail the rest.
    Shutdown(Instant),
}

/// A place in the bounded queue, given back on drop (when the request is first scheduled, or ends before).
pub struct QueueSlot(Arc<Shared>);

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, SeqCst);
    }
}

pub(crate) struct Shared {
    info: ModelInfo,
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
    queue_limit: usize,
    queued: AtomicUsize,
    next_id: AtomicU64,
    /// Locked while a request is sent, so that none comes behind the message that ends the engine and is lost.
    closing: RwLock<bool>,
    stats: Mutex<EngineStats>,
}

impl Shared {
    pub(crate) fn set_stats(&self, stats: EngineStats) {
        *self.stats.lock().unwrap_or_else(|e| e.into_inner()) = stats;
    }
}

/// Cheap to clone; all clones speak to one engine thread.
#[derive(Clone)]
pub struct EngineHandle {
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

/// The engine's end of the channel.
pub struct EngineInbox {
    pub messages: mpsc::Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
}

impl EngineInbox {
    pub fn set_stats(&self, stats: EngineStats) {
        self.shared.set_stats(stats);
    }
}

/// A handle and the inbox it feeds. `queue_limit`: requests that may wait before [`SubmitError::QueueFull`].
pub fn channel(
    info: ModelInfo,
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
    queue_limit: usize,
) -> (EngineHandle, EngineInbox) {
    let (send, messages) = mpsc::channel();
    let shared = Arc::new(Shared {
        info,
        tokenizer,
        template,
        queue_limit,
        queued: AtomicUsize::new(0),
        next_id: AtomicU64::new(0),
        closing: RwLock::new(false),
        stats: Mutex::default(),
    });
    (EngineHandle { messages: send, shared: shared.clone() }, EngineInbox { messages, shared })
}

impl EngineHandle {
    /// Checks a request and queues it. Never blocks.
    ///
    /// Errors: too long or empty a prompt, a parameter out of range, a full queue, a server that is shutting down.
    pub fn submit(&self, request: GenerationRequest) -> Result<RequestStream, SubmitError> {
        self.check(&request)?;
        let shared = &self.shared;
        let closing = shared.closing.read().unwrap_or_else(|e| e.into_inner());
        if *closing {
            return Err(SubmitError::ShuttingDown);
        }
        let limit = shared.queue_limit;
        let taken = shared.queued.fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        taken.map_err(|_| SubmitError::QueueFull { limit })?;
        let queued = QueueSlot(shared.clone());
        let id = RequestId(shared.next_id.fetch_add(1, SeqCst));
        let (send, events) = events::unbounded_channel();
        let message = Message::Submit { id, request: Box::new(request), events: send, queued };
        self.messages.send(message).map_err(|_| SubmitError::ShuttingDown)?;
        Ok(RequestStream { id, events, messages: self.messages.clone() })
    }

    fn check(&self, request: &GenerationRequest) -> Result<(), SubmitError> {
        let info = self.info();
        if request.prompt.is_empty() {
            return Err(SubmitError::invalid("prompt", "the prompt has no tokens; at least one is needed"));
        }
        if let Some(bad) = request.prompt.iter().find(|t| **t as usize >= info.vocab_size) {
            let message = format!("the prompt holds token {bad}; the vocabulary has {}", info.vocab_size);
            return Err(SubmitError::invalid("prompt", message));
        }
        // A prompt that fills the context leaves no place for an answer.
        if request.prompt.len() >= info.max_model_len {
            let (n_prompt_tokens, n_ctx) = (request.prompt.len(), info.max_model_len);
            return Err(SubmitError::ContextLengthExceeded { n_prompt_tokens, n_ctx });
        }
        let most = MAX_CHOICES.min(info.max_num_seqs);
        if !(1..=most).contains(&request.n) {
            return Err(SubmitError::invalid("n", format!("n is {}; it must lie in [1, {most}]", request.n)));
        }
        if request.stop.max_tokens == Some(0) {
            return Err(SubmitError::invalid("max_tokens", "max_tokens is 0; it must be at least 1"));
        }
        for (field, value) in [("top_logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)] {
            if value.is_some_and(|n| n > MAX_TOP_LOGPROBS) {
                let message = format!("{field} is {}; it must lie in [0, {MAX_TOP_LOGPROBS}]", value.unwrap_or(0));
                return Err(SubmitError::invalid(field, message));
            }
        }
        if request.stop.stop.iter().any(String::is_empty) {
            return Err(SubmitError::invalid(
                "stop",
                "stop holds an empty string, which would end every answer at once",
            ));
        }
        request.sampling.validate(info.vocab_size)
    }

    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
    }

    /// `None`: the model came without a chat template.
    pub fn chat_template(&self) -> Option<&Arc<ChatTemplate>> {
        self.shared.template.as_ref()
    }

    pub fn stats(&self) -> EngineStats {
        *self.shared.stats.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Refuses new requests, lets the accepted ones finish within `limit` and fails the rest.
    pub fn shutdown(&self, limit: Duration) {
        *self.shared.closing.write().unwrap_or_else(|e| e.into_inner()) = true;
        // An engine thread that is gone has nothing left to finish.
        let _ = self.messages.send(Message::Shutdown(Instant::now() + limit));
    }
}

/// Most choices a request may ask for.
pub const MAX_CHOICES: usize = 128;
/// Most alternatives a token's log-probability may come with (OpenAI's limit).
pub const MAX_TOP_LOGPROBS: usize = 20;

/// A request's events. Dropping it cancels the request, also in the middle of its prefill.
pub struct RequestStream {
    id: RequestId,
    events: events::UnboundedReceiver<Event>,
    messages: mpsc::Sender<Message>,
}

impl RequestStream {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same outside of an async runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        // A finished request's id is unknown to the engine by now, which is fine; so is an engine that has ended.
        let _ = self.messages.send(Message::Abort(self.id));
    }
}
