//! Host and kernels' text agree: structs, codebooks, formats.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
use metal::{
    AttendParams, CopyParams, GateParams, NormParams, Params, QueryParams, ReduceParams, TileParams, TopParams,
    WriteParams, source,
};
use std::collections::BTreeMap;
use turboquant::{Format, Side};

/// The text without comments between `start` and the next `end`.
fn between(start: &str, end: &str) -> String {
    let text = source::library(None);
    let uncommented: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
    let text = uncommented.join("\n");
    let from = text.find(start).unwrap_or_else(|| panic!("{start:?} is not in the kernels")) + start.len();
    text[from..from + text[from..].find(end).unwrap()].to_owned()
}

fn check_struct<P: Params + Default>() {
    let body = between(&format!("struct {} {{", P::NAME), "}");
    let fields: Vec<(&str, &str)> = body
        .split(';')
        .map(str::trim)
        .filter(|field| !field.is_empty())
        .map(|field| field.split_once(char::is_whitespace).map(|(ty, name)| (name.trim(), ty)).unwrap())
        .collect();
    assert_eq!(fields, P::FIELDS, "{}", P::NAME);
    assert_eq!(P::default().bytes().len(), 4 * P::FIELDS.len());
}

#[test]
fn structs_have_the_same_fields_in_the_same_order() {
    check_struct::<WriteParams>();
    check_struct::<QueryParams>();
    check_struct::<AttendParams>();
    check_struct::<ReduceParams>();
    check_struct::<CopyParams>();
    check_struct::<TileParams>();
    check_struct::<NormParams>();
    check_struct::<GateParams>();
    check_struct::<TopParams>();
}

#[test]
fn codebooks_are_those_of_turboquant() {
    for (name, format) in [
        ("kMagnitudes2[2]", Format::Tq2),
        ("kMagnitudes3[4]", Format::Tq3),
        ("kMagnitudes4[8]", Format::Lloyd4),
        ("kMagnitudes5[16]", Format::Tq5),
        ("kMagnitudesCubic[8]", Format::Tq4),
    ] {
        let body = between(&format!("{name} = {{"), "}");
        let numbers: Vec<f32> = body.split(',').map(|n| n.trim().trim_end_matches('f').parse().unwrap()).collect();
        assert_eq!(numbers, format.magnitudes(), "{name}");
    }
}

#[test]
fn formats_are_numbered_alike() {
    let body = between("enum Format : uint {", "}");
    let names: Vec<String> = body.split(',').map(|n| n.trim().trim_start_matches('k').to_lowercase()).collect();
    // Formats of both sides are listed twice.
    let all: BTreeMap<u32, Format> =
        [Side::K, Side::V].into_iter().flat_map(Format::all).filter_map(|f| Some((f.gpu_id()?, f))).collect();
    let ours: Vec<String> = all.values().map(|format| format!("{format:?}").to_lowercase()).collect();
    assert_eq!(names, ours);
    assert!(all.keys().copied().eq(0..names.len() as u32));
}
