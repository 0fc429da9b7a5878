//! The kernels' text, as one library.

const FILES: &[&str] = &[
    include_str!("../../../kernels/formats.h"),
    include_str!("../../../kernels/codebooks.h"),
    include_str!("../../../kernels/decode.h"),
    include_str!("../../../kernels/vectors.h"),
    include_str!("../../../kernels/columns.h"),
    include_str!("../../../kernels/matrix.h"),
    include_str!("../../../kernels/mean_correction.h"),
    include_str!("../../../kernels/softmax.h"),
    include_str!("../../../kernels/stream.h"),
    include_str!("../../../kernels/write.metal"),
    include_str!("../../../kernels/query.metal"),
    include_str!("../../../kernels/attend_mma.metal"),
    include_str!("../../../kernels/attend_vec.metal"),
    include_str!("../../../kernels/prefill.metal"),
    include_str!("../../../kernels/reduce.metal"),
    include_str!("../../../kernels/copy.metal"),
    include_str!("../../../kernels/helpers.metal"),
];

/// All kernels as one source, since Metal compiles from memory and finds no files. With `head_dim` kernels are
/// instantiated for that head size alone.
pub fn library(head_dim: Option<usize>) -> String {
    let mut text = head_dim.map(|d| format!("#define HEAD_DIM {d}\n")).unwrap_or_default();
    let ours = |line: &str| line.starts_with("#include \"") || line.starts_with("#pragma once");
    for line in FILES.iter().flat_map(|file| file.lines()).filter(|line| !ours(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text
}
