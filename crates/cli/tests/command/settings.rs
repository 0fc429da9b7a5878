//! Settings from the environment, as the command reads them.
use crate::common::{refused, says, tallow};
use std::process::Command;
use tempfile::TempDir;

/// `tallow serve` with variables, and a model that there is not: the settings are read before it is looked for.
fn serve(variables: &[(&str, &str)], model: &str) -> String {
    let home = TempDir::new().unwrap();
    let command: &mut Command = &mut tallow(home.path());
    refused(command.args(["serve", model]).envs(variables.iter().copied()))
}

#[test]
fn variables_of_others_making_are_left_out_with_one_warning() {
    let links = [
        ("TALLOW_SERVICE_HOST", "10.0.0.11"),
        ("TALLOW_PORT", "tcp://10.0.0.11:80"),
        ("TALLOW_PORT_80_TCP_ADDR", "10.0.0.11"),
        ("TALLOW_MAX_NUM_SEQ", "1"),
    ];
    let text = serve(&links, "./no-model");
    says(&text, &["no-model", "TALLOW_SERVICE_HOST", "TALLOW_PORT_80_TCP_ADDR", "did you mean TALLOW_MAX_NUM_SEQS?"]);
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
}

#[test]
fn a_wrong_value_is_named_with_its_variable_and_what_is_allowed() {
    for (name, value, told) in [
        ("TALLOW_PORT", "abc", "TALLOW_PORT: is \"abc\"; it must be a whole number from 0 to 65535"),
        ("TALLOW_PORT", "65536", "TALLOW_PORT: is 65536; it must be a whole number from 0 to 65535"),
        ("TALLOW_MAX_NUM_SEQS", "-1", "TALLOW_MAX_NUM_SEQS: is \"-1\"; it must be a whole number"),
        ("TALLOW_MAX_NUM_SEQS", "0", "TALLOW_MAX_NUM_SEQS: --max-num-seqs is 0"),
        ("TALLOW_KV_CACHE_MEMORY", "many", "TALLOW_KV_CACHE_MEMORY: is \"many\"; it must be a number of bytes"),
        ("TALLOW_DEVICE", "gpu", "TALLOW_DEVICE: --device: is gpu; it must be one of auto, cpu, metal"),
        ("TALLOW_CONFIG", "/no/such.toml", "/no/such.toml (--config, TALLOW_CONFIG): No such file"),
    ] {
        let text = serve(&[(name, value)], "./no-model");
        assert!(text.contains(told) && !text.contains("no-model"), "{told} is not in: {text}");
    }
}
