//! The tables of the documents say what the tables of formats and presets say.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
use turboquant::{Format, KvPair, PRESETS, Side};

/// The rows of the tables of a document, cell by cell, without the marks of code.
fn rows(path: &str) -> Vec<Vec<String>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(path)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

/// Mean bits of an element of K and V.
fn bits(pair: KvPair, head_dim: usize) -> f64 {
    (pair.k.bits_per_element(head_dim) + pair.v.bits_per_element(head_dim)) / 2.0
}

/// Presets with their pairs, and how many times bf16's tokens they hold.
#[test]
fn the_readme_tells_the_presets() {
    let rows = rows("README.md");
    for preset in PRESETS.iter().filter(|preset| !["bf16", "extreme"].contains(&preset.name)) {
        let row = rows.iter().find(|row| row[0] == preset.name).unwrap_or_else(|| panic!("no row of {}", preset.name));
        assert_eq!(row[1..3], [preset.pair.to_string(), format!("{:.2}x", 16.0 / bits(preset.pair, 128))]);
    }
}

/// The bits that an element takes in each format.
#[test]
fn the_crates_readme_tells_the_bits() {
    let rows = rows("crates/turboquant/README.md");
    let at = rows.iter().position(|row| row[0].starts_with("bits an element, d = 128")).unwrap();
    let names = &rows[at - 2];
    assert!(names.len() > 9);
    for (name, told) in names.iter().zip(&rows[at]).skip(1) {
        let (side, name) = match name.split_once(' ') {
            Some(("V", name)) => (Side::V, name),
            Some((_, name)) => (Side::K, name),
            None => (Side::K, &**name),
        };
        assert_eq!(told.parse(), Ok(Format::parse(side, name).unwrap().bits_per_element(128)), "{side} {name}");
    }
}

/// Every pair that was measured exists, and takes the bits that are told. The models' heads have 64 and 128 elements.
#[test]
fn the_measurements_are_of_pairs_that_there_are() {
    let (mut head_dims, mut head_dim) = ([64, 128].into_iter(), 0);
    for row in rows("docs/quality.md").iter().filter(|row| row.len() == 8 && row[0] != "K" && !row[0].starts_with('-'))
    {
        if row[0].starts_with("ggml") {
            continue;
        }
        let pair = KvPair::new(Format::parse(Side::K, &row[0]).unwrap(), Format::parse(Side::V, &row[1]).unwrap());
        // The table of each model begins with bf16.
        if row[0] == "bf16" {
            head_dim = head_dims.next().expect("a table of a third model");
        }
        let (k, v) = (pair.k.bits_per_element(head_dim), pair.v.bits_per_element(head_dim));
        assert_eq!(row[2], format!("{:.2}", (k + v) / 2.0), "{pair} at {head_dim}");
    }
    assert_eq!(head_dims.next(), None, "the table of a model is missing");
}
