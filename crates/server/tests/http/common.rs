//! A server over an engine that plays a script, and a client for it.
use crate::script::{Fake, Seen};
pub use crate::script::{Script, vector_of};
use disk_cache::{DiskCache, DiskContents};
use engine::{
    CacheIdentity, DiskLimit, DiskOptions, GenerationRequest, KlFigures, Message, ModelInfo, Pooling, PrefixEvent,
    PressureLevel, SamplingParams, channel,
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use server::{ServerConfig, ServerState, bind, serve};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use text::{ChatTemplate, Tokenizer, ToolCallFormat};
use tokio::sync::oneshot;

pub const CONTEXT: usize = 128;
/// The width of the model's hidden states.
pub const HIDDEN: usize = 4;
/// Every character of more than one byte is several tokens of the demo vocabulary.
pub const TEXT: &str = "Well: 漢字 and 😀, done.";

pub static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| Arc::new(Tokenizer::from_dir(&demo()).unwrap()));
pub static PROMETHEUS: LazyLock<metrics_exporter_prometheus::PrometheusHandle> =
    LazyLock::new(|| server::install_metrics().unwrap());

/// A text whose stream, some 1.7 MB, is larger than the 0.7 MB that hyper and sockets hold of it if nobody reads.
pub fn long_text() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| TEXT.repeat(600));
    &LONG
}

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

/// A cache on disk that holds nothing.
fn empty_disk(dir: &Path) -> DiskCache {
    let options = DiskOptions { dir: dir.to_path_buf(), limit: DiskLimit::Bytes(1 << 20), writes_per_day: 1 << 20 };
    let contents = DiskContents { identity: CacheIdentity::new([]), label: Default::default(), block_bytes: 64 };
    DiskCache::open(&options, &contents).unwrap()
}

pub struct Options {
    pub script: Script,
    pub config: ServerConfig,
    pub model: &'static str,
    pub queue_limit: usize,
    /// Sequences that the engine says it runs.
    pub running: usize,
    /// How short of memory it says the machine is.
    pub pressure: PressureLevel,
    /// What earlier requests found of their prompts, the newest last.
    pub found: Vec<PrefixEvent>,
    /// Whether it has a cache on disk.
    pub has_disk: bool,
    /// What the presets cost the model, as far as it has been measured.
    pub kl_figures: KlFigures,
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
            pressure: PressureLevel::Normal,
            found: Vec::new(),
            has_disk: false,
            kl_figures: KlFigures::default(),
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
            num_snapshots: 4,
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
            blocks_cached: 3,
            blocks_free: 2,
            snapshots: 1,
            preemptions: 7,
            steps: 0,
            pressure: options.pressure,
        });
        inbox.set_kl_figures(options.kl_figures);
        options.found.into_iter().for_each(|event| inbox.note_prefix(event));
        let (seen, script) = (seen.clone(), options.script);
        let folder = options.has_disk.then(|| tempfile::tempdir().unwrap());
        let inbox = inbox.with_disk(folder.as_ref().map(|folder| Arc::new(empty_disk(folder.path()))));
        std::thread::spawn(move || {
            let _kept_until_the_engine_ends = folder;
            let mut engine = Fake::new(seen, script);
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

impl Server {
    /// A server that listens at an address and has no engine of its own.
    pub fn at(url: String, shutdown: oneshot::Sender<()>, ended: tokio::task::JoinHandle<std::io::Result<()>>) -> Self {
        let client = hub::http().build().unwrap();
        Server { url, client, seen: Arc::default(), shutdown: Some(shutdown), ended }
    }

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
