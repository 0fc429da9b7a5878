//! Settings in layers: the embedded default file, a file, the environment, flags.
use crate::args::EngineArgs;
use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use engine::{DeviceChoice, EngineConfig, KvFlags, WeightQuant};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::Deserialize;
use std::path::PathBuf;

/// The documentation of every key.
pub const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// Variables `TALLOW_…` that are no settings: read before there are any, or by the engine itself.
const UNSETTLED: [&str; 3] = ["LOG", "CONFIG", "CACHE_DIR"];

/// Settings that are text, and may be text of digits alone (a test compares them with `Settings`).
const TEXTS: [&str; 11] = [
    "host",
    "api_key",
    "model",
    "revision",
    "weight_quant",
    "served_model_name",
    "device",
    "kv_preset",
    "k_quant",
    "v_quant",
    "kv_centre",
];

/// Seconds.
const MAX_SHUTDOWN: u64 = 24 * 60 * 60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    pub api_key: Option<String>,
    pub model: Option<String>,
    pub revision: String,
    pub weight_quant: Option<String>,
    pub served_model_name: Option<String>,
    pub max_model_len: Option<usize>,
    pub device: String,
    pub kv_preset: String,
    pub k_quant: Option<String>,
    pub v_quant: Option<String>,
    pub kv_centre: String,
    pub block_size: usize,
    pub kv_cache_memory: Option<ByteSize>,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: usize,
    pub max_queued_requests: usize,
    pub threads: usize,
    pub shutdown_timeout: u64,
}

impl Settings {
    /// Errors: a file that is missing or wrong, unknown keys, values of a wrong type or wrong whatever the model; each is named.
    pub fn read(args: &EngineArgs) -> Result<Self> {
        let mut layers = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = &args.config {
            layers = layers.merge(Toml::file_exact(path));
        }
        let environment = Env::prefixed("TALLOW_").ignore(&UNSETTLED);
        layers = layers.merge(&environment);
        // Figment has made numbers and lists of what looks like them.
        for (key, text) in environment.only(&TEXTS).iter() {
            layers = layers.merge(Serialized::default(key.as_str(), text));
        }
        let layers = layers.merge(Serialized::defaults(args));
        let settings: Self = layers.extract().context("the configuration is wrong")?;
        settings.check()?;
        Ok(settings)
    }

    pub fn kv(&self) -> Result<KvFlags> {
        let (k, v) = (self.k_quant.as_deref(), self.v_quant.as_deref());
        Ok(KvFlags::parse(&self.kv_preset, k, v, self.block_size, &self.kv_centre)?)
    }

    /// Errors: values that are wrong whatever the model, before one is fetched.
    fn check(&self) -> Result<()> {
        if self.shutdown_timeout > MAX_SHUTDOWN {
            bail!("--shutdown-timeout: is {}; it must be at most {MAX_SHUTDOWN} (a day)", self.shutdown_timeout);
        }
        // A header's value comes without the white space around it.
        if self.api_key.as_ref().is_some_and(|key| key.is_empty() || key.trim() != key) {
            bail!(
                "--api-key: is empty or has white space around it, which no client could send; leave it out for a server without a key"
            );
        }
        Ok(self.engine(PathBuf::new())?.check()?)
    }

    fn weight_quant(&self) -> Result<Option<WeightQuant>> {
        let parse = |name: &String| {
            let known = WeightQuant::NAMES.join(", ");
            WeightQuant::parse(name).with_context(|| format!("--weight-quant: is {name}; it must be one of {known}"))
        };
        self.weight_quant.as_ref().map(parse).transpose()
    }

    /// What the engine is started with; `model` is the folder or file to load.
    pub fn engine(&self, model: PathBuf) -> Result<EngineConfig> {
        Ok(EngineConfig {
            model,
            served_model_name: self.served_model_name.clone(),
            kv: self.kv()?,
            kv_cache_memory: self.kv_cache_memory.map(|b| b.as_u64()),
            max_model_len: self.max_model_len,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_queued_requests: self.max_queued_requests,
            device: DeviceChoice::parse(&self.device)?,
            threads: Some(self.threads).filter(|n| *n > 0),
            weight_quant: self.weight_quant()?,
            load_progress: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_beat_the_file() {
        let settings = Settings::read(&EngineArgs::default()).unwrap();
        assert_eq!((settings.port, settings.k_quant), (8000, None));
        let args =
            EngineArgs { k_quant: Some("f16".into()), kv_cache_memory: Some("2GiB".into()), ..Default::default() };
        let settings = Settings::read(&args).unwrap();
        assert_eq!(settings.k_quant.as_deref(), Some("f16"));
        assert_eq!(settings.engine("x".into()).unwrap().kv_cache_memory, Some(2 << 30));
    }

    #[test]
    fn settings_that_refuse_a_number_are_the_texts() {
        let defaults = Figment::from(Toml::string(DEFAULTS));
        let unknown = defaults.clone().merge(("nope", 1)).extract::<Settings>().unwrap_err();
        let figment::error::Kind::UnknownField(_, settings) = unknown.kind else { panic!("{unknown}") };
        assert!(settings.len() > TEXTS.len());
        for setting in settings {
            let refused = defaults.clone().merge((*setting, 16)).extract::<Settings>().is_err();
            assert_eq!(refused, TEXTS.contains(setting), "{setting}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let args = EngineArgs { kv_cache_memory: Some("lots".into()), ..Default::default() };
        let error = format!("{:#}", Settings::read(&args).unwrap_err());
        assert!(error.contains("kv_cache_memory"), "{error}");
        let args = EngineArgs { config: Some("/no/such/file.toml".into()), ..Default::default() };
        assert!(format!("{:#}", Settings::read(&args).unwrap_err()).contains("/no/such/file.toml"));
        let args = EngineArgs { k_quant: Some("q9".into()), ..Default::default() };
        let error = format!("{:#}", Settings::read(&args).unwrap_err());
        assert!(error.contains("--k-quant") && error.contains("q9") && error.contains("bf16"), "{error}");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_the_file() {
        let path = std::env::temp_dir().join(format!("tallow-settings-{}.toml", std::process::id()));
        for (text, told) in [("max_num_seqs = -1", "max_num_seqs"), ("nope = 1", "nope"), ("port = ", "parse error")] {
            std::fs::write(&path, text).unwrap();
            let args = EngineArgs { config: Some(path.clone()), ..Default::default() };
            let error = format!("{:#}", Settings::read(&args).unwrap_err());
            assert!(error.contains(told) && error.contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_wrong_whatever_the_model_is_named_at_once() {
        let none = EngineArgs::default;
        for (args, told) in [
            (EngineArgs { shutdown_timeout: Some(u64::MAX), ..none() }, "--shutdown-timeout"),
            (EngineArgs { api_key: Some(String::new()), ..none() }, "--api-key: is empty"),
            (EngineArgs { api_key: Some("secret\n".into()), ..none() }, "--api-key: is empty or has white space"),
            (EngineArgs { max_num_seqs: Some(0), ..none() }, "--max-num-seqs is 0"),
            (EngineArgs { max_num_seqs: Some(usize::MAX), ..none() }, "--max-num-seqs"),
            (EngineArgs { max_num_batched_tokens: Some(63), ..none() }, "--max-num-batched-tokens is 63"),
            (EngineArgs { max_queued_requests: Some(0), ..none() }, "--max-queued-requests: is 0"),
            (EngineArgs { block_size: Some(24), ..none() }, "--block-size is 24"),
            (EngineArgs { threads: Some(100_000), ..none() }, "--threads: is 100000"),
            (EngineArgs { device: Some("gpu".into()), ..none() }, "--device: is gpu"),
        ] {
            let message = Settings::read(&args).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn weights_are_quantised_to_known_types_alone() {
        let engine = |name: &str| {
            let args = EngineArgs { weight_quant: Some(name.into()), ..Default::default() };
            Settings::read(&args)?.engine("x".into())
        };
        assert_eq!(engine("q4_k").unwrap().weight_quant, Some(WeightQuant::Q4K));
        let error = engine("q4").unwrap_err().to_string();
        assert!(error.contains("--weight-quant") && error.contains("q4_k"), "{error}");
    }

    /// Every key of the file is a setting, and the commented ones are too.
    #[test]
    fn the_default_file_documents_every_setting() {
        let uncommented: String = DEFAULTS
            .lines()
            .map(|l| {
                l.strip_prefix("# ").filter(|l| l.split_once(" = ").is_some_and(|(k, _)| !k.contains(' '))).unwrap_or(l)
            })
            .map(|l| format!("{l}\n"))
            .collect();
        let all: Settings = Figment::from(Toml::string(&uncommented)).extract().unwrap();
        assert!(
            all.k_quant.is_some()
                && all.v_quant.is_some()
                && all.api_key.is_some()
                && all.model.is_some()
                && all.weight_quant.is_some()
                && all.served_model_name.is_some()
        );
        assert!(all.max_model_len.is_some() && all.kv_cache_memory.is_some());
    }
}
