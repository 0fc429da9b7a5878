//! Metrics under vLLM's names, so that dashboards and routers made for vLLM work unchanged.
use engine::{EngineHandle, Event, FinishReason, ModelInfo};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::Arc;
use std::time::Instant;

// Bucket bounds of vLLM's `vllm/v1/metrics/loggers.py`.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const TOKEN: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
const ITERATION: &[f64] = &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
/// 1, 2 and 5 of each power of ten; vLLM ends at the model's context.
const LENGTH: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];
const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

/// All histograms: name, bounds of buckets, meaning. The engine observes the last five.
const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    ("vllm:time_to_first_token_seconds", FIRST_TOKEN, "Time to first token in seconds."),
    ("vllm:inter_token_latency_seconds", TOKEN, "Time between a choice's tokens in seconds."),
    ("vllm:time_per_output_token_seconds", TOKEN, "The older name of inter_token_latency_seconds."),
    ("vllm:request_time_per_output_token_seconds", TOKEN, "Mean time between a choice's tokens in seconds."),
    ("vllm:e2e_request_latency_seconds", REQUEST, "Time from submission to a choice's end in seconds."),
    ("vllm:request_prompt_tokens", LENGTH, "Prompt tokens of a request."),
    ("vllm:request_generation_tokens", LENGTH, "Generated tokens of a choice."),
    ("vllm:request_max_num_generation_tokens", LENGTH, "Generated tokens of a request's longest choice."),
    ("vllm:request_prefill_kv_computed_tokens", LENGTH, "Prompt tokens of a request that were not in the cache."),
    ("vllm:request_params_n", CHOICES, "The request parameter n."),
    ("vllm:request_params_max_tokens", LENGTH, "The request parameter max_tokens."),
    ("vllm:request_queue_time_seconds", REQUEST, "Time a request waited for its first step in seconds."),
    ("vllm:request_prefill_time_seconds", REQUEST, "Time from a request's first step to its first token in seconds."),
    ("vllm:request_decode_time_seconds", REQUEST, "Time from a request's first token to its last in seconds."),
    ("vllm:request_inference_time_seconds", REQUEST, "Time from a request's first step to its last token in seconds."),
    ("vllm:iteration_tokens_total", ITERATION, "Tokens in a step."),
];

/// Installs the process's recorder of metrics and returns the handle by which they are exported. A process may call
/// this once.
///
/// Errors: a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets, _) in HISTOGRAMS {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).into()), buckets)?;
    }
    let handle = builder.install_recorder()?;
    for (name, _, meaning) in HISTOGRAMS {
        describe_histogram!(*name, *meaning);
    }
    describe_counter!("vllm:prompt_tokens_total", "Prompt tokens processed.");
    describe_counter!("vllm:prompt_tokens_by_source_total", "Prompt tokens by where they came from.");
    describe_counter!("vllm:prompt_tokens_cached_total", "Prompt tokens that were in the cache.");
    describe_counter!("vllm:prefix_cache_queries_total", "Prompt tokens that were looked for in memory.");
    describe_counter!("vllm:prefix_cache_hits_total", "Prompt tokens that were in memory.");
    describe_counter!("vllm:external_prefix_cache_queries_total", "Prompt tokens that were looked for on disk.");
    describe_counter!("vllm:external_prefix_cache_hits_total", "Prompt tokens that came from disk.");
    describe_counter!("vllm:generation_tokens_total", "Tokens generated.");
    describe_counter!("vllm:spec_decode_num_drafts_total", "Drafts that were verified.");
    describe_counter!("vllm:spec_decode_num_draft_tokens_total", "Tokens of drafts.");
    describe_counter!("vllm:spec_decode_num_accepted_tokens_total", "Tokens of drafts that were accepted.");
    describe_counter!(
        "vllm:spec_decode_num_accepted_tokens_per_pos_total",
        "Tokens of drafts that were accepted, by their place in the draft."
    );
    describe_counter!("vllm:request_success_total", "Choices that ended, by reason.");
    describe_counter!("vllm:num_preemptions_total", "Preemptions by the scheduler.");
    describe_gauge!("vllm:num_requests_running", "Sequences in execution.");
    describe_gauge!("vllm:num_requests_waiting", "Sequences waiting to be processed.");
    describe_gauge!("vllm:num_requests_waiting_by_reason", "Sequences waiting to be processed, by what they wait for.");
    describe_gauge!("vllm:engine_sleep_state", "Whether the engine is awake, which it always is.");
    describe_gauge!("vllm:kv_cache_usage_perc", "KV cache usage; 1 is full.");
    describe_gauge!("vllm:gpu_cache_usage_perc", "The older name of kv_cache_usage_perc.");
    describe_gauge!("vllm:cache_config_info", "The KV cache's configuration, as labels.");
    describe_gauge!("tallow_cache_blocks", "Blocks of the KV cache, by state.");
    describe_gauge!("tallow_cache_snapshots", "Snapshots of recurrent states.");
    describe_gauge!("tallow_memory_pressure", "How short of memory the machine is: 0 not, 1 short, 2 critically.");
    describe_counter!("tallow_requests_shed_total", "Requests that were refused for want of memory.");
    Ok(handle)
}

/// The metrics of one model.
pub struct ModelMetrics {
    prompt_tokens: Counter,
    /// Prompt tokens that were computed, those that were in memory, and those that came from disk.
    prompt_tokens_by_source: [Counter; 3],
    prompt_tokens_cached: Counter,
    /// Prompt tokens that were looked for in memory, and those that were there.
    in_memory: [Counter; 2],
    /// Prompt tokens that were not in memory, and those that came from disk.
    on_disk: [Counter; 2],
    generation_tokens: Counter,
    /// Choices that ended, by [`Ending`].
    success: [Counter; 4],
    preemptions: Counter,
    first_token: Histogram,
    token: [Histogram; 2],
    mean_token: Histogram,
    latency: Histogram,
    request_prompt_tokens: Histogram,
    request_computed_tokens: Histogram,
    request_generation_tokens: Histogram,
    request_max_generation_tokens: Histogram,
    params_n: Histogram,
    params_max_tokens: Histogram,
    running: Gauge,
    /// All sequences that wait, and those that wait for place, which are the same.
    waiting: [Gauge; 2],
    cache_usage: [Gauge; 2],
    /// Blocks that are held, cached and free.
    blocks: [Gauge; 3],
    snapshots: Gauge,
    pressure: Gauge,
    /// Requests that were refused for want of memory.
    shed: Counter,
    num_blocks: usize,
}

impl ModelMetrics {
    pub fn new(info: &ModelInfo) -> Self {
        let model = || ("model_name", info.name.clone());
        // vLLM numbers its engines; here there is one.
        let engine = || ("engine", "0".to_owned());
        let with = |key: &'static str, value: &'static str| [model(), engine(), (key, value.to_owned())];
        let counted = |name: &'static str| counter!(name, &[model(), engine()]);
        let timed = |name: &'static str| histogram!(name, &[model(), engine()]);
        let gauged = |name: &'static str| gauge!(name, &[model(), engine()]);
        let success = |reason| counter!("vllm:request_success_total", &with("finished_reason", reason));
        let by_source = |source| counter!("vllm:prompt_tokens_by_source_total", &with("source", source));
        let by_reason = |reason| gauge!("vllm:num_requests_waiting_by_reason", &with("reason", reason));
        // Nothing but place is waited for, and the engine does not sleep.
        by_reason("deferred").set(0.0);
        for (state, is_so) in [("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)] {
            gauge!("vllm:engine_sleep_state", &with("sleep_state", state)).set(is_so);
        }
        let in_state = |state| gauge!("tallow_cache_blocks", &with("state", state));
        tell_cache_config(info);
        ModelMetrics {
            prompt_tokens: counted("vllm:prompt_tokens_total"),
            prompt_tokens_by_source: ["local_compute", "local_cache_hit", "external_kv_transfer"].map(by_source),
            prompt_tokens_cached: counted("vllm:prompt_tokens_cached_total"),
            in_memory: ["vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"].map(counted),
            on_disk: ["vllm:external_prefix_cache_queries_total", "vllm:external_prefix_cache_hits_total"].map(counted),
            generation_tokens: counted("vllm:generation_tokens_total"),
            success: ["stop", "length", "abort", "error"].map(success),
            preemptions: counted("vllm:num_preemptions_total"),
            first_token: timed("vllm:time_to_first_token_seconds"),
            token: ["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"].map(timed),
            mean_token: timed("vllm:request_time_per_output_token_seconds"),
            latency: timed("vllm:e2e_request_latency_seconds"),
            request_prompt_tokens: timed("vllm:request_prompt_tokens"),
            request_computed_tokens: timed("vllm:request_prefill_kv_computed_tokens"),
            request_generation_tokens: timed("vllm:request_generation_tokens"),
            request_max_generation_tokens: timed("vllm:request_max_num_generation_tokens"),
            params_n: timed("vllm:request_params_n"),
            params_max_tokens: timed("vllm:request_params_max_tokens"),
            running: gauged("vllm:num_requests_running"),
            waiting: [gauged("vllm:num_requests_waiting"), by_reason("capacity")],
            cache_usage: ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"].map(gauged),
            blocks: ["held", "cached", "free"].map(in_state),
            snapshots: gauged("tallow_cache_snapshots"),
            pressure: gauged("tallow_memory_pressure"),
            shed: counted("tallow_requests_shed_total"),
            num_blocks: info.num_blocks,
        }
    }

    /// Sets the gauges to the engine's state, and the counters of the cache to what requests have found so far.
    pub fn set_stats(&self, engine: &EngineHandle) {
        let (stats, found) = (engine.stats(), engine.prefixes());
        self.running.set(stats.running as f64);
        self.waiting.iter().for_each(|gauge| gauge.set(stats.waiting as f64));
        let usage = stats.blocks_held as f64 / self.num_blocks.max(1) as f64;
        self.cache_usage.iter().for_each(|gauge| gauge.set(usage));
        self.preemptions.absolute(stats.preemptions);
        for (gauge, blocks) in self.blocks.iter().zip([stats.blocks_held, stats.blocks_cached, stats.blocks_free]) {
            gauge.set(blocks as f64);
        }
        self.snapshots.set(stats.snapshots as f64);
        self.pressure.set(f64::from(stats.pressure as u8));
        self.shed.absolute(engine.num_shed());
        let in_memory = [found.queried, found.from_memory];
        self.in_memory.iter().zip(in_memory).for_each(|(counter, count)| counter.absolute(count));
        // A server without a cache on disk asks none.
        if engine.disk().is_some() {
            let on_disk = [found.queried.saturating_sub(found.from_memory), found.from_archive];
            self.on_disk.iter().zip(on_disk).for_each(|(counter, count)| counter.absolute(count));
        }
    }
}

/// Tells how the cache is configured, in the labels of a gauge.
fn tell_cache_config(info: &ModelInfo) {
    // As Python writes it, which clients of vLLM's look for.
    let prefix_cache = if info.prefix_cache { "True" } else { "False" };
    let labels = [
        ("model_name", info.name.clone()),
        ("engine", "0".to_owned()),
        ("block_size", info.block_size.to_string()),
        ("num_gpu_blocks", info.num_blocks.to_string()),
        ("cache_dtype", info.cache_dtype()),
        ("enable_prefix_caching", prefix_cache.to_owned()),
        ("bytes_per_block", info.bytes_per_block.to_string()),
        ("k_quant", info.k_quant.clone()),
        ("v_quant", info.v_quant.clone()),
    ];
    gauge!("vllm:cache_config_info", &labels).set(1.0);
}

/// Measures one request to the engine by its events. Choices that have not ended when it is dropped count as aborted.
pub struct Meter {
    metrics: Arc<ModelMetrics>,
    submitted: Instant,
    /// Tokens of the prompt that came from disk.
    from_disk: usize,
    choices: Vec<ChoiceMeter>,
}

/// How a choice ended, as an index into `ModelMetrics::success`.
#[derive(Clone, Copy)]
enum Ending {
    Stop,
    Length,
    Abort,
    Error,
}

#[derive(Clone, Default)]
struct ChoiceMeter {
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    tokens: usize,
    ended: bool,
}

impl Meter {
    /// Begins to measure a request that has just been submitted.
    pub fn new(metrics: Arc<ModelMetrics>, n: usize, max_tokens: Option<usize>) -> Self {
        metrics.params_n.record(n as f64);
        if let Some(max_tokens) = max_tokens {
            metrics.params_max_tokens.record(max_tokens as f64);
        }
        Meter { metrics, submitted: Instant::now(), from_disk: 0, choices: vec![ChoiceMeter::default(); n] }
    }

    /// Counts and times one event, which has just come.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Prompt { tokens, cached_tokens, .. } => self.prompt(*tokens, *cached_tokens),
            Event::Delta { choice, .. } => self.token(*choice),
            // Clients of vLLM's metrics know no other name for an answer that calls tools.
            Event::Finished { choice, reason: FinishReason::Stop | FinishReason::ToolCalls, .. } => {
                self.end(*choice, Ending::Stop);
            }
            Event::Finished { choice, reason: FinishReason::Length, .. } => self.end(*choice, Ending::Length),
            Event::Admitted(report) => self.from_disk = report.from_archive,
            Event::Embedded { .. } => self.end_all(Ending::Stop),
            Event::Failed(_) => self.end_all(Ending::Error),
        }
    }

    fn prompt(&self, tokens: usize, cached: usize) {
        let (metrics, computed) = (&self.metrics, tokens.saturating_sub(cached));
        metrics.prompt_tokens.increment(tokens as u64);
        metrics.request_prompt_tokens.record(tokens as f64);
        metrics.request_computed_tokens.record(computed as f64);
        metrics.prompt_tokens_cached.increment(cached as u64);
        let from_disk = self.from_disk.min(cached);
        let by_source = [computed, cached - from_disk, from_disk];
        for (source, tokens) in metrics.prompt_tokens_by_source.iter().zip(by_source) {
            source.increment(tokens as u64);
        }
    }

    fn token(&mut self, choice: usize) {
        let Some(choice) = self.choices.get_mut(choice) else { return };
        let now = Instant::now();
        choice.tokens += 1;
        self.metrics.generation_tokens.increment(1);
        match choice.last_token.replace(now) {
            None => {
                choice.first_token = Some(now);
                self.metrics.first_token.record(now - self.submitted);
            }
            Some(last) => self.metrics.token.iter().for_each(|histogram| histogram.record(now - last)),
        }
    }

    fn end(&mut self, choice: usize, ending: Ending) {
        let Some(choice) = self.choices.get_mut(choice).filter(|c| !c.ended) else { return };
        choice.ended = true;
        self.metrics.success[ending as usize].increment(1);
        self.metrics.latency.record(self.submitted.elapsed());
        self.metrics.request_generation_tokens.record(choice.tokens as f64);
        if let (Some(first), Some(last), 2..) = (choice.first_token, choice.last_token, choice.tokens) {
            self.metrics.mean_token.record((last - first) / (choice.tokens - 1) as u32);
        }
    }

    fn end_all(&mut self, ending: Ending) {
        (0..self.choices.len()).for_each(|choice| self.end(choice, ending));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end_all(Ending::Abort);
        let longest = self.choices.iter().map(|choice| choice.tokens).max();
        self.metrics.request_max_generation_tokens.record(longest.unwrap_or(0) as f64);
    }
}
