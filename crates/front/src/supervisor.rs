//! The task that loads and unloads models. It receives all events and decides one load after the other.
use crate::error::LoadError;
use crate::lease::{Lease, LeaseEvent};
use crate::model::{ManagedModel, Phase};
use crate::process::{ProcessEvent, ProcessStart};
use crate::room::{self, MemoryPlan, Planner, RoomAnswer, RoomQuestion, RoomVerdict};
use crate::{FrontConfig, TakeLogLine};
use server::RelayedModel;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// How often is looked whether clients that wait have left, and whether memory has become free that nothing tells of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Something that has happened.
pub enum Note {
    /// A request needs a model.
    Wanted { model: usize, is_look: bool, reply: LeaseReply },
    /// An event of a request's lease.
    Leased { model: usize, process: u64, is_look: bool, event: LeaseEvent },
    /// It is known where a model has its memory from.
    Planned { model: usize, answer: RoomAnswer },
    /// An event of a model's process.
    Process { model: usize, process: u64, event: ProcessEvent },
    /// All is to end.
    Stop(oneshot::Sender<()>),
}

/// Where a request waits for its model.
type LeaseReply = oneshot::Sender<Result<Lease, LoadError>>;

/// A request that waits for its model.
struct WaitingRequest {
    model: usize,
    reply: LeaseReply,
}

/// A model that is to be loaded next.
enum NextLoad {
    /// It is being found out where it has its memory from, and how many of these models it takes the place of.
    Planning { unloadable: Vec<usize> },
    /// It waits for the end of other models' processes.
    Clearing { model: usize, plan: MemoryPlan, victims: Vec<usize> },
    /// Nothing is to be loaded, or it must wait until something has changed.
    None,
}

/// All models of a front.
pub struct Supervisor {
    models: Vec<ManagedModel>,
    waiting: VecDeque<WaitingRequest>,
    next: NextLoad,
    /// Nothing has changed since a model was found to fit later.
    is_stuck: bool,
    /// The memory that was free when no model was loaded.
    free_of_models: Option<u64>,
    shown: Arc<Mutex<Vec<RelayedModel>>>,
    notes: UnboundedSender<Note>,
    planner: Arc<dyn Planner>,
    idle_unload: Option<Duration>,
    max_waiting: usize,
    stop_limit: Duration,
    log: TakeLogLine,
    /// Told when the last process has ended; `Some` once all is to end.
    stopping: Option<oneshot::Sender<()>>,
}

impl Supervisor {
    pub fn new(config: FrontConfig, notes: UnboundedSender<Note>) -> Self {
        let supervisor = Supervisor {
            models: config.models.into_iter().map(ManagedModel::new).collect(),
            waiting: VecDeque::new(),
            next: NextLoad::None,
            is_stuck: false,
            free_of_models: None,
            shown: Arc::default(),
            notes,
            planner: config.planner,
            idle_unload: config.idle_unload,
            max_waiting: config.max_waiting,
            stop_limit: config.stop_limit,
            log: config.log,
            stopping: None,
        };
        supervisor.show();
        supervisor
    }

    /// The models as clients see them, kept up to date.
    pub fn shown(&self) -> Arc<Mutex<Vec<RelayedModel>>> {
        self.shown.clone()
    }

    /// Looks after the models until the last process has ended that was asked to, or nobody is left to ask.
    pub async fn run(mut self, mut notes: UnboundedReceiver<Note>) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                note = notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                () = sleep_until(look_at) => self.is_stuck = false,
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_EVERY;
                self.unload_idle();
            }
            self.advance();
            self.show();
            if self.stopping.is_some() && self.models.iter().all(|model| model.process().is_none()) {
                // Whoever asked may have gone.
                let _ = self.stopping.take().map(|stopped| stopped.send(()));
                return;
            }
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Wanted { model, is_look, reply } => self.want(model, is_look, reply),
            Note::Leased { model, process, is_look, event } => {
                if self.models[model].has_process(process) {
                    self.is_stuck = false;
                    match event {
                        LeaseEvent::Released => self.released(model, is_look),
                        LeaseEvent::Unreachable => self.give_up(model),
                    }
                }
            }
            Note::Planned { model, answer } => self.planned(model, answer),
            Note::Process { model, process, event } => {
                if self.models[model].has_process(process) {
                    self.is_stuck = false;
                    match event {
                        ProcessEvent::Ready { address, model_list } => {
                            self.models[model].serves(address, model_list);
                            tracing::info!("{} is loaded", self.models[model].name);
                        }
                        ProcessEvent::Ended { description } => self.ended(model, description),
                    }
                }
            }
            Note::Stop(stopped) => {
                self.stopping = Some(stopped);
                self.next = NextLoad::None;
                for waiting in self.waiting.drain(..) {
                    // A client that has left does not need to know.
                    let _ = waiting.reply.send(Err(LoadError::ShuttingDown));
                }
                self.models.iter_mut().for_each(ManagedModel::stop);
            }
        }
    }

    fn want(&mut self, number: usize, is_look: bool, reply: LeaseReply) {
        let model = &self.models[number];
        if self.stopping.is_none() && (model.open().is_some() || (is_look && model.serving().is_some())) {
            return self.grant(number, is_look, reply);
        }
        let refusal = if self.stopping.is_some() {
            LoadError::ShuttingDown
        } else if is_look {
            LoadError::NotLoaded { name: model.name.clone() }
        } else if let Some(retry) = model.back_off.pause(Instant::now()) {
            self.failed(number, retry)
        } else if self.waiting.len() >= self.max_waiting {
            LoadError::QueueFull { limit: self.max_waiting }
        } else {
            return self.waiting.push_back(WaitingRequest { model: number, reply });
        };
        // A client that has left does not need to know.
        let _ = reply.send(Err(refusal));
    }

    fn failed(&self, number: usize, retry: Duration) -> LoadError {
        let model = &self.models[number];
        let reason = model.back_off.reason().unwrap_or("its process ended").to_owned();
        LoadError::Failed { name: model.name.clone(), reason, retry }
    }

    /// Gives a process to a request. The model must be served.
    fn grant(&mut self, number: usize, is_look: bool, reply: LeaseReply) {
        let model = &mut self.models[number];
        let Some(serving) = model.serving() else { return };
        let (process, address) = (serving.process.number, serving.address.clone());
        model.in_use += 1;
        if !is_look {
            model.last_used = Instant::now();
        }
        let notes = self.notes.clone();
        let on_event = move |event| drop(notes.send(Note::Leased { model: number, process, is_look, event }));
        // If the client has left, the lease comes back with its reply and is released.
        let _ = reply.send(Ok(Lease { address, on_event: Box::new(on_event) }));
    }

    fn released(&mut self, number: usize, is_look: bool) {
        let model = &mut self.models[number];
        model.in_use = model.in_use.saturating_sub(1);
        if !is_look {
            model.last_used = Instant::now();
        }
    }

    /// A process does not answer, though it has not ended.
    fn give_up(&mut self, number: usize) {
        let model = &mut self.models[number];
        model.set_closed(true);
        if let Phase::Serving(serving) = &mut model.phase {
            serving.process.kill();
        }
    }

    fn ended(&mut self, number: usize, description: String) {
        let model = &mut self.models[number];
        let Some(served) = model.ended() else {
            tracing::info!("{} is unloaded", model.name);
            return;
        };
        tracing::warn!("{}: {description}", model.name);
        let now = Instant::now();
        model.back_off.failed(now, served, description);
        if let Some(retry) = model.back_off.pause(now) {
            let error = self.failed(number, retry);
            self.refuse(number, &error);
        }
    }

    /// Refuses all requests that wait for a model.
    fn refuse(&mut self, number: usize, error: &LoadError) {
        let (refused, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiting| waiting.model == number);
        self.waiting = rest.into();
        for waiting in refused {
            // A client that has left does not need to know.
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    /// Unloads models that have not been used for as long as they may.
    fn unload_idle(&mut self) {
        let Some(limit) = self.idle_unload else { return };
        for model in &mut self.models {
            if model.open().is_some() && model.in_use == 0 && model.last_used.elapsed() >= limit {
                tracing::info!("{} has not been used for {limit:?} and is unloaded", model.name);
                model.stop();
            }
        }
    }

    /// Does all that can be done now: requests get their models, and the next model is loaded.
    fn advance(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        let is_open = |waiting: &WaitingRequest| self.models[waiting.model].open().is_some();
        let (granted, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(is_open);
        self.waiting = rest.into();
        for WaitingRequest { model, reply } in granted {
            self.grant(model, false, reply);
        }
        if let NextLoad::Clearing { model, .. } = &self.next {
            let model = *model;
            if !self.is_wanted(model) {
                self.forget_next();
            } else {
                self.clear();
            }
        }
        if matches!(self.next, NextLoad::None) && !self.is_stuck {
            let absent = |waiting: &&WaitingRequest| matches!(self.models[waiting.model].phase, Phase::Absent);
            if let Some(first) = self.waiting.iter().find(absent) {
                self.plan(first.model);
            }
        }
    }

    fn is_wanted(&self, number: usize) -> bool {
        self.waiting.iter().any(|waiting| waiting.model == number)
    }

    /// Asks where a model has its memory from.
    fn plan(&mut self, number: usize) {
        let processes: Vec<u64> = self.models.iter().filter_map(|m| Some(m.process()?.memory)).collect();
        if processes.is_empty() {
            self.free_of_models = None;
        }
        let unloadable = self.unloadable();
        let others = self.models.iter().enumerate().filter(|(other, m)| *other != number && m.process().is_none());
        let question = RoomQuestion {
            model: number,
            free_of_models: self.free_of_models,
            taken: processes.iter().sum(),
            unloadable: unloadable.iter().filter_map(|m| Some(self.models[*m].process()?.memory)).collect(),
            reserve: others.filter_map(|(_, model)| model.beside_cache).sum(),
        };
        self.next = NextLoad::Planning { unloadable };
        let (planner, notes) = (self.planner.clone(), self.notes.clone());
        let found = tokio::spawn(async move { room::find(&*planner, &question).await });
        tokio::spawn(async move {
            let answer = found.await.unwrap_or_else(|error| RoomAnswer::never(format!("the planning failed: {error}")));
            let _ = notes.send(Note::Planned { model: number, answer });
        });
    }

    /// The models that may be unloaded, those that nobody uses first, and of them those first that were used least
    /// lately.
    fn unloadable(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.models.len()).filter(|m| self.models[*m].serving().is_some()).collect();
        numbers.sort_by_key(|number| (self.models[*number].in_use > 0, self.models[*number].last_used));
        numbers
    }

    fn planned(&mut self, number: usize, answer: RoomAnswer) {
        let NextLoad::Planning { unloadable } = std::mem::replace(&mut self.next, NextLoad::None) else { return };
        match answer.verdict {
            RoomVerdict::Fits { unloaded, plan } => {
                self.free_of_models = Some(answer.free_of_models);
                self.models[number].beside_cache = Some(plan.beside_cache);
                let victims: Vec<usize> = unloadable.into_iter().take(unloaded).collect();
                victims.iter().for_each(|victim| self.models[*victim].set_closed(true));
                self.next = NextLoad::Clearing { model: number, plan, victims };
            }
            RoomVerdict::Later => {
                self.free_of_models = Some(answer.free_of_models);
                self.is_stuck = true;
            }
            RoomVerdict::Never(reason) => {
                let name = self.models[number].name.clone();
                tracing::warn!("{name} cannot be loaded: {reason}");
                self.models[number].back_off.refused(reason.clone());
                self.refuse(number, &LoadError::TooLarge { name, reason });
            }
        }
    }

    /// Ends the processes whose memory the next model needs, each once it answers nobody, and starts the model when the
    /// last one has ended.
    fn clear(&mut self) {
        let NextLoad::Clearing { model, plan, victims } = &self.next else { return };
        let (number, plan) = (*model, *plan);
        for victim in victims {
            let victim = &mut self.models[*victim];
            if victim.serving().is_some() && victim.in_use == 0 {
                tracing::info!("{} is unloaded, because its memory is needed", victim.name);
                victim.stop();
            }
        }
        if victims.iter().any(|victim| self.models[*victim].process().is_some()) {
            return;
        }
        self.next = NextLoad::None;
        let (notes, log, stop_limit) = (self.notes.clone(), self.log.clone(), self.stop_limit);
        let model = &mut self.models[number];
        let process = model.next_process();
        let on_event = move |event| drop(notes.send(Note::Process { model: number, process, event }));
        if model.back_off.has_failed() {
            model.counts.restarts.increment(1);
        }
        tracing::info!("loading {} with {} MiB of memory", model.name, plan.total.div_ceil(1 << 20));
        let start = ProcessStart {
            name: model.name.clone(),
            command: (model.command)(plan.total),
            number: process,
            memory: plan.total,
            stop_limit,
            log,
            on_event: Arc::new(on_event),
        };
        model.phase = Phase::Loading(start.start());
    }

    /// Nobody waits for the next model any more, so that the others stay.
    fn forget_next(&mut self) {
        if let NextLoad::Clearing { victims, .. } = std::mem::replace(&mut self.next, NextLoad::None) {
            victims.iter().for_each(|victim| self.models[*victim].set_closed(false));
        }
    }

    fn show(&self) {
        let wanted = |number| self.waiting.iter().filter(|waiting| waiting.model == number).count();
        let shown = self.models.iter().enumerate().map(|(number, model)| {
            let waiting = wanted(number);
            model.counts.waiting.set(waiting as f64);
            model.shown(waiting > 0)
        });
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown.collect();
    }
}
