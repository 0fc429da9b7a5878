//! The settings that are flags, in the groups that commands share. Doc comments are what `--help` prints.
#![allow(rustdoc::bare_urls)]
use super::numbers::{tokens, whole};
use clap::Args;
use engine::KL_LIMIT;
use serde::Serialize;
use std::path::PathBuf;
use turboquant::{Format, PRESETS, Side};

/// The model that is loaded, and what computes it. Settings are named and documented in `config/default.toml`; a
/// command has the groups that it uses.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Model")]
pub struct ModelSettings {
    /// Hugging Face folder, GGUF file, or a model of the hub: ORG/NAME, ORG/NAME:QUANT, or a short name such as
    /// qwen3:4b (`tallow list --known`) [default: the bundled demo model]
    #[arg(value_name = "MODEL", help_heading = "Arguments")]
    pub model: Option<String>,
    /// Branch, tag or commit of a model of the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Quantise float weights at load: q8_0, q6_k, q4_k, iq4_nl [default: as they are]
    #[arg(long, value_name = "TYPE")]
    pub weight_quant: Option<String>,
    /// Read weights into memory at start instead of mapping their files
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub no_mmap: Option<bool>,
    /// What computes: auto (the GPU of a Mac, if built for it), cpu, metal [default: auto]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Kernel of a GPU's decode steps: mma, whose bits are those of prefill, or vec [default: mma]
    #[arg(long, value_name = "NAME")]
    pub decode_kernel: Option<String>,
    /// Products of steps with one or two rows on a GPU: exact, whose bits do not depend on what else is computed; fast,
    /// a kernel for few rows; auto, fast where exact makes a step a tenth slower [default: auto]
    #[arg(long, value_name = "NAME")]
    pub gpu_products: Option<String>,
    /// CPU threads, 0 for all cores [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub threads: Option<usize>,
    /// Configuration file; `tallow config` prints the default one
    #[arg(long, value_name = "FILE", env = "TALLOW_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// How the KV cache is stored.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "KV cache")]
pub struct KvSettings {
    #[arg(long, value_name = "NAME", help = preset_help())]
    pub kv_preset: Option<String>,
    #[arg(long, value_name = "FORMAT", help = format_help(Side::K))]
    pub k_quant: Option<String>,
    #[arg(long, value_name = "FORMAT", help = format_help(Side::V))]
    pub v_quant: Option<String>,
    /// What is done to keys so that less of them is lost, undone exactly in attention. auto: their measured mean is
    /// subtracted and pairs of elements are scaled by what queries ask of them; bias: the bias of the model's keys is
    /// subtracted; off: nothing [default: auto]
    #[arg(long, value_name = "MODE")]
    pub kv_centre: Option<String>,
}

fn preset_help() -> String {
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let smallest = PRESETS.iter().rfind(|preset| preset.auto).map_or("", |preset| preset.name);
    format!(
        "How the KV cache is stored: auto, {}. auto: the least lossy, down to {smallest}, that holds the context, but \
         none whose KL on this model is known to be above {KL_LIMIT} nats [default: auto]",
        names.join(", ")
    )
}

fn format_help(side: Side) -> String {
    let vectors = if side == Side::K { "keys" } else { "values" };
    format!("How {vectors} are stored, over the preset: {}", Format::names(side).collect::<Vec<_>>().join(", "))
}

/// How large a step is.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Batching")]
pub struct StepSettings {
    /// Tokens of one step [default: 512]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<usize>)]
    pub max_num_batched_tokens: Option<usize>,
}

/// What serving needs beside a model and its cache.
#[derive(Debug, Args, Serialize)]
pub struct ServingSettings {
    #[command(flatten)]
    #[serde(flatten)]
    memory: MemorySettings,
    #[command(flatten)]
    #[serde(flatten)]
    answers: AnswerSettings,
    #[command(flatten)]
    #[serde(flatten)]
    batching: BatchSettings,
    #[command(flatten)]
    #[serde(flatten)]
    network: NetworkSettings,
}

/// How much memory is taken, and for how long a context.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Memory")]
struct MemorySettings {
    /// Longest context in tokens, such as 32768 or 32k [default: the model's, or what the cache holds]
    #[arg(long, visible_alias = "context", value_name = "TOKENS", value_parser = tokens)]
    max_model_len: Option<usize>,
    /// Memory that the server may take in all, weights included, such as 6GiB [default: what is free, of which
    /// the cache takes half at most]
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory of the KV cache, such as 2GiB [default: half of the free memory, or what is enough]
    #[arg(long, value_name = "BYTES")]
    kv_cache_memory: Option<String>,
    /// Tokens of a cache block, 16 or 32 [default: 32]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<usize>)]
    block_size: Option<usize>,
    /// Compute every prompt whole, also where one that began alike has been computed before [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    no_prefix_cache: Option<bool>,
    /// Disk that may hold what was computed of prompts: auto (a tenth of what is free, at most 8 GiB), off, or a size
    /// such as 4GiB [default: auto]
    #[arg(long, value_name = "SIZE")]
    kv_disk_cache: Option<String>,
    /// Bytes that are written to that disk in a day at most [default: 20GiB]
    #[arg(long, value_name = "BYTES")]
    kv_disk_writes_per_day: Option<String>,
}

/// What clients ask for, and how conversations become prompts.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Answers")]
struct AnswerSettings {
    /// Name that clients ask for [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// File with a chat template (Jinja) that takes the place of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<String>,
    /// Read special tokens that clients write in messages as special tokens, not as text [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    chat_special_tokens: Option<bool>,
    /// How the model writes tool calls: hermes, qwen3_coder, llama3_json, pythonic, mistral or deepseek_v3 [default: as
    /// its chat template shows]
    #[arg(long, value_name = "FORMAT")]
    tool_call_format: Option<String>,
    /// Most tokens of an answer to a request that names no limit [default: up to the context's end]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<usize>)]
    max_tokens_default: Option<usize>,
}

/// How many requests are computed at once.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Batching")]
struct BatchSettings {
    /// Sequences that run at once [default: 64, or fewer where a model's recurrent states take much memory]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    max_num_seqs: Option<usize>,
    /// Milliseconds that a step may take which reads prompts while answers are streamed, 0 for no limit [default: 200]
    #[arg(long, value_name = "MS", value_parser = whole::<u64>)]
    max_step_ms: Option<u64>,
    /// Requests that may wait before new ones get 429 [default: 1024]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    max_queued_requests: Option<usize>,
    /// Most tokens that are drafted from a request's own tokens and verified in one step, or off [default: 16]
    #[arg(long, value_name = "off|N")]
    speculate: Option<String>,
}

/// Where the server listens, and to whom.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Network")]
struct NetworkSettings {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on, 0 for any free one [default: 8000]
    #[arg(long)]
    port: Option<u16>,
    /// Key that clients must send as a bearer token
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Origins whose web pages may use the server, such as https://chat.example.com, or * [default: this machine's]
    #[arg(long, value_name = "ORIGIN,..", value_delimiter = ',')]
    cors_origin: Option<Vec<String>>,
    /// Names of this server that the public DNS has, .example.com for all below it, or * [default: see `tallow config`]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    allowed_host: Option<Vec<String>>,
    /// Seconds that a connection is kept on which no request comes [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>)]
    keep_alive_timeout: Option<u64>,
    /// Seconds that a client may take for a request's head, and for a pause in its body [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>)]
    read_timeout: Option<u64>,
    /// Seconds that a client may take nothing of an answer that is there [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>)]
    write_timeout: Option<u64>,
    /// Seconds that running answers get at shutdown [default: 20]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>)]
    shutdown_timeout: Option<u64>,
}

/// Several models behind one address, each a process of its own.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Several models")]
pub struct SeveralModels {
    /// Further models behind the same address. Each has a process of its own, which the first request that names the
    /// model starts, and which ends when another model needs its memory
    #[arg(value_name = "MORE", help_heading = "Arguments")]
    #[serde(skip)]
    pub more: Vec<String>,
    /// Serve every GGUF file and every model folder in this folder
    #[arg(long, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// Unload a model that has not been used for so long, such as 90s, 30m or 2h [default: when its memory is needed]
    #[arg(long, value_name = "DURATION")]
    idle_unload: Option<String>,
    /// Serve as one of several models' processes: standard input has the key and ends when the process is to end,
    /// standard output is told the address
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub behind_front: bool,
}

/// Where blocks are kept on disk.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Memory")]
pub struct CacheFolder {
    /// Folder of what is kept on disk of prompts [default: tallow/kv in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub kv_disk_cache_dir: Option<PathBuf>,
}
