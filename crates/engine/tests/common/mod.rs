//! Scheduler and model driven step by step, greedily, with every sampled row's logits kept.
#![allow(dead_code)] // each test file uses its part
use attention::{AttentionBackend, Centring, KeyCentring, ModelGeometry};
use candle_core::Device;
use compute::ComputeDevice;
use engine::{
    CentreMode, ChunkNeed, DecodeKernel, DeviceChoice, EngineConfig, LogitsRow, ModelRunner, WeightQuant, cache_layout,
    load, select,
};
use kv::{BlockKey, CacheIdentity, KvLayout};
use metal::{Executor, GpuDevice};
use models::{Checkpoint, LoadOptions};
use scheduler::{Chunk, NewRequest, PrefixReport, PrefixUse, Scheduler, SchedulerConfig, SeqId};
use std::collections::BTreeMap;
use std::sync::Arc;
use turboquant::{Format, KvPair};

/// A small model of every family, and of what a configuration can switch: all folders `models/tiny-NAME`.
pub fn tiny_models() -> Vec<String> {
    let folders = std::fs::read_dir(testkit::repo("models")).expect("the bundled models");
    let names = folders.map(|folder| folder.expect("a folder").file_name().to_string_lossy().into_owned());
    let mut tiny: Vec<String> = names.filter(|name| name.starts_with("tiny-")).collect();
    tiny.sort();
    tiny
}

#[derive(Clone)]
pub struct Setup {
    pub model: String,
    pub k: Format,
    pub v: Format,
    pub centre: CentreMode,
    /// Centre whatever the format, as no flag does.
    pub centre_exact: bool,
    pub num_blocks: usize,
    pub budget: usize,
    pub weight_quant: Option<WeightQuant>,
    /// Computes the model beside attention; `None`: what the engine chooses.
    pub compute: Option<Arc<dyn ComputeDevice>>,
    pub device: DeviceChoice,
    /// Requests use what others have computed of their prompts. For a model with recurrent states: with so many
    /// snapshots.
    pub prefix_cache: Option<usize>,
    /// The most tokens of a draft.
    pub max_draft_tokens: usize,
    /// Only so many tokens of the vocabulary are drawn, its first ones, and at every seventh position the least likely
    /// of them: answers repeat themselves in part, whatever the model. `None`: the likeliest of all.
    pub drawn_tokens: Option<usize>,
}

/// A GPU, for which Candle's CPU device and an executor of its launches stand in.
pub fn emulated(executor: impl Executor + 'static) -> Arc<dyn ComputeDevice> {
    Arc::new(GpuDevice::new(executor, Device::Cpu).unwrap())
}

impl Setup {
    pub fn new(model: &str, k: Format, v: Format) -> Self {
        Setup {
            model: model.into(),
            k,
            v,
            centre: CentreMode::Auto,
            centre_exact: false,
            num_blocks: 400,
            budget: 512,
            weight_quant: None,
            compute: None,
            device: DeviceChoice::Cpu,
            prefix_cache: None,
            max_draft_tokens: 0,
            drawn_tokens: None,
        }
    }
}

/// Everything about one request: tokens drawn, and logits by position of the token they follow.
#[derive(Default, Debug, PartialEq)]
pub struct Trace {
    pub tokens: Vec<u32>,
    /// Bits, so that equality is exact.
    pub logits: BTreeMap<usize, Vec<u32>>,
}

impl Trace {
    pub fn logits_at(&self, position: usize) -> Vec<f32> {
        self.logits[&position].iter().map(|b| f32::from_bits(*b)).collect()
    }
}

pub struct Driver {
    pub scheduler: Scheduler,
    runner: ModelRunner,
    prefix: Option<PrefixUse>,
    /// What was known of each request's prompt.
    reports: BTreeMap<u64, PrefixReport>,
    traces: BTreeMap<SeqId, Trace>,
    drawn_tokens: Option<usize>,
    /// Tokens of drafts, and how many of them were accepted.
    pub drafts: (usize, usize),
    /// Keep the logits of prompt tokens too.
    pub whole: bool,
    /// Ask for the largest logit alone, and keep none.
    pub largest: bool,
}

impl Driver {
    pub fn new(setup: &Setup) -> Self {
        Self::with_backend(setup, |layout, geometry, centring, device| {
            select(layout, geometry, centring, device, DecodeKernel::Mma).unwrap()
        })
    }

    /// With an attention backend of the caller's.
    pub fn with_backend(
        setup: &Setup,
        make: impl FnOnce(KvLayout, &ModelGeometry, Centring, &Device) -> Box<dyn AttentionBackend>,
    ) -> Self {
        let pair = KvPair::new(setup.k, setup.v);
        let Setup { weight_quant, device, .. } = *setup;
        let config = EngineConfig { weight_quant, device, ..EngineConfig::new(testkit::repo(&setup.model)) };
        let mut loaded = load(&config).unwrap();
        if let Some(compute) = &setup.compute {
            let checkpoint = Checkpoint::open(&config.model, config.reading).unwrap();
            loaded.model = models::open(&checkpoint).unwrap().load(compute, &LoadOptions::default()).unwrap().model;
            loaded.device = Arc::clone(compute);
            // What a stand-in measures is not kept for those who use the model.
            loaded.measurements_folder = None;
        }
        let centring = match setup.centre_exact {
            true => {
                let constants = loaded.calibration().constants().unwrap();
                Centring::new(loaded.model.geometry(), &constants, |_| KeyCentring::Exact)
            }
            false => Ok(loaded.calibration().centring(setup.centre, pair).unwrap()),
        };
        let centring = centring.unwrap();
        let model = loaded.model;
        let layout = cache_layout(pair, 16, model.geometry()).unwrap();
        let backend = make(layout, model.geometry(), centring, loaded.device.tensors());
        let max_num_seqs = setup.budget.min(64);
        let has_states = model.state_layout().bytes_per_sequence() > 0;
        let scheduler = Scheduler::new(SchedulerConfig {
            block_size: 16,
            num_blocks: setup.num_blocks,
            max_num_seqs,
            max_num_batched_tokens: setup.budget,
            max_step_time: None,
            max_draft_tokens: setup.max_draft_tokens,
            has_states,
            num_snapshots: setup.prefix_cache.filter(|_| has_states).unwrap_or(0),
        });
        let scheduler = scheduler.unwrap();
        let num_slots = scheduler.num_state_slots();
        let root = BlockKey::root(&CacheIdentity::new([]), "");
        Driver {
            scheduler,
            runner: ModelRunner::new(model, backend, setup.num_blocks, num_slots, loaded.device).unwrap(),
            prefix: setup.prefix_cache.map(|_| PrefixUse { root, salted: false, reuse: true }),
            traces: BTreeMap::new(),
            drawn_tokens: setup.drawn_tokens,
            drafts: (0, 0),
            reports: BTreeMap::new(),
            whole: false,
            largest: false,
        }
    }

    pub fn add(&mut self, key: u64, prompt: &[u32], output: usize) {
        self.add_choices(key, prompt, output, 1);
    }

    /// Adds a request of several choices; choice i goes on from the prompt with the i-th best token.
    pub fn add_choices(&mut self, key: u64, prompt: &[u32], output: usize, choices: u32) {
        let max_len = prompt.len() + output;
        let request =
            NewRequest { key, client: String::new(), prompt: prompt.to_vec(), choices, max_len, prefix: self.prefix };
        self.scheduler.add(request).unwrap();
    }

    pub fn step(&mut self) {
        let step = self.scheduler.schedule();
        for id in step.chunks.iter().map(|chunk| chunk.seq) {
            let report = self.scheduler.sequence(id).and_then(|seq| seq.report()).cloned();
            self.reports.extend(report.map(|report| (id.request, report)));
        }
        let whole = self.whole;
        let need = if whole {
            ChunkNeed::AllLogits
        } else if self.largest {
            ChunkNeed::LargestLogits(1)
        } else {
            ChunkNeed::LastLogits
        };
        let mut logits = self.runner.run(&step, &self.scheduler, |_| need.clone()).unwrap();
        let mut sampled = Vec::new();
        for (at, chunk) in step.chunks.iter().enumerate() {
            let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if whole {
                let trace = self.traces.entry(chunk.seq).or_default();
                let keep = |i, row: &[f32]| drop(trace.logits.insert(chunk.start + i, bits(row)));
                self.runner.each_logits(&logits, at, keep).unwrap();
            }
            if chunk.samples.is_empty() {
                continue;
            }
            self.drafts.0 += chunk.draft.len();
            for place in 0.. {
                let tokens = self.sample(chunk, place, logits.sampled(at, place).unwrap());
                sampled.extend(&tokens);
                if chunk.draft.get(place) != Some(&tokens[0].1) {
                    break;
                }
                self.drafts.1 += 1;
            }
        }
        self.scheduler.update(&step, &sampled);
        let replays = self.scheduler.replays(&step);
        self.runner.replay(&step, &self.scheduler, &logits, &replays).unwrap();
        self.scheduler.check().unwrap();
        for (id, _) in sampled {
            if self.scheduler.sequence(id).is_some_and(|seq| seq.is_full()) {
                self.scheduler.finish(id);
            }
        }
    }

    /// What is drawn from the row that is `place` places behind a chunk's own last one: the largest for its first
    /// choice, the second largest for the second.
    fn sample(&mut self, chunk: &Chunk, place: usize, row: LogitsRow<'_>) -> Vec<(SeqId, u32)> {
        let row = match row {
            LogitsRow::Whole(row) => row,
            LogitsRow::Largest(largest) => {
                let token = largest[0].0;
                self.traces.entry(chunk.seq).or_default().tokens.push(token);
                return vec![(chunk.seq, token)];
            }
        };
        let position = chunk.start + chunk.own_len() - 1 + place;
        let mut best: Vec<u32> = (0..self.drawn_tokens.unwrap_or(row.len()) as u32).collect();
        best.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        if self.drawn_tokens.is_some() && position.is_multiple_of(7) {
            best.reverse();
        }
        let choices = chunk.samples.clone().zip(best).map(|(choice, token)| (SeqId { choice, ..chunk.seq }, token));
        let drawn: Vec<_> = choices.collect();
        for (id, token) in &drawn {
            let trace = self.traces.entry(*id).or_default();
            trace.logits.insert(position, row.iter().map(|x| x.to_bits()).collect());
            trace.tokens.push(*token);
        }
        drawn
    }

    pub fn run(&mut self) {
        while !self.scheduler.is_idle() {
            self.step();
        }
        assert_eq!(self.scheduler.pool().num_held(), 0);
    }

    /// Runs a request alone; what was known of its prompt.
    pub fn report(&mut self, key: u64, prompt: &[u32], output: usize) -> PrefixReport {
        self.add(key, prompt, output);
        self.run();
        self.reports.remove(&key).unwrap()
    }

    pub fn trace(&mut self, key: u64) -> Trace {
        self.choice(key, 0)
    }

    pub fn choice(&mut self, key: u64, choice: u32) -> Trace {
        self.traces.remove(&SeqId { request: key, choice }).unwrap()
    }
}

/// A request alone.
pub fn alone(setup: &Setup, prompt: &[u32], output: usize) -> Trace {
    let mut driver = Driver::new(setup);
    driver.add(0, prompt, output);
    driver.run();
    driver.trace(0)
}
