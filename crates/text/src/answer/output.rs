//! The parts that a parser has found, without the whitespace between them.
use super::part::AnswerPart;

/// Collects the parts of an answer. Whitespace next to a thought or a call is left out, so that whitespace after text
/// is held back until something follows it.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// There may be thoughts or calls.
    has_sections: bool,
    parts: Vec<AnswerPart>,
    /// Whitespace after the text, or before it.
    space: String,
    /// A thought or a call came last, so that whitespace is left out.
    after_section: bool,
    /// Text that is no whitespace, or a call, has come.
    begun: bool,
}

/// Whether a character is whitespace between the parts of an answer.
pub(super) fn is_space(c: char) -> bool {
    c.is_ascii_whitespace()
}

impl Output {
    /// Begins an answer. Where there can be neither thoughts nor calls, no whitespace is held back.
    pub fn new(has_sections: bool) -> Self {
        Output { has_sections, ..Output::default() }
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        if !self.has_sections {
            return self.join(text);
        }
        let inner = text.trim_start_matches(is_space);
        if !self.after_section {
            self.space.push_str(text.get(..text.len() - inner.len()).unwrap_or_default());
        }
        let kept = inner.trim_end_matches(is_space);
        if kept.is_empty() {
            return;
        }
        (self.after_section, self.begun) = (false, true);
        let space = std::mem::take(&mut self.space);
        self.join(&space);
        self.join(kept);
        self.space.push_str(inner.get(kept.len()..).unwrap_or_default());
    }

    /// Adds text as it is.
    fn join(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(AnswerPart::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(AnswerPart::Text(text.to_owned())),
        }
    }

    /// Adds a piece of a thought.
    pub fn thought(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(AnswerPart::Thought(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(AnswerPart::Thought(text.to_owned())),
        }
    }

    /// Leaves out the whitespace here: a thought begins or ends.
    pub fn skip_space(&mut self) {
        self.space.clear();
        self.after_section = true;
    }

    /// Opens a call.
    pub fn open_call(&mut self, name: String) {
        self.skip_space();
        self.begun = true;
        self.parts.push(AnswerPart::CallOpened { name });
    }

    /// Adds a piece of the open call's arguments.
    pub fn arguments(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(AnswerPart::CallArguments(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(AnswerPart::CallArguments(text.to_owned())),
        }
    }

    /// Closes the open call.
    pub fn close_call(&mut self) {
        self.parts.push(AnswerPart::CallClosed);
    }

    /// Whether text or a call has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether a thought or a call came last.
    pub fn is_after_section(&self) -> bool {
        self.after_section
    }

    /// Moves the parts to `out`.
    pub fn drain_into(&mut self, out: &mut Vec<AnswerPart>) {
        out.append(&mut self.parts);
    }

    /// Ends the answer: whitespace that was held back is text.
    pub fn finish(&mut self) {
        let space = std::mem::take(&mut self.space);
        self.join(&space);
    }
}
