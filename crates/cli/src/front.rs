//! `tallow serve` with several models: one server in front of a process for each model that is loaded.
use crate::args::ServeCommand;
use crate::model::{self, ModelSource};
use crate::plan::grouped;
use crate::running::{self, RunningServer};
use crate::serve::{bind, serve_one, server_config, tell_ending, url_of};
use crate::settings::Settings;
use crate::signals::{Signal, Signals};
use crate::{demo, log, nearest, output};
use ::front::{Front, FrontConfig, FrontModel, MemoryPlan, Planner};
use anyhow::{Context, Error, Result, bail};
use bytesize::ByteSize;
use engine::{EngineConfig, PlannedMachine};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use server::{ServerConfig, ServerState};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// What a model's process may take to end beside the time for its answers: it writes to disk what it has cached.
const WRITING_TIME: Duration = Duration::from_secs(30);

/// Flags of the front that are not its models' processes', or that these are given other values of.
const OWN_FLAGS: [&str; 10] = [
    "model",
    "models_dir",
    "idle_unload",
    "host",
    "port",
    "api_key",
    "cors_origin",
    "allowed_host",
    "memory",
    "served_model_name",
];

/// `tallow serve`, with one model in this process, or with several.
pub async fn serve(args: ServeCommand, signals: &Signals, is_for_person: bool) -> Result<()> {
    let settings = Settings::of_command(&args)?;
    let more = &args.several.more;
    match settings.names_several(more) && !settings.behind_front {
        true => serve_several(settings, more, signals, is_for_person).await,
        false => serve_one(settings, signals, is_for_person).await,
    }
}

/// Checks that there is what `tallow serve` would serve, as far as that is here; gives the models as they were named.
///
/// Errors: what `serve` would refuse before it loads a model.
pub async fn check(settings: &Settings, more: &[String]) -> Result<Vec<String>> {
    engine::usable_memory(&settings.engine).map_err(|error| settings.explain(error))?;
    if settings.names_several(more) {
        models(settings, more)?;
    } else if let ModelSource::Local(path) = ModelSource::of(settings)? {
        let config = EngineConfig { model: path, ..settings.engine.clone() };
        tokio::task::spawn_blocking(move || engine::plan(&config)).await?.map_err(|error| settings.explain(error))?;
    }
    // A model that a file or a variable names is named there for the server too.
    let named = settings.model.iter().filter(|_| settings.flags.iter().any(|(key, _)| key == "model"));
    Ok(named.chain(more).cloned().collect())
}

/// Serves the model of the settings, `more`, and those of `--models-dir`, until the command is interrupted.
///
/// Errors: models that there are not or that cannot be told apart; an address that cannot be bound.
async fn serve_several(settings: Settings, more: &[String], signals: &Signals, is_for_person: bool) -> Result<()> {
    let models = models(&settings, more)?;
    engine::usable_memory(&settings.engine).map_err(|error| settings.explain(error))?;
    let config = ServerConfig { descriptors_per_connection: 2, ..server_config(&settings) };
    let (listener, address) = bind(&config).await?;
    let settings = Arc::new(settings);
    let texts: Vec<String> = models.iter().map(|model| model.text.clone()).collect();
    let planner = Arc::new(EnginePlanner::new(settings.clone(), texts)?);
    // What is counted before it is there is lost.
    let prometheus = server::install_metrics()?;
    let process = ProcessCommand::new(&settings, is_for_person)?;
    let front = Front::start(FrontConfig {
        models: models.iter().map(|model| process.of_model(model)).collect(),
        planner: planner.clone(),
        idle_unload: settings.idle_unload,
        max_waiting: settings.engine.max_queued_requests,
        stop_limit: settings.shutdown_timeout + WRITING_TIME,
        log: Arc::new(log::forward),
        nearest: |word, names| nearest(word, names.iter().map(String::as_str)).map(str::to_owned),
    });
    let state = ServerState::new(config, prometheus);
    let (shutdown, signal) = oneshot::channel::<()>();
    let ended = async {
        // The sender is dropped to ask for the shutdown.
        let _ = signal.await;
    };
    let mut http = tokio::spawn(server::serve_relay(listener, state, front.clone(), ended));
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    tracing::info!("serving {}, each loaded by the first request that names it", names.join(", "));
    if is_for_person {
        output::complain(format_args!("{}", welcome(&settings, &models, &planner, &url_of(address)).await));
    }
    let _registration = RunningServer {
        pid: std::process::id(),
        url: url_of(address),
        model: names.join(", "),
        max_model_len: None,
        formats: running::BY_MODEL.to_owned(),
        since: running::now(),
    }
    .register();
    let interrupted = signals.next(&[Signal::Interrupt, Signal::Terminate]);
    tokio::select! {
        _ = interrupted => {}
        ended = &mut http => {
            front.stop().await;
            ended??;
            bail!("the HTTP server has ended");
        }
        () = front.ended() => bail!("what looks after the models has ended"),
    }
    tell_ending(&settings, is_for_person);
    drop(shutdown);
    // The models' processes leave running answers the same time, and tell those that it is not enough for.
    let (served, ()) = tokio::join!(http, front.stop());
    Ok(served??)
}

/// A model as the command line names it.
struct FrontedModel {
    /// What stands there, or the path of what is in the folder.
    text: String,
    /// The name by which clients ask for it.
    name: String,
}

/// The models that are to be served; the bundled demo model where none is named.
///
/// Errors: a text that names no model; a folder without models; two models of one name.
fn models(settings: &Settings, more: &[String]) -> Result<Vec<FrontedModel>> {
    if let Some(name) = &settings.engine.served_model_name {
        let error = format!("--served-model-name: is {name:?}, a name for one model; of several, each has its own");
        return Err(settings.explain(Error::msg(error)));
    }
    let mut texts: Vec<String> = settings.model.iter().chain(more).cloned().collect();
    if let Some(folder) = &settings.models_dir {
        texts.extend(models_in(folder).map_err(|error| settings.explain(error))?);
    }
    if texts.is_empty() {
        texts.push(demo::folder()?.to_string_lossy().into_owned());
    }
    let mut known = BTreeMap::<String, String>::new();
    let mut models = Vec::new();
    for text in texts {
        let name = model::served_name(settings, ModelSource::of_text(&text)?)?;
        match known.insert(name.clone(), text.clone()) {
            Some(other) if other == text => {}
            Some(other) => {
                bail!("{other} and {text} would both be called {name}; rename one of the files or folders")
            }
            None => models.push(FrontedModel { text, name }),
        }
    }
    Ok(models)
}

/// The paths of the models in a folder, by their names: GGUF files, of shards the first, and folders with a model.
///
/// Errors: a folder that cannot be read, or has no model in it.
fn models_in(folder: &Path) -> Result<Vec<String>> {
    let named = || format!("--models-dir: {}", folder.display());
    let paths_in = |folder: &Path| -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let is_gguf = |path: &Path| path.is_file() && path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    let is_model = |path: &PathBuf| match path.is_dir() {
        true => {
            path.join("config.json").is_file() || paths_in(path).is_ok_and(|paths| paths.iter().any(|p| is_gguf(p)))
        }
        // What projects images is beside its model.
        false => {
            let is_projector = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mmproj"));
            is_gguf(path) && !is_projector && gguf::shards(path).first() == Some(path)
        }
    };
    let paths = paths_in(folder).with_context(named)?;
    let mut models: Vec<String> =
        paths.into_iter().filter(is_model).map(|path| path.to_string_lossy().into_owned()).collect();
    models.sort();
    if models.is_empty() {
        bail!("{}: there is no model in it, neither a GGUF file nor a folder with config.json", named());
    }
    Ok(models)
}

/// How a model's process is started: this program, with the settings that it has itself.
struct ProcessCommand {
    program: PathBuf,
    arguments: Vec<String>,
    log_filter: Option<&'static str>,
}

impl ProcessCommand {
    /// Errors: the system does not say where this program is.
    fn new(settings: &Settings, is_for_person: bool) -> Result<Self> {
        let program = std::env::current_exe().context("the system does not say where this program is")?;
        let (log_format, log_filter) = log::of_process(is_for_person);
        let own = ["serve", "--behind-front", "--host=127.0.0.1", "--port=0"].map(str::to_owned);
        Ok(ProcessCommand {
            program,
            arguments: own.into_iter().chain([log_format]).chain(settings.arguments(&OWN_FLAGS)).collect(),
            log_filter,
        })
    }

    fn of_model(&self, model: &FrontedModel) -> FrontModel {
        let ProcessCommand { program, arguments, log_filter } = self;
        let (program, arguments, log_filter) = (program.clone(), arguments.clone(), *log_filter);
        let (text, called) = (model.text.clone(), format!("--served-model-name={}", model.name));
        let command = move |memory: u64| {
            let mut command = Command::new(&program);
            command.args(&arguments).arg(&called).arg(format!("--memory={memory}")).arg("--").arg(&text);
            command.envs(log_filter.map(|filter| ("TALLOW_LOG", filter)));
            command
        };
        FrontModel { name: model.name.clone(), command: Box::new(command) }
    }
}

/// Plans the memory of models by their headers.
struct EnginePlanner {
    settings: Arc<Settings>,
    texts: Vec<String>,
    /// What models are started with whose headers are here.
    configs: Mutex<BTreeMap<usize, EngineConfig>>,
    /// Headers of models of the hub that are not here.
    folder: TempDir,
}

impl EnginePlanner {
    fn new(settings: Arc<Settings>, texts: Vec<String>) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for headers can be made")?;
        Ok(EnginePlanner { settings, texts, configs: Mutex::default(), folder })
    }

    /// What a model is started with, but for its memory, which is the planner's.
    async fn config(&self, model: usize) -> Result<EngineConfig> {
        let known = self.configs.lock().unwrap_or_else(PoisonError::into_inner).get(&model).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let folder = self.folder.path().join(model.to_string());
        std::fs::create_dir_all(&folder)?;
        let source = ModelSource::of_text(&self.texts[model])?;
        let config = EngineConfig { memory: None, ..model::headers(&self.settings, source, &folder).await? };
        self.configs.lock().unwrap_or_else(PoisonError::into_inner).insert(model, config.clone());
        Ok(config)
    }

    async fn try_plan(&self, model: usize, free: u64, is_alone: bool) -> Result<MemoryPlan> {
        let config = self.config(model).await?;
        let cache = config.kv_cache_memory.unwrap_or(0);
        let machine = PlannedMachine { total: free, free };
        let forecast = tokio::task::spawn_blocking(move || engine::forecast(&config, Some(machine))).await?;
        let forecast = forecast.map_err(|error| self.settings.explain(error))?;
        let plan = forecast.start.map_err(|error| self.settings.explain(error))?;
        let beside_cache: u64 = forecast.needs.iter().map(|term| term.bytes).sum();
        let all: u64 = plan.terms.iter().map(|term| term.bytes).sum();
        let total = all.max(beside_cache.saturating_add(cache));
        // Weights that are larger than the memory are mapped, and read again and again.
        let total = if is_alone { total.min(free) } else { total };
        Ok(MemoryPlan { total, beside_cache, context: plan.kv.budget.max_model_len })
    }
}

impl Planner for EnginePlanner {
    fn free(&self) -> Option<u64> {
        engine::usable_memory(&self.settings.engine).ok().flatten()
    }

    fn plan(&self, model: usize, free: u64, is_alone: bool) -> BoxFuture<'_, Result<MemoryPlan, String>> {
        self.try_plan(model, free, is_alone).map(|plan| plan.map_err(|error| output::describe(&error))).boxed()
    }
}

/// What somebody who has started the server wants to know of it.
async fn welcome(settings: &Settings, models: &[FrontedModel], planner: &EnginePlanner, url: &str) -> String {
    let free = planner.free();
    let mut lines = vec![format!("\nServing {} models, each loaded by the first request that names it", models.len())];
    let key = if settings.api_key.is_some() { "your --api-key" } else { "any key" };
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9}{text}"));
    line("API", format!("{url}/v1 (OpenAI), {url} (Anthropic), with {key}"));
    line("Page", format!("{url}/"));
    for (number, model) in models.iter().enumerate() {
        // A model of the hub that is not here is looked at when it is asked for.
        let told = match ModelSource::of_text(&model.text) {
            Ok(ModelSource::Local(_)) => match planner.plan(number, free.unwrap_or(u64::MAX), true).await {
                Ok(plan) => {
                    let (needs, context) = (ByteSize::b(plan.beside_cache), grouped(plan.context));
                    format!("needs {needs} beside its cache; alone it has {context} tokens of context")
                }
                Err(reason) => format!("cannot be loaded: {reason}"),
            },
            _ => "of the hub; it is fetched when it is asked for, unless it is here".to_owned(),
        };
        line(if number == 0 { "Models" } else { "" }, format!("{} {told}", model.name));
    }
    if let Some(free) = free {
        line("Memory", format!("{} for all of them; --memory says another limit", ByteSize::b(free)));
    }
    match settings.idle_unload {
        Some(limit) => line("Unload", format!("after {} s without a request", limit.as_secs())),
        None => line("Unload", "when another model needs the memory; --idle-unload also after a time".to_owned()),
    }
    line("Stop", "Ctrl-C".to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_models_has_files_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(models_in(folder.path()).unwrap_err().to_string().contains("there is no model in it"));
        for name in ["b.GGUF", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "mmproj-b.gguf", "notes.txt"] {
            std::fs::write(at(name), "").unwrap();
        }
        for name in ["a", "c", "empty"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("a/config.json"), "").unwrap();
        std::fs::write(at("c/one.gguf"), "").unwrap();
        let found = models_in(folder.path()).unwrap();
        assert_eq!(found, ["a", "b.GGUF", "big-00001-of-00002.gguf", "c"].map(|n| at(n).display().to_string()));
        let missing = models_in(&at("no")).unwrap_err();
        assert!(format!("{missing:#}").contains("--models-dir"), "{missing:#}");
    }
}
