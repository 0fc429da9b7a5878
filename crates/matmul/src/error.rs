use crate::WeightType;

/// Why bytes cannot be taken as a weight of type `ty` with `n` rows of `k` elements, or values not be made one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum MatmulError {
    #[error("weight of {ty}: k = 0, a row must have at least one element")]
    EmptyRow { ty: WeightType },
    #[error("weight of {ty}: k = {k} is not a multiple of the type's block of {block} elements")]
    PartialBlock { ty: WeightType, k: usize, block: usize },
    #[error("weight of {ty} with n = {n} and k = {k}: {found} bytes given, {expected} needed")]
    Length { ty: WeightType, n: usize, k: usize, expected: usize, found: usize },
    #[error("weight of {ty} with n = {n} and k = {k}: its size exceeds the address space")]
    TooLarge { ty: WeightType, n: usize, k: usize },
    #[error("values are not quantised to {ty}; weights of that type are read from files")]
    NoQuantiser { ty: WeightType },
}
