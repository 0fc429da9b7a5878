//! What Apple's compilers say of every kernel: the one of the command line, and the one that makes pipelines.
use super::metal_device;
use compute::{DeltaNetSizes, HeadOrder};
use metal::launch::{
    self, AttendBuffers, ConvolveBuffers, DeltaBuffers, GroupBuffers, NormBuffers, QueryBuffers, ReduceBuffers,
    RoutedRowsLayout, TopBuffers, WriteBuffers,
};
use metal::macos::Pipeline;
use metal::{AttendKernel, Launch, Shape, source};
use std::io::Write;
use std::process::{Command, Stdio};
use turboquant::{Format, PRESETS, RecordLayout};

const HEAD_DIMS: [usize; 6] = [64, 80, 96, 128, 256, 512];

/// Each preset at a head size, as models have it: keys centred, and for single rows by each kernel; where K and V are
/// 16 bits, also as without a calibration, in a window.
fn shapes(head_dim: usize) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for preset in &PRESETS {
        let record = RecordLayout::new(preset.pair.k, preset.pair.v, head_dim, 32).unwrap();
        let shape = Shape::new(record, 8, 4);
        let float = preset.pair.k == Format::Bf16;
        shapes.push(Shape { keys_centred: true, exact_groups: float.then_some(1), ..shape });
        if float {
            shapes.push(Shape { window: Some(4096), ..shape });
        }
    }
    shapes
}

/// A launch of every kernel of a layer. Buffers have no meaning here.
fn of_layer(shape: &Shape) -> Vec<Launch<'static, ()>> {
    const B: &() = &();
    let write = WriteBuffers { k: B, v: B, slots: B, angles: B, rotation: B, key_constants: B, positions: B, cache: B };
    let query = QueryBuffers {
        q: B,
        tiles: B,
        rotation: B,
        key_constants: B,
        starts: B,
        lists: B,
        fits: B,
        angles: B,
        queries: B,
        corrections: B,
    };
    let attend = AttendBuffers {
        queries: B,
        tiles: B,
        tables: B,
        cache: B,
        corrections: B,
        high_operands: B,
        high_angles: B,
        part_o: B,
        part_ml: B,
    };
    let reduce = ReduceBuffers { part_o: B, part_ml: B, positions: B, rotation: B, out: B };
    let mut launches = vec![
        launch::write(shape, 1, &write),
        launch::query(shape, AttendKernel::Mma, None, 0, 1, 1, &query),
        launch::reduce(shape, 0, 1, 1, &reduce),
    ];
    let kernels = [AttendKernel::Mma, AttendKernel::Vec, AttendKernel::Prefill];
    // Larger heads have no kernel for chunks.
    let kernels = kernels.into_iter().filter(|kernel| *kernel != AttendKernel::Prefill || shape.head_dim() <= 256);
    launches.extend(kernels.map(|kernel| launch::attend(shape, kernel, 1, 1, &attend)));
    launches
}

/// A launch of every kernel that no layer's shape changes.
fn of_rows(shape: &Shape) -> Vec<Launch<'static, ()>> {
    const B: &() = &();
    let norm = NormBuffers { x: B, delta: B, sum: B, weight: B, out: B };
    let top = TopBuffers { logits: B, slice_values: B, slice_indices: B, top: B };
    let mut launches = vec![
        launch::copy_blocks(shape.page_bytes(), 1, B, B),
        launch::add_rms_norm(1, (4096, false, 1e-6), &norm),
        launch::add_rms_norm(1, (4096, true, 1e-6), &norm),
        launch::gate_mul(1, launch::Gate::Silu, [B, B, B]),
    ];
    launches.extend(launch::top(1, 4096, 1, &top));
    launches
}

/// A launch of every kernel of delta nets and mixtures.
fn of_whole_layers() -> Vec<Launch<'static, ()>> {
    const B: &() = &();
    let convolve = ConvolveBuffers { x: B, weight: B, sequence_of_row: B, sequences: B, states: B, out: B };
    let rule = DeltaBuffers { x: B, mixed: B, z: B, b: B, a: B, decay: B, norm: B, sequences: B, states: B, out: B };
    let sizes = [32, 64, 128].map(|dim| DeltaNetSizes {
        key_heads: 1,
        value_heads: 1,
        key_dim: dim,
        value_dim: dim,
        conv_kernel: 4,
        order: HeadOrder::Grouped,
    });
    let group = GroupBuffers { chosen: B, expert_of_tile: B, row_of_place: B, places: B };
    let routed = RoutedRowsLayout::new(1, 8, 1024);
    let mut launches = vec![
        launch::convolve(&sizes[0], 1, &convolve),
        launch::route(&routed, true, [B, B, B]),
        launch::group_by_expert(&routed, &group),
        launch::pack_routed(&routed, (2048, true), [B, B, B, B, B]),
        launch::sum_experts(&routed, 2048, [B, B, B, B]),
    ];
    launches.extend(sizes.iter().map(|sizes| launch::delta_rule(sizes, 1e-6, (1, 1), &rule)));
    launches
}

#[test]
fn every_pipeline_is_made_and_has_room_for_its_threads() {
    let device = metal_device();
    let (mut failures, mut count) = (Vec::new(), 0);
    println!("| kernel | constants | threads | at most | threadgroup bytes | seconds |\n|---|---|---|---|---|---|");
    let layers = HEAD_DIMS.into_iter().flat_map(shapes).flat_map(|shape| of_layer(&shape));
    for launch in of_rows(&shapes(64)[0]).into_iter().chain(of_whole_layers()).chain(layers) {
        count += 1;
        let (kernel, threads) = (&launch.kernel, launch.threads as usize);
        match Pipeline::compile(&device, &launch) {
            Ok(pipeline) => {
                let Pipeline { most_threads: most, threadgroup_bytes: bytes, compiled_in, .. } = pipeline;
                let (constants, seconds) = (&launch.constants, compiled_in.as_secs_f64());
                println!("| {kernel} | {constants:?} | {threads} | {most} | {bytes} | {seconds:.2} |");
                if most < threads {
                    failures.push(format!("{kernel} {constants:?}: {threads} threads, at most {most}"));
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    assert!(failures.is_empty(), "{} of {count} kernels:\n{}", failures.len(), failures.join("\n"));
}

/// What `xcrun metal` says of a text; nothing of one that is right.
fn command_line_compiler(text: &str) -> String {
    let arguments = ["metal", "-x", "metal", "-std=metal3.0", "-Wall", "-c", "-", "-o", "/dev/null"];
    let mut xcrun = Command::new("xcrun");
    let mut xcrun = xcrun.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    xcrun.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = xcrun.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || !said.is_empty(), "{}", output.status);
    said
}

#[test]
#[ignore = "needs Xcode"]
fn the_command_line_compiler_has_nothing_to_say() {
    let mut said = Vec::new();
    let mut check = |what: &str, text: &str| {
        let message = command_line_compiler(text);
        println!("{what}: {}", if message.is_empty() { "clean" } else { &message });
        said.extend((!message.is_empty()).then(|| format!("{what}: {message}")));
    };
    for head_dim in HEAD_DIMS.map(Some).into_iter().chain([None]) {
        check(&format!("head size {head_dim:?}"), &source::library(head_dim, &[]));
    }
    let layers = [64, 128, 256].into_iter().flat_map(shapes).flat_map(|shape| of_layer(&shape));
    for launch in of_rows(&shapes(64)[0]).into_iter().chain(of_whole_layers()).chain(layers) {
        let what = format!("{} {:?}", launch.kernel, launch.constants);
        check(&what, &source::of_kernel(&launch.kernel, &launch.constants).unwrap());
    }
    assert!(said.is_empty(), "{}", said.join("\n"));
}
