//! `kernels/common/format_table.h`: what GPU kernels know of the table of formats and of the codebooks. The header is
//! written from them, so that neither is kept twice.
use crate::codebook::Codebook;
use crate::format::{Coding, Format, ScaleLayout, Side};
use crate::simd::viterbi::AROUND;
use crate::trellis::{TRIED, Trellis, UNIT};
use half::f16;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/common/format_table.h");
/// Set to anything, this variable has the test write the header in place of comparing it.
const UPDATE: &str = "UPDATE_KERNELS";

/// The formats that kernels have, in the order of the numbers that kernels have for them.
fn formats() -> Vec<Format> {
    // Formats of both sides are listed twice.
    let all = Format::all(Side::K).chain(Format::all(Side::V));
    let by_id: BTreeMap<u32, Format> = all.filter_map(|format| Some((format.gpu_id()?, format))).collect();
    assert!(by_id.keys().copied().eq(0..by_id.len() as u32), "the GPU's numbers have gaps");
    by_id.into_values().collect()
}

/// The bits of a code that lie in the main plane, and whether one more, its highest, lies in a plane of its own.
fn planes(format: Format) -> (usize, bool) {
    match (format.code_bits(), format.coding()) {
        // Looked up one by one, so dense; affine codes are decoded in pairs where they lie.
        (5, Coding::Affine(_)) => (4, true),
        // Chained bits lie together, the free bit apart.
        (_, Coding::Trellis(trellis)) => (trellis.chained(), trellis.has_free_bit()),
        (3, _) => (2, true),
        (bits @ (2 | 4 | 5 | 8 | 16), _) => (bits, false),
        (bits, _) => panic!("kernels have no planes for codes of {bits} bits ({format:?})"),
    }
}

/// An expression that is true of the formats among `all` for which `is` says so.
fn condition(all: &[Format], is: impl Fn(Format) -> bool) -> String {
    let runs = all.chunk_by(|a, b| is(*a) == is(*b)).filter(|run| is(run[0]));
    let terms: Vec<String> = runs
        .flat_map(|run| match run {
            [first, _, .., last] if last == &all[all.len() - 1] => vec![format!("f >= k{first:?}")],
            [first, _, .., last] => vec![format!("(f >= k{first:?} && f <= k{last:?})")],
            few => few.iter().map(|format| format!("f == k{format:?}")).collect(),
        })
        .collect();
    match terms.as_slice() {
        [] => "false".to_owned(),
        [one] => one.trim_matches(['(', ')']).to_owned(),
        _ => terms.join(" || "),
    }
}

/// A function that returns the value of the first condition that holds; the last value needs none.
fn choice(text: &mut String, signature: &str, mut cases: Vec<(String, String)>) {
    let (_, last) = cases.pop().unwrap();
    let cases: Vec<String> = cases.iter().map(|(condition, value)| format!("{condition} ? {value}")).collect();
    let cases = cases.join("\n       : ");
    writeln!(text, "INLINE {signature} {{\n  return {cases}\n       : {last};\n}}").unwrap();
}

fn header() -> String {
    let (all, mut text) = (formats(), String::new());
    text += "// The KV formats and their codebooks, written from crates/turboquant/src/format.rs and codebook.rs by\n";
    writeln!(text, "// `{UPDATE}=1 cargo test -p turboquant kernel_header`. Change those and run that.").unwrap();
    text += "// clang-format off\n#pragma once\n#include \"common/basics.h\"\n\n";
    text += "// Function constants 0 and 1.\nenum Format : uint {\n";
    for format in &all {
        let sides: Vec<String> = format.sides().iter().map(Side::to_string).collect();
        writeln!(text, "  k{format:?},  // {} {}", sides.join(" and "), format.name()).unwrap();
    }
    text += "};\n";
    write_predicates(&mut text, &all);
    write_trellis_codes(&mut text, &all);
    write_codebooks(&mut text, &all);
    text
}

fn write_predicates(text: &mut String, all: &[Format]) {
    let mut predicate = |comment: &str, name: &str, is: &dyn Fn(Format) -> bool| {
        writeln!(text, "// {comment}\nINLINE bool {name}(uint f) {{ return {}; }}", condition(all, is)).unwrap();
    };
    let top =
        "A further bit in a plane of its own: the sign, an affine code's highest bit, or a trellis code's free bit.";
    predicate(top, "has_top_plane", &|format| planes(format).1);
    predicate("One scale a vector.", "is_scaled", &Format::has_one_scale);
    let grouped = |format: Format| format.scale_layout() == ScaleLayout::PerGroup;
    predicate("One scale, and with affine codes a minimum, for 32 elements.", "is_grouped", &grouped);
    let affine = |format: Format| matches!(format.coding(), Coding::Affine(_));
    predicate("Unsigned codes above a minimum.", "is_affine", &affine);
    predicate("Codes from -127 to 127.", "is_int8", &|format| format.coding() == Coding::Int8);
    predicate("Vectors are rotated before they are stored.", "is_rotated", &Format::is_rotated);
    predicate("The value of an element depends on the codes before it too.", "is_trellis", &Format::is_trellis);
    text.push_str("// Bits of an element in the main plane.\n");
    let of_bits = |bits: usize| (condition(all, |format| planes(format).0 == bits), bits.to_string());
    choice(text, "uint main_bits(uint f)", [16, 8, 5, 2, 4].map(of_bits).to_vec());
}

/// What kernels know of trellis codes: bits, the polynomial that gives a point its value, and the values as encoders
/// compare with them.
fn write_trellis_codes(text: &mut String, all: &[Format]) {
    let codes: Vec<(Format, Trellis)> = all.iter().filter_map(|format| Some((*format, format.trellis()?))).collect();
    text.push_str("\n// Trellis codes, by the letters of crates/turboquant/src/trellis.rs.\n");
    let mut per_code = |comment: &str, signature: &str, value: &dyn Fn(Trellis) -> String| {
        writeln!(text, "// {comment}").unwrap();
        let cases = codes.iter().map(|(format, trellis)| (format!("f == k{format:?}"), value(*trellis)));
        choice(text, signature, cases.collect());
    };
    let halves = |x: f32| format!("0x{0:04x}{0:04x}u", f16::from_f32(x).to_bits());
    per_code("n", "uint level_shift(uint f)", &|trellis| trellis.shape().n.to_string());
    per_code("r", "uint history_shift(uint f)", &|trellis| trellis.shape().r.to_string());
    per_code("B, as two halves.", "uint trellis_inner(uint f)", &|trellis| halves(trellis.shape().b));
    per_code("E, as two halves.", "uint trellis_outer(uint f)", &|trellis| halves(trellis.shape().e));
    per_code("C", "float trellis_unit(uint f)", &|trellis| format!("{:?}f", trellis.shape().c));
    per_code("log2 of how much finer units encoders take differences in.", "uint fineness(uint f)", &|trellis| {
        trellis.fineness().to_string()
    });
    per_code("The largest integer of an element.", "int largest_integer(uint f)", &|trellis| {
        trellis.tables().limit.to_string()
    });
    let unit = UNIT as u32;
    text.push_str(
        "// Levels that an element is tried on, elements that are run through before the first, the value 1.\n",
    );
    writeln!(text, "enum Encoder : uint {{ kTried = {TRIED}, kAround = {AROUND}, kUnit = {unit} }};").unwrap();
    text.push_str("// The value of each point in integers, as encoders compare with: two's complement.\n");
    for (format, trellis) in codes {
        let points = &trellis.tables().integers[..trellis.levels() << trellis.level_shift()];
        let numbers: Vec<String> = points.iter().map(|x| format!("0x{:04x}", *x as u16)).collect();
        let lines: Vec<String> = numbers.chunks(13).map(|some| format!("    {},\n", some.join(", "))).collect();
        writeln!(text, "constant ushort kPoints{format:?}[{}] = {{\n{}}};", numbers.len(), lines.concat()).unwrap();
    }
}

fn write_codebooks(text: &mut String, all: &[Format]) {
    let book_of = |format: Format| match format.coding() {
        Coding::Book(book) => Some(book),
        _ => None,
    };
    let size = |book: &Codebook| book.magnitudes().len();
    let books: BTreeSet<Codebook> = all.iter().filter_map(|format| book_of(*format)).collect();
    text.push_str("\n// The codebooks for N(0,1), and the one that each format has.\nenum Codebook : uint {\n");
    books.iter().for_each(|book| writeln!(text, "  kBook{book:?},").unwrap());
    text.push_str("  kBookNone,\n};\n");
    // The largest first; the order decides how nvcc arranges `write`.
    let mut by_size: Vec<&Codebook> = books.iter().rev().collect();
    by_size.sort_by_key(|book| Reverse(size(book)));
    let of_book = |book: &Codebook| condition(all, |format| book_of(format) == Some(*book));
    let cases = |value: &dyn Fn(&Codebook) -> String| -> Vec<(String, String)> {
        by_size.iter().map(|book| (of_book(book), value(book))).collect()
    };
    let mut names = cases(&|book| format!("kBook{book:?}"));
    names.push((String::new(), "kBookNone".to_owned()));
    choice(text, "uint book_of(uint f)", names);
    text.push_str("// Codes ascend with their values; else a sign lies above the index of a magnitude.\n");
    let ascending = condition(all, |format| book_of(format).is_some_and(Codebook::is_polynomial));
    writeln!(text, "INLINE bool is_ascending(uint f) {{ return {ascending}; }}\n").unwrap();
    text.push_str("// Magnitudes, ascending.\n");
    for book in &books {
        let numbers: Vec<String> = book.magnitudes().iter().map(|c| format!("{c:?}f")).collect();
        let lines: Vec<String> = numbers.chunks(8).map(|some| format!("    {},\n", some.join(", "))).collect();
        writeln!(text, "constant float kMagnitudes{book:?}[{}] = {{\n{}}};", numbers.len(), lines.concat()).unwrap();
    }
    let mut sizes: Vec<usize> = by_size.iter().map(|book| size(book)).collect();
    sizes.dedup();
    let of_size = |n: &usize| condition(all, |format| book_of(format).is_some_and(|book| size(&book) == *n));
    choice(text, "uint magnitudes(uint f)", sizes.iter().map(|n| (of_size(n), n.to_string())).collect());
    choice(text, "float magnitude(uint f, uint i)", cases(&|book| format!("kMagnitudes{book:?}[i]")));
}

#[test]
fn kernels_have_the_formats_and_codebooks_of_the_tables() {
    let text = header();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap();
    assert_eq!(file, text, "kernels/common/format_table.h is behind; {UPDATE}=1 has this test write it");
}
