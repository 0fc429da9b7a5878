//! Models that are split over several files, `NAME-00001-of-00003.gguf`.
use crate::{GgufError, Metadata};
use std::path::{Path, PathBuf};

/// The place of a file among a model's shards, as its metadata gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// The shard's number, counted from 0.
    pub number: usize,
    /// How many shards the model has.
    pub count: usize,
}

impl Split {
    /// Reads `split.no` and `split.count`. A file without them is the only one.
    ///
    /// Errors: values that are no whole numbers.
    pub fn of(metadata: &Metadata<'_>) -> Result<Self, GgufError> {
        let number = metadata.optional("split.no", Metadata::size)?.unwrap_or(0);
        let count = metadata.optional("split.count", Metadata::size)?.unwrap_or(0).max(1);
        Ok(Split { number, count })
    }
}

/// The paths of all shards of a model, in order, given the path of any of them; `path` itself if its name is not that
/// of a shard.
pub fn shards(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match stem_and_count(&name) {
        Some((stem, count)) => {
            (1..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"))).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// The stem and the count of the name of a shard.
fn stem_and_count(name: &str) -> Option<(&str, usize)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let number_of = |text: &str| (text.len() == 5).then(|| text.parse::<usize>().ok())?;
    let (number, count) = (number_of(number)?, number_of(count)?);
    (1..=count).contains(&number).then_some((stem, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shard_names_all() {
        let all = shards(Path::new("/m/a-b-00002-of-00003.gguf"));
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], Path::new("/m/a-b-00001-of-00003.gguf"));
        for alone in ["a.gguf", "a-00004-of-00003.gguf", "a-1-of-2.gguf", "-of-.gguf"] {
            assert_eq!(shards(Path::new(alone)), [Path::new(alone)]);
        }
    }
}
