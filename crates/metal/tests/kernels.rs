//! Every kernel, format and head size against turboquant's scalar encoder and f64 attention.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::*;
use metal::Form;
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

/// Allowed relative error: P is rounded to half in `Mma`.
fn bound(form: Form) -> f64 {
    if form == Form::Mma { 4e-4 } else { 3e-4 }
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
                for (got, x) in page.vector(side, token % case.block_size).iter().zip(&x) {
                    let step = if page.record.format(side) == Format::F16 { 11 } else { 8 };
                    let off = (got - f64::from(*x)).abs();
                    assert!(
                        off <= f64::from(x.abs()) / f64::from(1 << step) * 1.001 + 1e-7,
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

fn check(emulator: &'static Emulator, case: Case, tokens: usize) -> f64 {
    let mut cache = Cache::new(executor(emulator, case.order), case, tokens);
    cache.write();
    let edge = [0, 1, 7, tokens / 2, tokens - 1].map(|t| t.min(tokens - 1));
    check_bytes(&cache, &edge);
    let q = cache.query(5, 1);
    let got = cache.attend(&q, tokens - 1, tokens);
    let error = relative(&got, &cache.expect(&q, tokens - 1));
    println!("{case:?} context {tokens}: {error:.1e}");
    assert!(error < 10.0 * bound(case.form), "{case:?} context {tokens}: {error:.1e}");
    error
}

#[test]
fn formats_and_head_sizes() {
    let Some(emulator) = Emulator::fast() else { return };
    for d in DIMS {
        for (i, (k, v)) in PAIRS.into_iter().enumerate() {
            let centred = k.is_rotated();
            let block_size = if i % 2 == 0 { 16 } else { 32 };
            for form in [Form::Mma, Form::Vec] {
                check(emulator, Case { centred, block_size, form, ..Case::new(k, v, d) }, 90);
            }
        }
    }
}
