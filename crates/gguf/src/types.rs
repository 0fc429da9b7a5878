//! The tensor types of ggml. Each stores rows of a tensor as quantisation blocks of a fixed number of elements and
//! bytes.

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType {
    /// ggml's name.
    pub name: &'static str,
    /// Elements of a quantisation block; 1 for types that are not quantised.
    pub block_len: usize,
    /// Bytes of a quantisation block.
    pub block_bytes: usize,
}

/// The number, the name, and the elements and bytes of a quantisation block of each type (`ggml.h`, `ggml-common.h`).
const TYPES: [(u32, &str, usize, usize); 30] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (39, "MXFP4", 32, 17),
];

impl TensorType {
    /// The type of a number in the file; `None` for a number that names no type.
    pub fn of(id: u32) -> Option<Self> {
        let (_, name, block_len, block_bytes) = *TYPES.iter().find(|t| t.0 == id)?;
        Some(TensorType { name, block_len, block_bytes })
    }
}
