//! Retrieval: pass keys hidden in a text, asked for at its end.
use crate::trial::Trial;
use crate::{CHUNK, Scheme};
use engine::{ModelBundle, StartError, argmax};
use serde::Serialize;

/// Words that a key may be for.
const WORDS: [&str; 24] = [
    "apple", "river", "castle", "garden", "silver", "winter", "bridge", "candle", "forest", "market", "orange",
    "pencil", "rocket", "shadow", "temple", "violin", "window", "yellow", "anchor", "basket", "copper", "dragon",
    "engine", "falcon",
];
/// How many of the words are used: those that the filler has least. A key whose word is all over the text is not the
/// only answer to its question.
const RAREST: usize = 12;
/// Keys that a text hides; all are asked for.
const KEYS: usize = 4;
/// Most `--needle-depths`.
const MAX_DEPTHS: usize = 1000;
/// Most tokens of a question and its digits.
const MAX_QUESTION: usize = 64;

/// The texts that are made.
#[derive(Debug, Clone)]
pub struct NeedleOptions {
    /// Tokens of a text with its longest question.
    pub lengths: Vec<usize>,
    /// How many depths there are, evenly from the beginning of a text to its end, at which keys lie; at least 4.
    pub depths: usize,
    /// Texts of each length.
    pub texts: usize,
}

/// How many digits of the keys a scheme recalled, at one length and depth.
#[derive(Debug, Clone, Serialize)]
pub struct NeedleRow {
    /// The format of keys.
    pub k: String,
    /// The format of values.
    pub v: String,
    /// Whether means were subtracted before K and V were stored.
    pub centred: bool,
    /// Tokens of the text with its longest question.
    pub length: usize,
    /// Where the keys lie: 0 is the beginning of the text, 1 its end.
    pub depth: f64,
    /// Digits that were asked for.
    pub digits: usize,
    /// Digits that were the most likely token.
    pub recalled: usize,
}

/// Asks a model with the cache of one scheme for the keys of texts of all lengths. A digit counts as recalled if it is
/// the most likely token after the question and the digits before it. `filler` is the text that the keys are hidden in;
/// `progress` is called after each text.
///
/// Errors: texts too short for their keys; fewer depths than a text has keys, or too many; a filler without sentences;
/// whatever the scheme's cache refuses.
pub fn needles(
    bundle: &ModelBundle,
    scheme: &Scheme,
    filler: &str,
    options: &NeedleOptions,
    mut progress: impl FnMut(),
) -> Result<Vec<NeedleRow>, StartError> {
    check(options)?;
    let filler = Filler::new(bundle, filler)?;
    let (k, v) = scheme.names();
    let mut rows = Vec::new();
    for &length in &options.lengths {
        // One sequence holds the text; each question goes on from a copy of it.
        let mut cache = Trial::new(bundle, scheme, length + MAX_QUESTION, 2)?;
        let first = rows.len();
        rows.extend((0..options.depths).map(|depth| NeedleRow {
            k: k.clone(),
            v: v.clone(),
            centred: cache.centred,
            length,
            depth: depth as f64 / options.depths.saturating_sub(1).max(1) as f64,
            digits: 0,
            recalled: 0,
        }));
        for index in 0..options.texts {
            let hidden = filler.hide(bundle, length, options.depths, index)?;
            for start in (0..hidden.text.len()).step_by(CHUNK) {
                let end = (start + CHUNK).min(hidden.text.len());
                cache.forward(&[(0, start..end)], &hidden.text[start..end], &[0])?;
            }
            for key in &hidden.keys {
                cache.copy(0, 1)?;
                let row = &mut rows[first + key.depth];
                row.recalled += ask(bundle, &mut cache, hidden.text.len(), key)?;
                row.digits += key.answer.len();
            }
            progress();
        }
    }
    Ok(rows)
}

fn check(options: &NeedleOptions) -> Result<(), StartError> {
    if options.texts == 0 {
        return Err(StartError::flag("--needle-texts", "is 0; it must be at least 1"));
    }
    if !(KEYS..=MAX_DEPTHS).contains(&options.depths) {
        let message = format!(
            "is {}; it must lie in [{KEYS}, {MAX_DEPTHS}]: a text hides {KEYS} keys, each at a depth of its own",
            options.depths
        );
        return Err(StartError::flag("--needle-depths", message));
    }
    Ok(())
}

/// A text with keys in it, in tokens.
struct HiddenKeys {
    text: Vec<u32>,
    keys: Vec<Key>,
}

struct Key {
    /// The number of its depth.
    depth: usize,
    question: Vec<u32>,
    answer: Vec<u32>,
}

/// What keys are hidden in.
struct Filler {
    tokens: Vec<u32>,
    /// Whether a sentence begins at a token: keys go between sentences, as a text would have them.
    begins: Vec<bool>,
    words: Vec<&'static str>,
}

impl Filler {
    fn new(bundle: &ModelBundle, text: &str) -> Result<Self, StartError> {
        let tokens = bundle.tokenizer.encode(text, false)?;
        let bytes: Vec<_> = tokens.iter().map(|t| bundle.tokenizer.token_bytes(*t)).collect();
        let mut begins = vec![false; tokens.len()];
        for (begins, pair) in begins.iter_mut().skip(1).zip(bytes.windows(2)) {
            *begins = ends_sentence(&pair[0]) && begins_sentence(&pair[1]);
        }
        if !begins.contains(&true) {
            let message = "has no sentences to hide pass keys between";
            return Err(StartError::flag("--text", message));
        }
        let mut words = WORDS.to_vec();
        let lower = text.to_lowercase();
        words.sort_by_cached_key(|word| lower.split(|c: char| !c.is_alphabetic()).filter(|w| w == word).count());
        words.truncate(RAREST);
        Ok(Filler { tokens, begins, words })
    }

    /// The text of this `index`: its keys lie at all depths but those that its turn leaves out.
    fn hide(&self, bundle: &ModelBundle, length: usize, depths: usize, index: usize) -> Result<HiddenKeys, StartError> {
        let mut random = Random((length * 1000 + index) as u64);
        let encode = |text: &str| bundle.tokenizer.encode(text, false);
        let (mut sentences, mut keys) = (Vec::new(), Vec::new());
        let first = random.below(self.words.len());
        for i in 0..KEYS {
            let word = self.words[(first + i * 5) % self.words.len()];
            let digits = format!("{:05}", 10_000 + random.below(90_000));
            sentences.push(encode(&format!(" The pass key for {word} is {digits}."))?);
            let question = encode(&format!("\n\nWhat is the pass key for {word}? The pass key for {word} is "))?;
            keys.push(Key { depth: (index + i) % depths, question, answer: encode(&digits)? });
        }
        let bos = bundle.tokenizer.added_bos();
        let asked = keys.iter().map(|k| k.question.len() + k.answer.len()).max().unwrap_or(0);
        let taken = usize::from(bos.is_some()) + sentences.iter().map(Vec::len).sum::<usize>() + asked;
        let room = length.checked_sub(taken).ok_or_else(|| {
            let message = format!("has {length}; the keys, their sentences and a question take {taken} tokens");
            StartError::flag("--needle-lengths", message)
        })?;
        let offset = random.below(self.tokens.len().saturating_sub(room).max(1));
        let ends: Vec<usize> = (0..=room).filter(|at| self.begins[(offset + at) % self.tokens.len()]).collect();
        // A depth is where it is if no sentence ends at all, which only the shortest texts know.
        let nearest = |depth: usize| ends.iter().copied().min_by_key(|at| at.abs_diff(depth)).unwrap_or(depth);
        let places = keys.iter().map(|k| nearest(room * k.depth / (depths - 1)));
        let mut places: Vec<(usize, usize)> = places.enumerate().map(|(i, place)| (place, i)).collect();
        places.sort_unstable();
        let mut places = places.into_iter().peekable();
        let mut text: Vec<u32> = bos.into_iter().collect();
        for at in 0..=room {
            while let Some((_, key)) = places.next_if(|(place, _)| *place == at) {
                text.extend(&sentences[key]);
            }
            if at < room {
                text.push(self.tokens[(offset + at) % self.tokens.len()]);
            }
        }
        Ok(HiddenKeys { text, keys })
    }
}

fn ends_sentence(token: &[u8]) -> bool {
    token.last().is_some_and(|last| b".!?".contains(last))
}

/// Whether a token after the end of a sentence begins another one: white space and a capital, or a new line. (The 5 of
/// "No. 5" does not.)
fn begins_sentence(token: &[u8]) -> bool {
    let word = token.trim_ascii_start();
    word.len() < token.len() && word.first().map_or(token.contains(&b'\n'), u8::is_ascii_uppercase)
}

/// Knuth's MMIX generator: the same keys in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// How many digits of the answer come after the second sequence's first `len` tokens and the question.
fn ask(bundle: &ModelBundle, cache: &mut Trial<'_>, len: usize, key: &Key) -> Result<usize, StartError> {
    let tokens = [&key.question[..], &key.answer[..key.answer.len() - 1]].concat();
    let rows: Vec<u32> = (key.question.len() as u32 - 1..tokens.len() as u32).collect();
    let logits = cache.forward(&[(1, len..len + tokens.len())], &tokens, &rows)?;
    let found = logits.chunks_exact(bundle.model.vocab_size()).zip(&key.answer);
    Ok(found.filter(|(row, digit)| argmax(row) == Some(**digit)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{EngineConfig, load};

    fn count(text: &[u32], part: &[u32]) -> usize {
        text.windows(part.len()).filter(|w| *w == part).count()
    }

    /// Every key is in the text once, between sentences, at its depth, and the text leaves room for the question.
    #[test]
    fn keys_are_hidden_once_each_at_their_depths() {
        let bundle = load(&EngineConfig::new(testkit::repo("models/demo"))).unwrap();
        let filler = Filler::new(&bundle, &"A river runs through the old town. ".repeat(400)).unwrap();
        let (length, depths) = (700, 5);
        for index in 0..depths {
            let hidden = filler.hide(&bundle, length, depths, index).unwrap();
            let asked = hidden.keys.iter().map(|k| k.question.len() + k.answer.len()).max().unwrap();
            assert_eq!(hidden.text.len() + asked, length);
            let mut places: Vec<_> = hidden.keys.iter().map(|k| k.depth).collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), KEYS);
            for key in &hidden.keys {
                assert_eq!(count(&hidden.text, &key.answer), 1);
                let at = hidden.text.windows(key.answer.len()).position(|w| w == key.answer).unwrap();
                // The sentences of other keys before it, and the way to the end of its own, move it by less than a
                // fifth of the text.
                let share = at as f64 / hidden.text.len() as f64;
                let depth = key.depth as f64 / (depths - 1) as f64;
                assert!((share - depth).abs() < 0.2, "{share} for {depth}");
            }
            let text = bundle.tokenizer.decode(&hidden.text, true);
            let parts: Vec<&str> = text.split(" The pass key for ").collect();
            assert_eq!(parts.len(), KEYS + 1);
            assert!(parts[..KEYS].iter().all(|before| before.ends_with('.')), "{text}");
            let after: Vec<_> = parts[1..].iter().filter_map(|t| t.split_once('.')).collect();
            let goes_on = |rest: &str| rest.starts_with(" A river") || " A river".starts_with(rest);
            assert!(after.iter().all(|(_, rest)| goes_on(rest)), "{text}");
            assert!(after.iter().all(|(key, _)| !key.starts_with("river")), "{text}");
        }
        let message = filler.hide(&bundle, 20, depths, 0).err().unwrap().to_string();
        assert!(message.contains("--needle-lengths: has 20"), "{message}");
        assert!(Filler::new(&bundle, "unbroken").is_err());
    }

    #[test]
    fn texts_and_depths_that_there_cannot_be_are_named() {
        let options = |depths, texts| NeedleOptions { lengths: vec![1024], depths, texts };
        assert!(check(&options(KEYS, 1)).is_ok() && check(&options(MAX_DEPTHS, 1)).is_ok());
        for (options, told) in [
            (options(5, 0), "--needle-texts: is 0"),
            (options(KEYS - 1, 1), "--needle-depths: is 3"),
            (options(1001, 1), "--needle-depths: is 1001; it must lie in [4, 1000]"),
        ] {
            let message = check(&options).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }
}
