use crate::Affine;
use std::fmt;

/// How a weight's elements are stored: little-endian floats, ggml's quantisation blocks as GGUF files have them, or
/// blocks of MLX's types, which [`crate::pack_mlx`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)] // ggml's names, which are their own explanation
pub enum WeightType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    Mxfp4,
    IQ3_S,
    IQ3_XXS,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    TQ2_0,
    TQ1_0,
    /// MLX's `nvfp4`: FP4 (E2M1), a scale of FP8 (E4M3) for each 16 elements.
    Nvfp4,
    /// MLX's `affine`.
    Affine(Affine),
}

impl WeightType {
    /// Every type of GGUF files once.
    pub const GGML: [WeightType; 23] = [
        WeightType::F32,
        WeightType::F16,
        WeightType::Bf16,
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

    /// Every type once: first those of GGUF files.
    pub const ALL: [WeightType; 24 + Affine::COUNT] = {
        let mut all = [WeightType::Nvfp4; 24 + Affine::COUNT];
        let mut i = 0;
        while i < 23 {
            all[i] = Self::GGML[i];
            i += 1;
        }
        let mut i = 0;
        while i < Affine::COUNT {
            all[24 + i] = WeightType::Affine(Affine::nth(i));
            i += 1;
        }
        all
    };

    /// The type's name, the elements of a quantisation block and its bytes; those of GGUF files as in ggml's
    /// `type_traits`.
    const fn traits(self) -> (&'static str, usize, usize) {
        match self {
            WeightType::F32 => ("F32", 1, 4),
            WeightType::F16 => ("F16", 1, 2),
            WeightType::Bf16 => ("BF16", 1, 2),
            WeightType::Q8_0 => ("Q8_0", 32, 34),
            WeightType::Q4_0 => ("Q4_0", 32, 18),
            WeightType::Q4_1 => ("Q4_1", 32, 20),
            WeightType::Q5_0 => ("Q5_0", 32, 22),
            WeightType::Q5_1 => ("Q5_1", 32, 24),
            WeightType::Q2_K => ("Q2_K", 256, 84),
            WeightType::Q3_K => ("Q3_K", 256, 110),
            WeightType::Q4_K => ("Q4_K", 256, 144),
            WeightType::Q5_K => ("Q5_K", 256, 176),
            WeightType::Q6_K => ("Q6_K", 256, 210),
            WeightType::IQ4_NL => ("IQ4_NL", 32, 18),
            WeightType::IQ4_XS => ("IQ4_XS", 256, 136),
            WeightType::Mxfp4 => ("MXFP4", 32, 17),
            WeightType::IQ3_S => ("IQ3_S", 256, 110),
            WeightType::IQ3_XXS => ("IQ3_XXS", 256, 98),
            WeightType::IQ2_S => ("IQ2_S", 256, 82),
            WeightType::IQ2_XS => ("IQ2_XS", 256, 74),
            WeightType::IQ2_XXS => ("IQ2_XXS", 256, 66),
            WeightType::TQ2_0 => ("TQ2_0", 256, 66),
            WeightType::TQ1_0 => ("TQ1_0", 256, 54),
            WeightType::Nvfp4 => ("NVFP4", 32, 18),
            WeightType::Affine(of) => (of.name(), of.group(), of.group_bytes()),
        }
    }

    /// Returns the type's name: ggml's, or one of bits, group and scales, such as AFFINE4_G64_BF16.
    pub fn name(self) -> &'static str {
        self.traits().0
    }

    /// Returns the number of elements of a quantisation block; 1 for floats.
    pub const fn block_len(self) -> usize {
        self.traits().1
    }

    /// Returns the number of bytes of a quantisation block, or of one float.
    pub const fn block_bytes(self) -> usize {
        self.traits().2
    }

    /// Returns the bytes of a row of `k` elements, `k / block_len * block_bytes`; `None` if `k` is not a multiple of
    /// the quantisation block or if the size overflows.
    pub fn row_bytes(self, k: usize) -> Option<usize> {
        k.is_multiple_of(self.block_len()).then(|| (k / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
