//! `tallow bench` on a bundled model.
use crate::common::{repo, run, tallow};
use tempfile::TempDir;

#[test]
fn a_run_is_compared_with_an_earlier_one() {
    let home = TempDir::new().unwrap();
    let model = repo("models/tiny-mistral");
    let bench = |batches: &str, more: &[&str]| {
        let sizes =
            ["--contexts", "16", "--batches", batches, "--steps", "2", "--rounds", "2", "--kv-preset", "balanced"];
        let mut command = tallow(home.path());
        run(command.arg("bench").arg(&model).args(sizes).args(more).current_dir(home.path()))
    };
    let first = bench("1", &["--json", "first.json"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    // A model of random weights repeats itself soon, and so is drafted for.
    let drafts = first.stdout.lines().find(|line| line.starts_with("An answer that repeats its prompt")).unwrap();
    let (_, counts) = drafts.split_once("times as fast; ").unwrap();
    let counts: Vec<usize> = counts.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(counts[..], [accepted, drafted] if 0 < accepted && accepted <= drafted), "{drafts}");
    let rows: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(home.path().join("first.json")).unwrap()).unwrap();
    // The flags' pair, and bf16 beside it.
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for row in rows.as_array().unwrap() {
        let (decode, first_token) = (&row["decode"], row["first_token"].as_f64().unwrap());
        assert!(
            decode["least"].as_f64() <= decode["median"].as_f64()
                && decode["median"].as_f64() <= decode["most"].as_f64()
        );
        assert!((first_token * row["prefill"]["median"].as_f64().unwrap() - 16.0).abs() < 1e-6);
        assert!(row["resident_bytes"].as_u64().unwrap() > 1 << 20);
    }

    let second = bench("1,2", &["--compare", "first.json"]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    let (_, comparison) = second.stdout.split_once("Times the speed in first.json:").unwrap();
    let lines: Vec<&str> =
        comparison.lines().filter(|line| line.starts_with("| tc4") || line.starts_with("| bf16")).collect();
    assert_eq!(lines.len(), 4, "{comparison}");
    for line in lines {
        assert_eq!(line.contains("| 2 | not measured then"), line.contains("| 16 | 2 |"), "{line}");
    }

    std::fs::write(home.path().join("other.json"), "{}").unwrap();
    let refused = bench("1", &["--compare", "other.json"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("--compare other.json"), "{}", refused.stderr);
}
