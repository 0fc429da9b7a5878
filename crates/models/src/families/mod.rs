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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Engine's tests go through all folders of this name, so that a family without one would be held to nothing.
    #[test]
    fn every_family_has_a_tiny_model() {
        let folders = std::fs::read_dir(testkit::repo("models")).expect("the bundled models");
        let configs = folders.filter_map(|folder| {
            let folder = folder.ok().filter(|folder| folder.file_name().to_string_lossy().starts_with("tiny-"))?;
            std::fs::read_to_string(folder.path().join("config.json")).ok()
        });
        let served = |config: String| {
            FAMILIES
                .iter()
                .position(|family| family.names.iter().any(|(name, _)| config.contains(&format!("\"{name}\""))))
        };
        let found: BTreeSet<usize> = configs.filter_map(served).collect();
        let missing: Vec<_> =
            (0..FAMILIES.len()).filter(|i| !found.contains(i)).map(|i| FAMILIES[i].names[0].0).collect();
        assert!(missing.is_empty(), "no folder models/tiny-NAME is of {missing:?}");
    }
}
