//! The process and its surroundings: signals, pipes, full disks.
use crate::common::{
    PATIENCE, Process, answer, completion, free_port, refused, repo, run, says, send, serve, signal, spawn, tallow,
    tiny_model, wait_until_healthy,
};
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A model folder that is read without end: its configuration is a pipe that nobody writes to.
fn endless_model() -> TempDir {
    let folder = tiny_model();
    let pipe = folder.path().join("config.json");
    std::fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    folder
}

#[test]
fn a_signal_ends_the_loading_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let model = endless_model();
        let mut server = spawn(&serve(model.path(), "0"), |_| {});
        server.wait_for("loading");
        signal(name, server.child.id());
        assert_eq!(server.wait_for_end().code(), Some(code), "{}", server.stderr());
    }
}

/// The model is one that is read without end, so that a start which loaded it first would not end.
#[test]
fn a_port_in_use_is_refused_before_the_model_is_loaded() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (model, home) = (endless_model(), TempDir::new().unwrap());
    let message = refused(tallow(home.path()).args(serve(model.path(), &port)));
    says(&message, &[&format!("--port {port}"), "in use"]);
}

#[test]
fn a_signal_ends_a_download_at_once() {
    // The listener's queue takes the connection; nobody ever answers.
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hub.local_addr().unwrap());
    for (arguments, code) in [(&["serve", "org/name", "--port", "0"][..], 143), (&["pull", "org/name"], 143)] {
        let mut process = Process::spawn(arguments, |command| {
            command.env("HF_ENDPOINT", &endpoint);
        });
        // The request has come, so it waits for the answer.
        let (mut connection, _) = hub.accept().unwrap();
        connection.read_exact(&mut [0; 4]).unwrap();
        signal("TERM", process.child.id());
        assert_eq!(process.wait_for_end().code(), Some(code), "{}", process.stderr());
    }
}

/// In a container the program is process 1, for which signals have no default action.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_process_1_while_it_loads() {
    let unshare = ["--user", "--map-root-user", "--pid", "--fork"];
    let allowed = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this system does not let a test make a process 1");
    }
    let model = endless_model();
    let home = TempDir::new().unwrap();
    let log = home.path().join("log");
    let mut outer = Command::new("unshare")
        .args(unshare)
        .arg(env!("CARGO_BIN_EXE_tallow"))
        .args(serve(model.path(), "0"))
        .env("HOME", home.path())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let begin = std::time::Instant::now();
    while !std::fs::read_to_string(&log).unwrap().contains("loading") {
        assert!(begin.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let children = format!("/proc/{0}/task/{0}/children", outer.id());
    let inner: u32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    signal("TERM", inner);
    // unshare gives its child's exit code.
    assert_eq!(outer.wait().unwrap().code(), Some(143));
}

#[test]
fn a_second_signal_ends_running_answers_at_once() {
    let port = free_port();
    let mut server = spawn(&serve(&repo("models/tiny-mistral"), &port.to_string()), |_| {});
    wait_until_healthy(port);
    let mut stream = send(port, "POST", "/v1/completions", &completion(50_000, true)).unwrap();
    stream.read_exact(&mut [0; 400]).unwrap();
    signal("TERM", server.child.id());
    server.wait_for("shutting down");
    signal("TERM", server.child.id());
    assert_eq!(server.wait_for_end().code(), Some(143), "{}", server.stderr());
}

#[test]
fn one_signal_ends_an_idle_server_in_order() {
    let port = free_port();
    let mut server = spawn(&serve(&repo("models/tiny-mistral"), &port.to_string()), |_| {});
    wait_until_healthy(port);
    signal("TERM", server.child.id());
    assert_eq!(server.wait_for_end().code(), Some(0), "{}", server.stderr());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    let home = TempDir::new().unwrap();
    for (arguments, code) in [(&["config"][..], 0), (&["pull", "no-model"], 1)] {
        let (reader, stdout) = std::io::pipe().unwrap();
        let (stderr_reader, stderr) = std::io::pipe().unwrap();
        drop((reader, stderr_reader));
        let mut command = tallow(home.path());
        let status = command.args(arguments).stdout(stdout).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    let ended = run(tallow(home.path()).arg("config").stdout(stdout));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_where_the_output_is_what_was_asked_for() {
    let home = TempDir::new().unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let ended = run(tallow(home.path()).arg("config").stdout(full()));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("standard output cannot be written: No space left"), "{}", ended.stderr);
}

/// A server whose log goes nowhere answers as any other.
#[test]
fn no_request_depends_on_the_log() {
    let (closed, stderr_closed) = std::io::pipe().unwrap();
    drop(closed);
    // Nobody reads this one, so that it is full soon.
    let (unread, stderr_unread) = std::io::pipe().unwrap();
    let mut sinks: Vec<Stdio> = vec![stderr_closed.into(), stderr_unread.into()];
    if Path::new("/dev/full").exists() {
        sinks.push(File::options().write(true).open("/dev/full").unwrap().into());
    }
    for sink in sinks {
        let port = free_port();
        let mut server = spawn(&serve(&repo("models/tiny-mistral"), &port.to_string()), |command| {
            command.env("TALLOW_LOG", "trace").stderr(sink);
        });
        wait_until_healthy(port);
        // A request logs some kilobytes at this level; a pipe holds 64.
        for _ in 0..60 {
            let (status, text) = answer(port, "POST", "/v1/completions", &completion(4, false)).unwrap();
            assert_eq!(status, 200, "{text}");
        }
        signal("TERM", server.child.id());
        assert_eq!(server.wait_for_end().code(), Some(0));
    }
    drop(unread);
}
