//! Settings in layers: the embedded default file, a file, the environment, flags.
mod environment;
mod keys;
#[cfg(test)]
mod tests;
mod values;

use crate::args::{ServeArgs, ServeCommand};
use crate::text_file::read_text;
use anyhow::{Context, Error, Result, bail};
use bytesize::ByteSize;
use engine::{
    CentreMode, DecodeKernel, DeviceChoice, DiskLimit, DiskOptions, EngineConfig, GpuProducts, KvOptions,
    PressureSource, Reading, WeightQuant,
};
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
use turboquant::PRESETS;
use values::{OneSetting, TextList, draft_tokens, duration, flag_text, not_empty, one_of, tool_call_format};

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
    /// A folder whose models are all served.
    pub models_dir: Option<PathBuf>,
    /// How long one of several models stays loaded that nobody asks; `None`: until its memory is needed.
    pub idle_unload: Option<Duration>,
    /// Whether this process is one of several models' (`--behind-front`).
    pub behind_front: bool,
    /// The most tokens of an answer to a request that names no limit; `None`: up to the context's end.
    pub max_tokens_default: Option<usize>,
    /// How long a connection is kept on which no request comes.
    pub keep_alive_timeout: Duration,
    /// How long a client may take for a request's head, and for a pause in its body.
    pub read_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// How long running answers get at shutdown.
    pub shutdown_timeout: Duration,
    /// Where blocks are kept on disk, if they are; `None` where this user has no cache folder.
    pub disk_cache_dir: Option<PathBuf>,
    /// What the engine is started with, but for the path of the model, which is known once the model has been fetched.
    pub engine: EngineConfig,
    /// The configuration file.
    pub config_file: Option<PathBuf>,
    /// The settings that are given as flags, as their keys and values.
    pub flags: Vec<(String, String)>,
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
    models_dir: Option<PathBuf>,
    idle_unload: Option<String>,
    weight_quant: Option<String>,
    no_mmap: bool,
    served_model_name: Option<String>,
    chat_template: Option<PathBuf>,
    chat_special_tokens: bool,
    tool_call_format: Option<String>,
    max_model_len: Option<usize>,
    max_tokens_default: Option<usize>,
    device: String,
    decode_kernel: String,
    gpu_products: String,
    kv_preset: String,
    k_quant: Option<String>,
    v_quant: Option<String>,
    kv_centre: String,
    block_size: usize,
    memory: Option<ByteSize>,
    kv_cache_memory: Option<ByteSize>,
    no_prefix_cache: bool,
    kv_disk_cache: String,
    kv_disk_cache_dir: Option<PathBuf>,
    kv_disk_writes_per_day: ByteSize,
    max_num_seqs: Option<usize>,
    max_num_batched_tokens: usize,
    max_step_ms: u64,
    speculate: String,
    max_queued_requests: usize,
    threads: usize,
    keep_alive_timeout: u64,
    read_timeout: u64,
    write_timeout: u64,
    shutdown_timeout: u64,
}

impl Settings {
    /// The settings of a server.
    ///
    /// Errors: those of [`Self::read`].
    pub fn of_serving(args: &ServeArgs) -> Result<Self> {
        let flags = (&args.model, &args.kv, &args.step, &args.serving, &args.folder);
        Self::read(args.model.config.as_deref(), &flags)
    }

    /// The settings of a server of one model or several.
    ///
    /// Errors: those of [`Self::read`].
    pub fn of_command(args: &ServeCommand) -> Result<Self> {
        let ServeCommand { serve, several } = args;
        let flags = (&serve.model, &serve.kv, &serve.step, &serve.serving, &serve.folder, several);
        let settings = Self::read(serve.model.config.as_deref(), &flags)?;
        let mut settings = Settings { behind_front: several.behind_front, ..settings };
        settings.engine.context_is_cap = settings.behind_front || settings.names_several(&several.more);
        Ok(settings)
    }

    /// Whether several models are to be served, or models that come and go, with `more` of them beside the one that the
    /// settings name.
    pub fn names_several(&self, more: &[String]) -> bool {
        !more.is_empty() || self.models_dir.is_some() || self.idle_unload.is_some()
    }

    /// Reads the layers. `config_file` is the file that `--config` names; `flags` is a tuple of the groups of flags
    /// that the command has, `None` where a flag is not given.
    ///
    /// Errors: a file that is missing or wrong, unknown keys, values of a wrong type or wrong whatever the model; each
    /// is named.
    pub fn read(config_file: Option<&Path>, flags: &impl Serialize) -> Result<Self> {
        let mut layers = Figment::from(Toml::string(DEFAULTS));
        let mut origins = Origins::default();
        let config_file = config_file.filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = config_file {
            let named = || format!("the configuration file {} (--config, {PREFIX}CONFIG)", path.display());
            let text = read_text(path).with_context(named)?;
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
        let mut given = Vec::new();
        for group in Value::serialize(flags)?.into_array().unwrap_or_default() {
            for (key, value) in group.into_dict().unwrap_or_default() {
                if !matches!(value, Value::Empty(..)) {
                    origins.set(&key, Origin::Flag);
                    given.push((key.clone(), flag_text(&value)));
                    layers = layers.merge(OneSetting(key, value));
                }
            }
        }
        let raw = layers.extract::<RawSettings>().map_err(|errors| origins.explain_layers(errors))?;
        match raw.check() {
            Ok(settings) => {
                Ok(Settings { origins, flags: given, config_file: config_file.map(Path::to_owned), ..settings })
            }
            Err(error) => Err(origins.explain(error)),
        }
    }

    /// The arguments by which another process has these settings: the configuration file, and the flags but for those
    /// of the keys `except`.
    pub fn arguments(&self, except: &[&str]) -> impl Iterator<Item = String> {
        let config = self.config_file.iter().map(|path| format!("--config={}", path.display()));
        let flags = self.flags.iter().filter(|(key, _)| !except.contains(&key.as_str()));
        config.chain(flags.map(|(key, value)| format!("--{}={value}", key.replace('_', "-"))))
    }

    /// An error that names a flag, with the file or the variable that the flag's value came from.
    pub fn explain(&self, error: impl Into<Error>) -> Error {
        self.origins.explain(error)
    }
}

impl RawSettings {
    /// Errors: texts that are empty, or that no client could send.
    fn check_texts(&self) -> Result<()> {
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
        not_empty("--models-dir", self.models_dir.as_ref().and_then(|path| path.to_str()))?;
        not_empty("--kv-disk-cache-dir", self.kv_disk_cache_dir.as_ref().and_then(|path| path.to_str()))
    }

    /// Errors: names that are not known.
    fn kv_options(&self) -> Result<KvOptions> {
        let (k, v) = (self.k_quant.as_deref(), self.v_quant.as_deref());
        let read = KvOptions::parse(&self.kv_preset, k, v, self.block_size, &self.kv_centre);
        let presets = PRESETS.iter().map(|preset| preset.name).chain(["auto"]);
        one_of(&self.kv_centre, CentreMode::NAMES, one_of(&self.kv_preset, presets, read))
    }

    /// Errors: values that are wrong whatever the model, before one is fetched.
    fn check(self) -> Result<Settings> {
        let shutdown_timeout = seconds("shutdown-timeout", self.shutdown_timeout, 0)?;
        let keep_alive_timeout = seconds("keep-alive-timeout", self.keep_alive_timeout, 1)?;
        let read_timeout = seconds("read-timeout", self.read_timeout, 1)?;
        let write_timeout = seconds("write-timeout", self.write_timeout, 1)?;
        self.check_texts()?;
        let kv = self.kv_options()?;
        let host = listen_host(&self.host)?;
        let disk_cache_dir = self.kv_disk_cache_dir.or_else(|| Some(engine::cache_folder()?.join("kv")));
        let writes_per_day = self.kv_disk_writes_per_day.as_u64();
        let disk_cache = disk_options(&self.kv_disk_cache, disk_cache_dir.as_deref(), writes_per_day)?;
        let engine = EngineConfig {
            model: PathBuf::new(),
            kv,
            device: one_of(&self.device, DeviceChoice::NAMES, DeviceChoice::parse(&self.device))?,
            decode_kernel: one_of(&self.decode_kernel, DecodeKernel::NAMES, DecodeKernel::parse(&self.decode_kernel))?,
            gpu_products: one_of(&self.gpu_products, GpuProducts::NAMES, GpuProducts::parse(&self.gpu_products))?,
            weight_quant: self.weight_quant.as_deref().map(weight_quant).transpose()?,
            reading: if self.no_mmap { Reading::InMemory } else { Reading::Mapped },
            served_model_name: self.served_model_name,
            chat_template: self.chat_template,
            chat_special_tokens: self.chat_special_tokens,
            tool_call_format: self.tool_call_format.as_deref().map(tool_call_format).transpose()?,
            memory: self.memory.map(|b| b.as_u64()),
            kv_cache_memory: self.kv_cache_memory.map(|b| b.as_u64()),
            max_model_len: self.max_model_len,
            context_is_cap: false,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_step_time: Some(Duration::from_millis(self.max_step_ms)).filter(|time| !time.is_zero()),
            max_draft_tokens: draft_tokens(&self.speculate)?,
            prefix_cache: !self.no_prefix_cache,
            disk_cache,
            max_queued_requests: self.max_queued_requests,
            threads: Some(self.threads).filter(|n| *n > 0),
            pressure: Some(PressureSource::system()),
            progress: None,
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
            models_dir: self.models_dir,
            idle_unload: self.idle_unload.as_deref().map(|text| duration("--idle-unload", text)).transpose()?,
            behind_front: false,
            max_tokens_default: token_limit(self.max_tokens_default)?,
            keep_alive_timeout,
            read_timeout,
            write_timeout,
            shutdown_timeout,
            disk_cache_dir,
            engine,
            flags: Vec::new(),
            config_file: None,
            origins: Origins::default(),
        })
    }
}

/// Errors: a time that does not lie between `least` and a day, in seconds.
fn seconds(flag: &str, seconds: u64, least: u64) -> Result<Duration> {
    if !(least..=MAX_TIMEOUT).contains(&seconds) {
        bail!("--{flag}: is {seconds}; it must lie in [{least}, {MAX_TIMEOUT}] (a day)");
    }
    Ok(Duration::from_secs(seconds))
}

/// Where and how much is kept on disk; `None`: nothing.
///
/// Errors: a `--kv-disk-cache` that is neither `auto` nor `off` nor a number of bytes, or one that has no folder.
fn disk_options(size: &str, dir: Option<&Path>, writes_per_day: u64) -> Result<Option<DiskOptions>> {
    let limit = match size {
        "off" => return Ok(None),
        "auto" => DiskLimit::Auto,
        size => match size.parse::<ByteSize>() {
            Ok(bytes) => DiskLimit::Bytes(bytes.as_u64()),
            Err(_) => bail!("--kv-disk-cache: is {size}; it must be auto, off, or a number of bytes, such as 4GiB"),
        },
    };
    match (dir, limit) {
        (Some(dir), limit) => Ok(Some(DiskOptions { dir: dir.to_owned(), limit, writes_per_day })),
        (None, DiskLimit::Auto) => Ok(None),
        (None, _) => bail!("--kv-disk-cache: is {size}, and this user has no cache folder; name --kv-disk-cache-dir"),
    }
}

/// The name or address that `--host` gives. An IPv6 address may stand in brackets, as it does in a URL.
///
/// Errors: a URL, or a port after the address.
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

/// Errors: a limit that no answer could keep.
fn token_limit(limit: Option<usize>) -> Result<Option<usize>> {
    if limit == Some(0) {
        bail!("--max-tokens-default: is 0; it must be at least 1");
    }
    Ok(limit)
}

fn weight_quant(name: &str) -> Result<WeightQuant> {
    let known = WeightQuant::NAMES.join(", ");
    let read = WeightQuant::parse(name);
    let read = read.with_context(|| format!("--weight-quant: is {name}; it must be one of {known}"));
    one_of(name, WeightQuant::NAMES, read)
}
