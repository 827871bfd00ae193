//! Where a text ends because a stop string came.
//!
//! The place is a function of the text and the stop strings alone: not of how the text was cut into tokens.

/// Looks for stop strings in a text that grows.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    /// Bytes of the longest.
    longest: usize,
}

impl StopStrings {
    /// Stop strings; empty ones stop nothing.
    pub fn new(strings: impl IntoIterator<Item = String>) -> Self {
        let strings: Vec<String> = strings.into_iter().filter(|s| !s.is_empty()).collect();
        let longest = strings.iter().map(String::len).max().unwrap_or(0);
        Self { strings, longest }
    }

    /// Bytes of `text` that stay: those before the stop string that is complete first (of several that end at the
    /// same place, the one that starts first). None as long as none is complete.
    ///
    /// `searched` bytes at the front of `text` are known to hold no stop string; 0 is always right.
    pub fn find(&self, text: &str, searched: usize) -> Option<usize> {
        // A stop string may have begun in the last bytes of what was searched.
        let from = text.floor_char_boundary(searched.saturating_sub(self.longest.saturating_sub(1)));
        let occurrence = |stop: &String| {
            let start = from + text[from..].find(stop.as_str())?;
            Some((start + stop.len(), start))
        };
        self.strings.iter().filter_map(occurrence).min().map(|(_, start)| start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(|s| s.to_string()))
    }

    #[test]
    fn the_first_complete_stop_string_cuts() {
        let cases: [(&[&str], &str, Option<usize>); 10] = [
            (&["END"], "so be it", None),
            (&["END"], "so END be it END", Some(3)),
            (&["END"], "END", Some(0)),
            (&["END"], "EN", None),
            (&["\n\n", "User:"], "yes\nUser: no\n\n", Some(4)),
            (&["bcd", "c"], "abcd", Some(2)),   // "c" is complete before "bcd"
            (&["cd", "abcd"], "abcd", Some(0)), // both at once: the longer
            (&["é…"], "café…", Some(3)),
            (&[""], "anything", None),
            (&[], "anything", None),
        ];
        for (strings, text, expected) in cases {
            assert_eq!(stops(strings).find(text, 0), expected, "{strings:?} in {text:?}");
        }
    }

    #[test]
    fn a_stop_string_may_be_split_over_tokens() {
        let (stop, text) = (stops(&["</answer>", "\n\n"]), "it is 4</answer> or so\n\n");
        let found = (0..text.len()).find_map(|end| stop.find(&text[..end], end.saturating_sub(1)));
        assert_eq!(found, Some(7));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[abé]{0,40}", strings in prop::collection::vec("[abé]{0,4}", 0..4), step in 1usize..6) {
            let stop = StopStrings::new(strings);
            let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            let mut searched = 0;
            let mut found = None;
            for end in ends.iter().step_by(step).chain([&text.len()]) {
                found = found.or_else(|| stop.find(&text[..*end], searched));
                searched = *end;
            }
            prop_assert_eq!(found, stop.find(&text, 0));
        }
    }
}
