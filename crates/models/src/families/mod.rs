//! The model families, one file each. A file begins with the family's names and ends with its layer in the textbook
//! order: norm, q k v, attention, output projection, norm, MLP.
mod llama;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod smollm3;

use crate::family::Family;

/// All families that can be served.
pub(crate) const FAMILIES: [&Family; 7] = [
    &llama::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &qwen3_moe::FAMILY,
    &qwen3_5::FAMILY,
    &qwen3_5_moe::FAMILY,
    &smollm3::FAMILY,
];
