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
const TYPES: [(u32, &str, usize, usize); 33] = [
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
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
];

/// The types whose sizes are not known here, by number and name, each with the type of a file that can be read instead:
/// those that llama.cpp itself reads no more, and new ones.
const UNREADABLE: [(u32, &str, &str); 10] = [
    (4, "Q4_2", "a Q4_K_M"),
    (5, "Q4_3", "a Q4_K_M"),
    (31, "Q4_0_4_4", "a Q4_0"),
    (32, "Q4_0_4_8", "a Q4_0"),
    (33, "Q4_0_8_8", "a Q4_0"),
    (36, "IQ4_NL_4_4", "an IQ4_NL"),
    (37, "IQ4_NL_4_8", "an IQ4_NL"),
    (38, "IQ4_NL_8_8", "an IQ4_NL"),
    (41, "Q1_0", "an IQ2_XXS"),
    (42, "Q2_0", "a Q2_K"),
];

impl TensorType {
    /// The type of a number in the file.
    ///
    /// Errors: a number that names no type, or one that cannot be read. The message continues a sentence that begins
    /// with the tensor's name.
    pub fn of(id: u32) -> Result<Self, String> {
        if let Some((_, name, block_len, block_bytes)) = TYPES.iter().find(|t| t.0 == id) {
            return Ok(TensorType { name, block_len: *block_len, block_bytes: *block_bytes });
        }
        Err(match UNREADABLE.iter().find(|t| t.0 == id) {
            Some((_, name, take)) => format!("is of type {name}, which is not read; take {take} file of this model"),
            None => format!("is of type {id}, which is not known; a newer program may have written this file"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The enum of `ggml.h` numbers its types from 0 on.
    #[test]
    fn every_type_of_ggml_is_known_by_name() {
        for id in 0..=42 {
            match TensorType::of(id) {
                Ok(known) => assert!(known.block_len > 0 && known.block_bytes > 0, "{known:?}"),
                Err(told) => assert!(told.contains("which is not read; take a"), "{id}: {told}"),
            }
        }
        assert!(TensorType::of(31).unwrap_err().contains("Q4_0_4_4"));
        assert!(TensorType::of(43).unwrap_err().contains("43, which is not known"));
    }
}
