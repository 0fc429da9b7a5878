//! `tallow service`: what is written and run for each system's manager, and what is refused.
use crate::common::{refused, repo, run, says, tallow};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// A program that notes what it is called with, and answers as `status` says.
fn manager(folder: &Path, name: &str, status: u8) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >>{}/calls\nexit {status}\n", folder.display()))
        .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_dry_run_shows_the_file_and_the_commands_of_either_system() {
    let folder = TempDir::new().unwrap();
    let home = folder.path().canonicalize().unwrap();
    // A link, so that the path is known and odd.
    let model = home.join("a & b's \"model\"");
    std::os::unix::fs::symlink(repo("models/tiny-mistral").canonicalize().unwrap(), &model).unwrap();
    let shown = |manager: &str| {
        let mut command = tallow(&home);
        command.args([
            "service",
            "install",
            "--dry-run",
            "--manager",
            manager,
            "--port",
            "8001",
            "--api-key",
            "se%cret",
        ]);
        command.args([model.to_str().unwrap(), "--max-model-len", "64"]).current_dir(&home);
        let ended = run(command.env("TALLOW_THREADS", "2").env("HF_HOME", "/h"));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        // The places of this run.
        let program = Path::new(env!("CARGO_BIN_EXE_tallow")).canonicalize().unwrap();
        let user = std::os::unix::fs::MetadataExt::uid(&home.metadata().unwrap());
        let text = ended.stdout.replace(program.to_str().unwrap(), "/bin/tallow");
        text.replace(home.to_str().unwrap(), "/home/me").replace(&format!("gui/{user}"), "gui/501")
    };
    insta::assert_snapshot!(shown("systemd"));
    insta::assert_snapshot!(shown("launchd"));
    assert!(!home.join(".config").exists() && !home.join("Library").exists());
}

#[test]
fn what_serve_refuses_is_refused_before_anything_is_written() {
    let home = TempDir::new().unwrap();
    let model = repo("models/tiny-mistral");
    let model = model.to_str().unwrap();
    for (arguments, told) in [
        (&["no/such/model"][..], "no such file or folder"),
        (&[model, "--kv-preset", "balancd"], "did you mean balanced?"),
        (&[model, "--context", "100000000"], "--max-model-len"),
        (&[model, "no/such/model"], "no such file or folder"),
        (&["--models-dir", "/no/such/folder"], "--models-dir"),
    ] {
        let install = ["service", "install", "--dry-run"].iter().chain(arguments);
        says(&refused(tallow(home.path()).args(install)), &[told]);
    }
    let nobody = refused(tallow(home.path()).args(["service", "status"]));
    says(&nobody, &["no service is installed", "tallow service install"]);
}

/// On Linux, with a program in the place of systemd's.
#[cfg(target_os = "linux")]
#[test]
fn a_service_is_installed_looked_at_and_deleted() {
    let (home, programs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let service = |arguments: &[&str]| {
        let mut command = tallow(home.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", programs.path().display())).arg("service").args(arguments);
        command
    };
    let model = repo("models/tiny-mistral");
    let install = ["install", model.to_str().unwrap(), "--api-key", "secret"];
    let mut without = service(&install);
    says(&refused(without.env("PATH", programs.path())), &["there is no systemctl here", "tallow serve"]);
    manager(programs.path(), "systemctl", 0);
    manager(programs.path(), "journalctl", 0);
    let installed = run(&mut service(&install));
    assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    says(&installed.stdout, &["tallow.service is written", "The service runs", "enable-linger"]);
    let unit = home.path().join(".config/systemd/user/tallow.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    says(&text, &["ExecStart=", "tiny-mistral", "Environment=TALLOW_API_KEY=secret", "Restart=on-failure"]);
    assert_eq!(unit.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for arguments in [&["status"][..], &["logs", "-n", "5", "--follow"], &["uninstall"]] {
        let ended = run(&mut service(arguments));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert!(!unit.exists());
    let calls = std::fs::read_to_string(programs.path().join("calls")).unwrap();
    insta::assert_snapshot!(calls);
    // A manager that refuses is told of.
    manager(programs.path(), "systemctl", 1);
    says(&refused(&mut service(&install)), &["`systemctl --user daemon-reload` failed"]);
}

#[test]
fn a_log_goes_to_a_file_with_the_fault_that_ends_it() {
    let home = TempDir::new().unwrap();
    let log = home.path().join("log");
    let message = refused(tallow(home.path()).args(["serve", "no/such/model", "--log-file", log.to_str().unwrap()]));
    assert_eq!(message, "");
    says(&std::fs::read_to_string(log).unwrap(), &["ERROR", "no such file or folder"]);
    says(&refused(tallow(home.path()).args(["serve", "--log-file", "/no/such/log"])), &["--log-file /no/such/log"]);
}
