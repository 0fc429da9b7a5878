//! What a service is told, in the forms of systemd and launchd.
use anyhow::{Result, bail};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a service's process may take to end beside the time for its answers.
const ENDING_TIME: Duration = Duration::from_secs(45);

/// A command that runs as long as its user is logged in.
#[derive(Debug)]
pub struct ServiceDefinition {
    /// The program, by its whole path.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Variables of its environment. A key of the server's is here, since everybody can see arguments.
    pub environment: Vec<(String, String)>,
    /// The folder that relative paths begin in.
    pub folder: PathBuf,
    /// How long running answers get when it is to end.
    pub shutdown_timeout: Duration,
}

impl ServiceDefinition {
    /// Errors: a path of the program that systemd does not take, however it is quoted.
    pub fn check_for_systemd(&self) -> Result<()> {
        let program = self.program.to_string_lossy();
        if program.contains(['"', '\'', '\\']) || program.contains(char::is_control) {
            bail!("systemd runs no program whose path has quotes or backslashes, and this one is {program}; move it");
        }
        Ok(())
    }

    fn stop_limit(&self) -> u64 {
        (self.shutdown_timeout + ENDING_TIME).as_secs()
    }

    /// A user unit of systemd (`systemd.service(5)`).
    pub fn systemd_unit(&self) -> String {
        let mut unit =
            String::from("[Unit]\nDescription=Tallow inference server\nStartLimitIntervalSec=0\n\n[Service]\n");
        // In the program's own path a dollar sign stands for nothing.
        let program = systemd_quoted(&self.program.to_string_lossy());
        let arguments = self.arguments.iter().map(|word| systemd_quoted(word).replace('$', "$$"));
        let words: Vec<String> = std::iter::once(program).chain(arguments).collect();
        let mut line = |name: &str, value: &str| unit.write_fmt(format_args!("{name}={value}\n")).unwrap_or_default();
        line("ExecStart", &words.join(" "));
        for (name, value) in &self.environment {
            line("Environment", &systemd_quoted(&format!("{name}={value}")));
        }
        // The whole line is the path; percent signs alone are read.
        line("WorkingDirectory", &self.folder.to_string_lossy().replace('%', "%%"));
        line("Restart", "on-failure");
        line("RestartSec", "5");
        // The server ends its models' processes itself.
        line("KillMode", "mixed");
        line("TimeoutStopSec", &self.stop_limit().to_string());
        unit + "\n[Install]\nWantedBy=default.target\n"
    }

    /// A launchd agent (`launchd.plist(5)`). What goes to standard error beside the log goes to `errors`.
    pub fn launchd_agent(&self, label: &str, errors: &Path) -> String {
        let text = |text: &str| format!("<string>{}</string>", xml_escaped(text));
        let program = self.program.to_string_lossy();
        let words = std::iter::once(&*program).chain(self.arguments.iter().map(String::as_str));
        let words: String = words.map(|word| format!("        {}\n", text(word))).collect();
        let variables: String = self
            .environment
            .iter()
            .map(|(name, value)| format!("        <key>{}</key>\n        {}\n", xml_escaped(name), text(value)))
            .collect();
        let entries = [
            ("Label", text(label)),
            ("ProgramArguments", format!("<array>\n{words}    </array>")),
            ("EnvironmentVariables", format!("<dict>\n{variables}    </dict>")),
            ("WorkingDirectory", text(&self.folder.to_string_lossy())),
            ("RunAtLoad", "<true/>".to_owned()),
            ("KeepAlive", "<dict>\n        <key>SuccessfulExit</key>\n        <false/>\n    </dict>".to_owned()),
            ("ThrottleInterval", "<integer>10</integer>".to_owned()),
            ("ExitTimeOut", format!("<integer>{}</integer>", self.stop_limit())),
            ("ProcessType", text("Interactive")),
            ("StandardErrorPath", text(&errors.to_string_lossy())),
        ];
        let entries: String =
            entries.iter().map(|(key, value)| format!("    <key>{key}</key>\n    {value}\n")).collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n{entries}</dict>\n\
             </plist>\n"
        )
    }
}

/// A word as systemd reads it, quoted where it must be. In arguments a dollar sign must be doubled beside that.
fn systemd_quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn xml_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Paths and values with everything that one of the forms reads as something else.
    fn odd() -> ServiceDefinition {
        ServiceDefinition {
            program: "/opt/my & tools/100%/tallow".into(),
            arguments: ["serve", "--port=8000", "--", "/m & <n>/it's $HOME\\x.gguf", ""].map(str::to_owned).into(),
            environment: [("TALLOW_API_KEY", "a\"b$c%d&e"), ("HF_HOME", "/h")]
                .map(|(n, v)| (n.into(), v.into()))
                .into(),
            folder: "/home/me & you/100%".into(),
            shutdown_timeout: Duration::from_secs(20),
        }
    }

    #[test]
    fn a_unit_says_what_it_means_whatever_the_paths() {
        insta::assert_snapshot!(odd().systemd_unit());
    }

    #[test]
    fn an_agent_says_what_it_means_whatever_the_paths() {
        insta::assert_snapshot!(odd().launchd_agent("org.tallow.server", Path::new("/l & m/e.log")));
    }

    #[test]
    fn a_path_that_systemd_does_not_take_is_refused() {
        assert!(odd().check_for_systemd().is_ok());
        for path in ["/it's/tallow", "/a \"b\"/tallow", "/a\\b/tallow"] {
            let error = ServiceDefinition { program: path.into(), ..odd() }.check_for_systemd().unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    /// The system's own program reads what is written, where it is there.
    #[test]
    fn the_system_reads_its_form() {
        let folder = tempfile::tempdir().unwrap();
        // It is checked that the program is there.
        let program = folder.path().join("100% & more/tallow");
        std::fs::create_dir(program.parent().unwrap()).unwrap();
        std::fs::copy("/bin/sh", &program).unwrap();
        let definition = ServiceDefinition { program, folder: folder.path().join("100% \"more\""), ..odd() };
        let (unit, agent) = (folder.path().join("tallow.service"), folder.path().join("tallow.plist"));
        std::fs::write(&unit, definition.systemd_unit()).unwrap();
        std::fs::write(&agent, definition.launchd_agent("org.tallow.server", Path::new("/tmp/e.log"))).unwrap();
        let checks = [("systemd-analyze", vec!["--user", "verify"], &unit), ("plutil", vec!["-lint"], &agent)];
        for (program, arguments, file) in checks {
            // systemd looks for its own folder there.
            let output = Command::new(program).args(arguments).arg(file).env("XDG_RUNTIME_DIR", folder.path()).output();
            match output {
                Ok(output) => {
                    let told = String::from_utf8_lossy(&output.stderr).into_owned();
                    // What is ignored is told and no failure.
                    assert!(output.status.success() && !told.contains("tallow.service"), "{program}: {told}");
                }
                Err(_) => eprintln!("skipped: this system has no {program}"),
            }
        }
    }
}
