//! Stop strings in a text that arrives in pieces.

/// Finds the stop string that is complete first (of several that end at the same place, the longest), whatever the
/// pieces the text comes in, and holds back no more than a suffix that may begin one.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    include_in_output: bool,
    held: String,
    done: bool,
}

/// What one piece of text led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that is safe to emit.
    pub text: String,
    /// The stop string that ended the text; everything behind it is gone.
    pub matched: Option<String>,
}

impl StopMatcher {
    /// Empty stop strings match nothing. `include_in_output`: the matched string stays in the text.
    pub fn new(mut stops: Vec<String>, include_in_output: bool) -> Self {
        stops.retain(|s| !s.is_empty());
        StopMatcher { stops, include_in_output, held: String::new(), done: false }
    }

    /// After a match all further text is dropped.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.done {
            return Stopped::default();
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match() {
            let matched = stop.to_owned();
            let end = start + if self.include_in_output { matched.len() } else { 0 };
            self.done = true;
            self.held.truncate(end);
            return Stopped { text: std::mem::take(&mut self.held), matched: Some(matched) };
        }
        let rest = self.held.split_off(self.held.len() - self.open_suffix());
        Stopped { text: std::mem::replace(&mut self.held, rest), matched: None }
    }

    /// What was held back, at the text's end: the beginning of a stop string that never came.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn first_match(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|(start, stop)| (start + stop.len(), *start))
    }

    /// Bytes of the longest suffix of `held` that begins a stop string.
    fn open_suffix(&self) -> usize {
        let open = |stop: &String| {
            let longest = self.held.len().min(stop.len() - 1);
            (1..=longest).rev().find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(open).max().unwrap_or(0)
    }
}
