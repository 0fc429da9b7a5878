//! The kernels' text, as Apple's compiler gets it. It compiles from memory and finds no files, so each `#include` of
//! ours is replaced by the file.
use crate::executor::{Constant, ExecError};

/// The path and the text of each file, headers before the kernels' own files.
macro_rules! files {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!("../../../kernels/", $path))),)*]
    };
}

const FILES: &[(&str, &str)] = files![
    "common/basics.h",
    "common/bits.h",
    "common/format_table.h",
    "common/formats.h",
    "common/matrices.h",
    "common/order.h",
    "common/vectors.h",
    "attend/columns.h",
    "attend/decode.h",
    "attend/matrix.h",
    "attend/mean_correction.h",
    "attend/softmax.h",
    "attend/stream.h",
    "attend/trellis.h",
    "cache/viterbi.h",
    "delta/sequences.h",
    "products/grids.h",
    "products/operand.h",
    "products/output.h",
    "products/weights.h",
    "products/weights_grid.h",
    "products/weights_mlx.h",
    "attend/attend_mma.metal",
    "attend/attend_vec.metal",
    "attend/prefill.metal",
    "attend/query.metal",
    "attend/reduce.metal",
    "cache/copy.metal",
    "cache/write.metal",
    "delta/convolve.metal",
    "delta/delta_rule.metal",
    "experts/routed.metal",
    "experts/route.metal",
    "products/matvec.metal",
    "products/pack.metal",
    "products/product.metal",
    "products/product_f32.metal",
    "rowwise/gate.metal",
    "rowwise/norm.metal",
    "rowwise/rows.metal",
    "rowwise/top.metal",
];

/// All kernels as one source. With `head_dim` they are instantiated for that head size alone; function constants are
/// constants of the text where `constants` has a value for them.
pub fn library(head_dim: Option<usize>, constants: &[Constant]) -> String {
    text(FILES.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".metal")), head_dim, constants)
}

/// The source of one kernel, by its host name: its file with all that this includes, for the head size that the name
/// has. Function constants are constants of the text: the compiler then sees neither other formats' branches nor loops
/// and arrays of unknown length, which it would unroll or put into registers only once it had specialised the function.
///
/// # Errors
/// [`ExecError::Kernel`] where no file has the kernel, or where `constants` lacks a function constant of its text.
pub fn of_kernel(kernel: &str, constants: &[Constant]) -> Result<String, ExecError> {
    let error = |message: String| ExecError::Kernel { kernel: kernel.to_owned(), message };
    let functions = FILES.iter().flat_map(|(path, text)| functions(text).map(move |function| (function, *path)));
    let of_ours = |function: &str| {
        kernel.strip_prefix(function).is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('_'))
    };
    let (_, path) = functions
        .filter(|(function, _)| of_ours(function))
        .max_by_key(|(function, _)| function.len())
        .ok_or_else(|| error("no file has it".to_owned()))?;
    let head_dim = kernel.split('_').find_map(|part| part.strip_prefix('d')?.parse().ok());
    let mut text = text([path], head_dim, constants);
    // A product's text has the kernels of one type of weight.
    let product = kernel.strip_prefix("product_").and_then(|rest| rest.rsplit_once("_o"));
    let kind = product.or_else(|| kernel.strip_prefix("matvec_")?.rsplit_once("_x"));
    if let Some((kind, _)) = kind {
        text.insert_str(0, &format!("#define WEIGHT_TYPE {}\n#define WEIGHT_NAME \"{kind}\"\n", kind.to_uppercase()));
    }
    match text.lines().find(|line| function_constant(line).is_some()) {
        Some(line) => Err(error(format!("no value for {line}"))),
        None => Ok(text),
    }
}

/// The names of a file's kernels, each of which begins the line after `KERNEL(threads)`.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().zip(text.lines().skip(1));
    lines.filter(|(line, _)| line.starts_with("KERNEL(")).filter_map(|(_, next)| Some(next.split_once('(')?.0))
}

fn text<'a>(paths: impl IntoIterator<Item = &'a str>, head_dim: Option<usize>, constants: &[Constant]) -> String {
    let mut text = head_dim.map(|d| format!("#define HEAD_DIM {d}\n")).unwrap_or_default();
    let mut included = Vec::new();
    paths.into_iter().for_each(|path| include(path, constants, &mut included, &mut text));
    text
}

/// Appends a file and, before it, what it includes and the text does not have yet.
fn include<'a>(path: &'a str, constants: &[Constant], included: &mut Vec<&'a str>, text: &mut String) {
    if included.contains(&path) {
        return;
    }
    included.push(path);
    let file = FILES.iter().find(|(of, _)| *of == path).map_or("", |(_, text)| *text);
    for line in file.lines().filter(|line| *line != "#pragma once") {
        if let Some(path) = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            include(path, constants, included, text);
        } else {
            text.push_str(&with_value(line, constants).unwrap_or_else(|| line.to_owned()));
            text.push('\n');
        }
    }
}

/// The declaration before `[[function_constant(index)]]` in a line, and the index.
fn function_constant(line: &str) -> Option<(&str, u32)> {
    let (declaration, rest) = line.split_once(" [[function_constant(")?;
    Some((declaration.strip_prefix("constant ")?, rest.split_once(')')?.0.parse().ok()?))
}

/// A function constant with its value in place of its index; `None` for other lines, and if there is no value.
fn with_value(line: &str, constants: &[Constant]) -> Option<String> {
    let (declaration, wanted) = function_constant(line)?;
    constants.iter().find_map(|constant| match *constant {
        Constant::Bool(index, value) if index == wanted => Some(format!("constant constexpr {declaration} = {value};")),
        Constant::Uint(index, value) if index == wanted => {
            Some(format!("constant constexpr {declaration} = {value}u;"))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;
    use turboquant::{Format, RecordLayout};

    #[test]
    fn every_header_that_is_included_is_there() {
        let paths: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        let includes =
            FILES.iter().flat_map(|(_, text)| text.lines()).filter_map(|line| line.strip_prefix("#include \""));
        for include in includes {
            assert!(paths.contains(&include.trim_end_matches('"')), "{include}");
        }
    }

    #[test]
    fn a_kernel_gets_its_own_file_with_its_head_size_and_its_constants() {
        let record = RecordLayout::new(Format::Tc5, Format::Tc4, 64, 32).unwrap();
        let constants = Shape::new(record, 8, 4).constants();
        let text = of_kernel("attend_mma_d64_c1_u4", &constants).unwrap();
        for line in ["#define HEAD_DIM 64", "constant constexpr uint kGqaGroup = 4u;", "struct AttendParams {"] {
            assert_eq!(text.matches(line).count(), 1, "{line}");
        }
        assert!(
            text.contains("constant constexpr bool kKeysCentred = false;") && !text.contains("[[function_constant")
        );
        assert!(!text.contains("struct ReduceParams"), "another kernel's file");
        let plain = of_kernel("add_rms_norm", &[]).unwrap();
        assert!(plain.contains("struct NormParams") && !plain.contains("kKeyFormat"), "a kernel without constants");
    }

    #[test]
    fn what_a_kernel_lacks_is_an_error_by_name() {
        let error = of_kernel("attend_mma_d64_c1_u4", &[Constant::Uint(0, 4)]).unwrap_err().to_string();
        assert!(error.contains("attend_mma_d64_c1_u4") && error.contains("kValueFormat"), "{error}");
        let error = of_kernel("attend_mmb_d64", &[]).unwrap_err().to_string();
        assert!(error.contains("attend_mmb_d64"), "{error}");
    }
}
