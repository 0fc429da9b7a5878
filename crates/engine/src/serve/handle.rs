//! The engine as its clients see it: submit a request, read its events, drop the stream to cancel.
use super::prefix_cache::{PrefixEvent, PrefixHistory};
use super::pressure::PressureLevel;
use super::request::{Event, GenerationRequest, SamplingParams};
use crate::error::SubmitError;
use crate::kl::KlFigures;
use disk_cache::{DiskCache, DiskStats};
use models::Pooling;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, RwLock, mpsc};
use std::time::{Duration, Instant};
use text::Tokenizer;
use tokio::sync::mpsc as events;

/// Names one request inside the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The model that is served, and the settings that are fixed at the start.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The name clients ask for (`--served-model-name`, or the model's own).
    pub name: String,
    /// The model's folder or file.
    pub path: PathBuf,
    /// The `model_type` of the model's configuration.
    pub model_type: String,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// The longest context that the model was made for, tokens.
    pub trained_len: usize,
    /// The longest context, tokens of prompt and answer together.
    pub max_model_len: usize,
    /// Tokens of the vocabulary; every id is smaller.
    pub vocab_size: usize,
    /// Whether the model has a head, without which it cannot generate.
    pub has_head: bool,
    /// The width of the model's hidden states, and of the vectors that it makes of texts.
    pub hidden_size: usize,
    /// How the model makes the vector of a text; or the reason why it makes none, written to follow the model's name,
    /// such as `has no modules.json`.
    pub pooling: Result<Pooling, String>,
    /// The ids of the tokens that end an answer.
    pub turn_ends: Vec<u32>,
    /// Tokens of a block.
    pub block_size: usize,
    /// Blocks of the cache.
    pub num_blocks: usize,
    /// Bytes of one block over all layers.
    pub bytes_per_block: usize,
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Whether prompts are looked for in the cache.
    pub prefix_cache: bool,
    /// Snapshots of recurrent states that can be kept; 0 for a model without such states.
    pub num_snapshots: usize,
    /// The name of the format of keys.
    pub k_quant: String,
    /// The name of the format of values.
    pub v_quant: String,
    /// Sampling where a request leaves it open (`generation_config.json`).
    pub default_sampling: SamplingParams,
}

impl ModelInfo {
    /// The name of the formats of keys and values: one name if both are the same.
    pub fn cache_dtype(&self) -> String {
        if self.k_quant == self.v_quant { self.k_quant.clone() } else { format!("{}/{}", self.k_quant, self.v_quant) }
    }
}

/// The engine's metrics at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences that run.
    pub running: usize,
    /// Requests and preempted sequences that wait.
    pub waiting: usize,
    /// Blocks that sequences hold.
    pub blocks_held: usize,
    /// Blocks that nobody holds and that are kept for later requests.
    pub blocks_cached: usize,
    /// Blocks that hold nothing.
    pub blocks_free: usize,
    /// Snapshots of recurrent states.
    pub snapshots: usize,
    /// Preemptions so far.
    pub preemptions: u64,
    /// Steps so far.
    pub steps: u64,
    /// How short of memory the machine is.
    pub pressure: PressureLevel,
}

/// A message to the engine's thread.
pub enum Message {
    /// A request that has been checked.
    Submit {
        /// Its number.
        id: RequestId,
        /// The request's parameters.
        request: Box<GenerationRequest>,
        /// The receiver of its events.
        events: events::UnboundedSender<Event>,
        /// Its place in the queue, to be dropped when it is first scheduled or ends before.
        queued: QueuePermit,
    },
    /// The client of a request has gone, or has all it wants.
    Abort(RequestId),
    /// Forget what is cached and nobody holds.
    ClearCache,
    /// Finish what runs until this moment, then fail the rest.
    Shutdown(Instant),
}

/// A place in the bounded queue, given back on drop (when the request is first scheduled, or ends before).
pub struct QueuePermit(Arc<HandleShared>);

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, SeqCst);
    }
}

/// The state that all handles and the engine's thread share.
struct HandleShared {
    info: ModelInfo,
    tokenizer: Arc<Tokenizer>,
    queue_limit: usize,
    queued: AtomicUsize,
    next_id: AtomicU64,
    /// Requests that were refused for want of memory.
    shed: AtomicU64,
    /// Locked while a request is sent, so that none is lost by coming after the message that ends the engine.
    closing: RwLock<bool>,
    stats: Mutex<EngineStats>,
    prefixes: Mutex<PrefixHistory>,
    kl_figures: Mutex<KlFigures>,
    disk: OnceLock<Arc<DiskCache>>,
    /// The reason why the engine has ended by itself, if it has.
    failure: OnceLock<String>,
}

/// Submits requests to an engine. Cheap to clone; all clones speak to one thread.
#[derive(Clone)]
pub struct EngineHandle {
    messages: mpsc::Sender<Message>,
    shared: Arc<HandleShared>,
}

/// The engine's end of the channel.
pub struct EngineInbox {
    /// The messages of the handles and streams.
    pub messages: mpsc::Receiver<Message>,
    shared: Arc<HandleShared>,
}

impl EngineInbox {
    /// Returns the model that is served, and its settings.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Sets the answer of [`EngineHandle::stats`] from now on.
    pub fn set_stats(&self, stats: EngineStats) {
        *self.shared.stats.lock().unwrap_or_else(|e| e.into_inner()) = stats;
    }

    /// An inbox whose handles tell of the cache on disk.
    pub fn with_disk(self, disk: Option<Arc<DiskCache>>) -> Self {
        if let Some(disk) = disk {
            // It is set once, here.
            let _ = self.shared.disk.set(disk);
        }
        self
    }

    /// Adds what a request found of its prompt.
    pub fn note_prefix(&self, event: PrefixEvent) {
        self.shared.prefixes.lock().unwrap_or_else(|e| e.into_inner()).push(event);
    }

    /// Sets the answer of [`EngineHandle::kl_figures`] from now on.
    pub fn set_kl_figures(&self, figures: KlFigures) {
        *self.shared.kl_figures.lock().unwrap_or_else(|e| e.into_inner()) = figures;
    }

    /// The engine is about to end for this reason, which [`EngineHandle::failure`] gives from now on.
    pub fn fail(&self, reason: String) {
        // The first reason is the cause of all later ones.
        let _ = self.shared.failure.set(reason);
    }
}

impl Drop for EngineInbox {
    fn drop(&mut self) {
        // After a shutdown it is no failure.
        if !*self.shared.closing.read().unwrap_or_else(|e| e.into_inner()) {
            self.fail("the engine's thread has ended".into());
        }
    }
}

/// A handle and the inbox that it feeds. `queue_limit` is the number of requests that may wait before
/// [`SubmitError::QueueFull`].
pub fn channel(info: ModelInfo, tokenizer: Arc<Tokenizer>, queue_limit: usize) -> (EngineHandle, EngineInbox) {
    let (send, messages) = mpsc::channel();
    let shared = Arc::new(HandleShared {
        info,
        tokenizer,
        queue_limit,
        queued: AtomicUsize::new(0),
        next_id: AtomicU64::new(0),
        shed: AtomicU64::new(0),
        closing: RwLock::new(false),
        stats: Mutex::default(),
        prefixes: Mutex::default(),
        kl_figures: Mutex::default(),
        disk: OnceLock::new(),
        failure: OnceLock::new(),
    });
    (EngineHandle { messages: send, shared: shared.clone() }, EngineInbox { messages, shared })
}

impl EngineHandle {
    /// Checks a request and queues it. Never blocks.
    ///
    /// Errors: too long or empty a prompt, a parameter out of range, a machine that is critically short of memory, a
    /// full queue, a server that is shutting down.
    pub fn submit(&self, request: GenerationRequest) -> Result<RequestStream, SubmitError> {
        request.check(self.info())?;
        let shared = &self.shared;
        let closing = shared.closing.read().unwrap_or_else(|e| e.into_inner());
        if *closing {
            return Err(SubmitError::ShuttingDown);
        }
        if self.stats().pressure == PressureLevel::Critical {
            shared.shed.fetch_add(1, SeqCst);
            return Err(SubmitError::MemoryPressure);
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

    /// How many requests may wait.
    pub fn queue_limit(&self) -> usize {
        self.shared.queue_limit
    }

    /// Returns the model that is served, and its settings.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// The tokenizer of the model.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
    }

    /// Returns how many requests run and wait, as of the end of the last step.
    pub fn stats(&self) -> EngineStats {
        *self.shared.stats.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How many requests were refused because the machine was critically short of memory.
    pub fn num_shed(&self) -> u64 {
        self.shared.shed.load(SeqCst)
    }

    /// Returns how much of their prompts requests have found in the cache up to now.
    pub fn prefixes(&self) -> PrefixHistory {
        self.shared.prefixes.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Returns the KL of the presets on the model, as far as it has been measured, now or for an earlier start.
    pub fn kl_figures(&self) -> KlFigures {
        self.shared.kl_figures.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Returns the figures of the cache on disk; `None` if there is none.
    pub fn disk(&self) -> Option<DiskStats> {
        self.shared.disk.get().map(|disk| disk.stats())
    }

    /// Has the engine forget all that is cached and that no running request holds, before its next step.
    pub fn clear_cache(&self) {
        // An engine that is gone has forgotten everything.
        let _ = self.messages.send(Message::ClearCache);
    }

    /// Why the engine has ended, or is about to, although nobody had asked for it by [`Self::shutdown`].
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
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

    /// Waits for the next event outside of an async runtime; `None` after the last.
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
