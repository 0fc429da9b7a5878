//! The layers of settings, and what is refused of them.
use super::*;
use crate::args::{Cli, Command};
use clap::Parser;
use keys::{KEYS, ValueKind};
use turboquant::{Format, KvPair, PRESETS, Side};

/// The settings of `tallow serve` with these flags.
fn read(flags: &[&str]) -> Result<Settings> {
    let cli = Cli::parse_from(["tallow", "serve"].iter().chain(flags));
    let Command::Serve(args) = cli.command else { panic!("serve was asked for") };
    Settings::of_command(&args)
}

fn refusal(flags: &[&str]) -> String {
    format!("{:#}", read(flags).unwrap_err())
}

#[test]
fn drafts_are_bounded_or_off() {
    let tokens = |flags: &[&str]| read(flags).unwrap().engine.max_draft_tokens;
    assert_eq!((tokens(&[]), tokens(&["--speculate", "off"]), tokens(&["--speculate", "64"])), (16, 0, 64));
    for wrong in ["0", "65", "on", ""] {
        let error = refusal(&["--speculate", wrong]);
        assert!(error.contains(&format!("--speculate: is {wrong:?}; it must be off")), "{error}");
    }
}

#[test]
fn flags_beat_the_file() {
    let settings = read(&[]).unwrap();
    assert_eq!((settings.port, settings.engine.kv.named_pair()), (8000, None));
    let settings = read(&["--k-quant", "f16", "--kv-cache-memory", "2GiB", "--port", "9"]).unwrap();
    assert_eq!(settings.engine.kv.named_pair(), Some(KvPair::new(Format::F16, Format::Bf16)));
    assert_eq!((settings.port, settings.engine.kv_cache_memory), (9, Some(2 << 30)));
    let settings = read(&["--chat-special-tokens", "--chat-template", "t.jinja"]).unwrap();
    assert_eq!(settings.engine.chat_template, Some(PathBuf::from("t.jinja")));
    assert!(settings.engine.chat_special_tokens);
}

#[test]
fn the_kinds_of_settings_are_those_of_their_fields() {
    let defaults = Figment::from(Toml::string(DEFAULTS));
    let unknown = defaults.clone().merge(("nope", 1)).extract::<RawSettings>().unwrap_err();
    let figment::error::Kind::UnknownField(_, settings) = unknown.kind else { panic!("{unknown}") };
    assert_eq!(settings.to_vec(), KEYS.map(|(key, _)| key));
    for (key, kind) in KEYS {
        let refused = |value: Value| defaults.clone().merge((key, value)).extract::<RawSettings>().is_err();
        assert_eq!(refused(16.into()), [ValueKind::Text, ValueKind::Switch, ValueKind::Texts].contains(&kind), "{key}");
        assert_eq!(refused(true.into()), kind != ValueKind::Switch, "{key}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let error = refusal(&["--kv-cache-memory", "lots"]);
    assert_eq!(error, "--kv-cache-memory: is \"lots\"; it must be a number of bytes, such as 2147483648 or 2GiB");
    assert!(refusal(&["--config", "/no/such/file.toml"]).contains("/no/such/file.toml"));
    let error = refusal(&["--k-quant", "q9"]);
    assert!(error.contains("--k-quant") && error.contains("q9") && error.contains("bf16"), "{error}");
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_file_and_line() {
    let path = std::env::temp_dir().join(format!("tallow-settings-{}.toml", std::process::id()));
    let file = path.to_str().unwrap();
    for (text, told) in [
        ("\nmax_num_seqs = -1", ", line 2: max_num_seqs is -1; it must be a whole number that is not negative"),
        ("# none\n\nmax_num_seq = 1", ", line 3: max_num_seq is no setting; did you mean max_num_seqs?"),
        ("[kv]\npreset = 1", ", line 1: kv is no setting"),
        ("host = 1", ", line 1: host is 1; it must be text"),
        ("port = 65536", ", line 1: port is 65536; it must be a whole number from 0 to 65535"),
        ("host = \"h\"\nblock_size = 24", ", line 2: --block-size is 24"),
        ("port = ", " (--config, TALLOW_CONFIG): TOML parse error at line 1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = refusal(&["--config", file]);
        assert!(error.contains(&format!("{file}{told}")), "{error}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_is_wrong_whatever_the_model_is_named_at_once() {
    let most = usize::MAX.to_string();
    for (flag, value, told) in [
        ("--shutdown-timeout", &*u64::MAX.to_string(), "--shutdown-timeout"),
        ("--read-timeout", "0", "--read-timeout: is 0; it must lie in [1, 86400]"),
        ("--api-key", "", "--api-key: is empty"),
        ("--api-key", "secret\n", "control characters or white space around it"),
        ("--api-key", "a\nb", "control characters"),
        ("--served-model-name", "", "--served-model-name: is empty"),
        ("--chat-template", "", "--chat-template: is empty"),
        ("--host", "http://127.0.0.1", "--host: is \"http://127.0.0.1\"; it must be a name or an address alone"),
        ("--host", "127.0.0.1:80", "the port in --port"),
        ("--host", "", "--host: is \"\""),
        ("--cors-origin", "chat.example.com", "--cors-origin: is \"chat.example.com\"; it must be * or an origin"),
        ("--allowed-host", "http://a", "--allowed-host: is \"http://a\"; it must be * or a name"),
        ("--max-num-seqs", "0", "--max-num-seqs is 0"),
        ("--max-num-seqs", &most, "--max-num-seqs"),
        ("--max-num-batched-tokens", "63", "--max-num-batched-tokens is 63"),
        ("--max-queued-requests", "0", "--max-queued-requests: is 0"),
        ("--block-size", "24", "--block-size is 24"),
        ("--max-tokens-default", "0", "--max-tokens-default: is 0"),
        ("--threads", "100000", "--threads: is 100000"),
        ("--device", "gpu", "--device: is gpu"),
        ("--decode-kernel", "fast", "--decode-kernel: is fast"),
    ] {
        let message = read(&[flag, value]).unwrap_err().to_string();
        assert!(message.contains(told), "{message}");
    }
}

#[test]
fn lists_come_from_flags_and_from_one_text() {
    let settings = read(&["--cors-origin", "https://a.example,http://b.example", "--cors-origin", "null"]).unwrap();
    let origins = ["https://a.example", "http://b.example", "null"].map(|text| text.parse().unwrap());
    assert_eq!(settings.cors_origins, origins);
    let joined: TextList = serde_json::from_str("\"a.example,.b.example\"").unwrap();
    let hosts = ["a.example", ".b.example"].map(|text| text.parse().unwrap());
    assert_eq!(joined.parse::<AllowedHost>("--allowed-host").unwrap(), hosts);
}

#[test]
fn an_address_to_listen_on_may_stand_in_brackets() {
    for (host, listened) in [("[::1]", "::1"), ("::", "::"), ("localhost", "localhost"), ("0.0.0.0", "0.0.0.0")] {
        assert_eq!(read(&["--host", host]).unwrap().host, listened);
    }
}

#[test]
fn weights_are_mapped_unless_that_is_switched_off() {
    let reading = |flags: &[&str]| read(flags).unwrap().engine.reading;
    assert_eq!(reading(&[]), Reading::Mapped);
    assert_eq!(reading(&["--no-mmap"]), Reading::InMemory);
    assert_eq!(reading(&["--no-mmap=false"]), Reading::Mapped);
}

#[test]
fn weights_are_quantised_to_known_types_alone() {
    let settings = read(&["--weight-quant", "q4_k"]).unwrap();
    assert_eq!(settings.engine.weight_quant, Some(WeightQuant::Q4K));
    let error = read(&["--weight-quant", "q4"]).unwrap_err().to_string();
    assert!(error.contains("--weight-quant") && error.contains("q4_k"), "{error}");
}

#[test]
fn a_time_is_a_number_with_a_unit() {
    for (text, seconds) in [("90s", 90), ("30m", 1800), (" 2 h", 7200), ("1d", 86_400)] {
        assert_eq!(read(&["--idle-unload", text]).unwrap().idle_unload, Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in ["", "30", "0s", "-1m", "1.5h", "5 weeks", "m", "99999999999999999999d"] {
        let error = refusal(&[&format!("--idle-unload={text}")]);
        assert!(
            error.contains(&format!("--idle-unload: is {text:?}; it must be a whole number with a unit")),
            "{error}"
        );
    }
}

/// What a model's process is given is read as what the front was given.
#[test]
fn flags_are_told_again_as_they_were_given() {
    let given = ["--max-model-len", "64", "--k-quant", "f16", "--no-mmap", "--allowed-host", "a,b", "--memory", "6GiB"];
    let settings = read(&given).unwrap();
    let again: Vec<String> =
        settings.flags.iter().map(|(key, value)| format!("--{}={value}", key.replace('_', "-"))).collect();
    let again = read(&again.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let seen = |settings: &Settings| {
        let engine = &settings.engine;
        (engine.max_model_len, engine.kv.named_pair(), engine.reading, settings.allowed_hosts.clone(), engine.memory)
    };
    assert_eq!(seen(&again), seen(&settings));
    assert_eq!((settings.flags.len(), again.engine.memory), (5, Some(6 << 30)));
}

/// The lists of presets and formats in the file are those of the tables.
#[test]
fn the_default_file_lists_every_preset_and_format() {
    let presets: Vec<_> = PRESETS.iter().map(|p| format!("#   {:<14} {}", p.name, p.pair)).collect();
    let formats = Format::all(Side::K).chain(Format::all(Side::V).filter(|f| *f.sides() == [Side::V]));
    let sides = |f: Format| f.sides().iter().map(Side::to_string).collect::<Vec<_>>().join(" ");
    let formats: Vec<_> = formats.map(|f| format!("#   {:<5} {:<4} {}", f.name(), sides(f), f.help())).collect();
    let listed: Vec<_> = DEFAULTS.lines().filter(|line| line.starts_with("#   ")).collect();
    assert_eq!(listed, [presets, formats].concat());
}

/// Every key of the file is a setting, and the commented ones are too.
#[test]
fn the_default_file_documents_every_setting() {
    let uncommented: String = DEFAULTS
        .lines()
        .map(|l| {
            l.strip_prefix("# ").filter(|l| l.split_once(" = ").is_some_and(|(k, _)| !k.contains(' '))).unwrap_or(l)
        })
        .map(|l| format!("{l}\n"))
        .collect();
    let all: RawSettings = Figment::from(Toml::string(&uncommented)).extract().unwrap();
    assert!(
        all.k_quant.is_some()
            && all.v_quant.is_some()
            && all.api_key.is_some()
            && all.model.is_some()
            && all.weight_quant.is_some()
            && all.served_model_name.is_some()
            && all.chat_template.is_some()
            && all.models_dir.is_some()
            && all.idle_unload.is_some()
    );
    assert!(
        all.max_model_len.is_some()
            && all.max_tokens_default.is_some()
            && all.memory.is_some()
            && all.kv_cache_memory.is_some()
    );
}
