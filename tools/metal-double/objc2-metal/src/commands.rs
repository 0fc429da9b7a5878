//! Queues and command buffers.
use crate::device::{MTLDevice, the_device};
use crate::double::{self, broken};
use crate::encoder::{
    BlitEncoder, ComputeEncoder, Encoded, MTLBlitCommandEncoder, MTLComputeCommandEncoder, blit_encoder,
    compute_encoder,
};
use crate::hazards::Hazards;
use crate::residency::MTLResidencySet;
use crate::types::{MTLCommandBufferStatus as Status, MTLDispatchType};
use block2::{Block, RcBlock};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSString};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A queue of command buffers, which run in the order in which they are committed.
#[allow(missing_docs)] // Apple's names
pub trait MTLCommandQueue {
    fn commandBuffer(&self) -> Option<Retained<ProtocolObject<dyn MTLCommandBuffer>>>;
    fn addResidencySet(&self, set: &ProtocolObject<dyn MTLResidencySet>);
    fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>>;
}

/// What is called when a command buffer has completed.
pub type MTLCommandBufferHandler = *mut Block<dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>)>;

/// Commands that are run together.
#[allow(missing_docs)] // Apple's names
pub trait MTLCommandBuffer {
    fn computeCommandEncoderWithDispatchType(
        &self,
        kind: MTLDispatchType,
    ) -> Option<Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>>;
    fn blitCommandEncoder(&self) -> Option<Retained<ProtocolObject<dyn MTLBlitCommandEncoder>>>;
    fn enqueue(&self);
    fn commit(&self);
    fn waitUntilCompleted(&self);
    fn status(&self) -> Status;
    fn error(&self) -> Option<Retained<NSError>>;
    /// # Safety
    /// The block must live, and be such that any thread may call it.
    unsafe fn addCompletedHandler(&self, block: MTLCommandBufferHandler);
    fn setLabel(&self, label: Option<&NSString>);
    fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>>;
}

/// What was committed and has not run, in order.
#[derive(Default)]
struct Queue {
    committed: Mutex<VecDeque<Arc<CommandBuffer>>>,
    hazards: Mutex<Hazards>,
    /// Held by the thread that runs command buffers.
    runs: Mutex<()>,
}

/// The state of a command buffer.
pub struct CommandBuffer {
    queue: Arc<Queue>,
    state: Mutex<State>,
}

struct State {
    status: Status,
    encoded: Vec<Encoded>,
    /// Whether an encoder has not ended.
    open: bool,
    fails: bool,
    handlers: Vec<Handler>,
}

struct Handler(RcBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>)>);
// SAFETY: whoever adds a handler promises that any thread may call it.
unsafe impl Send for Handler {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that no encoder and no fence had before.
pub fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn queue() -> Retained<ProtocolObject<dyn MTLCommandQueue>> {
    Retained::of(ProtocolObject::of(Arc::new(Queue::default())))
}

impl MTLCommandQueue for ProtocolObject<dyn MTLCommandQueue> {
    fn commandBuffer(&self) -> Option<Retained<ProtocolObject<dyn MTLCommandBuffer>>> {
        let state =
            State { status: Status::NotEnqueued, encoded: Vec::new(), open: false, fails: false, handlers: Vec::new() };
        let buffer = CommandBuffer { queue: Arc::clone(self.get::<Arc<Queue>>()), state: Mutex::new(state) };
        Some(Retained::of(ProtocolObject::of(Arc::new(buffer))).autoreleased())
    }

    fn addResidencySet(&self, _: &ProtocolObject<dyn MTLResidencySet>) {}

    fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
        the_device().autoreleased()
    }
}

impl CommandBuffer {
    fn begin(&self) {
        let mut state = lock(&self.state);
        if state.status != Status::NotEnqueued && state.status != Status::Enqueued {
            broken("a new encoder", format_args!("its command buffer is {:?}", state.status));
        }
        if std::mem::replace(&mut state.open, true) {
            broken("a new encoder", "its command buffer has one that has not ended");
        }
    }

    /// Takes what an encoder has recorded.
    pub fn end(&self, encoded: Encoded) {
        let mut state = lock(&self.state);
        state.open = false;
        state.encoded.push(encoded);
    }

    fn commit(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if state.open {
            broken("commit", "an encoder has not ended");
        }
        if state.status != Status::NotEnqueued && state.status != Status::Enqueued {
            broken("commit", format_args!("the command buffer is {:?}", state.status));
        }
        state.status = Status::Committed;
        state.fails = double::fails();
        double::COMMITS.fetch_add(1, Ordering::Relaxed);
        if state.encoded.iter().all(Encoded::is_empty) {
            double::EMPTY_COMMITS.fetch_add(1, Ordering::Relaxed);
        }
        for encoded in &state.encoded {
            let commands = encoded.commands().map(|command| (&*command.name, &*command.accesses));
            let conflict = lock(&self.queue.hazards).add(encoded.id, [&encoded.waits, &encoded.updates], commands);
            if let Some(conflict) = conflict {
                broken("missing fence", conflict);
            }
        }
        lock(&self.queue.committed).push_back(Arc::clone(self));
    }

    fn status(&self) -> Status {
        lock(&self.state).status
    }

    /// Runs what was committed up to this buffer, and this buffer.
    fn wait(&self, status: impl Fn() -> Status) {
        if status() == Status::NotEnqueued || status() == Status::Enqueued {
            broken("waitUntilCompleted", "the command buffer was not committed: this would wait for ever");
        }
        if status() != Status::Committed {
            return;
        }
        double::WAITS.fetch_add(1, Ordering::Relaxed);
        let _runs = lock(&self.queue.runs);
        while status() == Status::Committed {
            let next = lock(&self.queue.committed).pop_front();
            next.expect("this buffer is in the queue").run();
        }
    }

    fn run(self: Arc<Self>) {
        let (encoded, handlers, fails) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.encoded), std::mem::take(&mut state.handlers), state.fails)
        };
        for encoded in encoded {
            let id = encoded.id;
            if !fails {
                encoded.run();
            }
            lock(&self.queue.hazards).finish(id);
        }
        lock(&self.state).status = if fails { Status::Error } else { Status::Completed };
        let object = ProtocolObject::<dyn MTLCommandBuffer>::of(self);
        for Handler(block) in handlers {
            block.call(NonNull::from(&object));
        }
    }
}

impl MTLCommandBuffer for ProtocolObject<dyn MTLCommandBuffer> {
    fn computeCommandEncoderWithDispatchType(
        &self,
        kind: MTLDispatchType,
    ) -> Option<Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>> {
        let buffer = self.get::<Arc<CommandBuffer>>();
        buffer.begin();
        Some(compute_encoder(ComputeEncoder::new(Arc::clone(buffer), kind)).autoreleased())
    }

    fn blitCommandEncoder(&self) -> Option<Retained<ProtocolObject<dyn MTLBlitCommandEncoder>>> {
        let buffer = self.get::<Arc<CommandBuffer>>();
        buffer.begin();
        Some(blit_encoder(BlitEncoder::new(Arc::clone(buffer))).autoreleased())
    }

    fn enqueue(&self) {
        lock(&self.get::<Arc<CommandBuffer>>().state).status = Status::Enqueued;
    }

    fn commit(&self) {
        self.get::<Arc<CommandBuffer>>().commit();
    }

    fn waitUntilCompleted(&self) {
        let buffer = self.get::<Arc<CommandBuffer>>();
        buffer.wait(|| buffer.status());
    }

    fn status(&self) -> Status {
        self.get::<Arc<CommandBuffer>>().status()
    }

    fn error(&self) -> Option<Retained<NSError>> {
        let failed = self.status() == Status::Error;
        failed.then(|| NSError::of("a failure that metal-double was told to make").autoreleased())
    }

    unsafe fn addCompletedHandler(&self, block: MTLCommandBufferHandler) {
        // SAFETY: the block lives, as the caller promises.
        let block = unsafe { RcBlock::copy(block) };
        lock(&self.get::<Arc<CommandBuffer>>().state).handlers.push(Handler(block));
    }

    fn setLabel(&self, _: Option<&NSString>) {}

    fn device(&self) -> Retained<ProtocolObject<dyn MTLDevice>> {
        the_device().autoreleased()
    }
}
