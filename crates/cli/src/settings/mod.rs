//! Settings in layers: the embedded default file, a file, the environment, flags.
mod environment;
mod keys;
mod values;

use anyhow::{Context, Error, Result, bail};
use bytesize::ByteSize;
use engine::{DecodeKernel, DeviceChoice, EngineConfig, KvOptions, Reading, WeightQuant};
use environment::{PREFIX, Variables};
use figment::Figment;
use figment::Provider as _;
use figment::providers::{Format as _, Toml};
use figment::value::Value;
use keys::{Origin, Origins, line_of};
use serde::{Deserialize, Serialize};
use server::{AllowedHost, CorsOrigin};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use values::{OneSetting, TextList, not_empty};

/// The documentation of every key.
pub const DEFAULTS: &str = include_str!("../../../../config/default.toml");

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
    /// Where each value came from.
    origins: Origins,
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
    no_mmap: bool,
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

impl Settings {
    /// Reads the layers. `config_file` is the file that `--config` names; `flags` is a tuple of the groups of flags
    /// that the command has, `None` where a flag is not given.
    ///
    /// Errors: a file that is missing or wrong, unknown keys, values of a wrong type or wrong whatever the model; each
    /// is named.
    pub fn read(config_file: Option<&Path>, flags: &impl Serialize) -> Result<Self> {
        let mut layers = Figment::from(Toml::string(DEFAULTS));
        let mut origins = Origins::default();
        if let Some(path) = config_file.filter(|path| !path.as_os_str().is_empty()) {
            let named = || format!("the configuration file {} (--config, {PREFIX}CONFIG)", path.display());
            let text = std::fs::read_to_string(path).with_context(named)?;
            // The message of a syntax error is of several lines, the first of which tells line and column.
            let data = Toml::string(&text).data().map_err(|error| Error::msg(error.kind).context(named()))?;
            for (key, value) in data.into_values().flatten() {
                origins.set(&key, Origin::File(path.to_owned(), line_of(&text, &key)));
                layers = layers.merge(OneSetting(key, value));
            }
        }
        let variables = Variables::of(std::env::vars_os());
        if let Some(warning) = variables.warning() {
            tracing::warn!("{warning}");
        }
        for (key, text) in variables.settings {
            origins.set(&key, Origin::Variable(format!("{PREFIX}{}", key.to_uppercase())));
            layers = layers.merge(OneSetting::of_text(key, text));
        }
        for group in Value::serialize(flags)?.into_array().unwrap_or_default() {
            for (key, value) in group.into_dict().unwrap_or_default() {
                if !matches!(value, Value::Empty(..)) {
                    origins.set(&key, Origin::Flag);
                    layers = layers.merge(OneSetting(key, value));
                }
            }
        }
        let raw = layers.extract::<RawSettings>().map_err(|errors| origins.explain_layers(errors))?;
        match raw.check() {
            Ok(settings) => Ok(Settings { origins, ..settings }),
            Err(error) => Err(origins.explain(error)),
        }
    }

    /// An error that names a flag, with the file or the variable that the flag's value came from.
    pub fn explain(&self, error: impl Into<Error>) -> Error {
        self.origins.explain(error)
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
        // A header's value has no control characters, and comes without the white space around it.
        let unsendable = |key: &String| key.is_empty() || key.trim() != key || key.contains(char::is_control);
        if self.api_key.as_ref().is_some_and(unsendable) {
            bail!(
                "--api-key: is empty, or has control characters or white space around it, which no client could send; \
                 leave it out for a server without a key"
            );
        }
        not_empty("model", self.model.as_deref())?;
        not_empty("--served-model-name", self.served_model_name.as_deref())?;
        not_empty("--chat-template", self.chat_template.as_ref().and_then(|path| path.to_str()))?;
        let host = listen_host(&self.host)?;
        let (k, v) = (self.k_quant.as_deref(), self.v_quant.as_deref());
        let engine = EngineConfig {
            model: PathBuf::new(),
            kv: KvOptions::parse(&self.kv_preset, k, v, self.block_size, &self.kv_centre)?,
            device: DeviceChoice::parse(&self.device)?,
            decode_kernel: DecodeKernel::parse(&self.decode_kernel)?,
            weight_quant: self.weight_quant.as_deref().map(weight_quant).transpose()?,
            reading: if self.no_mmap { Reading::InMemory } else { Reading::Mapped },
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
            origins: Origins::default(),
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
    use keys::{KEYS, ValueKind};
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
    fn the_kinds_of_settings_are_those_of_their_fields() {
        let defaults = Figment::from(Toml::string(DEFAULTS));
        let unknown = defaults.clone().merge(("nope", 1)).extract::<RawSettings>().unwrap_err();
        let figment::error::Kind::UnknownField(_, settings) = unknown.kind else { panic!("{unknown}") };
        assert_eq!(settings.to_vec(), KEYS.map(|(key, _)| key));
        for (key, kind) in KEYS {
            let refused = |value: Value| defaults.clone().merge((key, value)).extract::<RawSettings>().is_err();
            assert_eq!(
                refused(16.into()),
                [ValueKind::Text, ValueKind::Switch, ValueKind::Texts].contains(&kind),
                "{key}"
            );
            assert_eq!(refused(true.into()), kind != ValueKind::Switch, "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = refusal(&["--kv-cache-memory", "lots"]);
        assert_eq!(error, "--kv-cache-memory: is \"lots\"; it must be a number of bytes, such as 2147483648 or 2GiB");
        assert!(refusal(&["--config", "/no/such/file.toml"]).contains("/no/such/file.toml"));
        let error = refusal(&["--k-quant", "q9"]);
        assert!(error.contains("--k-quant") && error.contains("q9") && error.contains("bf16"), "{error}");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_file_and_line() {
        let path = std::env::temp_dir().join(format!("tallow-settings-{}.toml", std::process::id()));
        let file = path.to_str().unwrap();
        for (text, told) in [
            ("\nmax_num_seqs = -1", ", line 2: max_num_seqs is -1; it must be a whole number that is not negative"),
            ("# none\n\nmax_num_seq = 1", ", line 3: max_num_seq is no setting; did you mean max_num_seqs?"),
            ("[kv]\npreset = 1", ", line 1: kv is no setting"),
            ("host = 1", ", line 1: host is 1; it must be text"),
            ("port = 65536", ", line 1: port is 65536; it must be a whole number from 0 to 65535"),
            ("host = \"h\"\nblock_size = 24", ", line 2: --block-size is 24"),
            ("port = ", " (--config, TALLOW_CONFIG): TOML parse error at line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = refusal(&["--config", file]);
            assert!(error.contains(&format!("{file}{told}")), "{error}");
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
            ("--api-key", "secret\n", "control characters or white space around it"),
            ("--api-key", "a\nb", "control characters"),
            ("--served-model-name", "", "--served-model-name: is empty"),
            ("--chat-template", "", "--chat-template: is empty"),
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
    fn weights_are_mapped_unless_that_is_switched_off() {
        let reading = |flags: &[&str]| read(flags).unwrap().engine.reading;
        assert_eq!(reading(&[]), Reading::Mapped);
        assert_eq!(reading(&["--no-mmap"]), Reading::InMemory);
        assert_eq!(reading(&["--no-mmap=false"]), Reading::Mapped);
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
