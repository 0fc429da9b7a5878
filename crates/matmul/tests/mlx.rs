//! MLX's types against MLX: see `goldens/regenerate_mlx.py`.

use std::io::Read;

use flate2::read::ZlibDecoder;
use matmul::{Affine, MatmulError, MlxRows, Weight, WeightType, dequantize_row, pack_mlx, quantize};

/// Parts of the file, one after the other.
struct Parts(Vec<u8>, usize);

impl Parts {
    fn open() -> Self {
        let mut bytes = Vec::new();
        ZlibDecoder::new(&include_bytes!("goldens/mlx.zlib")[..]).read_to_end(&mut bytes).expect("a whole file");
        Parts(bytes, 0)
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        self.1 += len;
        self.0[self.1 - len..self.1].to_vec()
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        self.take(4 * len).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// The elements of rows of MLX's once they are blocks of type `ty`.
fn meaning(ty: WeightType, k: usize, [codes, scales, biases]: [&[u8]; 3]) -> Vec<f32> {
    let mut blocks = vec![0; ty.row_bytes(k).expect("whole blocks")];
    pack_mlx(ty, MlxRows { codes, scales, biases }, &mut blocks);
    let mut out = vec![f32::NAN; k];
    dequantize_row(Weight::new(ty, 1, k, &blocks).expect("a weight"), 0, &mut out);
    out
}

fn affine_types() -> impl Iterator<Item = Affine> {
    WeightType::ALL.into_iter().filter_map(|ty| if let WeightType::Affine(of) = ty { Some(of) } else { None })
}

/// Equal bit by bit: a code times a scale is exact in f32, so that the sum with the bias is rounded once.
#[test]
fn blocks_mean_what_mlx_says() {
    let mut golden = Parts::open();
    for of in affine_types() {
        let ty = WeightType::Affine(of);
        let groups = 128 / of.group();
        let [codes, scales, biases] = [16 * of.bits(), 2 * groups, 2 * groups].map(|len| golden.take(len));
        assert_eq!(meaning(ty, 128, [&codes, &scales, &biases]), golden.floats(128), "{ty}");
    }
    for (ty, scales, group) in [(WeightType::Mxfp4, 255, 32), (WeightType::Nvfp4, 254, 16)] {
        let (codes, bytes) = (golden.take(scales * group / 2), golden.take(scales));
        let want = golden.floats(scales * group);
        assert_eq!(meaning(ty, scales * group, [&codes, &bytes, &[]]), want, "{ty}");
    }
}

/// A group takes no more bytes than its parts in MLX's file.
#[test]
fn blocks_are_as_large_as_what_they_are_made_of() {
    for of in affine_types() {
        assert_eq!(WeightType::Affine(of).block_bytes(), of.group() * of.bits() / 8 + 4, "{of:?}");
    }
    assert_eq!([WeightType::Mxfp4, WeightType::Nvfp4].map(WeightType::block_bytes), [17, 18]);
}

/// Every code in every place of a group keeps its place.
#[test]
fn codes_keep_their_order() {
    for of in affine_types() {
        let (ty, bits, k) = (WeightType::Affine(of), of.bits(), 2 * of.group());
        let one = quantize(if ty.name().ends_with("BF16") { WeightType::Bf16 } else { WeightType::F16 }, &[1.0]);
        let (one, zero) = (one.expect("a float").repeat(2), [0; 4]);
        for shift in [0, 1, 5, 11] {
            let want: Vec<u64> = (0..k as u64).map(|i| (i * 7 + shift) % (1 << bits)).collect();
            let mut codes = vec![0u8; k * bits / 8];
            for (i, code) in want.iter().enumerate() {
                (0..bits).for_each(|b| codes[(i * bits + b) / 8] |= ((code >> b & 1) as u8) << ((i * bits + b) % 8));
            }
            let got = meaning(ty, k, [&codes, &one, &zero]);
            assert_eq!(got, want.iter().map(|code| *code as f32).collect::<Vec<_>>(), "{ty}");
        }
    }
}

#[test]
fn values_are_not_quantised_to_types_of_mlx() {
    for ty in affine_types().map(WeightType::Affine).chain([WeightType::Nvfp4]) {
        assert_eq!(quantize(ty, &[0.0; 128]), Err(MatmulError::NoQuantiser { ty }));
    }
}

#[test]
#[should_panic(expected = "2 blocks of AFFINE4_G64_F16")]
fn parts_of_other_lengths_are_refused() {
    let ty = WeightType::Affine(Affine::new(4, 64, matmul::HalfFloat::F16).expect("a type"));
    let mut blocks = vec![0; 2 * ty.block_bytes()];
    pack_mlx(ty, MlxRows { codes: &[0; 64], scales: &[0; 4], biases: &[0; 2] }, &mut blocks);
}
