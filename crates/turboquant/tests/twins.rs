//! Instruction sets against the scalar code, at every tail.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::{Cache, Rng, formats, query};
use proptest::prelude::*;
use turboquant::{Isa, Kernel, RecordLayout, Side};

fn isas() -> Vec<Isa> {
    Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar).collect()
}

fn dims() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![16usize, 32, 64, 80, 96, 128, 256])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The encoder is one text without reordered sums, so bytes are equal; so are the decoded rows.
    #[test]
    fn stored_bytes_are_equal(
        k in prop::sample::select(formats(Side::K)),
        v in prop::sample::select(formats(Side::V)),
        d in dims(),
        scale in prop::sample::select(vec![1.0f32, 1e-4, 3e3]),
        seed in 1u64..u64::MAX,
    ) {
        let mut rng = Rng(seed);
        let layout = RecordLayout::new(k, v, d, 16).unwrap();
        let mut scalar = Cache::new(layout, Isa::Scalar);
        for _ in 0..16 {
            let mut row = || rng.vector(d).iter().map(|x| x * scale).collect::<Vec<f32>>();
            scalar.push(&row(), &row());
        }
        for isa in isas() {
            let kernel = Kernel::new(layout, isa);
            let mut record = vec![0x5a; layout.bytes()];
            for (slot, (k, v)) in scalar.stored.iter().enumerate() {
                kernel.store(&mut record, slot, k, v);
            }
            prop_assert_eq!(&record, &scalar.records[0], "{:?} {:?}/{:?} d {}", isa, k, v, d);
            for side in [Side::K, Side::V] {
                let (mut a, mut b) = (vec![0.0; d], vec![0.0; d]);
                kernel.load(&record, 7, side, &mut a);
                scalar.kernel.load(&record, 7, side, &mut b);
                prop_assert_eq!(a, b);
            }
        }
    }

    /// Float kernels do the same operations in the same order; AVX-512 multiplies the same integers as the scalar code.
    /// AVX2 and NEON have narrower integers, whose error the comparison with f64 bounds.
    #[test]
    fn attention_is_equal(
        k in prop::sample::select(formats(Side::K)),
        v in prop::sample::select(formats(Side::V)),
        d in dims(),
        block_size in prop::sample::select(vec![16usize, 32]),
        group in 1usize..6,
        tokens in 1usize..300,
        from in 0usize..300,
        seed in 1u64..u64::MAX,
    ) {
        let mut rng = Rng(seed);
        let layout = RecordLayout::new(k, v, d, block_size).unwrap();
        let scalar = Cache::random(layout, Isa::Scalar, tokens, &mut rng);
        let q = rng.vector(group * d);
        let from = from % tokens;
        let want = scalar.attend(&query(&scalar.kernel, &q, group, None), from, tokens);
        let float = |format: turboquant::Format| !format.has_one_scale();
        for isa in isas() {
            if isa != Isa::Avx512 && !(float(k) && float(v)) {
                continue;
            }
            let cache = scalar.with_isa(isa);
            let got = cache.attend(&query(&cache.kernel, &q, group, None), from, tokens);
            prop_assert_eq!(got, want.clone(), "{:?} {:?}/{:?} d {} {}..{}", isa, k, v, d, from, tokens);
        }
    }
}
