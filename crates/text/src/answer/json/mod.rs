//! JSON that arrives in pieces, read once and without recursion.
mod arguments;
mod calls;
mod object;
mod scanner;
mod unescape;

pub(super) use calls::{CallList, JsonCalls, JsonFlow};

/// How the reading of something goes on after a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// It goes on.
    More,
    /// It is complete with so many bytes of the piece.
    Done(usize),
    /// It is broken: the byte at this place cannot follow.
    Broken(usize),
}

/// Whether JSON allows this byte between values.
fn is_json_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
