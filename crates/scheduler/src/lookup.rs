//! Prompt lookup: a draft is what followed where a sequence's last tokens stood before, in its prompt or its answer.

/// The fewest tokens that must agree before a place.
pub(crate) const MIN_MATCH: usize = 3;

/// Matches are compared up to this length; longer ones count as equal.
const MAX_MATCH: usize = 32;

/// How many places are compared at most, the newest first.
const MAX_PLACES: usize = 64;

/// The fewest entries of a table of hashes.
const MIN_TABLE: usize = 256;

/// A place in a sequence's tokens that what comes next may repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// The position of the token after the tokens that agree.
    pub position: usize,
    /// How many tokens agree, counted up to [`MAX_MATCH`].
    pub len: usize,
}

/// Where each run of [`MIN_MATCH`] tokens stands in a sequence: hash chains, as compressors of the LZ77 family use
/// them. A token takes 4 bytes in its chain and at most 8 in the table of hashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct LookupIndex {
    /// For each hash, the newest position after such tokens; 0: none.
    newest: Vec<u32>,
    /// For each position, the next older one with the same hash; 0: none.
    older: Vec<u32>,
}

impl LookupIndex {
    /// Takes in the tokens that have come since the last call. `tokens`: all of the sequence; those that were there
    /// before have not changed.
    pub fn extend(&mut self, tokens: &[u32]) {
        if tokens.len() > self.newest.len() {
            // Twice as many entries as tokens, so that all is rebuilt once for each doubling.
            self.newest = vec![0; (tokens.len() + 1).next_power_of_two().max(MIN_TABLE)];
            self.older.clear();
        }
        for position in self.older.len()..tokens.len() {
            let Some(before) = position.checked_sub(MIN_MATCH) else {
                self.older.push(0);
                continue;
            };
            let at = self.entry(&tokens[before..position]);
            self.older.push(std::mem::replace(&mut self.newest[at], position as u32));
        }
    }

    /// The place with the longest match before it, the newest of equals. `tokens`: those that the index was last
    /// extended to.
    pub fn find(&self, tokens: &[u32]) -> Option<Match> {
        let last = tokens.get(tokens.len().checked_sub(MIN_MATCH)?..)?;
        let mut best: Option<Match> = None;
        let mut position = *self.newest.get(self.entry(last))? as usize;
        for _ in 0..MAX_PLACES {
            if position == 0 {
                break;
            }
            let own = tokens.iter().rev();
            let len = own.zip(tokens[..position].iter().rev()).take(MAX_MATCH).take_while(|(a, b)| a == b).count();
            // Other tokens may have the same hash.
            if len >= MIN_MATCH && best.is_none_or(|best| len > best.len) {
                best = Some(Match { position, len });
            }
            if len == MAX_MATCH {
                break;
            }
            position = self.older[position] as usize;
        }
        best
    }

    /// The entry of the table for a run of tokens.
    fn entry(&self, run: &[u32]) -> usize {
        // Fibonacci hashing, whose best bits are the upper ones.
        let mix =
            |hash: u64, token: &u32| (hash ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let hash = run.iter().fold(0, mix);
        (hash >> 32) as usize & self.newest.len().saturating_sub(1)
    }
}

/// The `len` tokens that stand after a place, which end where the sequence does and begin again there: text that
/// repeats itself goes on so.
pub(crate) fn continuation(tokens: &[u32], position: usize, len: usize) -> Vec<u32> {
    let period = tokens.len() - position;
    (0..len).map(|at| tokens[position + at % period]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(tokens: &[u32]) -> Option<Match> {
        let mut index = LookupIndex::default();
        index.extend(tokens);
        index.find(tokens)
    }

    #[test]
    fn the_longest_match_wins_and_of_equals_the_newest() {
        let found = |position, len| Some(Match { position, len });
        assert_eq!(find(&[1, 2, 3, 4, 9, 2, 3, 4, 8, 1, 2, 3, 4]), found(4, 4));
        assert_eq!(find(&[1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]), found(7, 3));
        assert_eq!(find(&[1, 2, 9, 1, 2]), None, "two tokens are too few");
        assert_eq!(find(&[1, 2]), None);
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[5; 6]), found(5, 5));
    }

    #[test]
    fn a_text_that_repeats_itself_goes_on() {
        let tokens = [9, 1, 2, 3, 1, 2, 3];
        let found = find(&tokens).unwrap();
        assert_eq!(found, Match { position: 4, len: 3 });
        assert_eq!(continuation(&tokens, found.position, 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(continuation(&[4, 5, 6, 7], 1, 2), [5, 6]);
    }

    proptest! {
        /// In whatever pieces tokens come, what is found is the best of all places, as a search of all finds it.
        #[test]
        fn an_index_finds_what_a_search_of_all_places_does(
            tokens in prop::collection::vec(0u32..3, 0..60), pieces in prop::collection::vec(1usize..9, 60),
        ) {
            let mut index = LookupIndex::default();
            let mut end = 0;
            for piece in pieces {
                end = (end + piece).min(tokens.len());
                index.extend(&tokens[..end]);
                let known = &tokens[..end];
                let own = known.iter().rev();
                let agree = |p: usize| own.clone().zip(known[..p].iter().rev()).take_while(|(a, b)| a == b).count();
                let all = (MIN_MATCH..end).map(|p| Match { position: p, len: agree(p).min(MAX_MATCH) });
                let best = all.filter(|m| m.len >= MIN_MATCH).max_by_key(|m| (m.len, m.position));
                prop_assert_eq!(index.find(known), best);
            }
        }
    }
}
