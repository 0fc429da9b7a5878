//! The engine as its clients see it: submit a request, read its events, drop the stream to cancel.
use crate::error::SubmitError;
use crate::request::{Event, GenerationRequest, SamplingParams};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};
use text::Tokenizer;
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
        queued: QueuePermit,
    },
    Abort(RequestId),
    /// Finish what runs until the deadline, then fail the rest.
    Shutdown(Instant),
}

/// A place in the bounded queue, given back on drop (when the request is first scheduled, or ends before).
pub struct QueuePermit(Arc<Shared>);

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, SeqCst);
    }
}

pub(crate) struct Shared {
    info: ModelInfo,
    tokenizer: Arc<Tokenizer>,
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
pub fn channel(info: ModelInfo, tokenizer: Arc<Tokenizer>, queue_limit: usize) -> (EngineHandle, EngineInbox) {
    let (send, messages) = mpsc::channel();
    let shared = Arc::new(Shared {
        info,
        tokenizer,
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
        request.check(self.info())?;
        let shared = &self.shared;
        let closing = shared.closing.read().unwrap_or_else(|e| e.into_inner());
        if *closing {
            return Err(SubmitError::ShuttingDown);
        }
        let limit = shared.queue_limit;
        let taken = shared.queued.fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        taken.map_err(|_| SubmitError::QueueFull { limit })?;
        let queued = QueuePermit(shared.clone());
        let id = RequestId(shared.next_id.fetch_add(1, SeqCst));
        let (send, events) = events::unbounded_channel();
        let message = Message::Submit { id, request: Box::new(request), events: send, queued };
        self.messages.send(message).map_err(|_| SubmitError::ShuttingDown)?;
        Ok(RequestStream { id, events, messages: self.messages.clone() })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
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
