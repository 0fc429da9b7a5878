//! Processes that are killed while they write, that share a folder, or whose disk is full. Each of them is an ignored
//! test of this file.
mod helpers;

use disk_cache::{DiskCache, DiskError, DiskValueKind, DiskWriteState};
use helpers::*;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A limit that a full disk is reached before.
const FULL: u64 = 64 << 20;

/// Runs an ignored test of this file in a process of its own, through `sh -c 'SHELL exec TEST'`.
fn child(shell: &str, test: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{shell} exec \"$0\" \"$@\"")).arg(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--ignored", "--nocapture"]).env("DISK_CACHE_DIR", dir);
    command
}

fn child_dir() -> PathBuf {
    std::env::var_os("DISK_CACHE_DIR").expect("DISK_CACHE_DIR, which the test that starts this process sets").into()
}

fn run(shell: &str, test: &str, dir: &Path) {
    let output = child(shell, test, dir).output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

const LIMIT: u64 = 1 << 20;
const CHAINS: usize = 60;
const BLOCKS: usize = 20;

/// What a process does until it is killed: it writes chains, again and again, more than the limit allows.
#[test]
#[ignore = "a process that other tests start and kill"]
fn writes_until_killed() {
    let cache = open(&child_dir(), LIMIT, 1);
    println!("begun");
    loop {
        for name in 0..CHAINS {
            let keys = chain(1, name, BLOCKS);
            cache.offer(snapshot(&keys, BLOCKS, 20_000));
            store(&cache, &keys);
        }
    }
}

/// Starts such a process and waits until it writes.
fn start(dir: &Path) -> Child {
    let mut process =
        child("", "writes_until_killed", dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sh");
    let lines = BufReader::new(process.stdout.as_mut().expect("its output")).lines();
    let begun = lines.map_while(Result::ok).any(|line| line.ends_with("begun"));
    assert!(begun, "the process ended early");
    process
}

fn kill(mut process: Child) {
    process.kill().expect("killed");
    process.wait().expect("ended");
}

#[test]
fn after_kill_9_every_value_that_is_served_is_right() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut served = 0;
    for round in 0..u64::from(testkit::cases(20)) {
        let process = start(dir.path());
        // Any moment will do; the times differ, so that many are tried.
        std::thread::sleep(Duration::from_micros(round.wrapping_mul(7_919) % 60_000));
        kill(process);
        assert!(size(dir.path()) <= LIMIT);
        let cache = open(dir.path(), LIMIT, 1);
        for name in 0..CHAINS {
            let keys = chain(1, name, BLOCKS);
            // Each key by itself, since a chain may have lost its beginning.
            served += (1..keys.len()).map(|n| hits(&cache, &keys[n - 1..=n])).sum::<usize>();
            for bytes in read(&cache, DiskValueKind::Snapshot, &keys[BLOCKS..]).values {
                assert!(bytes == value(DiskValueKind::Snapshot, keys[BLOCKS], 20_000));
            }
        }
        // A page cache outlives the process, so that nothing is damaged, as it could be when power fails.
        assert_eq!(cache.stats().damaged, 0);
    }
    assert!(served > 0);
}

#[test]
fn two_processes_share_a_folder_but_not_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let process = start(dir.path());
    assert!(matches!(DiskCache::open(&options(dir.path(), LIMIT), &contents(1)), Err(DiskError::Locked { .. })));
    let cache = open(dir.path(), LIMIT, 2);
    for name in 0..CHAINS {
        let keys = chain(2, name, BLOCKS);
        store(&cache, &keys);
        hits(&cache, &keys);
        let size = size(dir.path());
        assert!(size <= LIMIT, "{size} bytes");
    }
    let listed = disk_cache::list(dir.path()).expect("a list");
    assert!(listed.iter().any(|chain| chain.identity == contents(1).identity));
    assert_eq!(disk_cache::verify(dir.path()).expect("a report").in_use.len(), 2);
    kill(process);
    // What it held is older than what comes now, and makes room.
    drop(cache);
    let cache = open(dir.path(), LIMIT, 2);
    let keys = chain(2, CHAINS, 300);
    store(&cache, &keys);
    assert_eq!(hits(&cache, &keys), 300);
    assert!(size(dir.path()) <= LIMIT);
}

/// Writes until writing fails. What was written before can be read, and nothing is a panic.
#[test]
#[ignore = "a process that other tests start where the disk is full"]
fn fills_the_disk() {
    keep_log();
    let dir = child_dir();
    let cache = open(&dir, FULL, 1);
    let kept = chain(1, 0, 20);
    store(&cache, &kept);
    for name in 1..100 {
        store(&cache, &chain(1, name, 20));
    }
    assert!(matches!(cache.stats().write_state, DiskWriteState::Failed(_)), "{:?}", cache.stats());
    assert_eq!(hits(&cache, &kept), 20);
    assert_eq!(warnings(&dir).len(), 1, "{:?}", warnings(&dir));
    drop(cache);
    // The next start finds what was written.
    assert_eq!(hits(&open(&dir, FULL, 1), &kept), 20);
}

#[test]
fn a_file_that_may_not_grow_is_one_log_line_and_misses() {
    let dir = tempfile::tempdir().expect("a folder");
    // Files may have 512 KiB or 1 MiB, by the shell; the signal that comes with the error is not wanted.
    run("trap '' XFSZ; ulimit -f 1024;", "fills_the_disk", dir.path());
}

#[test]
fn a_full_disk_is_one_log_line_and_misses() {
    let dir = tempfile::tempdir().expect("a folder");
    let own_mounts = |command: &str| format!("exec unshare -m sh -c '{command}' \"$0\" \"$@\";",);
    let mount = format!("mount -t tmpfs -o size=1m none {}", dir.path().display());
    let may_mount = Command::new("sh").args(["-c", &own_mounts(&mount)]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        return eprintln!("a small file system cannot be mounted here; the limit of a file's size stands for it");
    }
    run(&own_mounts(&format!("{mount} && exec \"$0\" \"$@\"")), "fills_the_disk", dir.path());
}
