//! Host and kernels' text agree: structs, codebooks, formats.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
use metal::{
    AttendParams, CopyParams, GateParams, NormParams, Params, QueryParams, ReduceParams, TileParams, TopParams,
    WriteParams, format_id, source,
};
use turboquant::Format;

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
    use Format::*;
    let all = [F16, Bf16, Tq8, Tq5, Tq4, Tq3, Tq2, Affine8, Affine5, Affine4, Int8, Lloyd5, Lloyd4, Lloyd3, Lloyd2];
    for format in all {
        assert_eq!(names[format_id(format).unwrap() as usize], format!("{format:?}").to_lowercase());
    }
    assert_eq!(names.len(), all.len());
}
