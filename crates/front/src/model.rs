//! One model of a front, and the phase of its process.
use crate::FrontModel;
use crate::back_off::BackOff;
use crate::client::ProcessAddress;
use crate::process::ModelProcess;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use serde_json::Value;
use server::{ModelState, RelayedModel};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A model, and its process if there is one.
pub struct ManagedModel {
    pub name: String,
    pub command: Box<dyn Fn(u64) -> Command + Send>,
    pub phase: Phase,
    /// Requests that its process answers.
    pub in_use: usize,
    /// When a request last began or ended.
    pub last_used: Instant,
    pub back_off: BackOff,
    /// Bytes that it needs beside its cache, once that is known.
    pub beside_cache: Option<u64>,
    pub counts: ModelCounts,
    /// The answer of its process at `/v1/models` when it was loaded last; null before.
    model_list: Value,
    created: u64,
    /// How many processes it has had.
    started: u64,
}

/// The phase of a model's process.
pub enum Phase {
    /// There is no process.
    Absent,
    /// The process loads the model.
    Loading(ModelProcess),
    /// The process serves the model.
    Serving(ServingProcess),
    /// The process was asked to end.
    Stopping(ModelProcess),
}

/// A process that serves its model.
pub struct ServingProcess {
    pub process: ModelProcess,
    pub address: Arc<ProcessAddress>,
    pub since: Instant,
    /// No further request is given to it, because its memory is needed or it does not answer.
    pub is_closed: bool,
}

/// The metrics of a model.
pub struct ModelCounts {
    pub loads: Counter,
    pub unloads: Counter,
    pub restarts: Counter,
    pub waiting: Gauge,
}

/// Says what the metrics of fronts mean.
pub fn describe_metrics() {
    describe_counter!("tallow_model_loads_total", "How often the model was loaded.");
    describe_counter!("tallow_model_unloads_total", "How often the model was unloaded.");
    describe_counter!("tallow_model_restarts_total", "Processes of the model that were started after one had failed.");
    describe_gauge!("tallow_requests_waiting_for_model", "Requests that wait for the model to be loaded.");
}

impl ModelCounts {
    fn new(name: &str) -> Self {
        let model = || [("model_name", name.to_owned())];
        ModelCounts {
            loads: counter!("tallow_model_loads_total", &model()),
            unloads: counter!("tallow_model_unloads_total", &model()),
            restarts: counter!("tallow_model_restarts_total", &model()),
            waiting: gauge!("tallow_requests_waiting_for_model", &model()),
        }
    }
}

impl ManagedModel {
    pub fn new(model: FrontModel) -> Self {
        ManagedModel {
            counts: ModelCounts::new(&model.name),
            name: model.name,
            command: model.command,
            phase: Phase::Absent,
            in_use: 0,
            last_used: Instant::now(),
            back_off: BackOff::default(),
            beside_cache: None,
            model_list: Value::Null,
            created: unix_seconds(),
            started: 0,
        }
    }

    /// The number of the next process.
    pub fn next_process(&mut self) -> u64 {
        self.started += 1;
        self.started
    }

    /// The process, if there is one.
    pub fn process(&self) -> Option<&ModelProcess> {
        match &self.phase {
            Phase::Absent => None,
            Phase::Loading(process) | Phase::Stopping(process) => Some(process),
            Phase::Serving(serving) => Some(&serving.process),
        }
    }

    /// Whether `number` is the process that there is now.
    pub fn has_process(&self, number: u64) -> bool {
        self.process().is_some_and(|process| process.number == number)
    }

    /// The process, if it serves the model.
    pub fn serving(&self) -> Option<&ServingProcess> {
        match &self.phase {
            Phase::Serving(serving) => Some(serving),
            _ => None,
        }
    }

    /// The process, if it takes requests.
    pub fn open(&self) -> Option<&ServingProcess> {
        self.serving().filter(|serving| !serving.is_closed)
    }

    /// Closes the process for further requests, or opens it again.
    pub fn set_closed(&mut self, is_closed: bool) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.is_closed = is_closed;
        }
    }

    /// The process has loaded the model.
    pub fn serves(&mut self, address: Arc<ProcessAddress>, model_list: Value) {
        if let Phase::Loading(process) = std::mem::replace(&mut self.phase, Phase::Absent) {
            let now = Instant::now();
            self.phase = Phase::Serving(ServingProcess { process, address, since: now, is_closed: false });
            (self.model_list, self.created, self.last_used) = (model_list, unix_seconds(), now);
            self.back_off.loaded();
            self.counts.loads.increment(1);
        }
    }

    /// Asks the process to end.
    pub fn stop(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Absent) {
            Phase::Loading(mut process) | Phase::Serving(ServingProcess { mut process, .. }) => {
                process.stop();
                Phase::Stopping(process)
            }
            other => other,
        };
    }

    /// The process has ended. Returns for how long it served if it was not asked to end, `Some(None)` if it never did.
    pub fn ended(&mut self) -> Option<Option<Duration>> {
        self.in_use = 0;
        match std::mem::replace(&mut self.phase, Phase::Absent) {
            Phase::Absent => None,
            Phase::Stopping(_) => {
                self.counts.unloads.increment(1);
                self.back_off.forget();
                None
            }
            Phase::Loading(_) => Some(None),
            Phase::Serving(serving) => Some(Some(serving.since.elapsed())),
        }
    }

    /// The model as clients see it. `is_wanted`: requests wait for it.
    pub fn shown(&self, is_wanted: bool) -> RelayedModel {
        let state = match (&self.phase, self.back_off.reason()) {
            (Phase::Serving(_), _) => ModelState::Loaded,
            (Phase::Loading(_), _) => ModelState::Loading,
            (Phase::Absent | Phase::Stopping(_), _) if is_wanted => ModelState::Loading,
            // Its memory is not free yet.
            (Phase::Stopping(_), _) => ModelState::Loaded,
            (Phase::Absent, Some(reason)) => ModelState::Failed(reason.to_owned()),
            (Phase::Absent, None) => ModelState::Unloaded,
        };
        RelayedModel { name: self.name.clone(), state, created: self.created, model_list: self.model_list.clone() }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
