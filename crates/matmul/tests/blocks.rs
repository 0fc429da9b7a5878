//! Block layouts and quantisers against ggml and the `gguf` package: see `goldens/regenerate.py`.

use flate2::read::ZlibDecoder;
use matmul::{MatmulError, Weight, WeightType, dequantize_row, quantize};
use std::io::Read;

const BLOCKS: &[u8] = include_bytes!("goldens/blocks.zlib");
const GRIDS: &[u8] = include_bytes!("goldens/grids.zlib");
const N: usize = 512;

/// The order of the file.
const TYPES: [WeightType; 20] = [
    WeightType::Q8_0,
    WeightType::Q4_0,
    WeightType::Q4_1,
    WeightType::Q5_0,
    WeightType::Q5_1,
    WeightType::Q2_K,
    WeightType::Q3_K,
    WeightType::Q4_K,
    WeightType::Q5_K,
    WeightType::Q6_K,
    WeightType::IQ4_NL,
    WeightType::IQ4_XS,
    WeightType::Mxfp4,
    WeightType::IQ3_S,
    WeightType::IQ3_XXS,
    WeightType::IQ2_S,
    WeightType::IQ2_XS,
    WeightType::IQ2_XXS,
    WeightType::TQ2_0,
    WeightType::TQ1_0,
];

/// The order of the file of grids, and the elements of blocks that name every entry.
const GRID_TYPES: [(WeightType, usize); 5] = [
    (WeightType::IQ3_S, 512 * 4),
    (WeightType::IQ3_XXS, 256 * 4),
    (WeightType::IQ2_S, 1024 * 8),
    (WeightType::IQ2_XS, 512 * 8),
    (WeightType::IQ2_XXS, 256 * 8),
];

/// The types that values are not quantised to.
const READ_ONLY: [WeightType; 9] = [
    WeightType::IQ4_XS,
    WeightType::Mxfp4,
    WeightType::IQ3_S,
    WeightType::IQ3_XXS,
    WeightType::IQ2_S,
    WeightType::IQ2_XS,
    WeightType::IQ2_XXS,
    WeightType::TQ2_0,
    WeightType::TQ1_0,
];

struct Golden {
    ty: WeightType,
    /// ggml's blocks of the values and their meaning.
    quantized: (Vec<u8>, Vec<f32>),
    /// Random blocks and their meaning.
    random: (Vec<u8>, Vec<f32>),
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn decompressed(zlib: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ZlibDecoder::new(zlib).read_to_end(&mut bytes).expect("a whole file");
    bytes
}

fn golden() -> (Vec<f32>, Vec<Golden>) {
    let bytes = decompressed(BLOCKS);
    let (values, mut rest) = bytes.split_at(4 * N);
    let mut take = |len| {
        let (part, behind) = rest.split_at(len);
        rest = behind;
        part
    };
    let types = TYPES.map(|ty| {
        let size = ty.row_bytes(N).expect("whole blocks");
        let mut pair = || (take(size).to_vec(), floats(take(4 * N)));
        Golden { ty, quantized: pair(), random: pair() }
    });
    assert!(rest.is_empty());
    (floats(values), types.into())
}

fn dequantized(ty: WeightType, bytes: &[u8]) -> Vec<f32> {
    let k = bytes.len() / ty.block_bytes() * ty.block_len();
    let mut out = vec![f32::NAN; k];
    dequantize_row(Weight::new(ty, 1, k, bytes).expect("a weight"), 0, &mut out);
    out
}

#[test]
fn blocks_mean_what_gguf_says() {
    for Golden { ty, quantized, random } in golden().1 {
        assert_eq!(dequantized(ty, &quantized.0), quantized.1, "{ty} of ggml");
        assert_eq!(dequantized(ty, &random.0), random.1, "{ty} of random bytes");
    }
}

#[test]
fn every_entry_of_a_grid_is_that_of_gguf() {
    let bytes = decompressed(GRIDS);
    let mut rest = &bytes[..];
    for (ty, k) in GRID_TYPES {
        let (blocks, behind) = rest.split_at(ty.row_bytes(k).expect("whole blocks"));
        let (values, behind) = behind.split_at(k);
        rest = behind;
        let values: Vec<f32> = values.iter().map(|value| f32::from(value.cast_signed())).collect();
        assert_eq!(dequantized(ty, blocks), values, "{ty}");
    }
    assert!(rest.is_empty());
}

#[test]
fn quantisers_give_the_bytes_of_ggml() {
    let (values, types) = golden();
    for Golden { ty, quantized, .. } in types {
        if READ_ONLY.contains(&ty) {
            assert_eq!(quantize(ty, &values), Err(MatmulError::NoQuantiser { ty }));
            continue;
        }
        let bytes = quantize(ty, &values).expect("whole blocks");
        let different = bytes.iter().zip(&quantized.0).filter(|(a, b)| a != b).count();
        assert_eq!(different, 0, "{ty}: of {} bytes", bytes.len());
    }
}
