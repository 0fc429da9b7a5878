//! The command line.
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::path::PathBuf;

/// An OpenAI-compatible inference server with a compressed KV cache.
#[derive(Debug, Parser)]
#[command(name = "tallow", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over HTTP
    Serve(ServeArgs),
    /// Chat with a model in the terminal
    Chat(ChatArgs),
    /// Measure what each K/V pair costs a model
    Eval(EvalArgs),
    /// Measure how fast a model prefills and decodes with each K/V pair
    Bench(BenchArgs),
    /// Fetch a model from the Hugging Face hub
    Pull(PullArgs),
    /// Print the default configuration file
    Config,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// ORG/NAME, or ORG/NAME:QUANT for one GGUF file, such as Qwen/Qwen3-0.6B-GGUF:Q8_0
    pub model: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Chat with a server that runs already, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL", conflicts_with = "model")]
    pub url: Option<String>,
    /// System message to begin with
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Text to judge [default: a part of wikitext-2's test split]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens of it
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub tokens: usize,
    /// Tokens of a window; each begins anew
    #[arg(long, value_name = "N", default_value_t = 2_048)]
    pub window: usize,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of bits against KL as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Also ask for pass keys hidden in the text, with an f32 cache and the pair that the flags name or every preset
    #[arg(long)]
    pub needles: bool,
    /// Lengths of those texts in tokens
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1024, 2048, 4096])]
    pub needle_lengths: Vec<usize>,
    /// Depths at which keys lie, evenly from a text's begin to its end; a text hides four
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub needle_depths: usize,
    /// Texts of each length
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub needle_texts: usize,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Tokens in the cache when decoding begins
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [512, 2048])]
    pub contexts: Vec<usize>,
    /// Sequences that decode together
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 4])]
    pub batches: Vec<usize>,
    /// Decode steps that are timed
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub steps: usize,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of context against decode speed as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags over `config/default.toml`; the names and meanings are its own.
#[derive(Debug, Default, Args, Serialize)]
pub struct EngineArgs {
    /// Hugging Face model folder, GGUF file, or a model of the hub: ORG/NAME, ORG/NAME:QUANT [default: the bundled demo model]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Branch, tag or commit of a model of the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Quantise float weights at load: q8_0, q6_k, q4_k [default: as they are]
    #[arg(long, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_quant: Option<String>,
    /// Configuration file; `tallow config` prints the default one
    #[arg(long, value_name = "FILE", env = "TALLOW_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port to listen on, 0 for any free one [default: 8000]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Key that clients must send as a bearer token
    #[arg(long, value_name = "KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Name that clients ask for [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_model_name: Option<String>,
    /// Longest context in tokens [default: the model's, or what the cache holds]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<usize>,
    /// What computes: auto (the GPU of a Mac, if built for it), cpu, metal [default: auto]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How the KV cache is stored: auto, bf16, transparent, near-lossless, balanced, compact, extreme [default: auto]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_preset: Option<String>,
    /// How keys are stored, over the preset: bf16, f16, f32, tq8, tq5, tq4, tq3, tq2, q8_0, q5_0, q4_0
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k_quant: Option<String>,
    /// How values are stored, over the preset: bf16, f16, f32, tq8, tq5, tq4, tq3, tq2, q8_0, q5_0, q4_0, q3_0, q2_0
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v_quant: Option<String>,
    /// What is taken out of K and V before they are stored: auto, bias, off [default: auto]
    #[arg(long, value_name = "MODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_centre: Option<String>,
    /// Tokens of a cache block, 16 or 32 [default: 32]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// Memory of the KV cache, such as 2GiB [default: half of the free memory, or what is enough]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_memory: Option<String>,
    /// Sequences that run at once [default: 64]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_num_seqs: Option<usize>,
    /// Tokens of one step [default: 512]
    #[arg(long, value_name = "TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_num_batched_tokens: Option<usize>,
    /// Requests that may wait before new ones get 429 [default: 1024]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued_requests: Option<usize>,
    /// CPU threads, 0 for all cores [default: 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Seconds that running answers get at shutdown [default: 20]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<u64>,
}
