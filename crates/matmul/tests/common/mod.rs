//! Inputs of the tests.

use matmul::{MatmulError, WeightType};

/// The bytes of `len` elements within about [-1, 1] of type `ty`: see [`stored_within`].
///
/// # Panics
/// If `len` is no multiple of the type's quantisation block.
pub fn stored(ty: WeightType, len: usize, seed: u64) -> Vec<u8> {
    stored_within(1., ty, len, seed)
}

/// The bytes of `len` elements of type `ty` whose magnitudes are at most about `largest`: random values, quantised, or
/// random blocks of a type that values are not quantised to.
///
/// # Panics
/// If `len` is no multiple of the type's quantisation block.
pub fn stored_within(largest: f32, ty: WeightType, len: usize, seed: u64) -> Vec<u8> {
    let values: Vec<f32> = random(len, seed).iter().map(|x| largest * x).collect();
    match matmul::quantize(ty, &values) {
        Ok(bytes) => bytes,
        Err(MatmulError::NoQuantiser { .. }) => blocks(largest, ty, len, seed),
        Err(e) => panic!("{e}"),
    }
}

/// The byte of a block at which its scale is, an f16 or MXFP4's power of two, and the largest magnitude of an element
/// where that is 1.
fn scale(ty: WeightType) -> (usize, f32) {
    match ty {
        WeightType::IQ4_XS => (0, 32. * 127.),
        WeightType::Mxfp4 => (0, 12.),
        WeightType::IQ3_S => (0, 31. * 15.),
        WeightType::IQ3_XXS => (0, 31. * 62. / 4.),
        WeightType::IQ2_S | WeightType::IQ2_XS | WeightType::IQ2_XXS => (0, 31. * 43. / 8.),
        WeightType::TQ2_0 => (64, 2.),
        WeightType::TQ1_0 => (52, 1.),
        _ => unreachable!("{ty} has a quantiser"),
    }
}

/// Random blocks of elements whose magnitudes are at most `largest`.
fn blocks(largest: f32, ty: WeightType, len: usize, seed: u64) -> Vec<u8> {
    let size = ty.row_bytes(len).expect("whole blocks");
    let mut bytes: Vec<u8> = random(size, seed).into_iter().map(|x| ((x + 1.) * 128.) as u8).collect();
    let (at, of_one) = scale(ty);
    for (block, x) in bytes.chunks_exact_mut(ty.block_bytes()).zip(random(size, !seed)) {
        // Positive or negative, as in files.
        let d = (0.75 + 0.25 * x.abs()).copysign(x) * largest / of_one;
        if ty == WeightType::Mxfp4 {
            block[at] = (d.abs().log2().floor() as i32 + 128) as u8;
            continue;
        }
        block[at..at + 2].copy_from_slice(&matmul::quantize(WeightType::F16, &[d]).expect("an f16"));
    }
    bytes
}

/// Values in [-1, 1) by SplitMix64.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    std::iter::repeat_with(next).take(len).collect()
}
