//! Several models behind one address. Each has a process of its own, which is started by the first request that names
//! it and ended when its memory is needed, so that a crash costs one model alone and memory is really given back.
#![warn(missing_docs)]

mod back_off;
mod client;
mod error;
mod lease;
mod model;
mod process;
mod room;
mod supervisor;

pub use error::LoadError;
pub use room::{MemoryPlan, Planner};

use axum::response::Response;
use lease::{Lease, LeaseEvent};
use server::{ApiError, Relay, RelayedModel, RelayedRequest};
use std::error::Error;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use supervisor::{Note, Supervisor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// How long a request waits for its model.
const LOAD_WAIT: Duration = Duration::from_secs(300);
/// How often a request is sent, because the process before could not be reached.
const ATTEMPTS: usize = 5;
/// A request that breaks off so soon, without an answer, met a process that was ending already: the system closes a
/// killed process's connections one by one, and takes new ones until it comes to the listener.
const ENDING: Duration = Duration::from_millis(100);
/// The pause before such a request is sent again.
const PAUSE: Duration = Duration::from_millis(20);

/// A model that can be served.
pub struct FrontModel {
    /// The name by which clients ask for it.
    pub name: String,
    /// The command of a process that serves it and takes as many bytes of memory as it is given. It reads a line from
    /// standard input, the key that it is to ask for everything. When it serves, it writes a line to standard output,
    /// its address. It ends in order when standard input is closed. Standard error is its log.
    pub command: Box<dyn Fn(u64) -> Command + Send>,
}

/// Takes the name of a model and a line of its process's log.
pub type TakeLogLine = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Everything that a front is told.
pub struct FrontConfig {
    /// The models, at least one.
    pub models: Vec<FrontModel>,
    /// The planner, which knows how much memory models take.
    pub planner: Arc<dyn Planner>,
    /// How long a model stays loaded that nobody asks; `None`: until its memory is needed.
    pub idle_unload: Option<Duration>,
    /// Requests that may wait for models to be loaded.
    pub max_waiting: usize,
    /// How long a process may take to end in order.
    pub stop_limit: Duration,
    /// Takes what the processes log.
    pub log: TakeLogLine,
    /// Finds the one of some names that is spelt almost like a word.
    pub nearest: fn(&str, &[String]) -> Option<String>,
}

/// Several models, of which some are loaded. All clones share them.
#[derive(Clone)]
pub struct Front(Arc<SharedFront>);

struct SharedFront {
    names: Vec<String>,
    nearest: fn(&str, &[String]) -> Option<String>,
    notes: mpsc::UnboundedSender<Note>,
    models: Arc<Mutex<Vec<RelayedModel>>>,
    client: client::ModelClient,
}

impl Front {
    /// Begins to look after the models; none is loaded. It must be called inside of a Tokio runtime.
    pub fn start(config: FrontConfig) -> Self {
        model::describe_metrics();
        let (notes, received) = mpsc::unbounded_channel();
        let names = config.models.iter().map(|model| model.name.clone()).collect();
        let nearest = config.nearest;
        let supervisor = Supervisor::new(config, notes.clone());
        let models = supervisor.shown();
        tokio::spawn(supervisor.run(received));
        Front(Arc::new(SharedFront { names, nearest, notes, models, client: client::ModelClient::new() }))
    }

    /// Ends all processes in order; further requests are refused. It returns when the last one has ended.
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.0.notes.send(Note::Stop(reply)).is_ok() {
            let _ = stopped.await;
        }
    }

    /// Waits until the models are looked after no longer, which without [`stop`](Self::stop) is a fault.
    pub async fn ended(&self) {
        self.0.notes.closed().await;
    }

    /// Waits until a model is loaded, and keeps it so.
    async fn lease(&self, model: usize, is_look: bool) -> Result<Lease, LoadError> {
        let (reply, granted) = oneshot::channel();
        let wanted = Note::Wanted { model, is_look, reply };
        if self.0.notes.send(wanted).is_err() {
            return Err(LoadError::ShuttingDown);
        }
        match tokio::time::timeout(LOAD_WAIT, granted).await {
            Ok(granted) => granted.unwrap_or(Err(LoadError::ShuttingDown)),
            Err(_) => Err(LoadError::TookTooLong { name: self.0.names[model].clone(), seconds: LOAD_WAIT.as_secs() }),
        }
    }
}

impl Relay for Front {
    fn models(&self) -> Vec<RelayedModel> {
        self.0.models.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn nearest(&self, name: &str) -> Option<String> {
        (self.0.nearest)(name, &self.0.names)
    }

    async fn send(&self, model: usize, request: RelayedRequest) -> Result<Response, ApiError> {
        let name = &self.0.names[model];
        let mut first_sent = None;
        for left in (0..ATTEMPTS).rev() {
            let lease = self.lease(model, request.is_look).await?;
            let first_sent = *first_sent.get_or_insert_with(Instant::now);
            match self.0.client.send(&lease.address, &request).await {
                Ok(answer) => return Ok(answer.map(|body| lease.hold(body, name))),
                // Nothing has been sent, so another process can have it.
                Err(error) if client::is_refused(&error) && left > 0 => (lease.on_event)(LeaseEvent::Unreachable),
                // Above all, this process or the system has no descriptors or ports left.
                Err(error) if error.is_connect() => {
                    let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                    return Err(LoadError::NoConnection { name: name.clone(), reason }.into());
                }
                Err(_) if first_sent.elapsed() < ENDING && left > 0 => sleep(PAUSE).await,
                Err(error) => {
                    tracing::debug!(model = name, %error, "a request was lost");
                    break;
                }
            }
        }
        Err(LoadError::Ended { name: name.clone() }.into())
    }

    async fn metrics(&self) -> Vec<String> {
        let loaded =
            self.models().into_iter().enumerate().filter(|(_, model)| model.state == server::ModelState::Loaded);
        let texts = loaded.map(|(number, _)| async move {
            let lease = self.lease(number, true).await.ok()?;
            self.0.client.text(&lease.address, "/metrics").await
        });
        futures_util::future::join_all(texts).await.into_iter().flatten().collect()
    }
}
