//! The kernels' text, as one library.

const FILES: &[&str] = &[
    include_str!("../../../kernels/common/format_table.h"),
    include_str!("../../../kernels/common/formats.h"),
    include_str!("../../../kernels/common/bits.h"),
    include_str!("../../../kernels/attend/matrix.h"),
    include_str!("../../../kernels/attend/trellis.h"),
    include_str!("../../../kernels/attend/decode.h"),
    include_str!("../../../kernels/common/vectors.h"),
    include_str!("../../../kernels/attend/columns.h"),
    include_str!("../../../kernels/attend/mean_correction.h"),
    include_str!("../../../kernels/attend/softmax.h"),
    include_str!("../../../kernels/attend/stream.h"),
    include_str!("../../../kernels/cache/viterbi.h"),
    include_str!("../../../kernels/cache/write.metal"),
    include_str!("../../../kernels/attend/query.metal"),
    include_str!("../../../kernels/attend/attend_mma.metal"),
    include_str!("../../../kernels/attend/attend_vec.metal"),
    include_str!("../../../kernels/attend/prefill.metal"),
    include_str!("../../../kernels/attend/reduce.metal"),
    include_str!("../../../kernels/cache/copy.metal"),
    include_str!("../../../kernels/rowwise/norm.metal"),
    include_str!("../../../kernels/rowwise/gate.metal"),
    include_str!("../../../kernels/rowwise/top.metal"),
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
