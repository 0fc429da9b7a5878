//! The command line. Doc comments of flags are what `--help` prints, so addresses stand in them as users type them.
#![allow(rustdoc::bare_urls)]
use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::KL_LIMIT;
use measure::BundledText;
use serde::Serialize;
use std::path::PathBuf;
use turboquant::{Format, PRESETS, Side};

/// An OpenAI-compatible inference server with a compressed KV cache.
#[derive(Debug, Parser)]
#[command(name = "tallow", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over HTTP
    Serve(ServeArgs),
    /// Tell what serving a model would take of memory, without loading it
    Plan(ServeArgs),
    /// Chat with a model in the terminal
    Chat(ChatArgs),
    /// Measure what each K/V pair costs a model
    Eval(EvalArgs),
    /// Measure how fast a model prefills and decodes with each K/V pair
    Bench(BenchArgs),
    /// Fetch a model from the Hugging Face hub
    Pull(PullArgs),
    /// List, clear or verify what is kept on disk of prompts
    Cache(CacheArgs),
    /// Print the default configuration file
    Config,
}

/// `tallow cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do with what no running server uses
    pub action: CacheAction,
    /// Configuration file; `tallow config` prints the default one
    #[arg(long, value_name = "FILE", env = "TALLOW_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub folder: CacheFolder,
}

/// What `tallow cache` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheAction {
    /// Show prompts with their tokens, sizes and ages
    List,
    /// Delete all
    Clear,
    /// Read all, and delete what is not as it was written
    Verify,
}

/// Where blocks are kept on disk.
#[derive(Debug, Args, Serialize)]
pub struct CacheFolder {
    /// Folder of what is kept on disk of prompts [default: tallow/kv in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub kv_disk_cache_dir: Option<PathBuf>,
}

/// `tallow serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelSettings,
    #[command(flatten)]
    pub kv: KvSettings,
    #[command(flatten)]
    pub step: StepSettings,
    #[command(flatten)]
    pub serving: ServingSettings,
    #[command(flatten)]
    pub folder: CacheFolder,
}

/// `tallow pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// ORG/NAME, or ORG/NAME:QUANT for one GGUF file, such as Qwen/Qwen3-0.6B-GGUF:Q8_0
    pub model: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
}

/// `tallow chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Chat with a server that runs already, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL", conflicts_with = "model")]
    pub url: Option<String>,
    /// System message to begin with
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub model: ModelSettings,
    #[command(flatten)]
    pub kv: KvSettings,
    #[command(flatten)]
    pub step: StepSettings,
    #[command(flatten)]
    pub serving: ServingSettings,
    #[command(flatten)]
    pub folder: CacheFolder,
}

/// `tallow eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Bundled texts to judge: wikitext and code in windows, chat (an agent's conversation in the model's own template)
    /// and document (one long text) whole. With two cores all of them take some 3 minutes for 17M parameters, 12
    /// for 135M, 25 for 0.5B; --pairs all takes three to four times as long
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_values_t = BundledText::ALL)]
    pub texts: Vec<BundledText>,
    /// Judge windows of this text instead
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub text: Option<PathBuf>,
    /// Tokens of windows, for each text that is judged so
    #[arg(long, value_name = "N", default_value_t = 8_192)]
    pub tokens: usize,
    /// Tokens of a window, at most the model's context; each begins anew
    #[arg(long, value_name = "N", default_value_t = 2_048)]
    pub window: usize,
    /// Tokens of the document, at most the model's context
    #[arg(long, value_name = "N", default_value_t = 8_192)]
    pub document_tokens: usize,
    /// What is judged where no flag names a pair
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Pairs::Presets)]
    pub pairs: Pairs,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of bits against KL as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Also ask for pass keys hidden in wikitext or the file, with an f32 cache and the pair that the flags name or
    /// every preset
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
    pub model: ModelSettings,
    #[command(flatten)]
    pub kv: KvSettings,
}

/// What `tallow eval` judges where no flag names a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pairs {
    /// The presets, f16, and llama.cpp's cache types as it stores them
    Presets,
    /// Every pair, plain and centred, and llama.cpp's types, plain and rotated
    All,
}

/// `tallow bench`.
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
    pub model: ModelSettings,
    #[command(flatten)]
    pub kv: KvSettings,
    #[command(flatten)]
    pub step: StepSettings,
}

/// The model that is loaded, and what computes it. Settings are named and documented in `config/default.toml`; a
/// command has the groups that it uses.
#[derive(Debug, Args, Serialize)]
pub struct ModelSettings {
    /// Hugging Face folder, GGUF file, or a model of the hub: ORG/NAME, ORG/NAME:QUANT [default: the bundled demo
    /// model]
    pub model: Option<String>,
    /// Branch, tag or commit of a model of the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Quantise float weights at load: q8_0, q6_k, q4_k [default: as they are]
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
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Configuration file; `tallow config` prints the default one
    #[arg(long, value_name = "FILE", env = "TALLOW_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// How the KV cache is stored.
#[derive(Debug, Args, Serialize)]
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
pub struct StepSettings {
    /// Tokens of one step [default: 512]
    #[arg(long, value_name = "TOKENS")]
    pub max_num_batched_tokens: Option<usize>,
}

/// What serving needs beside a model and its cache: an address, the cache's size, limits on requests.
#[derive(Debug, Args, Serialize)]
pub struct ServingSettings {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,
    /// Port to listen on, 0 for any free one [default: 8000]
    #[arg(long)]
    pub port: Option<u16>,
    /// Key that clients must send as a bearer token
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Origins whose web pages may use the server, such as https://chat.example.com, or * [default: this machine's]
    #[arg(long, value_name = "ORIGIN,..", value_delimiter = ',')]
    pub cors_origin: Option<Vec<String>>,
    /// Names of this server that the public DNS has, .example.com for all below it, or * [default: see `tallow config`]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub allowed_host: Option<Vec<String>>,
    /// Name that clients ask for [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// File with a chat template (Jinja) that takes the place of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<String>,
    /// Read special tokens that clients write in messages as special tokens, not as text [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub chat_special_tokens: Option<bool>,
    /// How the model writes tool calls: hermes, qwen3_coder, llama3_json, pythonic, mistral or deepseek_v3 [default: as
    /// its chat template shows]
    #[arg(long, value_name = "FORMAT")]
    pub tool_call_format: Option<String>,
    /// Longest context in tokens [default: the model's, or what the cache holds]
    #[arg(long, value_name = "TOKENS")]
    pub max_model_len: Option<usize>,
    /// Most tokens of an answer to a request that names no limit [default: up to the context's end]
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens_default: Option<usize>,
    /// Tokens of a cache block, 16 or 32 [default: 32]
    #[arg(long, value_name = "TOKENS")]
    pub block_size: Option<usize>,
    /// Memory of the KV cache, such as 2GiB [default: half of the free memory, or what is enough]
    #[arg(long, value_name = "BYTES")]
    pub kv_cache_memory: Option<String>,
    /// Compute every prompt whole, also where one that began alike has been computed before [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub no_prefix_cache: Option<bool>,
    /// Disk that may hold what was computed of prompts: auto (a tenth of what is free, at most 8 GiB), off, or a size
    /// such as 4GiB [default: auto]
    #[arg(long, value_name = "SIZE")]
    pub kv_disk_cache: Option<String>,
    /// Bytes that are written to that disk in a day at most [default: 20GiB]
    #[arg(long, value_name = "BYTES")]
    pub kv_disk_writes_per_day: Option<String>,
    /// Sequences that run at once [default: 64]
    #[arg(long, value_name = "N")]
    pub max_num_seqs: Option<usize>,
    /// Milliseconds that a step may take which reads prompts while answers are streamed, 0 for no limit [default: 200]
    #[arg(long, value_name = "MS")]
    pub max_step_ms: Option<u64>,
    /// Requests that may wait before new ones get 429 [default: 1024]
    #[arg(long, value_name = "N")]
    pub max_queued_requests: Option<usize>,
    /// Seconds that a connection is kept on which no request comes [default: 120]
    #[arg(long, value_name = "SECONDS")]
    pub keep_alive_timeout: Option<u64>,
    /// Seconds that a client may take for a request's head, and for a pause in its body [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub read_timeout: Option<u64>,
    /// Seconds that a client may take nothing of an answer that is there [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub write_timeout: Option<u64>,
    /// Seconds that running answers get at shutdown [default: 20]
    #[arg(long, value_name = "SECONDS")]
    pub shutdown_timeout: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn flags(command: &str) -> Vec<String> {
        let cli = Cli::command();
        let command = cli.find_subcommand(command).unwrap();
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
    }

    /// What `--help` says of a command is what its list of commands says, not the comment of a group of flags.
    #[test]
    fn every_command_says_what_it_does() {
        let abouts = |command: &str| {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).unwrap();
            (command.get_about().unwrap().to_string(), command.get_long_about().map(ToString::to_string))
        };
        assert_eq!(abouts("serve"), ("Serve a model over HTTP".into(), None));
        assert_eq!(abouts("eval"), ("Measure what each K/V pair costs a model".into(), None));
    }

    /// Each flag that `serve` has and `eval` or `bench` does not is refused there, by its name.
    #[test]
    fn measuring_refuses_what_only_serving_uses() {
        let serving = flags("serve");
        assert!(
            ["host", "port", "api-key", "max-queued-requests"].iter().all(|flag| serving.iter().any(|f| f == flag))
        );
        for command in ["eval", "bench"] {
            let known = flags(command);
            let foreign: Vec<_> = serving.iter().filter(|flag| !known.contains(flag)).collect();
            assert!(foreign.len() >= 10, "{command} takes {known:?}");
            for flag in foreign {
                let error =
                    Cli::try_parse_from(["tallow", command, &format!("--{flag}"), "1"]).unwrap_err().to_string();
                assert!(error.contains(&format!("unexpected argument '--{flag}'")), "{error}");
            }
        }
    }
}
