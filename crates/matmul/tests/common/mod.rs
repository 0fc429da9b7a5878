//! Inputs of the tests.

use matmul::{Affine, HalfFloat, MatmulError, WeightType};

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

/// The byte of a block at which its scale is, an f16, and the largest magnitude of an element where that is 1.
fn scale(ty: WeightType) -> (usize, f32) {
    match ty {
        WeightType::IQ4_XS => (0, 32. * 127.),
        WeightType::IQ3_S => (0, 31. * 15.),
        WeightType::IQ3_XXS => (0, 31. * 62. / 4.),
        WeightType::IQ2_S | WeightType::IQ2_XS | WeightType::IQ2_XXS => (0, 31. * 43. / 8.),
        WeightType::TQ2_0 => (64, 2.),
        WeightType::TQ1_0 => (52, 1.),
        _ => unreachable!("{ty} has a quantiser"),
    }
}

/// The type of an affine type's scales.
fn float_of(of: Affine) -> WeightType {
    if of.scales() == HalfFloat::F16 { WeightType::F16 } else { WeightType::Bf16 }
}

/// Writes the scales in front of a random block of `ty`: a magnitude of 3/4 to 1, `x`, times those of which an element
/// is at most `largest`.
fn put_scales(ty: WeightType, block: &mut [u8], x: f32, largest: f32) {
    let half = |ty: WeightType, d: f32| matmul::quantize(ty, &[d]).expect("a float of 16 bits");
    match ty {
        WeightType::Affine(of) => {
            // The bias brings codes to both sides of 0.
            let d = x * largest / ((1 << of.bits()) - 1) as f32;
            block[..2].copy_from_slice(&half(float_of(of), 2. * d));
            block[2..4].copy_from_slice(&half(float_of(of), -d * ((1 << of.bits()) - 2) as f32));
        }
        WeightType::Nvfp4 => {
            // Numbers of E4M3 from 2^-6 on, the powers of two below those that are wanted.
            let power = (x.abs() * largest / 6.).log2().floor().max(-6.) as i32 + 7;
            block[..2].copy_from_slice(&[(power << 3) as u8, (power << 3) as u8 | 0x80]);
        }
        WeightType::Mxfp4 => block[0] = ((x.abs() * largest / 12.).log2().floor() as i32 + 128) as u8,
        _ => {
            let (at, of_one) = scale(ty);
            block[at..at + 2].copy_from_slice(&half(WeightType::F16, x * largest / of_one));
        }
    }
}

/// Random blocks of elements whose magnitudes are at most `largest`.
fn blocks(largest: f32, ty: WeightType, len: usize, seed: u64) -> Vec<u8> {
    let size = ty.row_bytes(len).expect("whole blocks");
    let mut bytes: Vec<u8> = random(size, seed).into_iter().map(|x| ((x + 1.) * 128.) as u8).collect();
    for (block, x) in bytes.chunks_exact_mut(ty.block_bytes()).zip(random(size, !seed)) {
        // Positive or negative, as in files.
        put_scales(ty, block, (0.75 + 0.25 * x.abs()).copysign(x), largest);
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
