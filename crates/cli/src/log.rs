//! The log: to standard error, or to a file, as well as that goes. A closed pipe, a full disk or a terminal that has
//! been stopped costs lines of the log, never a request or the process.
use crate::log_file::BoundedFile;
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for standard error; further ones are lost.
const QUEUE: usize = 4096;
/// How long the end of the process waits for lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// What is logged for somebody who looks at a terminal, to whom `serve` tells the rest in its own words.
const FOR_PEOPLE: &str = "warn,request=info,front=info";

static WRITER: OnceLock<(LogWriter, LogFormat)> = OnceLock::new();

/// Whether the log is a file (`--log-file`).
static IS_FILE: OnceLock<bool> = OnceLock::new();

/// How lines of the log are written (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    Text,
    /// An object of JSON a line
    Json,
}

/// Begins to log what `TALLOW_LOG` asks for, or `level` where it asks for nothing. Returns whether a person looks at a
/// terminal who has asked for nothing: such a one is shown warnings and requests alone.
///
/// Errors: words in `TALLOW_LOG` that are not known; a file (`--log-file`) that cannot be written.
pub fn start(level: &str, format: LogFormat, file: Option<&Path>) -> Result<bool> {
    let asked = std::env::var("TALLOW_LOG").ok().filter(|text| !text.is_empty());
    let is_for_person = asked.is_none() && format == LogFormat::Text && io::stderr().is_terminal();
    let filter = filter(asked, if is_for_person && level == "info" { FOR_PEOPLE } else { level })?;
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let out: Box<dyn Write + Send> = match file {
        Some(path) => {
            // Nobody looks at standard error then.
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            Box::new(BoundedFile::open(path).with_context(|| format!("--log-file {}", path.display()))?)
        }
        None => Box::new(io::stderr()),
    };
    IS_FILE.get_or_init(|| file.is_some());
    let (writer, _) = WRITER.get_or_init(|| (LogWriter::new(out), format)).clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(move || writer.clone())
        .with_ansi(file.is_none() && io::stderr().is_terminal() && !no_colour);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(is_for_person)
}

/// Logs why the process fails, where the log is a file. Returns whether standard error should be told, too.
pub fn fault(text: &str) -> bool {
    let is_file = IS_FILE.get() == Some(&true);
    if is_file {
        tracing::error!("{text}");
    }
    !is_file || io::stderr().is_terminal()
}

/// Waits a little for the lines that have not been written yet.
pub fn flush() {
    if let Some((writer, _)) = WRITER.get() {
        writer.flush_within(FLUSH_LIMIT);
    }
}

/// What a process is to be started with so that [`forward`] can take its lines: an argument, and what `TALLOW_LOG` is
/// set to, `None` for what it is here.
pub fn of_process(is_for_person: bool) -> (String, Option<&'static str>) {
    let format = WRITER.get().map_or(LogFormat::Text, |(_, format)| *format);
    let format = format.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    (format!("--log-format={format}"), is_for_person.then_some(FOR_PEOPLE))
}

/// Writes a line that a model's process has logged, with the model's name.
pub fn forward(model: &str, line: &str) {
    if let Some((writer, format)) = WRITER.get() {
        // Nothing here fails.
        let _ = writer.clone().write_all((named(model, line, *format) + "\n").as_bytes());
    }
}

/// A line of a log with the name of the model whose it is.
fn named(model: &str, line: &str, format: LogFormat) -> String {
    match format {
        LogFormat::Text => format!("[{model}] {line}"),
        LogFormat::Json => {
            let read = serde_json::from_str::<Map<String, Value>>(line);
            // What is no object is of a panic, or of a library.
            let mut fields = read.unwrap_or_else(|_| {
                Map::from_iter([("level".into(), "ERROR".into()), ("message".into(), line.into())])
            });
            fields.insert("model".into(), model.into());
            Value::Object(fields).to_string()
        }
    }
}

/// What `TALLOW_LOG` asks for; `level` where it asks for nothing.
fn filter(asked: Option<String>, level: &str) -> Result<EnvFilter> {
    let asked = asked.unwrap_or_else(|| level.to_owned());
    EnvFilter::try_new(&asked).with_context(|| {
        format!(
            "TALLOW_LOG is {asked:?}; it must be a level (error, warn, info, debug, trace) or CRATE=LEVEL, \
             separated by commas"
        )
    })
}

enum Item {
    Line(Vec<u8>),
    /// Dropped when all lines before it have been written.
    Flush(SyncSender<()>),
}

/// Hands lines to a thread that writes them, because a write to a stopped terminal or to a pipe that nobody reads does
/// not return. Nothing here waits or fails.
#[derive(Clone)]
struct LogWriter {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl LogWriter {
    fn new(out: impl Write + Send + 'static) -> Self {
        let (queue, items) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        // Without the thread every line is lost, and the program goes on.
        let _ = std::thread::Builder::new().name("tallow-log".into()).spawn(move || write_all(&items, out, &counted));
        LogWriter { queue, lost }
    }

    fn flush_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, wait) = sync_channel(0);
        let mut flush = Item::Flush(done);
        // A queue that is full may have room before the limit.
        while let Err(TrySendError::Full(back)) = self.queue.try_send(flush) {
            if Instant::now() >= deadline {
                return;
            }
            flush = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        // The other end is only dropped, so this ends with an error, at the limit at the latest.
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until nobody is left who could send one. A line that cannot be written is dropped.
fn write_all(items: &Receiver<Item>, mut out: impl Write, lost: &AtomicU64) {
    for item in items {
        match item {
            Item::Line(line) => {
                let missed = lost.swap(0, Ordering::Relaxed);
                if missed > 0 {
                    let _ = writeln!(out, "{missed} lines of the log were lost here");
                }
                let _ = out.write_all(&line);
            }
            Item::Flush(done) => drop(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_is_logged_is_asked_for_in_known_words() {
        assert_eq!(filter(None, "warn").unwrap().to_string(), "warn");
        assert_eq!(filter(Some("server=debug".into()), "warn").unwrap().to_string(), "server=debug");
        let message = filter(Some("server=verbose".into()), "warn").unwrap_err().to_string();
        assert!(message.contains("TALLOW_LOG is \"server=verbose\"") && message.contains("debug"), "{message}");
    }

    /// Blocks each write until the other end of the channel gives way, as a stopped terminal does.
    struct Stopped(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stopped_terminal_holds_nobody_up_and_lost_lines_are_counted() {
        let (go_on, stop) = sync_channel(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut writer = LogWriter::new(Stopped(stop, Arc::clone(&written)));
        for _ in 0..QUEUE + 100 {
            writer.write_all(b"a line\n").unwrap();
        }
        // The thread may have taken one line out of the queue, and holds it.
        let lost = writer.lost.load(Ordering::Relaxed);
        assert!((99..=100).contains(&lost), "{lost}");
        let begin = Instant::now();
        writer.flush_within(Duration::from_millis(10));
        assert!(begin.elapsed() < Duration::from_secs(5), "the end of the process waits for a stopped terminal");
        // From here on each write passes at once.
        drop(go_on);
        while writer.queue.try_send(Item::Line(b"the last\n".to_vec())).is_err() {
            std::thread::yield_now();
        }
        writer.flush_within(Duration::from_secs(60));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.contains(&format!("{lost} lines of the log were lost here\n")) && text.ends_with("the last\n"));
    }

    #[test]
    fn a_line_of_a_models_process_names_the_model() {
        assert_eq!(named("a", "INFO x", LogFormat::Text), "[a] INFO x");
        assert_eq!(named("a", r#"{"level":"INFO","n":1}"#, LogFormat::Json), r#"{"level":"INFO","n":1,"model":"a"}"#);
        let panic = named("a", "thread \"x\" panicked", LogFormat::Json);
        assert_eq!(panic, r#"{"level":"ERROR","message":"thread \"x\" panicked","model":"a"}"#);
    }

    #[test]
    fn a_writer_that_fails_costs_nothing() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let mut writer = LogWriter::new(Full);
        for _ in 0..10 {
            writer.write_all(b"a line\n").unwrap();
        }
        writer.flush_within(Duration::from_secs(60));
    }
}
