//! Where a text ends because a stop string came.
//!
//! The place is a function of the text and the stop strings alone: not of how the text was cut into tokens.
//!
//! This file knows ids only as what a function turns into text. It must not know tokenizers.

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
        self.first(&text[from..]).map(|(start, _)| from + start)
    }

    /// The stop string that is complete first, and its first byte.
    pub(super) fn first(&self, text: &str) -> Option<(usize, &str)> {
        let occurrence = |stop: &'_ String| text.find(stop.as_str()).map(|start| (start + stop.len(), start));
        let found = self.strings.iter().filter_map(|stop| occurrence(stop).map(|place| (place, stop)));
        found.min_by_key(|(place, _)| *place).map(|((_, start), stop)| (start, stop.as_str()))
    }
}

/// Sees whether a stop string has come in a text that grows token by token. A token takes the same time however long
/// the text is: only the last few tokens are decoded, and only the end of the text is searched.
///
/// Decoders look at a token's neighbours (bytes of one character, the space before a word), so the new part of a text
/// is the difference between two decodings that begin at the same earlier token.
pub(super) struct Watch<D> {
    stops: StopStrings,
    decode: D,
    /// The tokens from here on are decoded.
    from: usize,
    /// The text of the tokens before this one has been searched, and is whole.
    searched: usize,
    /// The text of the tokens between those two, decoded alone.
    before: String,
    /// The last bytes that were searched: a stop string may have begun in them.
    tail: String,
}

impl<D: Fn(&[u32]) -> Option<String>> Watch<D> {
    /// `decode` gives the text of ids; it may be asked about any that follow each other.
    pub(super) fn new(stops: StopStrings, decode: D) -> Self {
        Self { stops, decode, from: 0, searched: 0, before: String::new(), tail: String::new() }
    }

    /// Whether the text of `ids` holds a stop string; asked after each token, about all ids so far.
    pub(super) fn is_over(&mut self, ids: &[u32]) -> bool {
        let Some(text) = (self.decode)(&ids[self.from..]) else { return false };
        let Some(new) = text.strip_prefix(self.before.as_str()) else {
            return self.is_over_from_the_start(ids);
        };
        let ends = [self.tail.as_str(), new].concat();
        if self.stops.first(&ends).is_some() {
            return true;
        }
        // Bytes of half a character become U+FFFD until the rest is there.
        if !new.is_empty() && !new.ends_with('\u{FFFD}') {
            self.search_on(ids.len(), ends, ids);
        }
        false
    }

    /// What lies before token `searched` is not searched again.
    fn search_on(&mut self, searched: usize, ends: String, ids: &[u32]) {
        (self.from, self.searched) = (self.searched, searched);
        self.before = (self.decode)(&ids[self.from..searched]).unwrap_or_default();
        let kept = ends.len().saturating_sub(self.stops.longest.saturating_sub(1));
        self.tail = ends[ends.floor_char_boundary(kept)..].to_owned();
    }

    /// For decoders that take back what they gave: bytes that are no characters after all.
    fn is_over_from_the_start(&mut self, ids: &[u32]) -> bool {
        (self.from, self.searched) = (0, 0);
        self.before.clear();
        self.tail.clear();
        self.is_over(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{GgufVocabulary, Prompter};
    use proptest::prelude::*;
    use std::cell::Cell;

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

    /// The number of tokens that are decoded for a response is in proportion to its length.
    #[test]
    fn a_long_response_takes_no_more_time_for_each_token() {
        let (decoded, stops) = (Cell::new(0), stops(&["</answer>"]));
        let mut watch = Watch::new(stops, |ids: &[u32]| {
            decoded.set(decoded.get() + ids.len());
            Some("word ".repeat(ids.len()))
        });
        let ids = vec![0; 2000];
        assert!((1..=ids.len()).all(|n| !watch.is_over(&ids[..n])));
        assert!(decoded.get() <= 3 * ids.len(), "{} tokens decoded for a text of {}", decoded.get(), ids.len());
    }

    /// What an answer's tokens become, as a byte-level or (with `pieces`) a SentencePiece tokenizer has it.
    fn prompter(pieces: bool) -> Prompter {
        let bytes = [
            "h",
            "i",
            "\u{120}",
            "\u{10a}",
            "hi",
            "\u{120}hi",
            "\u{e2}",
            "\u{122}",
            "\u{ac}",
            "\u{c3}",
            "\u{a9}",
            "<x>",
            ".",
        ];
        let spm = ["h", "i", "▁", "<0x0A>", "hi", "▁hi", "<0xE2>", "<0x82>", "<0xAC>", "<0xC3>", "<0xA9>", "<x>", "▁▁"];
        let byte = if pieces { 6 } else { 1 };
        let vocabulary = GgufVocabulary {
            model: if pieces { "llama" } else { "gpt2" }.into(),
            pre: Some("gpt-2".into()),
            tokens: if pieces { spm } else { bytes }.map(str::to_owned).to_vec(),
            token_types: vec![1, 1, 1, byte, 1, 1, byte, byte, byte, byte, byte, 3, 1],
            scores: vec![0.0; 13],
            add_bos: Some(false),
            ..GgufVocabulary::default()
        };
        Prompter::from_gguf(vocabulary).unwrap()
    }

    /// After how many tokens each rule ends a text.
    fn ends(prompter: &Prompter, stops: &StopStrings, ids: &[u32]) -> [Option<usize>; 2] {
        let mut watch = Watch::new(stops.clone(), |ids| prompter.decode(ids, true).ok());
        let slow = |ids: &[u32]| prompter.decode(ids, true).is_ok_and(|text| stops.find(&text, 0).is_some());
        [(1..=ids.len()).find(|n| watch.is_over(&ids[..*n])), (1..=ids.len()).find(|n| slow(&ids[..*n]))]
    }

    proptest! {
        #[test]
        fn a_watch_ends_where_decoding_all_of_the_text_ends(
            pieces: bool,
            ids in prop::collection::vec(0u32..13, 1..60),
            strings in prop::collection::vec("[hi €é\n.]{1,5}", 1..4),
        ) {
            let (prompter, stops) = (prompter(pieces), StopStrings::new(strings));
            let [fast, slow] = ends(&prompter, &stops, &ids);
            prop_assert_eq!(fast, slow, "{:?}", prompter.decode(&ids, true));
        }

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
