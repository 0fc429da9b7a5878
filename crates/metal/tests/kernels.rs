//! Every kernel, format and head size against turboquant's scalar encoder and f64 attention.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::*;
use metal::{Element, Form};
use msl_emu::{Emulator, EmulatorExecutor};
use turboquant::{Format, Side};

/// Every K format and every V format, once.
const PAIRS: [(Format, Format); 12] = [
    (Format::F16, Format::F16),
    (Format::Bf16, Format::Bf16),
    (Format::Tq8, Format::Tq8),
    (Format::Tq8, Format::Tq4),
    (Format::Tq5, Format::Tq5),
    (Format::Tq4, Format::Tq4),
    (Format::Tq3, Format::Tq3),
    (Format::Tq2, Format::Tq2),
    (Format::Affine8, Format::Lloyd3),
    (Format::Affine5, Format::Lloyd5),
    (Format::Affine4, Format::Lloyd4),
    (Format::Affine4, Format::Lloyd2),
];
const DIMS: [usize; 6] = [64, 80, 96, 128, 256, 512];

/// Allowed relative error of attention.
///
/// Half rounds by 1.7e-4 rms. In `Mma` queries and P are half: 2.4e-4. Decoding adds, to a logit of rms 1 and to the output: `tq4`
/// 1.7e-4, the other codebooks up to .9e-4; group scales another 1.7e-4, where an operand has to be half again. Together up to 3.4e-4;
/// `Vec` 2.4e-4. What is left is for chance: a result rests on some ten tokens. Activations round the output.
fn bound(case: &Case) -> f64 {
    let kernel = if case.form == Form::Vec { 3e-4 } else { 4e-4 };
    let output = match case.element {
        Element::F32 => 0.0,
        Element::F16 => 1.7e-4,
        Element::Bf16 => 1.7e-3,
    };
    kernel + output
}

/// Codes equal turboquant's, or one apart where the element lies at a boundary; scales equal or neighbours.
fn check_bytes(cache: &Cache<EmulatorExecutor>, tokens: &[usize]) {
    let (kernel, case) = (cache.kernel(), cache.case);
    let (mut differing, mut all) = (0, 0);
    for head in 0..KV_HEADS {
        let pages = cache.pages(head);
        for (token, side) in tokens.iter().flat_map(|t| [(*t, Side::K), (*t, Side::V)]) {
            let page = &pages[token / case.block_size];
            let (got, got_scales) = page.codes(side, token % case.block_size);
            let x = cache.centred(side, token, head);
            let (want, want_scales) = kernel.encode(side, &x);
            if want.is_empty() {
                // A turned mean, of up to 1.73 sqrt(2) times the bias, is off by three roundings of f32, its difference by a fourth.
                let turned = if case.centred && side == Side::K { 6e-7 * f64::from(case.bias) } else { 1e-7 };
                for (got, x) in page.vector(side, token % case.block_size).iter().zip(&x) {
                    let step = if page.record.format(side) == Format::F16 { 11 } else { 8 };
                    let off = (got - f64::from(*x)).abs();
                    assert!(
                        off <= f64::from(x.abs()) / f64::from(1 << step) * 1.001 + turned,
                        "{case:?} {side} {got} {x}"
                    );
                }
                continue;
            }
            for (got, want) in got_scales.iter().zip(&want_scales) {
                assert!(
                    got.to_bits().abs_diff(want.to_bits()) <= 1,
                    "{case:?} {side} token {token}: scale {got} {want}"
                );
            }
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                all += 1;
                if *got != u32::from(want) {
                    differing += 1;
                    let near = neighbours(page.record.format(side), *got, u32::from(want));
                    assert!(near, "{case:?} {side} token {token} element {i}: code {got} for {want}");
                }
            }
        }
    }
    // A boundary is hit by chance alone: elements within some 1e-6 of one. Scales that are neighbours move int8 codes as well.
    assert!(differing * 500 <= all, "{case:?}: {differing} codes of {all} differ");
}

fn neighbours(format: Format, a: u32, b: u32) -> bool {
    let n = format.magnitudes().len() as i64;
    let rank = |code: u32| match format {
        Format::Tq8 | Format::Int8 => i64::from(code as u8 as i8),
        _ if n == 0 || i64::from(code) < n => i64::from(code),
        _ => n - 1 - i64::from(code),
    };
    rank(a).abs_diff(rank(b)) == 1
}

/// Bytes of some tokens and attention of the last one, by three queries.
fn check(emulator: &'static Emulator, case: Case, tokens: usize) {
    let mut cache = Cache::new(executor(emulator, case.order), case, tokens);
    cache.write();
    check_bytes(&cache, &[0, 1, 7, tokens / 2, tokens - 1].map(|t| t.min(tokens - 1)));
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for seed in [5, 6, 7] {
        let q = cache.query(seed, 1);
        got.extend(cache.attend(&q, tokens - 1, tokens));
        want.extend(cache.expect(&q, tokens - 1));
    }
    let error = relative(&got, &want);
    println!("{error:.1e} {case:?} context {tokens}");
    assert!(error < bound(&case), "{case:?} context {tokens}: {error:.1e}");
}

/// All formats in all head sizes and both forms.
#[test]
fn formats_and_head_sizes() {
    let Some(emulator) = Emulator::fast() else { return };
    for d in DIMS {
        for (i, (k, v)) in PAIRS.into_iter().enumerate() {
            let block_size = if i % 2 == 0 { 16 } else { 32 };
            let form = if (i + d / 16) % 2 == 0 { Form::Mma } else { Form::Vec };
            let case = Case { centred: k.is_rotated(), block_size, form, ..Case::new(k, v, d) };
            check(emulator, case, 90);
            if d == 64 || d == 128 {
                let form = if form == Form::Mma { Form::Vec } else { Form::Mma };
                check(emulator, Case { form, ..case }, 90);
            }
        }
    }
}

/// Contexts at the edges of a block and of a partition, and a long one.
#[test]
fn contexts_end_anywhere() {
    let Some(emulator) = Emulator::fast() else { return };
    let pairs = [(Format::F16, Format::F16, 64), (Format::Tq8, Format::Tq4, 80), (Format::Tq4, Format::Tq4, 64)];
    for (i, (k, v, d)) in pairs.into_iter().enumerate() {
        for form in [Form::Mma, Form::Vec] {
            let block_size = [16, 32, 32][i];
            let case = Case { centred: k.is_rotated(), form, block_size, ..Case::new(k, v, d) };
            for tokens in [1, block_size - 1, block_size, block_size + 1, 511, 512, 513] {
                check(emulator, case, tokens);
            }
        }
    }
    for form in [Form::Mma, Form::Vec] {
        check(emulator, Case { centred: true, form, group: 2, ..Case::new(Format::Tq4, Format::Tq3, 64) }, 5000);
    }
}

#[test]
fn groups_windows_and_activations() {
    let Some(emulator) = Emulator::fast() else { return };
    let base = Case { centred: true, ..Case::new(Format::Tq4, Format::Tq4, 64) };
    for group in [1, 2, 7, 8, 16] {
        check(emulator, Case { group, ..base }, 70);
    }
    for group in [1, 2, 3] {
        check(emulator, Case { group, form: Form::Vec, ..base }, 70);
    }
    for (window, form) in [(1, Form::Mma), (40, Form::Vec), (40, Form::Mma), (530, Form::Vec), (530, Form::Mma)] {
        check(emulator, Case { window: Some(window), form, ..base }, 600);
    }
    for element in [Element::F16, Element::Bf16] {
        for form in [Form::Mma, Form::Vec] {
            check(emulator, Case { element, form, ..base }, 90);
        }
    }
}

/// Keys stored as floats with a bias 30 times as large as they are themselves, which is followed exactly.
#[test]
fn a_large_bias_leaves_float_keys_alone() {
    let Some(emulator) = Emulator::fast() else { return };
    for (i, d) in DIMS.into_iter().enumerate() {
        let format = if i % 2 == 0 { Format::Bf16 } else { Format::F16 };
        let case = Case { centred: true, bias: 30.0, ..Case::new(format, Format::F16, d) };
        for form in [Form::Mma, Form::Vec] {
            check(emulator, Case { form, ..case }, 90);
            check(emulator, Case { form, block_size: 32, ..case }, 600);
        }
        check_chunk(emulator, case, 490, 530);
    }
}

/// Races, bounds, uninitialised memory and divergence, in several orders of lanes; every kernel of attention and both kinds of record.
#[test]
fn every_lane_order_is_clean() {
    let Some(emulator) = Emulator::checked() else { return };
    for order in [0, 1, 7] {
        for (i, (k, v)) in PAIRS.into_iter().enumerate() {
            let d = [64, 80, 96, 128][(i + order as usize) % 4];
            let form = if (i / 2 + order as usize).is_multiple_of(2) { Form::Mma } else { Form::Vec };
            let case = Case { centred: k.is_rotated(), form, order, ..Case::new(k, v, d) };
            check(emulator, case, 35);
        }
        check_chunk(emulator, Case { centred: true, order, ..Case::new(Format::Tq5, Format::Tq4, 64) }, 20, 60);
        check_chunk(emulator, Case { order, ..Case::new(Format::F16, Format::F16, 80) }, 20, 60);
        let exact = Case { centred: true, bias: 30.0, order, ..Case::new(Format::Bf16, Format::Bf16, 64) };
        check_chunk(emulator, exact, 20, 60);
        check(emulator, Case { form: Form::Vec, ..exact }, 35);
    }
    for d in [256, 512] {
        for form in [Form::Mma, Form::Vec] {
            check(emulator, Case { centred: true, form, order: 3, ..Case::new(Format::Tq4, Format::Tq3, d) }, 35);
        }
    }
}

/// Rows `from..to` as one chunk.
fn check_chunk(emulator: &'static Emulator, case: Case, from: usize, to: usize) {
    let mut cache = Cache::new(executor(emulator, case.order), case, to);
    cache.write();
    let q = cache.query(9, to - from);
    let got = cache.attend(&q, from, to);
    let width = got.len() / (to - from);
    let (mut some, mut want) = (Vec::new(), Vec::new());
    for row in [0, (to - from) / 2, to - from - 1] {
        let range = row * width..(row + 1) * width;
        some.extend_from_slice(&got[range.clone()]);
        want.extend(cache.expect(&q[range], from + row));
    }
    let error = relative(&some, &want);
    println!("{error:.1e} {case:?} rows {from}..{to}");
    assert!(error < bound(&case), "{case:?} rows {from}..{to}: {error:.1e}");
}

#[test]
fn chunks_see_what_comes_before_them() {
    let Some(emulator) = Emulator::fast() else { return };
    for (i, (k, v)) in PAIRS.into_iter().enumerate() {
        let d = [64, 128, 80, 96][i % 4];
        let group = [4, 7, 1, 8][i / 3];
        let case = Case { centred: k.is_rotated(), group, ..Case::new(k, v, d) };
        check_chunk(emulator, case, 40, 75);
    }
    let base = Case { centred: true, block_size: 32, ..Case::new(Format::Tq4, Format::Tq4, 64) };
    check_chunk(emulator, base, 480, 560);
    check_chunk(emulator, Case { window: Some(100), ..base }, 480, 560);
    // Head sizes whose chunks keep two states in registers no more, or not at all.
    check_chunk(emulator, Case { ..Case::new(Format::Tq5, Format::Tq5, 256) }, 10, 40);
    check_chunk(emulator, Case { ..Case::new(Format::F16, Format::F16, 512) }, 10, 40);
}
