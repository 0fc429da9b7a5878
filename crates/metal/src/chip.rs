//! What Apple's chips can do, and which kernels of products with few rows that decides.
use matmul::WeightType;

/// A chip's figures.
struct Chip {
    /// As Metal names its device.
    name: &'static str,
    /// Lane operations a second, half of the FP32 operations that Apple or others state, in 1e12.
    operations: f64,
    /// Gigabytes of memory that it reads a second, by Apple's specifications of the chip with all its cores.
    gigabytes: f64,
}

const fn chip(name: &'static str, operations: f64, gigabytes: f64) -> Chip {
    Chip { name, operations, gigabytes }
}

/// Chips whose 8x8 products run on the lanes. Later ones have units for them.
const CHIPS: [Chip; 15] = [
    chip("Apple M1", 1.3, 68.0),
    chip("Apple M1 Pro", 2.6, 200.0),
    chip("Apple M1 Max", 5.2, 400.0),
    chip("Apple M1 Ultra", 10.4, 800.0),
    chip("Apple M2", 1.8, 100.0),
    chip("Apple M2 Pro", 3.4, 200.0),
    chip("Apple M2 Max", 6.8, 400.0),
    chip("Apple M2 Ultra", 13.6, 800.0),
    chip("Apple M3", 2.0, 100.0),
    chip("Apple M3 Pro", 3.7, 150.0),
    chip("Apple M3 Max", 8.2, 400.0),
    chip("Apple M3 Ultra", 16.4, 819.0),
    chip("Apple M4", 2.1, 120.0),
    chip("Apple M4 Pro", 4.6, 273.0),
    chip("Apple M4 Max", 9.2, 546.0),
];

/// The most that a step may cost more for the sake of one order of sums.
const MOST_LOSS: f64 = 0.1;

/// Lane operations of an 8x8 product for an element of the weight.
const PRODUCT: f64 = 8.0;

/// Lane operations that an element of a weight takes beside the 8x8 products: decoding, scales, addresses. They are
/// nvcc's instructions for one row (docs/kernels-log.md); types that were not measured have those of the nearest, and
/// those from IQ4_NL on are counted in the compiled loop.
fn decoding(kind: WeightType) -> f64 {
    match kind {
        WeightType::F32 => 0.0,
        WeightType::F16 => 3.6,
        WeightType::Bf16 => 5.2,
        WeightType::Q8_0 => 5.6,
        WeightType::Q4_0 | WeightType::Q4_1 | WeightType::Q5_0 | WeightType::Q5_1 => 5.7,
        WeightType::Q2_K | WeightType::Q3_K | WeightType::Q6_K => 6.1,
        WeightType::Q4_K => 4.5,
        WeightType::Q5_K => 5.5,
        WeightType::IQ4_NL => 8.9,
        WeightType::IQ4_XS => 8.5,
        WeightType::Mxfp4 => 9.6,
        WeightType::IQ3_S => 8.5,
        WeightType::IQ3_XXS => 10.5,
        WeightType::IQ2_S => 12.2,
        WeightType::IQ2_XS => 13.8,
        WeightType::IQ2_XXS => 8.9,
        WeightType::TQ2_0 => 3.9,
        WeightType::TQ1_0 => 5.8,
        WeightType::Nvfp4 => 9.6,
        WeightType::Affine(of) => match of.bits() {
            4 | 8 => 5.7,
            _ => 6.1,
        },
    }
}

/// All types of weights that have more than one kernel.
pub fn multiplied_types() -> Vec<WeightType> {
    WeightType::ALL.into_iter().filter(|kind| *kind != WeightType::F32).collect()
}

/// The types of weights with which a chip takes more than a tenth longer for few rows by `product`, whose sums have
/// one order for any number of rows, than memory does. `device`: as Metal names it; a name that is not known has none.
pub fn slow_types(device: &str) -> Vec<WeightType> {
    let Some(chip) = CHIPS.iter().find(|chip| chip.name == device) else { return Vec::new() };
    let is_slow = |kind: &WeightType| {
        let reading = kind.block_bytes() as f64 / kind.block_len() as f64 / chip.gigabytes;
        (PRODUCT + decoding(*kind)) / (1e3 * chip.operations) > (1.0 + MOST_LOSS) * reading
    };
    let mut types = multiplied_types();
    types.retain(is_slow);
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bits_are_slow_where_lanes_multiply_and_sixteen_are_not() {
        for chip in &CHIPS {
            let types = slow_types(chip.name);
            assert!(!types.contains(&WeightType::F16) && !types.contains(&WeightType::Bf16), "{}", chip.name);
            assert!(types.contains(&WeightType::Q2_K), "{}: {types:?}", chip.name);
        }
        assert!(slow_types("Apple M1 Pro").contains(&WeightType::Q4_K));
        assert_eq!(slow_types("Apple Paravirtual device"), []);
    }
}
