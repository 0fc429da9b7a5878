//! A server over an engine that plays a script, and a client for it.
use engine::{
    EngineError, Event, FinishReason, GenerationRequest, MatchedStop, Message, ModelInfo, Pooling, QueuePermit,
    RequestId, SamplingParams, TokenLogprob, channel,
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use server::{ServerConfig, ServerState, bind, serve};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use text::{AnswerOptions, AnswerPart, AnswerPipeline, ChatTemplate, Pushed, Tokenizer, ToolCallFormat};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

pub const CONTEXT: usize = 128;
/// The width of the model's hidden states.
pub const HIDDEN: usize = 4;
/// Every character of more than one byte is several tokens of the demo vocabulary.
pub const TEXT: &str = "Well: 漢字 and 😀, done.";

pub static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| Arc::new(Tokenizer::from_dir(&demo()).unwrap()));
static PROMETHEUS: LazyLock<metrics_exporter_prometheus::PrometheusHandle> =
    LazyLock::new(|| server::install_metrics().unwrap());

/// A text whose stream, some 1.7 MB, is larger than the 0.7 MB that hyper and sockets hold of it if nobody reads.
pub fn long_text() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| TEXT.repeat(600));
    &LONG
}

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

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

pub struct Options {
    pub script: Script,
    pub config: ServerConfig,
    pub model: &'static str,
    pub queue_limit: usize,
    /// Sequences that the engine says it runs.
    pub running: usize,
    pub loaded: bool,
    /// `None`: the demo's; `Some("")`: none.
    pub template: Option<&'static str>,
    /// How the model writes tool calls; `None`: as the template shows.
    pub calls: Option<ToolCallFormat>,
    /// Tokens of the context.
    pub context: usize,
    /// Whether the model has a head.
    pub has_head: bool,
    /// How it makes vectors, or why it does not.
    pub pooling: Result<Pooling, String>,
    pub tokenizer: Arc<Tokenizer>,
}

impl Default for Options {
    fn default() -> Self {
        let config = ServerConfig { port: 0, ..Default::default() };
        Options {
            script: Script::Answer(TEXT),
            config,
            model: "demo",
            queue_limit: 100,
            running: 2,
            loaded: true,
            template: None,
            calls: None,
            context: CONTEXT,
            has_head: true,
            pooling: Ok(Pooling::Last),
            tokenizer: TOKENIZER.clone(),
        }
    }
}

/// What the engine was asked.
#[derive(Default)]
pub struct Seen {
    pub requests: Mutex<Vec<GenerationRequest>>,
    pub aborts: Mutex<Vec<RequestId>>,
}

pub struct Server {
    pub url: String,
    pub client: reqwest::Client,
    pub seen: Arc<Seen>,
    shutdown: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub async fn start(options: Options) -> Server {
    let listener = bind(&options.config).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = ServerState::new(options.config, PROMETHEUS.clone());
    let seen = Arc::new(Seen::default());
    if options.loaded {
        let info = ModelInfo {
            name: options.model.into(),
            path: demo(),
            model_type: "llama".into(),
            weight_bytes: 123_456,
            trained_len: 4 * CONTEXT,
            max_model_len: options.context,
            vocab_size: options.tokenizer.vocab_size(),
            has_head: options.has_head,
            hidden_size: HIDDEN,
            pooling: options.pooling,
            turn_ends: vec![TOKENIZER.eos_id().unwrap()],
            block_size: 32,
            num_blocks: (options.context / 32).max(10),
            bytes_per_block: 1024,
            prefix_cache: true,
            num_snapshots: 0,
            max_num_seqs: 64,
            k_quant: "bf16".into(),
            v_quant: "f16".into(),
            default_sampling: SamplingParams { temperature: 0.7, top_p: 0.9, ..Default::default() },
        };
        let template = template(options.template).map(|template| Arc::new(template.calling_tools_as(options.calls)));
        let (handle, inbox) = channel(info, options.tokenizer, options.queue_limit);
        inbox.set_stats(engine::EngineStats {
            running: options.running,
            waiting: 3,
            blocks_held: 5,
            preemptions: 7,
            ..Default::default()
        });
        let (seen, script) = (seen.clone(), options.script);
        std::thread::spawn(move || {
            let mut engine = Fake { seen, script, waiting: Vec::new(), ticking: Vec::new() };
            let alive = |_: &Message| !matches!(script, Script::Die);
            inbox.messages.iter().take_while(alive).for_each(|message| engine.take(message));
        });
        state.set_engine(handle, template);
    }
    let (shutdown, stop) = oneshot::channel::<()>();
    let ended = tokio::spawn(serve(listener, state, async {
        stop.await.ok();
    }));
    Server { url, client: hub::http().build().unwrap(), seen, shutdown: Some(shutdown), ended }
}

pub async fn start_with(script: Script) -> Server {
    start(Options { script, ..Default::default() }).await
}

fn template(source: Option<&str>) -> Option<ChatTemplate> {
    match source {
        None => ChatTemplate::from_dir(&demo()).unwrap(),
        Some("") => None,
        Some(source) => {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
            ChatTemplate::from_dir(dir.path()).unwrap()
        }
    }
}

struct Fake {
    seen: Arc<Seen>,
    script: Script,
    waiting: Vec<(QueuePermit, UnboundedSender<Event>)>,
    ticking: Vec<UnboundedSender<Event>>,
}

impl Fake {
    fn take(&mut self, message: Message) {
        match message {
            Message::Submit { request, events, queued, .. } => {
                self.seen.requests.lock().unwrap().push((*request).clone());
                self.play(&request, events, queued);
            }
            Message::Abort(id) => self.seen.aborts.lock().unwrap().push(id),
            Message::ClearCache => {}
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

fn begin(request: &GenerationRequest, events: &UnboundedSender<Event>) {
    let logprobs = request.prompt_logprobs.map(|top| {
        let rest = request.prompt.iter().skip(1).map(|token| Some(logprob(*token, top)));
        std::iter::once(None).chain(rest).collect()
    });
    events.send(Event::Prompt { tokens: request.prompt.len(), cached_tokens: 1, logprobs }).ok();
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
        events.send(Event::Finished { choice, parts, reason, matched_stop: stop.clone() }).ok();
    }
}

impl Server {
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// A 200 answer's JSON.
    pub async fn ask(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, &body).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn chat(&self, more: Value) -> Value {
        self.ask("/v1/chat/completions", chat_body(more)).await
    }

    /// A streamed answer's events; the last is `[DONE]`, which is left out.
    pub async fn stream(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        let response = self.post(path, &body).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let text = response.text().await.unwrap();
        let mut events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{text}");
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    pub fn last_request(&self) -> GenerationRequest {
        self.seen.requests.lock().unwrap().last().unwrap().clone()
    }

    /// Begins the shutdown.
    pub fn begin_shutdown(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has ended.
    pub async fn ended(self) {
        self.ended.await.unwrap().unwrap();
    }
}

pub fn chat_body(more: Value) -> Value {
    merge(json!({"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}), more)
}

pub fn completion_body(more: Value) -> Value {
    merge(json!({"model": "demo", "prompt": "Once upon"}), more)
}

fn merge(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// An error's status, code, param and whole error object.
pub async fn error(response: Response) -> (u16, String, Value, Value) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let error = body["error"].clone();
    assert!(error["message"].is_string() && error["type"].is_string(), "not OpenAI's shape: {body}");
    (status, error["code"].as_str().unwrap().to_owned(), error["param"].clone(), error)
}

/// Waits for what another thread does; fails the test after ten seconds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
