use crate::WeightType;

/// Why bytes cannot be taken as a weight, or values not be made one. `n` counts rows, `k` the elements of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatmulError {
    /// Rows have no elements.
    #[error("weight of {ty}: k = 0, a row must have at least one element")]
    EmptyRow {
        /// The weight's type.
        ty: WeightType,
    },
    /// A row does not end with a whole quantisation block.
    #[error("weight of {ty}: k = {k} is not a multiple of the type's block of {block} elements")]
    PartialBlock {
        /// The weight's type.
        ty: WeightType,
        /// Elements of a row.
        k: usize,
        /// Elements of the type's quantisation block.
        block: usize,
    },
    /// The number of bytes is not that of `n` rows of `k` elements.
    #[error("weight of {ty} with n = {n} and k = {k}: {found} bytes given, {expected} needed")]
    Length {
        /// The weight's type.
        ty: WeightType,
        /// Rows.
        n: usize,
        /// Elements of a row.
        k: usize,
        /// Bytes that `n` rows of `k` elements take.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// The size in bytes does not fit a `usize`.
    #[error("weight of {ty} with n = {n} and k = {k}: its size exceeds the address space")]
    TooLarge {
        /// The weight's type.
        ty: WeightType,
        /// Rows.
        n: usize,
        /// Elements of a row.
        k: usize,
    },
}
