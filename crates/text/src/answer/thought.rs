//! Thoughts.
use super::output::Output;
use super::section::Flow;
use super::syntax::ThoughtTags;
use super::tags::Enclosed;

/// A thought that is being read.
#[derive(Debug)]
pub(super) struct Thought {
    tags: ThoughtTags,
    text: Enclosed,
}

impl Thought {
    pub fn new(tags: ThoughtTags, out: &mut Output) -> Self {
        out.skip_space();
        Thought { tags, text: Enclosed::new(vec![tags.close, tags.open]) }
    }

    /// Takes in a piece of text. A second opening tag is left out: models write one although the prompt ends with it.
    pub fn push(&mut self, text: &str, out: &mut Output) -> Flow {
        let mut read = 0;
        while let Some(rest) = text.get(read..).filter(|rest| !rest.is_empty()) {
            match self.text.push(rest, |piece| out.thought(piece)) {
                None => break,
                Some((tag, n)) if tag == self.tags.close => return Flow::Ended(read + n),
                Some((_, n)) => read += n,
            }
            self.text.reopen();
        }
        Flow::Open
    }

    /// Ends the answer within the thought.
    pub fn finish(&mut self, out: &mut Output) {
        self.text.finish(|piece| out.thought(piece));
    }
}
