//! How much the responses to one prompt differ: duplicates, distinct n-grams, mean similarity.
//!
//! Everything here counts *words*. A word is a longest run of characters that are not white space, in lower case and
//! with its punctuation; in scripts that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each
//! character is a word.
//!
//! The *similarity* of two texts is the Jaccard index |A ∩ B| / |A ∪ B| of their sets of word trigrams. Where one of the two has
//! fewer than three words, the sets are of character trigrams of both texts, white space collapsed; where one
//! has fewer than three characters, the similarity is 1 if the texts are then equal, and 0 if not.
//!
//! This module knows texts only. It must not know models or where responses come from.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Similarity from which two texts are near duplicates.
pub const NEAR: f64 = 0.9;
/// Words, or characters, of a shingle.
const SHINGLE: usize = 3;

/// Which responses to one prompt count as the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distinct {
    /// None: repeats are kept.
    Off,
    /// Those equal but for white space.
    #[default]
    Exact,
    /// Those equal but for white space, and those with a similarity of at least [`NEAR`].
    Near,
}

/// A text, prepared for comparison with many others.
#[derive(Clone, Debug)]
pub(super) struct Fingerprint {
    /// White space collapsed, case as it is.
    collapsed: String,
    words: usize,
    /// Sorted hashes, without repetition, of word trigrams and of character trigrams.
    by_word: Vec<u64>,
    by_character: Vec<u64>,
    /// In lower case, as the trigrams see it.
    lower: String,
}

impl Fingerprint {
    pub fn new(text: &str) -> Self {
        let collapsed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let lower = collapsed.to_lowercase();
        let words = words(text);
        let characters: Vec<char> = lower.chars().collect();
        let (by_word, by_character) = (shingles(&words), shingles(&characters));
        Fingerprint { collapsed, words: words.len(), by_word, by_character, lower }
    }

    fn similarity(&self, other: &Self) -> f64 {
        if self.words.min(other.words) >= SHINGLE {
            return jaccard(&self.by_word, &other.by_word);
        }
        if self.by_character.is_empty() || other.by_character.is_empty() {
            return f64::from(self.lower == other.lower);
        }
        jaccard(&self.by_character, &other.by_character)
    }

    /// True if this text counts as the same as an earlier one.
    pub fn repeats(&self, earlier: &Self, kind: Distinct) -> bool {
        match kind {
            Distinct::Off => false,
            Distinct::Exact => self.collapsed == earlier.collapsed,
            Distinct::Near => self.collapsed == earlier.collapsed || self.similarity(earlier) >= NEAR,
        }
    }
}

/// Hashes of all runs of three, sorted, each once.
fn shingles<T: Hash>(items: &[T]) -> Vec<u64> {
    let hash = |run: &[T]| {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        hasher.finish()
    };
    let mut hashes: Vec<u64> = items.windows(SHINGLE).map(hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Jaccard index of two sorted sets that are not both empty.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let common = a.iter().filter(|hash| b.binary_search(hash).is_ok()).count();
    common as f64 / (a.len() + b.len() - common) as f64
}

/// The words of a text, in lower case (see the module).
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in text.to_lowercase().split_whitespace() {
        let mut start = 0;
        for (at, character) in run.char_indices().filter(|(_, character)| is_word_by_itself(*character)) {
            words.push(run[start..at].to_owned());
            start = at + character.len_utf8();
            words.push(character.to_string());
        }
        words.push(run[start..].to_owned());
    }
    words.retain(|word| !word.is_empty());
    words
}

/// True in scripts that are written without spaces between words.
fn is_word_by_itself(character: char) -> bool {
    matches!(u32::from(character),
        0x0E00..=0x0EFF     // Thai, Lao
        | 0x1000..=0x109F   // Burmese
        | 0x1780..=0x17FF   // Khmer
        | 0x3040..=0x30FF   // Hiragana, Katakana
        | 0x3400..=0x9FFF   // Han
        | 0xF900..=0xFAFF
        | 0x20000..=0x3FFFF)
}

/// Similarity of two texts, from 0 to 1 (see the module for its definition). Symmetric.
pub fn similarity(a: &str, b: &str) -> f64 {
    Fingerprint::new(a).similarity(&Fingerprint::new(b))
}

/// Indices of the texts that repeat any earlier one, in order.
pub fn duplicates(texts: &[&str], kind: Distinct) -> Vec<usize> {
    let prints: Vec<_> = texts.iter().map(|text| Fingerprint::new(text)).collect();
    repeats(&prints, kind)
}

fn repeats(prints: &[Fingerprint], kind: Distinct) -> Vec<usize> {
    let is_repeat = |at: &usize| prints[..*at].iter().any(|earlier| prints[*at].repeats(earlier, kind));
    (0..prints.len()).filter(is_repeat).collect()
}

/// Distinct-n (Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models"): different
/// runs of `n` words over all runs of `n` words in the texts. `None` if there is none.
pub fn distinct_n(texts: &[&str], n: usize) -> Option<f64> {
    let texts: Vec<Vec<String>> = texts.iter().map(|text| words(text)).collect();
    let runs = || texts.iter().flat_map(|words| words.windows(n.max(1)));
    let all = runs().count();
    (all > 0).then(|| runs().collect::<HashSet<_>>().len() as f64 / all as f64)
}

/// How much responses differ: those to one prompt, or over many prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diversity {
    /// Prompts that have a response.
    pub prompts: usize,
    /// Responses to them.
    pub responses: usize,
    /// Responses that equal an earlier one to the same prompt, white space aside.
    pub exact_duplicates: usize,
    /// Responses that are equal or nearly so ([`NEAR`]) to an earlier one to the same prompt.
    pub near_duplicates: usize,
    /// Different words over all words of a prompt's responses ([`distinct_n`]), mean over prompts.
    pub distinct_1: Option<f64>,
    /// The same for pairs of words.
    pub distinct_2: Option<f64>,
    /// Mean [`similarity`] of all pairs of a prompt's responses, mean over prompts with at least two.
    pub mean_similarity: Option<f64>,
}

impl Diversity {
    /// Of the responses to one prompt.
    pub fn of(texts: &[&str]) -> Diversity {
        let prints: Vec<_> = texts.iter().map(|text| Fingerprint::new(text)).collect();
        let pairs = prints.iter().enumerate().flat_map(|(at, a)| prints[..at].iter().map(|b| a.similarity(b)));
        Diversity {
            prompts: usize::from(!texts.is_empty()),
            responses: texts.len(),
            exact_duplicates: repeats(&prints, Distinct::Exact).len(),
            near_duplicates: repeats(&prints, Distinct::Near).len(),
            distinct_1: distinct_n(texts, 1),
            distinct_2: distinct_n(texts, 2),
            mean_similarity: mean(pairs),
        }
    }

    /// Over many prompts: counts add up, ratios are means over the prompts that have them.
    pub fn over(prompts: &[Diversity]) -> Diversity {
        let sum = |count: fn(&Diversity) -> usize| prompts.iter().map(count).sum();
        let mean = |ratio: fn(&Diversity) -> Option<f64>| mean(prompts.iter().filter_map(ratio));
        Diversity {
            prompts: sum(|one| one.prompts),
            responses: sum(|one| one.responses),
            exact_duplicates: sum(|one| one.exact_duplicates),
            near_duplicates: sum(|one| one.near_duplicates),
            distinct_1: mean(|one| one.distinct_1),
            distinct_2: mean(|one| one.distinct_2),
            mean_similarity: mean(|one| one.mean_similarity),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_any_script() {
        let cases: [(&str, &[&str]); 5] = [
            ("  The  cat,\nsat. ", &["the", "cat,", "sat."]),
            ("", &[]),
            ("x + 1", &["x", "+", "1"]),
            ("我喜欢tea。 ok", &["我", "喜", "欢", "tea。", "ok"]),
            ("안녕 세상", &["안녕", "세상"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn similarities_by_hand() {
        let cases = [
            // Trigrams abc bcd cde against abc bcd cdf: 2 of 4.
            ("a b c d e", "a b c d f", 0.5),
            ("A  b\nc", "a b C", 1.0),
            ("a b c", "d e f", 0.0),
            // Fewer than three words: par ari ris against par ari ris is.: 3 of 4.
            ("Paris", "paris.", 0.75),
            ("Paris", "it is Paris, France", 3.0 / 17.0),
            ("7", "7 ", 1.0),
            ("7", "8", 0.0),
            ("", " \n", 1.0),
            ("", "a b c", 0.0),
            ("我喜欢茶", "我喜欢水", 1.0 / 3.0),
        ];
        for (a, b, expected) in cases {
            assert!((similarity(a, b) - expected).abs() < 1e-12, "{a:?} {b:?}: {}", similarity(a, b));
            assert_eq!(similarity(a, b), similarity(b, a));
        }
    }

    #[test]
    fn duplicates_in_order() {
        let long: Vec<String> = (0..80).map(|at| format!("word{at}")).collect();
        let (first, mut changed) = (long.join(" "), long.clone());
        changed[40] = "other".to_owned();
        let changed = changed.join(" ");
        let texts = [&first, "a b", &changed, " a\n b ", "A b", "", " ", &first];
        assert_eq!(duplicates(&texts, Distinct::Off), [0; 0]);
        assert_eq!(duplicates(&texts, Distinct::Exact), [3, 6, 7]);
        assert_eq!(duplicates(&texts, Distinct::Near), [2, 3, 4, 6, 7]);
    }

    #[test]
    fn distinct_n_by_hand() {
        let texts = ["the cat the cat", "The dog"];
        assert_eq!(distinct_n(&texts, 1), Some(3.0 / 6.0));
        assert_eq!(distinct_n(&texts, 2), Some(3.0 / 4.0));
        assert_eq!(distinct_n(&texts, 5), None);
        assert_eq!(distinct_n(&[], 1), None);
    }

    #[test]
    fn a_summary_and_one_over_all() {
        let one = Diversity::of(&["a b c d e", "a b c d f", "a b c d e"]);
        assert_eq!((one.responses, one.exact_duplicates, one.near_duplicates), (3, 1, 1));
        assert!((one.mean_similarity.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        let single = Diversity::of(&["x y"]);
        assert_eq!((single.distinct_1, single.mean_similarity), (Some(1.0), None));
        let all = Diversity::over(&[one.clone(), single, Diversity::of(&[])]);
        assert_eq!((all.prompts, all.responses, all.exact_duplicates), (2, 4, 1));
        assert_eq!(all.mean_similarity, one.mean_similarity);
        assert_eq!(all.distinct_1, Some((one.distinct_1.unwrap() + 1.0) / 2.0));
        assert_eq!(serde_json::to_value(Distinct::Near).unwrap(), "near");
    }

    proptest! {
        #[test]
        fn a_similarity_is_a_similarity(a in "[a-c \n我]{0,12}", b in "[a-c \n我]{0,12}") {
            let both = similarity(&a, &b);
            prop_assert!((0.0..=1.0).contains(&both), "{}", both);
            prop_assert_eq!(both, similarity(&b, &a));
            prop_assert_eq!(similarity(&a, &a), 1.0);
        }
    }
}
