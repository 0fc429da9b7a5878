//! The flags of `eval` and `bench`. Doc comments are what `--help` prints.
use super::numbers::{tokens, whole};
use super::{KvSettings, ModelSettings, StepSettings};
use clap::{Args, ValueEnum};
use measure::BundledText;
use std::path::PathBuf;

/// `tallow eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Bundled texts to judge: wikitext and code in windows, chat (an agent's conversation in the model's own template)
    /// and document (one long text) whole. With two cores all of them take some 3 minutes for 17M parameters, 12
    /// for 135M, 25 for 0.5B; --pairs all takes three to four times as long
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_values_t = BundledText::ALL,
        value_parser = text)]
    pub texts: Vec<BundledText>,
    /// Judge windows of this text instead
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub text: Option<PathBuf>,
    /// Tokens of windows, for each text that is judged so
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = whole::<usize>)]
    pub tokens: usize,
    /// Tokens of a window, at most the model's context; each begins anew
    #[arg(long, value_name = "N", default_value_t = 2_048, value_parser = whole::<usize>)]
    pub window: usize,
    /// Tokens of the document, at most the model's context
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = whole::<usize>)]
    pub document_tokens: usize,
    /// What is judged where no flag names a pair
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Pairs::Presets)]
    pub pairs: Pairs,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of bits against KL, as SVG or, in a file whose name ends in .png, as PNG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Also ask for pass keys hidden in wikitext or the file, with an f32 cache and the pair that the flags name or
    /// every preset
    #[arg(long)]
    pub needles: bool,
    /// Lengths of those texts in tokens
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1024, 2048, 4096])]
    #[arg(value_parser = whole::<usize>)]
    pub needle_lengths: Vec<usize>,
    /// Depths at which keys lie, evenly from a text's begin to its end; a text hides four
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<usize>)]
    pub needle_depths: usize,
    /// Texts of each length
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<usize>)]
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

fn text(name: &str) -> Result<BundledText, String> {
    name.parse().map_err(|error| match crate::nearest(name, BundledText::ALL.iter().map(|text| text.name())) {
        Some(near) => format!("{error}; did you mean {near}?"),
        None => error,
    })
}

/// `tallow bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Tokens in the cache when decoding begins
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [512, 2048], value_parser = tokens)]
    pub contexts: Vec<usize>,
    /// Sequences that decode together
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 4], value_parser = whole::<usize>)]
    pub batches: Vec<usize>,
    /// Decode steps that are timed
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<usize>)]
    pub steps: usize,
    /// How often all is measured; the spread of the rounds is told beside their median
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole::<usize>)]
    pub rounds: usize,
    /// Tell how many times as fast as in an earlier run, of which this file is the --json, and with what spread
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of context against decode speed, as SVG or, in a file whose name ends in .png, as PNG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelSettings,
    #[command(flatten)]
    pub kv: KvSettings,
    #[command(flatten)]
    pub step: StepSettings,
}
