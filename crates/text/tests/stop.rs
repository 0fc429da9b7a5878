//! Stop strings over piece boundaries, against a search that reads the text character by character.
use proptest::prelude::*;
use text::{StopMatcher, Stopped};

/// The text up to the first place behind its first `passed` bytes where a stop string is complete, and that string.
fn naive(text: &str, passed: usize, stops: &[String], include: bool) -> (String, Option<String>) {
    let ends = text.char_indices().map(|(i, c)| i + c.len_utf8());
    for end in ends.filter(|end| *end > passed) {
        let here = stops.iter().filter(|s| !s.is_empty() && text[..end].ends_with(s.as_str()));
        if let Some(stop) = here.max_by_key(|s| s.len()) {
            let kept = if include { end } else { end - stop.len() };
            return (text[..kept].to_owned(), Some(stop.clone()));
        }
    }
    (text.to_owned(), None)
}

/// Bytes at the end of `text` that may begin a stop string: what a matcher may hold back, and no more.
fn open(text: &str, stops: &[String]) -> usize {
    let suffixes = text.char_indices().map(|(i, _)| &text[i..]);
    let opens = |suffix: &&str| stops.iter().any(|s| s.len() > suffix.len() && s.starts_with(*suffix));
    suffixes.filter(opens).map(str::len).max().unwrap_or(0)
}

/// Few letters, one of them of two bytes, so that stop strings overlap themselves and each other.
fn word(max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just('a'), Just('b'), Just('é')], 0..=max).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_pieces_give_what_the_naive_search_finds(
        pieces in proptest::collection::vec(word(4), 0..12),
        stops in proptest::collection::vec(word(4), 0..4),
        include: bool,
        num_passed in prop_oneof![Just(0), 0..6usize],
    ) {
        let passed = pieces.iter().take(num_passed).map(String::len).sum();
        let (expected, expected_match) = naive(&pieces.concat(), passed, &stops, include);
        let mut matcher = StopMatcher::new(stops.clone(), include);
        let (mut text, mut matched, mut seen) = (String::new(), None, String::new());
        for (i, piece) in pieces.iter().enumerate() {
            seen += piece;
            let stopped = match i < num_passed {
                true => Stopped { text: matcher.pass(piece), matched: None },
                false => matcher.push(piece),
            };
            text += &stopped.text;
            if matched.is_some() {
                prop_assert_eq!(stopped, Stopped::default());
                continue;
            }
            matched = stopped.matched;
            if matched.is_none() {
                prop_assert_eq!(text.len(), seen.len() - open(&seen, &stops), "after {:?}", seen);
            }
        }
        text += &matcher.flush();
        prop_assert_eq!(text, expected);
        prop_assert_eq!(matched, expected_match);
    }
}

#[test]
fn a_stop_string_over_three_pieces() {
    let mut matcher = StopMatcher::new(vec!["\nUser:".into()], false);
    assert_eq!(matcher.push("fine.\nUs").text, "fine.");
    assert_eq!(matcher.push("er").text, "");
    assert_eq!(matcher.push(": more"), Stopped { text: String::new(), matched: Some("\nUser:".into()) });
    assert_eq!(matcher.flush(), "");
}

#[test]
fn a_beginning_that_leads_nowhere_is_given_back() {
    let mut matcher = StopMatcher::new(vec!["stop".into()], false);
    assert_eq!(matcher.push("a st").text, "a ");
    assert_eq!(matcher.push("st").text, "st");
    assert_eq!(matcher.flush(), "st");
}
