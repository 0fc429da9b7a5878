//! Stop strings in a text that arrives in pieces.

/// Finds stop strings in a text, whatever pieces the text comes in. The stop string that is complete first wins; among
/// several that end at the same place the longest wins. The text is held back only as far as its end may be the
/// beginning of a stop string.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    include_in_output: bool,
    /// The end of the text, as far as it may begin a stop string.
    held: String,
    /// How many bytes of `held` are passed over: no stop string that ends in them counts.
    passed: usize,
    /// A stop string has been found.
    done: bool,
}

/// The results of one piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text in which no stop string can begin any more.
    pub text: String,
    /// The stop string that ended the text. Everything after it is dropped.
    pub matched: Option<String>,
}

impl StopMatcher {
    /// Looks for `stops`, of which empty ones match nothing. `include_in_output` leaves the matched string in the text.
    pub fn new(mut stops: Vec<String>, include_in_output: bool) -> Self {
        stops.retain(|s| !s.is_empty());
        StopMatcher { stops, include_in_output, held: String::new(), passed: 0, done: false }
    }

    /// Takes in a piece of text in which no stop string may end, and returns the text in which none can begin.
    pub fn pass(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let open = self.open_suffix();
        self.passed = open;
        let rest = self.held.split_off(self.held.len() - open);
        std::mem::replace(&mut self.held, rest)
    }

    /// Takes in a piece of text. After a match all further text is dropped.
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
        let text = std::mem::replace(&mut self.held, rest);
        self.passed = self.passed.saturating_sub(text.len());
        Stopped { text, matched: None }
    }

    /// Ends the text and returns what was held back: the beginning of a stop string that never came.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string that is complete first begins in `held`, and which it is.
    fn first_match(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| {
            // It ends after what is passed over, and so begins at most its length before that.
            let mut from = (self.passed + 1).saturating_sub(stop.len());
            while !self.held.is_char_boundary(from) {
                from += 1;
            }
            Some((from + self.held.get(from..)?.find(stop.as_str())?, stop.as_str()))
        });
        found.min_by_key(|(start, stop)| (start + stop.len(), *start))
    }

    /// The number of bytes in the longest suffix of `held` that begins a stop string.
    fn open_suffix(&self) -> usize {
        let open = |stop: &String| {
            let longest = self.held.len().min(stop.len() - 1);
            (1..=longest).rev().find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(open).max().unwrap_or(0)
    }
}
