//! An engine that plays a script.
use crate::common::{HIDDEN, TOKENIZER};
use engine::{
    DraftTokens, EngineError, Event, FinishReason, GenerationRequest, MatchedStop, Message, Miss, PrefixReport,
    QueuePermit, RequestId, TokenLogprob,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use text::{AnswerOptions, AnswerPart, AnswerPipeline, Pushed};
use tokio::sync::mpsc::UnboundedSender;

/// What the fake engine does with every request.
#[derive(Clone, Copy)]
pub enum Script {
    /// The text, as tokens of the demo vocabulary, up to `max_tokens`; or, the later the shorter the prompt is, the
    /// vector that [`vector_of`] gives.
    Answer(&'static str),
    /// The text as for `Answer`, but ended by a stop string.
    Stopped(&'static str),
    /// The text as for `Answer`, after a while.
    Late(&'static str, Duration),
    /// The text that this gives for the request's limit of tokens, as for `Answer`. No protocol lacks that field.
    Seeded(fn(usize) -> String),
    /// No text, behind a prompt of which as many tokens came from disk.
    OnDisk(usize),
    /// Nothing; the request waits in the queue.
    Wait,
    /// A token every few milliseconds until the request is aborted or the engine shuts down.
    Tick,
    /// Fails before the first token.
    Fail,
    /// Fails after two tokens.
    FailLate,
    /// Goes away without a last event.
    Vanish,
    /// The engine's thread ends at the first request.
    Die,
}

/// What the engine was asked.
#[derive(Default)]
pub struct Seen {
    pub requests: Mutex<Vec<GenerationRequest>>,
    pub aborts: Mutex<Vec<RequestId>>,
    /// How often the cache was to be cleared.
    pub clearings: Mutex<usize>,
}

pub struct Fake {
    seen: Arc<Seen>,
    script: Script,
    waiting: Vec<(QueuePermit, UnboundedSender<Event>)>,
    ticking: Vec<UnboundedSender<Event>>,
}

impl Fake {
    /// An engine that plays `script` and notes what it is asked.
    pub fn new(seen: Arc<Seen>, script: Script) -> Self {
        Fake { seen, script, waiting: Vec::new(), ticking: Vec::new() }
    }

    /// Does what a message asks for.
    pub fn take(&mut self, message: Message) {
        match message {
            Message::Submit { request, events, queued, .. } => {
                self.seen.requests.lock().unwrap().push((*request).clone());
                self.play(&request, events, queued);
            }
            Message::Abort(id) => self.seen.aborts.lock().unwrap().push(id),
            Message::ClearCache => *self.seen.clearings.lock().unwrap() += 1,
            Message::Shutdown(deadline) => {
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                for events in &self.ticking {
                    events.send(Event::Failed(EngineError::ShutDown)).ok();
                }
            }
        }
    }

    fn play(&mut self, request: &GenerationRequest, events: UnboundedSender<Event>, queued: QueuePermit) {
        let failure = || Event::Failed(EngineError::StepFailed("the script says so".into()));
        match self.script {
            Script::Answer(_) if request.embedding.is_some() => embed(request, events),
            Script::Answer(text) => answer(request, text, &events, None),
            Script::Stopped(text) => answer(request, text, &events, Some(MatchedStop::Text("\n".into()))),
            Script::Late(text, after) => {
                let request = request.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    answer(&request, text, &events, None);
                });
            }
            Script::Seeded(text) => {
                let limit = request.stop.max_tokens.unwrap();
                answer(request, &text(limit), &events, None);
            }
            Script::Wait => self.waiting.push((queued, events)),
            Script::Fail => drop(events.send(failure())),
            Script::FailLate => {
                begin(request, &events);
                tick(&events);
                tick(&events);
                events.send(failure()).ok();
            }
            Script::Vanish => begin(request, &events),
            Script::OnDisk(tokens) => {
                begin_from_disk(request, &events, tokens);
                let (reason, matched_stop) = (FinishReason::Stop, None);
                let drafts = DraftTokens::default();
                events.send(Event::Finished { choice: 0, parts: Vec::new(), reason, matched_stop, drafts }).ok();
            }
            Script::Die => {}
            Script::Tick => {
                begin(request, &events);
                self.ticking.push(events.clone());
                std::thread::spawn(move || {
                    while tick(&events) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
        }
    }
}

/// False if nobody listens.
fn tick(events: &UnboundedSender<Event>) -> bool {
    let token = TOKENIZER.encode("tick ", false).unwrap()[0];
    let parts = vec![AnswerPart::Text("tick ".into())];
    events.send(Event::Delta { choice: 0, parts, in_thought: false, token, logprob: None }).is_ok()
}

/// One token of the prompt is in memory, and none on disk.
fn begin(request: &GenerationRequest, events: &UnboundedSender<Event>) {
    begin_from_disk(request, events, 0);
}

fn begin_from_disk(request: &GenerationRequest, events: &UnboundedSender<Event>, on_disk: usize) {
    let logprobs = request.prompt_logprobs.map(|top| {
        let rest = request.prompt.iter().skip(1).map(|token| Some(logprob(*token, top)));
        std::iter::once(None).chain(rest).collect()
    });
    let (prompt, miss) = (request.prompt.len(), Some(Miss::Diverged { at: 1, from: 0, known: [0, 0].into() }));
    events.send(Event::Admitted(PrefixReport { prompt, from_memory: 1, from_archive: on_disk, miss })).ok();
    events.send(Event::Prompt { tokens: prompt, cached_tokens: 1 + on_disk, logprobs }).ok();
}

/// The chosen token comes second after its neighbour.
pub fn logprob(token: u32, top: usize) -> TokenLogprob {
    let alternatives = [((token + 1) % 12288, -0.25), (token, -1.5), ((token + 2) % 12288, -4.0)];
    TokenLogprob { token, logprob: -1.5, top: alternatives.into_iter().take(top).collect() }
}

/// What the fake engine makes of a prompt.
pub fn vector_of(prompt: &[u32]) -> Vec<f32> {
    let sum: u32 = prompt.iter().sum();
    vec![prompt.len() as f32 + 0.1, sum as f32 / 3.0, -1e-20, 1.0]
}

fn embed(request: &GenerationRequest, events: UnboundedSender<Event>) {
    let request = request.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(40_u64.saturating_sub(4 * request.prompt.len() as u64)));
        begin(&request, &events);
        let mut vector = vector_of(&request.prompt);
        vector.truncate(request.embedding.unwrap().dimensions.unwrap_or(HIDDEN));
        events.send(Event::Embedded { vector }).ok();
    });
}

/// The events of a real engine: text only when it is whole, all choices in turn.
fn answer(request: &GenerationRequest, text: &str, events: &UnboundedSender<Event>, stop: Option<MatchedStop>) {
    begin(request, events);
    let ids = TOKENIZER.encode(text, false).unwrap();
    let kept = request.stop.max_tokens.unwrap_or(usize::MAX).min(ids.len());
    // A script keeps to no constraint.
    let mut options =
        AnswerOptions { begins_text: false, stop: Vec::new(), constraint: None, ..request.answer_options() };
    if let Some(reading) = &mut options.reading {
        reading.call_constraint = None;
    }
    let mut pipelines: Vec<_> = (0..request.n).map(|_| AnswerPipeline::new(&TOKENIZER, options.clone())).collect();
    for &token in &ids[..kept] {
        for (choice, pipeline) in pipelines.iter_mut().enumerate() {
            let logprob = request.logprobs.map(|top| logprob(token, top));
            let Pushed { parts, in_thought, .. } = pipeline.push(token).unwrap();
            events.send(Event::Delta { choice, parts, in_thought, token, logprob }).ok();
        }
    }
    for (choice, pipeline) in pipelines.iter_mut().enumerate() {
        let (parts, _) = pipeline.finish();
        let reason = match kept < ids.len() {
            true => FinishReason::Length,
            false if pipeline.has_calls() => FinishReason::ToolCalls,
            false => FinishReason::Stop,
        };
        // As if one of two tokens of a draft had been right, for each choice.
        let drafts = DraftTokens { accepted: 1, rejected: 1 };
        events.send(Event::Finished { choice, parts, reason, matched_stop: stop.clone(), drafts }).ok();
    }
}
