//! `tallow doctor`: what on this machine would keep a model from being served well, each with its cure.
use crate::args::DoctorArgs;
use crate::running;
use crate::serve::Running;
use crate::settings::Settings;
use crate::{demo, output};
use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use engine::DeviceChoice;
use hub::HubConfig;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Less memory than this serves small models alone.
const LITTLE_MEMORY: u64 = 4 << 30;
/// How long the hub may take for an answer.
const HUB_PATIENCE: Duration = Duration::from_secs(10);
/// Tokens that the bundled model writes in the self-test, after a prompt of several blocks.
const ANSWER: u32 = 64;

/// What a check has found.
enum Finding {
    Good(String),
    /// Something that costs speed or comfort, and its cure.
    Poor(String, String),
    /// Something without which nothing is served, and its cure.
    Bad(String, String),
}

use Finding::{Bad, Good, Poor};

/// Runs all checks.
///
/// Errors: one of them has found what must be cured.
pub async fn doctor(args: DoctorArgs) -> Result<()> {
    let mut bad = 0;
    let mut tell = |name: &str, finding: Finding| {
        let (mark, found, cure) = match finding {
            Good(found) => ("ok", found, None),
            Poor(found, cure) => ("warn", found, Some(cure)),
            Bad(found, cure) => {
                bad += 1;
                ("BAD", found, Some(cure))
            }
        };
        output::line(format_args!("{mark:<5}{name:<10}{found}"));
        cure.into_iter().for_each(|cure| output::line(format_args!("               -> {cure}")));
    };
    tell("program", Good(format!("tallow {} for {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)));
    tell("memory", memory());
    tell("device", device());
    tell("cache", cache());
    tell("models", models());
    tell("hub", if args.offline { Good("not asked (--offline)".into()) } else { hub_answers().await });
    let servers = running::servers().len();
    tell("servers", Good(if servers == 0 { "none runs".into() } else { format!("{servers} run; see `tallow ps`") }));
    tell("self-test", self_test().await);
    ensure!(bad == 0, "{bad} of the checks above must be cured");
    Ok(())
}

fn memory() -> Finding {
    let Some(free) = engine::free_memory() else {
        return Poor("the system does not say what is free".into(), "name --memory or --kv-cache-memory".into());
    };
    let found = format!("{} are free for a server", ByteSize::b(free));
    match free < LITTLE_MEMORY {
        true => Poor(found, "close other programs; `tallow plan MODEL` tells what a model takes".into()),
        false => Good(found),
    }
}

fn device() -> Finding {
    match (DeviceChoice::Metal.open(), engine::vector_instructions()) {
        (Ok(_), _) => Good("the GPU, by Metal".into()),
        (Err(error), _) if cfg!(target_os = "macos") => {
            let cure = "macOS 15 or later and a program that was built with Metal use the GPU";
            Poor(format!("the CPU: {error}"), cure.into())
        }
        (Err(_), Some(vectors)) => Good(format!("the CPU with {vectors}")),
        (Err(_), None) => Poor("the CPU, no AVX2".into(), "a CPU with AVX2 is several times as fast".into()),
    }
}

/// Whether a file can be made in a folder, which is made if need be.
fn is_writable(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder)?;
    Ok(())
}

fn cache() -> Finding {
    let cure = "set TALLOW_CACHE_DIR to a folder of yours";
    let Some(folder) = engine::cache_folder() else {
        return Poor("this user has no cache folder; measurements and prompts are not kept".into(), cure.into());
    };
    match is_writable(&folder) {
        Ok(()) => Good(format!("{} keeps measurements and prompts", folder.display())),
        Err(error) => Poor(format!("{} cannot be written: {error}", folder.display()), cure.into()),
    }
}

fn models() -> Finding {
    let cure = "set HF_HOME to a folder of yours";
    let checked = || {
        let config = HubConfig::from_env()?;
        is_writable(&config.cache).with_context(|| format!("{} cannot be written", config.cache.display()))?;
        Ok::<_, anyhow::Error>((hub::list(&config)?, config.cache))
    };
    match checked() {
        Err(error) => Poor(output::describe(&error), cure.into()),
        Ok((models, folder)) => match models.iter().find_map(|m| Some((m, m.missing.as_ref()?))) {
            Some((model, file)) => {
                Poor(format!("{} lacks {file}", model.name), format!("tallow pull {}, or tallow rm", model.name))
            }
            None => Good(format!("{} in {}", models.len(), folder.display())),
        },
    }
}

async fn hub_answers() -> Finding {
    let asked = async || -> Result<String> {
        let config = HubConfig::from_env()?;
        if config.offline {
            return Ok("not asked (HF_HUB_OFFLINE)".into());
        }
        let http = hub::http_for(&config.endpoint).timeout(HUB_PATIENCE).build()?;
        let status = http.head(&config.endpoint).send().await?.status();
        ensure!(!status.is_server_error(), "it answers {status}");
        let token = if config.token.is_some() { "with a token" } else { "without a token, which gated models need" };
        Ok(format!("{} answers; it is asked {token}", config.endpoint))
    };
    match asked().await {
        Ok(found) => Good(found),
        Err(error) => {
            let cure = "models that are here are served all the same; see HF_ENDPOINT, HTTPS_PROXY, HF_HUB_OFFLINE";
            Poor(format!("cannot be reached: {}", output::describe(&error)), cure.into())
        }
    }
}

/// Serves the bundled model, and asks it the same thing twice: the second answer is the first, bit for bit, and most of
/// its prompt is known.
async fn self_test() -> Finding {
    let tested = async || -> Result<String> {
        demo::folder()?;
        let mut settings = Settings::read(None, &())?;
        (settings.model, settings.api_key, settings.engine.disk_cache) = (None, None, None);
        (settings.host, settings.port) = ("127.0.0.1".into(), 0);
        let running = Running::start(&settings).await?;
        let found = ask_twice(&running).await;
        running.stop().await?;
        found
    };
    match tested().await {
        Ok(found) => Good(found),
        Err(error) => {
            let cure = "this is a fault of the program or of the machine: please report it with these lines";
            Bad(output::describe(&error), cure.into())
        }
    }
}

async fn ask_twice(running: &Running) -> Result<String> {
    let http = hub::http().no_proxy().build()?;
    let url = format!("http://{}/v1/completions", running.address);
    let prompt = "Once upon a time there was a little girl who loved to read. ".repeat(16);
    let body = json!({"prompt": prompt, "max_tokens": ANSWER, "temperature": 0, "ignore_eos": true});
    let mut answers: Vec<Value> = Vec::new();
    let mut speed = 0.0;
    for _ in 0..2 {
        let begin = Instant::now();
        let answer = http.post(&url).json(&body).send().await?;
        let status = answer.status();
        answers.push(answer.json().await?);
        ensure!(status.is_success(), "the bundled model is answered by {status}: {}", answers[answers.len() - 1]);
        speed = f64::from(ANSWER) / begin.elapsed().as_secs_f64();
    }
    let text = |at: usize| answers[at]["choices"][0]["text"].as_str();
    if text(0).is_none() || text(0) != text(1) {
        bail!("the bundled model answers {:?}, and asked again {:?}", text(0), text(1));
    }
    let known = answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
    ensure!(known > 0, "nothing of a prompt was known that had been computed: {}", answers[1]["usage"]);
    Ok(format!(
        "the bundled model answers the same twice, {speed:.0} tokens/s, {known} tokens of the prompt were known"
    ))
}
