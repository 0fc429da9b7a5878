//! An element of the product depends on its two rows alone.

mod common;

use common::{random, stored};
use matmul::{Affine, HalfFloat, Isa, MatmulError, Product, Weight, WeightType};
use matmul::{dequantize_row, matmul, matmul_all, matmul_with};
use proptest::prelude::*;

fn product(isa: Isa, x: &[f32], w: Weight<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / w.k() * w.n()];
    matmul_with(isa, x, w, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
}

/// Every type, but of the affine ones those with groups of 64 and bf16 alone: others differ in how a block is unpacked,
/// which threads and rows have no part in.
fn types_of_large_products() -> impl Iterator<Item = WeightType> {
    WeightType::ALL.into_iter().filter(|ty| match ty {
        WeightType::Affine(of) => (of.group(), of.scales()) == (64, HalfFloat::Bf16),
        _ => true,
    })
}

/// Row by row, each product alone.
fn rows_alone(isa: Isa, x: &[f32], w: Weight<'_>) -> Vec<f32> {
    x.chunks_exact(w.k()).flat_map(|row| product(isa, row, w)).collect()
}

/// Sizes of k that exercise whole steps, every tail of 16 lanes and rows longer than a block of k.
fn some_k(ty: WeightType) -> Vec<usize> {
    match ty.block_len() {
        1 => (1..=17).chain([31, 47, 64, 100, 1029, 2055]).collect(),
        block => vec![block, 3 * block, 1024 + block],
    }
}

#[test]
fn a_row_alone_equals_the_row_among_others() {
    for isa in Isa::available() {
        for ty in WeightType::ALL {
            for k in some_k(ty) {
                let (m, n) = (17, 37);
                let bytes = stored(ty, n * k, 1);
                let w = Weight::new(ty, n, k, &bytes).expect("a weight");
                let x = random(m * k, 2);
                let alone = rows_alone(isa, &x, w);
                for m in 1..=m {
                    let among = product(isa, &x[..m * k], w);
                    assert_eq!(bits(&among), bits(&alone[..m * n]), "{isa:?} {ty} k = {k} m = {m}");
                }
            }
        }
    }
}

#[test]
fn five_hundred_rows_and_any_number_of_threads_change_nothing() {
    // Large enough for threads: 500 * 130 * 256 multiply-adds; 130 is no multiple of any tile.
    let (m, n, k) = (500, 130, 256);
    let x = random(m * k, 3);
    for isa in Isa::available().filter(|isa| *isa != Isa::Scalar) {
        for ty in types_of_large_products() {
            let bytes = stored(ty, n * k, 4);
            let w = Weight::new(ty, n, k, &bytes).expect("a weight");
            let alone = bits(&rows_alone(isa, &x, w));
            for threads in [1, 2, 5] {
                let out = pool(threads).install(|| product(isa, &x, w));
                assert!(bits(&out) == alone, "{isa:?} {ty} with {threads} threads");
            }
        }
    }
}

#[test]
fn one_row_with_many_threads_changes_nothing() {
    let (n, k) = (1500, 256);
    let x = random(k, 5);
    for ty in WeightType::ALL {
        let bytes = stored(ty, n * k, 6);
        let w = Weight::new(ty, n, k, &bytes).expect("a weight");
        let one = pool(1).install(|| product(Isa::best(), &x, w));
        for threads in [2, 5] {
            let many = pool(threads).install(|| product(Isa::best(), &x, w));
            assert_eq!(bits(&many), bits(&one), "{ty} with {threads} threads");
        }
    }
}

#[test]
fn weights_of_all_types_at_once_equal_each_alone() {
    // Large enough for threads together, some of them too small alone; widths that are no multiple of a tile.
    let k = 512;
    let weights: Vec<_> = types_of_large_products()
        .enumerate()
        .map(|(i, ty)| (ty, 50 + 37 * i, stored(ty, (50 + 37 * i) * k, 9)))
        .collect();
    let weights: Vec<_> =
        weights.iter().map(|(ty, n, bytes)| Weight::new(*ty, *n, k, bytes).expect("a weight")).collect();
    for m in [1, 7] {
        let x = random(m * k, 10);
        for threads in [1, 2, 5] {
            let mut outs: Vec<_> = weights.iter().map(|w| vec![f32::NAN; m * w.n()]).collect();
            let mut products: Vec<_> =
                weights.iter().zip(&mut outs).map(|(w, out)| Product { weight: *w, out }).collect();
            pool(threads).install(|| matmul_all(&x, &mut products));
            for (w, out) in weights.iter().zip(&outs) {
                let alone = product(Isa::best(), &x, *w);
                assert_eq!(bits(out), bits(&alone), "{} m = {m}, {threads} threads", w.weight_type());
            }
        }
    }
}

#[test]
#[should_panic(expected = "k differ")]
fn weights_of_different_k_are_refused() {
    let (a, b) = (stored(WeightType::F32, 8, 1), stored(WeightType::F32, 16, 1));
    let weight = |k, bytes| Weight::new(WeightType::F32, 1, k, bytes).expect("a weight");
    let (mut x, mut y) = ([0.], [0.]);
    let products =
        &mut [Product { weight: weight(8, &a), out: &mut x }, Product { weight: weight(16, &b), out: &mut y }];
    matmul_all(&[0.; 8], products);
}

#[test]
fn every_instruction_set_equals_the_scalar_twin() {
    for isa in Isa::available() {
        for ty in WeightType::ALL {
            for k in some_k(ty) {
                for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 21] {
                    let n = 19;
                    let bytes = stored(ty, n * k, 7);
                    let w = Weight::new(ty, n, k, &bytes).expect("a weight");
                    let x = random(m * k, 8);
                    let twin = product(Isa::Scalar, &x, w);
                    assert_eq!(bits(&product(isa, &x, w)), bits(&twin), "{isa:?} {ty} m = {m} k = {k}");
                }
            }
        }
    }
}

/// Against f64: each of the k products and k - 1 sums rounds once, relative to at most the sum of magnitudes.
#[test]
fn dense_products_are_within_the_rounding_of_f32() {
    for ty in [WeightType::F32, WeightType::F16, WeightType::Bf16] {
        let (m, n, k) = (3, 5, 1029);
        let bytes = stored(ty, n * k, 9);
        let w = Weight::new(ty, n, k, &bytes).expect("a weight");
        let x = random(m * k, 10);
        let out = product(Isa::best(), &x, w);
        let mut row = vec![0f32; k];
        for j in 0..n {
            dequantize_row(w, j, &mut row);
            for i in 0..m {
                let terms = x[i * k..][..k].iter().zip(&row).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let (sum, size) = terms.fold((0., 0.), |(sum, size), t| (sum + t, size + t.abs()));
                // The longest chain of roundings: k / 16 fused multiply-adds in a lane, then four sums.
                let bound = size * (k.div_ceil(16) + 4) as f64 * f64::from(f32::EPSILON) / 2.;
                assert!((f64::from(out[i * n + j]) - sum).abs() <= bound, "{ty} {i} {j}");
            }
        }
    }
}

/// Against f64 with the weight as dequantised. Rounding `x` to multiples of its block's largest magnitude / 127 moves
/// an element by half of that at most. Sums of codes are exact. f32 rounds at most three times in a group of at least
/// 16 elements (product, fused sum, fused minimum), each time relative to at most the sum of all magnitudes: for
/// weights within [-1, 1] code * scale and minimum together are below 4.
#[test]
fn quantised_products_are_within_the_rounding_of_the_activations() {
    for ty in WeightType::ALL.into_iter().filter(|ty| ty.block_len() > 1) {
        let (m, n, k) = (3, 5, 768);
        let bytes = stored(ty, n * k, 16);
        let w = Weight::new(ty, n, k, &bytes).expect("a weight");
        let x = random(m * k, 17);
        let out = product(Isa::best(), &x, w);
        let mut row = vec![0f32; k];
        for j in 0..n {
            dequantize_row(w, j, &mut row);
            for i in 0..m {
                let (mut sum, mut size, mut bound) = (0., 0., 0.);
                for (x, w) in x[i * k..][..k].chunks(32).zip(row.chunks(32)) {
                    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                    for (x, w) in x.iter().zip(w) {
                        sum += f64::from(*x) * f64::from(*w);
                        size += f64::from(largest) * 4.;
                        bound += f64::from(w.abs()) * f64::from(largest) / 254.;
                    }
                }
                bound += size * (3 * k / 16) as f64 * f64::from(f32::EPSILON) / 2.;
                assert!((f64::from(out[i * n + j]) - sum).abs() <= bound, "{ty} {i} {j}: {sum}");
            }
        }
    }
}

/// The largest products that codes can have: 16-bit sums of two would saturate if the signs were not handled.
#[test]
fn the_largest_codes_do_not_saturate() {
    let (n, k) = (16, 64);
    let block: Vec<u8> = [0x00, 0x3c].into_iter().chain([0x80; 32]).collect();
    let bytes = block.repeat(n * k / 32);
    let w = Weight::new(WeightType::Q8_0, n, k, &bytes).expect("a weight");
    for sign in [1., -1.] {
        for isa in Isa::available() {
            // -128 * 127, 64 times, with a scale of 1/127.
            assert_eq!(product(isa, &vec![sign; k], w), vec![-8192. * sign; n], "{isa:?}");
        }
    }
    // Codes of 255 with a scale of 1 and no bias, 64 times.
    let ty = WeightType::Affine(Affine::new(8, 64, HalfFloat::F16).expect("a type"));
    let bytes = [0x00, 0x3c, 0, 0].into_iter().chain([0xff; 64]).collect::<Vec<u8>>().repeat(n);
    let w = Weight::new(ty, n, k, &bytes).expect("a weight");
    for sign in [1., -1.] {
        for isa in Isa::available() {
            // 255 * 127 is exact, 64 times; 1/127 and the sums are rounded, each by 2^-24 of them.
            let out = product(isa, &vec![sign; k], w);
            assert!(out.iter().all(|y| (y - 255. * 64. * sign).abs() <= 0.01), "{isa:?}: {out:?}");
        }
    }
}

#[test]
fn what_is_not_finite_reaches_its_own_row_alone() {
    for isa in Isa::available() {
        for ty in WeightType::ALL {
            let (m, n, k) = (9, 5, 512);
            let bytes = stored(ty, n * k, 18);
            let w = Weight::new(ty, n, k, &bytes).expect("a weight");
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = random(m * k, 19);
                let clean = product(isa, &x, w);
                x[2 * k + 300] = bad;
                let out = product(isa, &x, w);
                assert!(out[2 * n..3 * n].iter().all(|v| !v.is_finite()), "{isa:?} {ty} {bad}");
                assert_eq!(bits(&out[..2 * n]), bits(&clean[..2 * n]));
                assert_eq!(bits(&out[3 * n..]), bits(&clean[3 * n..]));
            }
        }
    }
}

#[test]
fn bytes_may_lie_at_any_address() {
    for isa in Isa::available() {
        for ty in WeightType::ALL {
            let (m, n, k) = (5, 7, 512);
            let bytes = stored(ty, n * k, 11);
            let x = random(m * k, 12);
            let want = product(isa, &x, Weight::new(ty, n, k, &bytes).expect("a weight"));
            let mut shifted = vec![0u8; bytes.len() + 3];
            for offset in 1..4 {
                shifted[offset..offset + bytes.len()].copy_from_slice(&bytes);
                let w = Weight::new(ty, n, k, &shifted[offset..offset + bytes.len()]).expect("a weight");
                assert_eq!(bits(&product(isa, &x, w)), bits(&want), "{isa:?} {ty} at offset {offset}");
            }
        }
    }
}

#[test]
fn no_rows_give_no_output() {
    for ty in WeightType::ALL {
        let k = ty.block_len();
        let bytes = stored(ty, k, 13);
        matmul(&[], Weight::new(ty, 1, k, &bytes).expect("a weight"), &mut []);
        matmul(&random(2 * k, 14), Weight::new(ty, 0, k, &[]).expect("no rows"), &mut []);
    }
}

#[test]
fn a_weight_of_the_wrong_size_is_refused() {
    for ty in WeightType::ALL {
        let (n, k) = (3, ty.block_len());
        let bytes = stored(ty, n * k, 15);
        let (expected, short) = (bytes.len(), &bytes[1..]);
        let error = Weight::new(ty, n, k, short).expect_err("one byte short");
        assert_eq!(error, MatmulError::Length { ty, n, k, expected, found: expected - 1 });
        assert_eq!(Weight::new(ty, n, 0, &bytes).expect_err("k = 0"), MatmulError::EmptyRow { ty });
        let error = Weight::new(ty, usize::MAX, k, &bytes).expect_err("no such size");
        assert!(matches!(error, MatmulError::TooLarge { .. } | MatmulError::Length { .. }), "{error}");
        if k > 1 {
            let error = Weight::new(ty, n, k + 1, &bytes).expect_err("part of a block");
            assert_eq!(error, MatmulError::PartialBlock { ty, k: k + 1, block: k });
            assert_eq!(ty.row_bytes(k + 1), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape_gives_the_rows_alone(
        m in 1usize..40,
        n in 1usize..70,
        blocks in 1usize..6,
        tail in 0usize..16,
        seed: u64,
        t in 0..WeightType::ALL.len(),
    ) {
        let ty = WeightType::ALL[t];
        let k = if ty.block_len() == 1 { (blocks - 1) * 16 + tail.max(1) } else { blocks * ty.block_len() };
        let bytes = stored(ty, n * k, seed);
        let w = Weight::new(ty, n, k, &bytes).expect("a weight");
        let x = random(m * k, seed ^ 1);
        prop_assert_eq!(bits(&product(Isa::best(), &x, w)), bits(&rows_alone(Isa::best(), &x, w)));
    }

    /// What a damaged file may hold: scales that are NaN, infinite or huge, and every code. A damaged row changes no
    /// other one, and has the same elements by all instructions; a NaN's bits may be others.
    #[test]
    fn any_bytes_of_a_row_stay_in_it(seed: u64, m in 1usize..8, t in 0..WeightType::ALL.len(), ones: bool) {
        let ty = WeightType::ALL[t];
        let (n, k, damaged) = (19, 2 * ty.block_len(), (seed % 19) as usize);
        let sound = stored(ty, n * k, seed);
        let mut bytes = sound.clone();
        let row = bytes.len() / n;
        for (byte, x) in bytes[damaged * row..][..row].iter_mut().zip(random(row, seed ^ 2)) {
            // Bits that are all ones are a NaN in any place.
            *byte = if ones { 0xff } else { ((x + 1.) * 128.) as u8 };
        }
        let x = random(m * k, seed ^ 1);
        let all = |bytes: &[u8], isa| product(isa, &x, Weight::new(ty, n, k, bytes).expect("a weight"));
        let (want, clean) = (all(&bytes, Isa::Scalar), all(&sound, Isa::Scalar));
        for isa in Isa::available() {
            for (i, (got, want)) in all(&bytes, isa).iter().zip(&want).enumerate() {
                prop_assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{isa:?} {ty} {i}");
                prop_assert!(i % n == damaged || got.to_bits() == clean[i].to_bits(), "{isa:?} {ty} {i}");
            }
        }
        let mut values = vec![0f32; k];
        dequantize_row(Weight::new(ty, n, k, &bytes).expect("a weight"), damaged, &mut values);
        // A scale of MXFP4 is a power of two, whatever its bits, and one of NVFP4 is a number.
        let has_nan = !matches!(ty, WeightType::Mxfp4 | WeightType::Nvfp4);
        prop_assert!(!ones || !has_nan || values.iter().all(|value| value.is_nan()), "{ty}");
    }
}
