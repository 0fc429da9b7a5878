//! The tables that kernels read. With those of the mean correction no kernel computes an angle for a key.
mod layer;
mod operands;
mod pairs;
mod partition;
mod rotation;

pub use layer::LayerTables;
pub(crate) use pairs::ExactPairs;
pub use pairs::exact_groups;
pub use partition::PartitionTables;
pub use rotation::rotation_words;

/// f32 values as bytes.
pub(crate) fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// u32 values as bytes.
pub(crate) fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}
