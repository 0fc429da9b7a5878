//! Tags in a text that arrives in pieces.
use std::borrow::Cow;

/// Finds the first of some tags in a text, whatever pieces the text comes in. The text is held back only as far as its
/// end may be the beginning of a tag. No tag may begin another one.
#[derive(Debug)]
pub(super) struct TagScanner {
    tags: Vec<&'static str>,
    /// The end of the text, as far as it may begin a tag.
    held: String,
}

/// The outcome of scanning a piece of text.
#[derive(Debug)]
pub(super) struct Scanned<'t> {
    /// Text in which no tag can begin any more.
    pub plain: Cow<'t, str>,
    /// The tag that follows that text, and how many bytes of the piece have been read up to the tag's end.
    pub tag: Option<(&'static str, usize)>,
}

impl TagScanner {
    pub fn new(tags: Vec<&'static str>) -> Self {
        TagScanner { tags, held: String::new() }
    }

    /// Takes in a piece of text, up to the end of the first tag. What follows is to be given anew.
    pub fn push<'t>(&mut self, text: &'t str) -> Scanned<'t> {
        let held = self.held.len();
        let mut buffer =
            if held == 0 { Cow::Borrowed(text) } else { Cow::Owned(std::mem::take(&mut self.held) + text) };
        let mut at = 0;
        while let Some(found) = self.next_candidate(&buffer, at) {
            let rest = buffer.get(found..).unwrap_or_default();
            if let Some(tag) = self.tags.iter().copied().find(|tag| rest.starts_with(tag)) {
                // The tag was not complete before this piece, so that it ends within it.
                let read = (found + tag.len()).saturating_sub(held);
                cut(&mut buffer, found);
                return Scanned { plain: buffer, tag: Some((tag, read)) };
            }
            if self.tags.iter().any(|tag| tag.starts_with(rest)) {
                self.held = rest.to_owned();
                cut(&mut buffer, found);
                break;
            }
            at = found + 1;
        }
        Scanned { plain: buffer, tag: None }
    }

    /// Where a tag may begin in `text`, from the byte `at` on.
    fn next_candidate(&self, text: &str, at: usize) -> Option<usize> {
        let bytes = text.as_bytes().get(at..)?;
        let begins = |byte: &u8| self.tags.iter().any(|tag| tag.as_bytes().first() == Some(byte));
        Some(at + bytes.iter().position(begins)?)
    }

    /// Whether some text is held back.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Ends the text and returns what was held back: the beginning of a tag that never came.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

fn cut(text: &mut Cow<'_, str>, len: usize) {
    match text {
        Cow::Borrowed(text) => *text = text.get(..len).unwrap_or_default(),
        Cow::Owned(text) => text.truncate(len),
    }
}

/// Text up to a closing tag, without one newline after the opening tag and one before the closing one.
#[derive(Debug)]
pub(super) struct Enclosed {
    scanner: TagScanner,
    /// Nothing has come yet after the opening tag.
    at_start: bool,
    /// A newline that the closing tag may follow.
    newline: bool,
}

impl Enclosed {
    /// Begins after an opening tag. The text ends with one of `closing`.
    pub fn new(closing: Vec<&'static str>) -> Self {
        Enclosed { scanner: TagScanner::new(closing), at_start: true, newline: false }
    }

    /// Takes in a piece of text. Returns the closing tag, and how many bytes of the piece it ends after, if it came.
    pub fn push(&mut self, text: &str, mut emit: impl FnMut(&str)) -> Option<(&'static str, usize)> {
        let Scanned { plain, tag } = self.scanner.push(text);
        let mut plain: &str = &plain;
        if self.at_start && !plain.is_empty() {
            self.at_start = false;
            plain = plain.strip_prefix('\n').unwrap_or(plain);
        }
        if !plain.is_empty() {
            if std::mem::take(&mut self.newline) {
                emit("\n");
            }
            let stripped = plain.strip_suffix('\n');
            self.newline = stripped.is_some();
            emit(stripped.unwrap_or(plain));
        }
        tag
    }

    /// Goes on after a tag as after the opening one.
    pub fn reopen(&mut self) {
        self.at_start = true;
    }

    /// Ends the text before the closing tag came: gives what was held back.
    pub fn finish(&mut self, mut emit: impl FnMut(&str)) {
        if std::mem::take(&mut self.newline) {
            emit("\n");
        }
        emit(&self.scanner.flush());
    }
}
