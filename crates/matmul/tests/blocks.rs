//! Block layouts and quantisers against ggml and the `gguf` package: see `goldens/regenerate.py`.

use matmul::{Weight, WeightType, dequantize_row, quantize};

const GOLDEN: &[u8] = include_bytes!("goldens/blocks.bin");
const N: usize = 512;

/// The order of the file.
const TYPES: [WeightType; 10] = [
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
];

struct Golden {
    ty: WeightType,
    /// ggml's blocks of the values and their meaning.
    quantized: (&'static [u8], Vec<f32>),
    /// Random blocks and their meaning.
    random: (&'static [u8], Vec<f32>),
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn golden() -> (Vec<f32>, Vec<Golden>) {
    let (values, mut rest) = GOLDEN.split_at(4 * N);
    let mut take = |len| {
        let (part, behind) = rest.split_at(len);
        rest = behind;
        part
    };
    let types = TYPES.map(|ty| {
        let size = ty.row_bytes(N).expect("whole blocks");
        let mut pair = || (take(size), floats(take(4 * N)));
        Golden { ty, quantized: pair(), random: pair() }
    });
    assert!(rest.is_empty());
    (floats(values), types.into())
}

fn dequantized(ty: WeightType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; N];
    dequantize_row(Weight::new(ty, 1, N, bytes).expect("a weight"), 0, &mut out);
    out
}

#[test]
fn blocks_mean_what_gguf_says() {
    for Golden { ty, quantized, random } in golden().1 {
        assert_eq!(dequantized(ty, quantized.0), quantized.1, "{ty} of ggml");
        assert_eq!(dequantized(ty, random.0), random.1, "{ty} of random bytes");
    }
}

#[test]
fn quantisers_give_the_bytes_of_ggml() {
    let (values, types) = golden();
    for Golden { ty, quantized, .. } in types {
        let bytes = quantize(ty, &values).expect("whole blocks");
        let different = bytes.iter().zip(quantized.0).filter(|(a, b)| a != b).count();
        assert_eq!(different, 0, "{ty}: of {} bytes", bytes.len());
    }
}
