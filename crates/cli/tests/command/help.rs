//! What `--help` says of each command, and what is said of mistakes.
use crate::common::{repo, run, tallow};
use std::collections::BTreeSet;
use tempfile::TempDir;

const COMMANDS: [&str; 21] = [
    "",
    "serve",
    "plan",
    "chat",
    "launch",
    "pull",
    "list",
    "rm",
    "ps",
    "service",
    "service install",
    "service uninstall",
    "service status",
    "service logs",
    "doctor",
    "eval",
    "bench",
    "cache",
    "config",
    "completions",
    "man",
];

/// The help of every command. A section of flags that an earlier command has, too, is named alone.
#[test]
fn each_command_helps() {
    let home = TempDir::new().unwrap();
    let (mut all, mut seen) = (String::new(), BTreeSet::new());
    for command in COMMANDS {
        let arguments = command.split_whitespace().chain(["--help"]);
        let ended = run(tallow(home.path()).args(arguments));
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.stderr);
        all += &format!("=== tallow {command}\n");
        for section in ended.stdout.split("\n\n").map(str::trim_end) {
            let has_flags = section.lines().any(|line| line.trim_start().starts_with('-'));
            match has_flags && !seen.insert(section.to_owned()) {
                true => all += &format!("{} (as above)\n", section.lines().next().unwrap_or_default()),
                false => all += &format!("{section}\n"),
            }
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_mistake_is_told_with_what_was_meant() {
    let home = TempDir::new().unwrap();
    let model = repo("models/tiny-mistral");
    let model = model.to_str().unwrap();
    let mut all = String::new();
    for arguments in [
        &["serv"][..],
        &["serve", "--prot", "80"],
        &["serve", "qwen3:5b"],
        &["serve", model, "--kv-preset", "balancd"],
        &["serve", model, "--k-quant", "tc6"],
        &["serve", model, "--device", "metl"],
        &["serve", model, "--weight-quant", "q4_0"],
        &["serve", model, "--tool-call-format", "herms"],
        &["plan", model, "--context", "1000000"],
        &["plan", model, "--context", "32 kB"],
        &["serve", model, "--max-num-seqs", "many"],
        &["serve", model, "--memory", "8 gigs"],
        &["plan", model, "--machine", "M2"],
        &["eval", model, "--texts", "wikitxt"],
        &["pull", "qwen3:5b"],
        &["launch", "cladue"],
        &["launch", "claude", "--url", "127.0.0.1:9"],
        &["cache", "lst"],
    ] {
        let ended = run(tallow(home.path()).args(arguments).current_dir(home.path()));
        assert!(ended.code.is_some_and(|code| code > 0), "{arguments:?}");
        all += &format!("$ tallow {}\n{}\n", arguments.join(" ").replace(model, "MODEL"), ended.stderr.trim_end());
    }
    insta::assert_snapshot!(all);
}

/// Scripts and pages name every command.
#[test]
fn shells_and_manuals_know_every_command() {
    let home = TempDir::new().unwrap();
    let bash = run(tallow(home.path()).args(["completions", "bash"])).stdout;
    let pages = home.path().join("man");
    std::fs::create_dir(&pages).unwrap();
    assert_eq!(run(tallow(home.path()).args(["man", "--folder", pages.to_str().unwrap()])).code, Some(0));
    for command in COMMANDS.iter().filter(|command| !command.is_empty()) {
        assert!(bash.contains(&format!("tallow__subcmd__{}", command.replace(' ', "__subcmd__"))), "{command}");
        let page = std::fs::read_to_string(pages.join(format!("tallow-{}.1", command.replace(' ', "-")))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
    assert!(run(tallow(home.path()).arg("man")).stdout.contains(".TH tallow 1"));
}
