//! The tables of the documents say what the tables of formats and presets say.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
use turboquant::{Format, KvPair, PRESETS, Side};

fn text(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The rows of the tables of a text, cell by cell, without the marks of code.
fn rows_of(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

fn rows(path: &str) -> Vec<Vec<String>> {
    rows_of(&text(path))
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

/// Every pair that was measured exists, and takes the bits that are told.
#[test]
fn the_measurements_are_of_pairs_that_there_are() {
    /// The models that are measured, and the elements of their heads.
    const MODELS: [(&str, usize); 4] = [("smollm2-135m", 64), ("qwen2.5-coder-0.5b", 64), ("demo", 64), ("eval", 128)];
    let mut judged = 0;
    for section in text("docs/quality.md").split("\n## ").skip(1) {
        let (model, tables) = section.split_once('\n').unwrap();
        let (_, head_dim) = MODELS.into_iter().find(|(name, _)| *name == model).expect(model);
        let of_pairs = rows_of(tables).into_iter().filter(|row| row.len() >= 8 && row[0] != "K" && row[0] != "---");
        for row in of_pairs.filter(|row| !row[0].starts_with("ggml")) {
            let pair = KvPair::new(Format::parse(Side::K, &row[0]).unwrap(), Format::parse(Side::V, &row[1]).unwrap());
            let (k, v) = (pair.k.bits_per_element(head_dim), pair.v.bits_per_element(head_dim));
            assert_eq!(row[2], format!("{:.2}", (k + v) / 2.0), "{pair} at {head_dim}");
            judged += 1;
        }
    }
    assert!(judged > 30, "{judged} rows");
}
