//! Retrieval: pass keys hidden in a text, asked for at its end.
use super::{CHUNK, Run, Scheme};
use crate::error::StartError;
use crate::sampler::argmax;
use crate::start::Loaded;
use serde::Serialize;

const WORDS: [&str; 24] = [
    "apple", "river", "castle", "garden", "silver", "winter", "bridge", "candle", "forest", "market", "orange",
    "pencil", "rocket", "shadow", "temple", "violin", "window", "yellow", "anchor", "basket", "copper", "dragon",
    "engine", "falcon",
];
/// Keys in one text; one of them is asked for.
const KEYS: usize = 4;

#[derive(Debug, Clone)]
pub struct NeedleOptions {
    /// Tokens of the whole prompt.
    pub lengths: Vec<usize>,
    /// Where the key that is asked for lies: so many depths, evenly from the text's begin to its end.
    pub depths: usize,
    /// Texts for each length and depth.
    pub repeats: usize,
}

/// How many digits of the keys were recalled.
#[derive(Debug, Clone, Serialize)]
pub struct NeedleRow {
    pub k: String,
    pub v: String,
    pub centred: bool,
    pub length: usize,
    pub depth: f64,
    pub digits: usize,
    pub recalled: usize,
}

/// One scheme over all lengths and depths. A digit counts as recalled if it is the most likely token after the question and the
/// digits before it. `text` is what the keys are hidden in.
pub fn needles(
    loaded: &Loaded,
    scheme: &Scheme,
    text: &str,
    options: &NeedleOptions,
    mut progress: impl FnMut(),
) -> Result<Vec<NeedleRow>, StartError> {
    let filler = loaded.tokenizer.encode(text, false)?;
    let mut rows = Vec::new();
    for &length in &options.lengths {
        let mut run = Run::new(scheme, loaded, length + 64)?;
        for depth in 0..options.depths {
            let share = depth as f64 / options.depths.saturating_sub(1).max(1) as f64;
            let (mut digits, mut recalled) = (0, 0);
            for repeat in 0..options.repeats {
                let seed = (length * 1000 + depth * 50 + repeat) as u64;
                let (prompt, answer) = prompt(loaded, &filler, length, share, seed)?;
                recalled += ask(loaded, &mut run, &prompt, &answer)?;
                digits += answer.len();
                progress();
            }
            let (k, v) = scheme.names();
            rows.push(NeedleRow { k, v, centred: run.centred, length, depth: share, digits, recalled });
        }
    }
    Ok(rows)
}

/// A prompt of `length` tokens and the digits' tokens it asks for.
fn prompt(
    loaded: &Loaded,
    filler: &[u32],
    length: usize,
    depth: f64,
    seed: u64,
) -> Result<(Vec<u32>, Vec<u32>), StartError> {
    let mut state = seed;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let encode = |text: &str| loaded.tokenizer.encode(text, false);
    let first = random(WORDS.len() as u64) as usize;
    let words: Vec<&str> = (0..KEYS).map(|i| WORDS[(first + i * 5) % WORDS.len()]).collect();
    let keys: Vec<String> = words.iter().map(|_| format!("{:05}", 10_000 + random(90_000))).collect();
    let sentence = |i: usize| encode(&format!(" The pass key for {} is {}.", words[i], keys[i]));
    let question = encode(&format!("What is the pass key for {0}? The pass key for {0} is ", words[0]))?;
    let answer = encode(&keys[0])?;
    let sentences = (0..KEYS).map(sentence).collect::<Result<Vec<_>, _>>()?;
    let bos: Vec<u32> = loaded.tokenizer.bos_id().filter(|_| loaded.tokenizer.adds_bos()).into_iter().collect();
    let taken = bos.len() + question.len() + sentences.iter().map(Vec::len).sum::<usize>() + answer.len();
    let room = length.saturating_sub(taken);
    let offset = random((filler.len().saturating_sub(room)).max(1) as u64) as usize;
    let body: Vec<u32> = filler.iter().cycle().skip(offset).take(room).copied().collect();
    // The asked-for key at its depth, the others anywhere.
    let mut places: Vec<(usize, usize)> = (1..KEYS).map(|i| (random(room as u64 + 1) as usize, i)).collect();
    places.push(((room as f64 * depth) as usize, 0));
    places.sort_unstable();
    let mut prompt = bos;
    let mut at = 0;
    for (place, key) in places {
        prompt.extend_from_slice(&body[at..place]);
        prompt.extend_from_slice(&sentences[key]);
        at = place;
    }
    prompt.extend_from_slice(&body[at..]);
    prompt.extend(question);
    Ok((prompt, answer))
}

fn ask(loaded: &Loaded, run: &mut Run, prompt: &[u32], answer: &[u32]) -> Result<usize, StartError> {
    let tokens: Vec<u32> = prompt.iter().chain(&answer[..answer.len() - 1]).copied().collect();
    let first = prompt.len() - 1;
    let mut found = 0;
    for start in (0..tokens.len()).step_by(CHUNK) {
        let chunk = &tokens[start..(start + CHUNK).min(tokens.len())];
        // Rows after which a digit is due; a chunk without any still asks for one.
        let due: Vec<usize> = (start.max(first)..start + chunk.len()).collect();
        let rows: Vec<u32> = if due.is_empty() { vec![0] } else { due.iter().map(|p| (p - start) as u32).collect() };
        let logits = run.forward(loaded, start, chunk, &rows)?;
        let vocab = loaded.model.vocab_size();
        for (position, row) in due.iter().zip(logits.chunks_exact(vocab)) {
            found += usize::from(argmax(row) == Some(answer[position - first]));
        }
    }
    Ok(found)
}
