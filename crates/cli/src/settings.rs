//! Settings in layers: the embedded default file, a file, the environment, flags.
use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use engine::{DecodeKernel, DeviceChoice, EngineConfig, KvOptions, WeightQuant};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use figment::value::Value;
use serde::{Deserialize, Serialize};
use server::{AllowedHost, CorsOrigin, InvalidSetting};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The documentation of every key.
pub const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// Variables `TALLOW_…` that are not settings: they are read before there are any, or by the engine itself.
const NON_SETTING_VARS: [&str; 3] = ["LOG", "CONFIG", "CACHE_DIR"];

/// Settings that are text, and may be text of digits alone (a test compares them with [`RawSettings`]).
const TEXTS: [&str; 15] = [
    "host",
    "api_key",
    "cors_origin",
    "allowed_host",
    "model",
    "revision",
    "weight_quant",
    "served_model_name",
    "chat_template",
    "device",
    "decode_kernel",
    "kv_preset",
    "k_quant",
    "v_quant",
    "kv_centre",
];

/// Longest of the times, seconds.
const MAX_TIMEOUT: u64 = 24 * 60 * 60;

/// The settings of a command, checked.
#[derive(Debug)]
pub struct Settings {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 for any free one.
    pub port: u16,
    /// The key that clients must send; `None`: no key is asked for.
    pub api_key: Option<String>,
    /// Origins whose web pages may use the server.
    pub cors_origins: Vec<CorsOrigin>,
    /// Names of the server.
    pub allowed_hosts: Vec<AllowedHost>,
    /// A folder, a file or a name of the hub; `None`: the bundled demo model.
    pub model: Option<String>,
    /// Branch, tag or commit of a model of the hub.
    pub revision: String,
    /// How long a connection is kept on which no request comes.
    pub keep_alive_timeout: Duration,
    /// How long a client may take for a request's head, and for a pause in its body.
    pub read_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// How long running answers get at shutdown.
    pub shutdown_timeout: Duration,
    /// What the engine is started with, but for the path of the model, which is known once the model has been fetched.
    pub engine: EngineConfig,
}

/// The settings as the layers spell them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    host: String,
    port: u16,
    api_key: Option<String>,
    cors_origin: TextList,
    allowed_host: TextList,
    model: Option<String>,
    revision: String,
    weight_quant: Option<String>,
    served_model_name: Option<String>,
    chat_template: Option<PathBuf>,
    chat_special_tokens: bool,
    max_model_len: Option<usize>,
    device: String,
    decode_kernel: String,
    kv_preset: String,
    k_quant: Option<String>,
    v_quant: Option<String>,
    kv_centre: String,
    block_size: usize,
    kv_cache_memory: Option<ByteSize>,
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    max_step_ms: u64,
    max_queued_requests: usize,
    threads: usize,
    keep_alive_timeout: u64,
    read_timeout: u64,
    write_timeout: u64,
    shutdown_timeout: u64,
}

/// A list of texts; in the environment one text with commas.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a list of texts, or one text with commas")]
enum TextList {
    List(Vec<String>),
    Joined(String),
}

impl TextList {
    /// What the texts say. `flag` is the flag's name.
    ///
    /// Errors: the first text that says nothing.
    fn parse<T: FromStr<Err = InvalidSetting>>(self, flag: &str) -> Result<Vec<T>> {
        let texts = match self {
            TextList::List(texts) => texts,
            TextList::Joined(text) => text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        };
        texts.iter().map(|text| text.parse().map_err(|e| anyhow::anyhow!("{flag}: {e}"))).collect()
    }
}

impl Settings {
    /// Reads the layers. `config_file` is the file that `--config` names; `flags` is a tuple of the groups of flags
    /// that the command has, `None` where a flag is not given.
    ///
    /// Errors: a file that is missing or wrong, unknown keys, values of a wrong type or wrong whatever the model; each
    /// is named.
    pub fn read(config_file: Option<&Path>, flags: &impl Serialize) -> Result<Self> {
        let mut layers = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = config_file {
            layers = layers.merge(Toml::file_exact(path));
        }
        let environment = Env::prefixed("TALLOW_").ignore(&NON_SETTING_VARS);
        layers = layers.merge(&environment);
        // Figment has made numbers and lists of what looks like them.
        for (key, text) in environment.only(&TEXTS).iter() {
            layers = layers.merge(Serialized::default(key.as_str(), text));
        }
        for group in Value::serialize(flags)?.into_array().unwrap_or_default() {
            let mut given = group.into_dict().unwrap_or_default();
            given.retain(|_, value| !matches!(value, Value::Empty(..)));
            layers = layers.merge(Serialized::defaults(given));
        }
        layers.extract::<RawSettings>().context("the configuration is wrong")?.check()
    }
}

impl RawSettings {
    /// Errors: values that are wrong whatever the model, before one is fetched.
    fn check(self) -> Result<Settings> {
        let seconds = |flag: &str, seconds: u64, least: u64| {
            if !(least..=MAX_TIMEOUT).contains(&seconds) {
                bail!("--{flag}: is {seconds}; it must lie in [{least}, {MAX_TIMEOUT}] (a day)");
            }
            Ok(Duration::from_secs(seconds))
        };
        let shutdown_timeout = seconds("shutdown-timeout", self.shutdown_timeout, 0)?;
        let keep_alive_timeout = seconds("keep-alive-timeout", self.keep_alive_timeout, 1)?;
        let read_timeout = seconds("read-timeout", self.read_timeout, 1)?;
        let write_timeout = seconds("write-timeout", self.write_timeout, 1)?;
        // A header's value comes without the white space around it.
        if self.api_key.as_ref().is_some_and(|key| key.is_empty() || key.trim() != key) {
            bail!(
                "--api-key: is empty or has white space around it, which no client could send; leave it out for a \
                 server without a key"
            );
        }
        let host = listen_host(&self.host)?;
        let (k, v) = (self.k_quant.as_deref(), self.v_quant.as_deref());
        let engine = EngineConfig {
            model: PathBuf::new(),
            kv: KvOptions::parse(&self.kv_preset, k, v, self.block_size, &self.kv_centre)?,
            device: DeviceChoice::parse(&self.device)?,
            decode_kernel: DecodeKernel::parse(&self.decode_kernel)?,
            weight_quant: self.weight_quant.as_deref().map(weight_quant).transpose()?,
            served_model_name: self.served_model_name,
            chat_template: self.chat_template,
            chat_special_tokens: self.chat_special_tokens,
            kv_cache_memory: self.kv_cache_memory.map(|b| b.as_u64()),
            max_model_len: self.max_model_len,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_step_time: Some(Duration::from_millis(self.max_step_ms)).filter(|time| !time.is_zero()),
            max_queued_requests: self.max_queued_requests,
            threads: Some(self.threads).filter(|n| *n > 0),
            load_progress: None,
        };
        engine.check()?;
        Ok(Settings {
            host,
            port: self.port,
            api_key: self.api_key,
            cors_origins: self.cors_origin.parse("--cors-origin")?,
            allowed_hosts: self.allowed_host.parse("--allowed-host")?,
            model: self.model,
            revision: self.revision,
            keep_alive_timeout,
            read_timeout,
            write_timeout,
            shutdown_timeout,
            engine,
        })
    }
}

/// The name or address that `--host` gives. An IPv6 address may stand in brackets, as it does in a URL.
///
/// Errors: a URL, or a port behind the address.
fn listen_host(host: &str) -> Result<String> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_v6 = inner.parse::<Ipv6Addr>().is_ok();
    if !is_v6 && (host.is_empty() || host.contains(['/', ':', '[', ']'])) {
        bail!(
            "--host: is {host:?}; it must be a name or an address alone, such as 127.0.0.1, 0.0.0.0 or ::1, without \
             http:// and with the port in --port"
        );
    }
    Ok(inner.to_owned())
}

fn weight_quant(name: &str) -> Result<WeightQuant> {
    let known = WeightQuant::NAMES.join(", ");
    WeightQuant::parse(name).with_context(|| format!("--weight-quant: is {name}; it must be one of {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use turboquant::{Format, KvPair, PRESETS, Side};

    /// The settings of `tallow serve` with these flags.
    fn read(flags: &[&str]) -> Result<Settings> {
        let cli = Cli::parse_from(["tallow", "serve"].iter().chain(flags));
        let Command::Serve(args) = cli.command else { panic!("serve was asked for") };
        Settings::read(args.model.config.as_deref(), &(&args.model, &args.kv, &args.step, &args.serving))
    }

    fn refusal(flags: &[&str]) -> String {
        format!("{:#}", read(flags).unwrap_err())
    }

    #[test]
    fn flags_beat_the_file() {
        let settings = read(&[]).unwrap();
        assert_eq!((settings.port, settings.engine.kv.named_pair()), (8000, None));
        let settings = read(&["--k-quant", "f16", "--kv-cache-memory", "2GiB", "--port", "9"]).unwrap();
        assert_eq!(settings.engine.kv.named_pair(), Some(KvPair::new(Format::F16, Format::Bf16)));
        assert_eq!((settings.port, settings.engine.kv_cache_memory), (9, Some(2 << 30)));
        let settings = read(&["--chat-special-tokens", "--chat-template", "t.jinja"]).unwrap();
        assert_eq!(settings.engine.chat_template, Some(PathBuf::from("t.jinja")));
        assert!(settings.engine.chat_special_tokens);
    }

    #[test]
    fn settings_that_take_a_text_and_no_number_are_the_texts() {
        let defaults = Figment::from(Toml::string(DEFAULTS));
        let unknown = defaults.clone().merge(("nope", 1)).extract::<RawSettings>().unwrap_err();
        let figment::error::Kind::UnknownField(_, settings) = unknown.kind else { panic!("{unknown}") };
        assert!(settings.len() > TEXTS.len());
        for setting in settings {
            let number = defaults.clone().merge((*setting, 16)).extract::<RawSettings>().is_ok();
            let text = defaults.clone().merge((*setting, "16")).extract::<RawSettings>().is_ok();
            assert_eq!(text && !number, TEXTS.contains(setting), "{setting}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refusal(&["--kv-cache-memory", "lots"]).contains("kv_cache_memory"));
        assert!(refusal(&["--config", "/no/such/file.toml"]).contains("/no/such/file.toml"));
        let error = refusal(&["--k-quant", "q9"]);
        assert!(error.contains("--k-quant") && error.contains("q9") && error.contains("bf16"), "{error}");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_the_file() {
        let path = std::env::temp_dir().join(format!("tallow-settings-{}.toml", std::process::id()));
        for (text, told) in [("max_num_seqs = -1", "max_num_seqs"), ("nope = 1", "nope"), ("port = ", "parse error")] {
            std::fs::write(&path, text).unwrap();
            let error = refusal(&["--config", path.to_str().unwrap()]);
            assert!(error.contains(told) && error.contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_wrong_whatever_the_model_is_named_at_once() {
        let most = usize::MAX.to_string();
        for (flag, value, told) in [
            ("--shutdown-timeout", &*u64::MAX.to_string(), "--shutdown-timeout"),
            ("--read-timeout", "0", "--read-timeout: is 0; it must lie in [1, 86400]"),
            ("--api-key", "", "--api-key: is empty"),
            ("--api-key", "secret\n", "--api-key: is empty or has white space"),
            ("--host", "http://127.0.0.1", "--host: is \"http://127.0.0.1\"; it must be a name or an address alone"),
            ("--host", "127.0.0.1:80", "the port in --port"),
            ("--host", "", "--host: is \"\""),
            ("--cors-origin", "chat.example.com", "--cors-origin: is \"chat.example.com\"; it must be * or an origin"),
            ("--allowed-host", "http://a", "--allowed-host: is \"http://a\"; it must be * or a name"),
            ("--max-num-seqs", "0", "--max-num-seqs is 0"),
            ("--max-num-seqs", &most, "--max-num-seqs"),
            ("--max-num-batched-tokens", "63", "--max-num-batched-tokens is 63"),
            ("--max-queued-requests", "0", "--max-queued-requests: is 0"),
            ("--block-size", "24", "--block-size is 24"),
            ("--threads", "100000", "--threads: is 100000"),
            ("--device", "gpu", "--device: is gpu"),
            ("--decode-kernel", "fast", "--decode-kernel: is fast"),
        ] {
            let message = read(&[flag, value]).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn lists_come_from_flags_and_from_one_text() {
        let settings = read(&["--cors-origin", "https://a.example,http://b.example", "--cors-origin", "null"]).unwrap();
        let origins = ["https://a.example", "http://b.example", "null"].map(|text| text.parse().unwrap());
        assert_eq!(settings.cors_origins, origins);
        let joined: TextList = serde_json::from_str("\"a.example,.b.example\"").unwrap();
        let hosts = ["a.example", ".b.example"].map(|text| text.parse().unwrap());
        assert_eq!(joined.parse::<AllowedHost>("--allowed-host").unwrap(), hosts);
    }

    #[test]
    fn an_address_to_listen_on_may_stand_in_brackets() {
        for (host, listened) in [("[::1]", "::1"), ("::", "::"), ("localhost", "localhost"), ("0.0.0.0", "0.0.0.0")] {
            assert_eq!(read(&["--host", host]).unwrap().host, listened);
        }
    }

    #[test]
    fn weights_are_quantised_to_known_types_alone() {
        let settings = read(&["--weight-quant", "q4_k"]).unwrap();
        assert_eq!(settings.engine.weight_quant, Some(WeightQuant::Q4K));
        let error = read(&["--weight-quant", "q4"]).unwrap_err().to_string();
        assert!(error.contains("--weight-quant") && error.contains("q4_k"), "{error}");
    }

    /// The lists of presets and formats in the file are those of the tables.
    #[test]
    fn the_default_file_lists_every_preset_and_format() {
        let presets: Vec<_> = PRESETS.iter().map(|p| format!("#   {:<14} {}", p.name, p.pair)).collect();
        let formats = Format::all(Side::K).chain(Format::all(Side::V).filter(|f| *f.sides() == [Side::V]));
        let sides = |f: Format| f.sides().iter().map(Side::to_string).collect::<Vec<_>>().join(" ");
        let formats: Vec<_> = formats.map(|f| format!("#   {:<5} {:<4} {}", f.name(), sides(f), f.help())).collect();
        let listed: Vec<_> = DEFAULTS.lines().filter(|line| line.starts_with("#   ")).collect();
        assert_eq!(listed, [presets, formats].concat());
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
        let all: RawSettings = Figment::from(Toml::string(&uncommented)).extract().unwrap();
        assert!(
            all.k_quant.is_some()
                && all.v_quant.is_some()
                && all.api_key.is_some()
                && all.model.is_some()
                && all.weight_quant.is_some()
                && all.served_model_name.is_some()
                && all.chat_template.is_some()
        );
        assert!(all.max_model_len.is_some() && all.kv_cache_memory.is_some());
    }
}
