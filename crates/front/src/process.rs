//! A model's process: its start, its address and log, its end.
use crate::TakeLogLine;
use crate::client::{ModelClient, ProcessAddress};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Lines of a log that tell why a process has ended.
const LAST_LINES: usize = 5;
/// The longest of those lines, characters.
const LINE_LENGTH: usize = 400;
/// How long the last lines of a log may take once the process has ended. Another process may hold the log open.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Processes are started one at a time. On a system that cannot create a pipe and mark it close-on-exec in one step, a
/// process started at the same moment would inherit the pipe, and closing our end would then not end this process.
static SPAWNING: Mutex<()> = Mutex::new(());

/// An event of a process.
pub enum ProcessEvent {
    /// The process serves its model.
    Ready {
        address: Arc<ProcessAddress>,
        /// The process's answer at `/v1/models`.
        model_list: Value,
    },
    /// The process has ended. The description says how, with the last lines of its log.
    Ended { description: String },
}

/// A process that has been started.
#[derive(Debug)]
pub struct ModelProcess {
    /// The number of the process among those that the model has had.
    pub number: u64,
    /// The memory that it may take, bytes.
    pub memory: u64,
    /// Dropped to end it in order.
    stop: Option<oneshot::Sender<()>>,
    /// Dropped to end it at once.
    kill: Option<oneshot::Sender<()>>,
}

impl ModelProcess {
    /// Asks the process to end. Answers that it still gives may end.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// Ends the process.
    pub fn kill(&mut self) {
        self.kill = None;
    }
}

/// A process that is to be started, and the receivers of its log and its events.
pub struct ProcessStart {
    pub name: String,
    pub command: Command,
    pub number: u64,
    pub memory: u64,
    /// How long it may take to end in order.
    pub stop_limit: Duration,
    pub log: TakeLogLine,
    pub on_event: Arc<dyn Fn(ProcessEvent) + Send + Sync>,
}

impl ProcessStart {
    /// Starts the process. Its events go to `on_event`; a process that cannot be started has ended.
    pub fn start(self) -> ModelProcess {
        let ((stop, stopped), (kill, killed)) = (oneshot::channel(), oneshot::channel());
        let process = ModelProcess { number: self.number, memory: self.memory, stop: Some(stop), kill: Some(kill) };
        let on_event = self.on_event.clone();
        let running = tokio::spawn(self.run(ProcessEnd { stopped, killed }));
        tokio::spawn(async move {
            let description = match running.await {
                Ok(Ok(description)) => description,
                Ok(Err(error)) => format!("its process cannot be run: {error}"),
                Err(error) => format!("what watches its process failed: {error}"),
            };
            on_event(ProcessEvent::Ended { description });
        });
        process
    }

    /// Runs the process to its end, which it describes.
    ///
    /// Errors: the system gives no process, no pipes or no random numbers.
    async fn run(self, ending: ProcessEnd) -> io::Result<String> {
        let ProcessStart { name, command, stop_limit, log, on_event, .. } = self;
        let key = random_key()?;
        let mut child = spawn(command)?;
        tracing::info!("the process of {name} is {}", child.id().unwrap_or_default());
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            // If the process has ended already, its status tells more than this error does.
            let _ = stdin.write_all(format!("{key}\n").as_bytes()).await;
        }
        let out = child.stdout.take();
        tokio::spawn(async move {
            if let Some(event) = ready(out, key).await {
                on_event(event);
            }
        });
        let last = Arc::new(LastLines::default());
        let lines = {
            let last = last.clone();
            let take = move |line: &str| {
                last.push(line);
                log(&name, line);
            };
            tokio::spawn(each_line(child.stderr.take(), take))
        };
        let status = ending.wait(&mut child, stdin, stop_limit).await?;
        let _ = timeout(LAST_LINES_WAIT, lines).await;
        Ok(last.describe_end(status))
    }
}

/// The two ways to end a process from outside; each resolves once its other end is dropped.
struct ProcessEnd {
    stopped: oneshot::Receiver<()>,
    killed: oneshot::Receiver<()>,
}

impl ProcessEnd {
    /// Waits for the end of a process, which is asked to end by closing its standard input.
    async fn wait(
        mut self,
        child: &mut Child,
        stdin: Option<ChildStdin>,
        stop_limit: Duration,
    ) -> io::Result<ExitStatus> {
        tokio::select! {
            status = child.wait() => return status,
            _ = &mut self.killed => {}
            _ = self.stopped => {
                drop(stdin);
                tokio::select! {
                    status = child.wait() => return status,
                    _ = &mut self.killed => {}
                    () = sleep(stop_limit) => tracing::warn!("a model's process did not end within {stop_limit:?}"),
                }
            }
        }
        child.kill().await?;
        child.wait().await
    }
}

fn spawn(mut command: Command) -> io::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A terminal's Ctrl-C is for the front, which ends its processes itself.
    command.process_group(0);
    let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}

/// Waits until a process has written its address; `None` if it ends without one.
async fn ready(out: Option<ChildStdout>, key: String) -> Option<ProcessEvent> {
    let mut line = String::new();
    BufReader::new(out?).read_line(&mut line).await.ok()?;
    let authority = Some(line.trim_end().to_owned()).filter(|authority| !authority.is_empty())?;
    let address = Arc::new(ProcessAddress { authority, key });
    let model_list = ModelClient::new().models(&address).await;
    Some(ProcessEvent::Ready { address, model_list })
}

/// Calls `take` with each line that a process writes, to the end.
async fn each_line(from: Option<ChildStderr>, take: impl Fn(&str)) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        take(&String::from_utf8_lossy(&line));
    }
}

/// The last lines of a log.
#[derive(Default)]
struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.trim_end().chars().take(LINE_LENGTH).collect());
    }

    /// Describes the end of a process, with these lines.
    fn describe_end(&self, status: ExitStatus) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("its process ended ({status}); the last lines of its log: {}", lines.join(" | "))
    }
}

/// Makes a key that nobody else knows.
fn random_key() -> io::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
