//! What commands touch, and which of them nobody has put in order.
use crate::memory::Memory;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a buffer that a command reads or writes. The command counts as a use of the buffer until this is dropped.
pub struct Access {
    pub memory: Arc<Memory>,
    pub range: Range<usize>,
    pub write: bool,
}

impl Access {
    pub fn new(memory: &Arc<Memory>, range: Range<usize>, write: bool) -> Self {
        memory.begin_use();
        Access { memory: Arc::clone(memory), range, write }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.memory.end_use();
    }
}

/// Two commands that touch the same bytes, one of them writing.
pub struct Conflict {
    buffer: usize,
    first: (String, bool),
    then: (String, bool),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = |write: bool| if write { "writes" } else { "reads" };
        let ((first, a), (then, b)) = (&self.first, &self.then);
        let (a, b) = (verb(*a), verb(*b));
        write!(f, "{then} {b} what {first} {a}, in a buffer of {} bytes", self.buffer)
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The first conflict of two commands, each with its name.
pub fn conflict(first: (&str, &[Access]), then: (&str, &[Access])) -> Option<Conflict> {
    let pairs = first.1.iter().flat_map(|a| then.1.iter().map(move |b| (a, b)));
    let meets =
        |(a, b): &(&Access, &Access)| a.memory.id == b.memory.id && (a.write || b.write) && overlap(&a.range, &b.range);
    pairs.into_iter().find(meets).map(|(a, b)| Conflict {
        buffer: a.memory.length(),
        first: (first.0.to_owned(), a.write),
        then: (then.0.to_owned(), b.write),
    })
}

/// What an encoder that has not completed touches of a buffer, and by which command.
struct Touched {
    range: Range<usize>,
    write: bool,
    by: String,
}

/// The encoders of a queue that have not completed, and which of them are ordered by fences.
#[derive(Default)]
pub struct Hazards {
    unfinished: BTreeMap<u64, HashMap<u64, Vec<Touched>>>,
    /// The encoders that have ended where a fence was last updated.
    fences: HashMap<u64, HashSet<u64>>,
}

impl Hazards {
    /// Adds an encoder behind all others of the queue. Returns the first conflict in an untracked buffer with an
    /// encoder that it does not wait for.
    pub fn add<'a>(
        &mut self,
        encoder: u64,
        [waits, updates]: [&[u64]; 2],
        commands: impl Iterator<Item = (&'a str, &'a [Access])>,
    ) -> Option<Conflict> {
        let mut after: HashSet<u64> =
            waits.iter().filter_map(|fence| self.fences.get(fence)).flatten().copied().collect();
        after.retain(|encoder| self.unfinished.contains_key(encoder));
        let (mut touched, mut found) = (HashMap::<u64, Vec<Touched>>::new(), None);
        for (name, access) in commands.flat_map(|(name, accesses)| accesses.iter().map(move |a| (name, a))) {
            let Access { memory, range, write } = access;
            let before = self.unfinished.iter().filter(|(other, _)| memory.untracked && !after.contains(other));
            let meets = before.filter_map(|(_, touched)| touched.get(&memory.id)).flatten();
            let mut meets = meets.filter(|other| (other.write || *write) && overlap(&other.range, range));
            if let (None, Some(other)) = (&found, meets.next()) {
                let first = (other.by.clone(), other.write);
                found = Some(Conflict { buffer: memory.length(), first, then: (name.to_owned(), *write) });
            }
            let of_buffer = touched.entry(memory.id).or_default();
            if !of_buffer.iter().any(|other| other.range == *range && other.write == *write) {
                of_buffer.push(Touched { range: range.clone(), write: *write, by: name.to_owned() });
            }
        }
        self.unfinished.insert(encoder, touched);
        after.insert(encoder);
        for fence in updates {
            self.fences.insert(*fence, after.clone());
        }
        found
    }

    /// Takes an encoder away whose commands have completed.
    pub fn finish(&mut self, encoder: u64) {
        self.unfinished.remove(&encoder);
        self.fences.retain(|_, after| {
            after.remove(&encoder);
            !after.is_empty()
        });
    }
}
