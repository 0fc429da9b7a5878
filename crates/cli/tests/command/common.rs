//! Spawning the command, and a client that is as small as can be.
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whatever is waited for here comes within milliseconds or never; a machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The command with an environment of its own: no variable of the caller's that it would read, a home that is empty.
pub fn tallow(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
    command.env_clear().env("HOME", home).env("NO_COLOR", "1").stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// What a run that ends by itself says.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What a command says that ends with a refusal: exit code 1 and a message, no panic, no path of our source.
pub fn refused(command: &mut Command) -> String {
    let ended = run(command);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains(".rs:"), "{}", ended.stderr);
    ended.stderr
}

pub fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A copy of the tiny model.
pub fn tiny_model() -> TempDir {
    let folder = TempDir::new().unwrap();
    copy_model("models/tiny-mistral", folder.path());
    folder
}

pub fn copy_model(from: &str, to: &Path) {
    for entry in std::fs::read_dir(repo(from)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A process that is killed when the test ends, and whose standard error is a file.
pub struct Process {
    pub child: Child,
    stderr: PathBuf,
    /// Kept until the process has ended.
    _home: TempDir,
}

impl Process {
    /// Spawns `tallow` with `arguments` and whatever `change` adds.
    pub fn spawn(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let home = TempDir::new().unwrap();
        let stderr = home.path().join("stderr");
        let mut command = tallow(home.path());
        command.args(arguments).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
        change(&mut command);
        Process { child: command.spawn().unwrap(), stderr, _home: home }
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits until standard error has `text`.
    pub fn wait_for(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.stderr().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "no {text:?} in: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The arguments of a start that is quick: no measuring, a little memory.
pub fn serve(model: &Path, port: &str) -> Vec<String> {
    let model = model.to_str().unwrap();
    let arguments = ["serve", model, "--port", port, "--kv-preset", "bf16", "--kv-centre", "off"];
    arguments.iter().chain(&["--kv-cache-memory", "8MiB", "--threads", "1"]).map(|s| (*s).to_owned()).collect()
}

pub fn spawn(arguments: &[String], change: impl FnOnce(&mut Command)) -> Process {
    Process::spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), change)
}

/// Sends a signal, such as `TERM`.
pub fn signal(name: &str, process: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap();
    assert!(sent.success());
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends a request; the connection on which its answer comes.
pub fn send(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    let head = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    Ok(stream)
}

/// The status and the whole text of an answer.
pub fn answer(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut text = String::new();
    send(port, method, path, body)?.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.map(|status| (status, text)).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// Waits until the server at `port` serves its model.
pub fn wait_until_healthy(port: u16) {
    let begin = Instant::now();
    while answer(port, "GET", "/health", "").map_or(0, |(status, _)| status) != 200 {
        assert!(begin.elapsed() < PATIENCE, "no server serves at {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something is so; `what` says what.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "it never comes that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A completion of `tokens` tokens exactly, the likeliest ones.
pub fn completion(tokens: usize, stream: bool) -> String {
    format!(
        r#"{{"prompt": [1, 2, 3], "max_tokens": {tokens}, "ignore_eos": true, "temperature": 0, "stream": {stream}}}"#
    )
}
