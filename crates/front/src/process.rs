//! A model's process: how it is started, what it says, and how it ends.
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

/// One process is started after the other, so that none has a pipe of another's: a system that cannot make a pipe and
/// mark it as this process's own in one step would hand it on to a process that is started meanwhile, and the end of
/// this process would not close it.
static SPAWNING: Mutex<()> = Mutex::new(());

/// What a process tells.
pub enum ProcessEvent {
    /// It serves its model.
    Ready {
        address: Arc<ProcessAddress>,
        /// What it answers at `/v1/models`.
        told: Value,
    },
    /// It has ended, as these words tell, with the last lines of its log.
    Ended { how: String },
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

/// How a process is started, and who is told of it.
pub struct ProcessStart {
    pub name: String,
    pub command: Command,
    pub number: u64,
    pub memory: u64,
    /// How long it may take to end in order.
    pub stop_limit: Duration,
    pub log: TakeLogLine,
    pub tell: Arc<dyn Fn(ProcessEvent) + Send + Sync>,
}

impl ProcessStart {
    /// Starts the process. All that becomes of it is told, also that it cannot be started.
    pub fn start(self) -> ModelProcess {
        let ((stop, stopped), (kill, killed)) = (oneshot::channel(), oneshot::channel());
        let process = ModelProcess { number: self.number, memory: self.memory, stop: Some(stop), kill: Some(kill) };
        let tell = self.tell.clone();
        let running = tokio::spawn(self.run(ProcessEnd { stopped, killed }));
        tokio::spawn(async move {
            let how = match running.await {
                Ok(Ok(how)) => how,
                Ok(Err(error)) => format!("its process cannot be run: {error}"),
                Err(error) => format!("what watches its process failed: {error}"),
            };
            tell(ProcessEvent::Ended { how });
        });
        process
    }

    /// Runs the process to its end; gives how it ended.
    ///
    /// Errors: the system gives no process, no pipes or no random numbers.
    async fn run(self, ending: ProcessEnd) -> io::Result<String> {
        let ProcessStart { name, command, stop_limit, log, tell, .. } = self;
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
                tell(event);
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
        Ok(last.after(status))
    }
}

/// What ends a process from outside: both resolve once their other ends are dropped.
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

/// Waits until a process has written its address. `None`: it has written none.
async fn ready(out: Option<ChildStdout>, key: String) -> Option<ProcessEvent> {
    let mut line = String::new();
    BufReader::new(out?).read_line(&mut line).await.ok()?;
    let authority = Some(line.trim_end().to_owned()).filter(|authority| !authority.is_empty())?;
    let address = Arc::new(ProcessAddress { authority, key });
    let told = ModelClient::new().models(&address).await;
    Some(ProcessEvent::Ready { address, told })
}

/// Gives each line that a process writes, to the end.
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

    /// How a process has ended, in words.
    fn after(&self, status: ExitStatus) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("its process ended ({status}); the last lines of its log: {}", lines.join(" | "))
    }
}

/// A key that nobody else knows.
fn random_key() -> io::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
