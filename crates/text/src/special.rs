//! The texts of a tokenizer's special tokens, found in what clients write.
use aho_corasick::{AhoCorasick, BuildError};
use std::collections::{BTreeSet, HashSet};

/// Characters that stand for nothing in Unicode, then those of private use.
const UNASSIGNED: [std::ops::RangeInclusive<char>; 3] =
    ['\u{FDD0}'..='\u{FDEF}', '\u{F0000}'..='\u{FFFFD}', '\u{100000}'..='\u{10FFFD}'];

/// Characters that no text holds and that may therefore mark places in one: those that `taken` does not have.
pub(crate) fn free_characters(taken: &HashSet<char>) -> impl Iterator<Item = char> {
    UNASSIGNED.into_iter().flatten().filter(|c| !taken.contains(c))
}

/// The characters of a text that [`free_characters`] might give.
pub(crate) fn taken_characters(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| c >= UNASSIGNED[0].start())
}

/// The texts of a tokenizer's special tokens.
#[derive(Debug)]
pub(crate) struct SpecialTexts(AhoCorasick);

impl SpecialTexts {
    /// Errors: more texts than can be searched for.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, BuildError> {
        // A text of one character has no place for a mark.
        AhoCorasick::new(texts.filter(|text| text.chars().nth(1).is_some())).map(SpecialTexts)
    }

    /// Whether `text` holds any of them.
    pub fn occur_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// `text` with `mark` after the first character of each special token's text; `None` if it holds none.
    pub fn marked(&self, text: &str, mark: char) -> Option<String> {
        // Texts may overlap, and none of them must be left whole.
        let starts: BTreeSet<usize> = self.0.find_overlapping_iter(text).map(|found| found.start()).collect();
        if starts.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(text.len() + starts.len() * mark.len_utf8());
        for (at, c) in text.char_indices() {
            out.push(c);
            if starts.contains(&at) {
                out.push(mark);
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_token_is_marked_also_where_they_overlap() {
        let texts = SpecialTexts::new(["<|a|>", "|>b", "<|a", "é</s>", "x"].into_iter()).unwrap();
        assert_eq!(texts.marked("<|a|>b é</s> x", '*').as_deref(), Some("<*|a|*>b é*</s> x"));
        assert_eq!(texts.marked("plain <| a", '*'), None);
        assert!(!texts.occur_in("x"));
    }
}
