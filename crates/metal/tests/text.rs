//! Host and kernels' text agree on structs.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
use metal::{
    AttendParams, ConvolveParams, CopyParams, DeltaParams, ExactParams, GateParams, GroupParams, NormOperandParams,
    NormParams, PackParams, PackRoutedParams, Params, ProductParams, QueryParams, ReduceParams, RouteParams,
    RowsParams, SumExpertsParams, TileParams, TopParams, WriteParams, source,
};

/// The text without comments between `start` and the next `end`.
fn between(start: &str, end: &str) -> String {
    let text = source::library(None, &[]);
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
    check_struct::<RowsParams>();
    check_struct::<PackParams>();
    check_struct::<NormOperandParams>();
    check_struct::<ProductParams>();
    check_struct::<ExactParams>();
    check_struct::<ConvolveParams>();
    check_struct::<DeltaParams>();
    check_struct::<RouteParams>();
    check_struct::<GroupParams>();
    check_struct::<PackRoutedParams>();
    check_struct::<SumExpertsParams>();
}
