//! Control tokens inside messages: `<|im_end|>`, `[SEP]`, `</s>` and others that a text may hold as plain words.
//!
//! A tokenizer takes them for the tokens that they name, wherever they stand, and so does transformers. A response can
//! end its own turn that way and write the next one. [`ControlTokens`] finds them; with `literal` in the judge's
//! settings they are plain text instead: [`Masked`] hides those of the messages while a template writes its own.
//!
//! This file knows texts and special tokens. It must not know templates or models.

use std::collections::HashSet;
use std::ops::Range;

use tokenizers::{AddedToken, Tokenizer};

use crate::data::{Content, Message};

/// Where the signs that hide control tokens are taken from: a private plane, which texts hardly ever use.
const PRIVATE: Range<u32> = 0xF_0000..0xF_FFFE;

/// The special tokens of a tokenizer.
#[derive(Default)]
pub(super) struct ControlTokens {
    /// With their ids; of those with one first byte, the longest come first.
    tokens: Vec<(u32, AddedToken)>,
    /// For each first byte, the tokens that begin with it.
    by_first: Vec<Range<usize>>,
}

/// A control token in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u32,
    /// The token itself, in bytes of the text.
    pub(super) token: Range<usize>,
    /// With the white space that it takes along.
    pub(super) taken: Range<usize>,
}

impl ControlTokens {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder().into_iter();
        Self::new(added.filter(|(_, token)| token.special && !token.content.is_empty()).collect())
    }

    fn new(mut tokens: Vec<(u32, AddedToken)>) -> Self {
        let first = |token: &AddedToken| token.content.as_bytes()[0];
        tokens.sort_by(|(_, a), (_, b)| (first(a), b.content.len()).cmp(&(first(b), a.content.len())));
        let from = |byte: usize| tokens.partition_point(|(_, token)| usize::from(first(token)) < byte);
        let by_first = (0..256).map(|byte| from(byte)..from(byte + 1)).collect();
        Self { tokens, by_first }
    }

    /// All of them, with their ids.
    pub(super) fn all(&self) -> &[(u32, AddedToken)] {
        &self.tokens
    }

    /// Those in a text, from left to right; of two at one place, the longer.
    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        let (mut found, mut at, mut free) = (Vec::new(), 0, 0);
        while let Some((start, place)) = self.next(text, at) {
            let (id, token) = &self.tokens[place];
            let range = start..start + token.content.len();
            at = range.end;
            if !token.single_word || stands_alone(text, &range) {
                let taken = taken(text, token, &range, free);
                free = taken.end;
                found.push(Found { id: *id, token: range, taken });
            }
        }
        found
    }

    /// The next place from byte `at` on where a token stands, and which.
    fn next(&self, text: &str, at: usize) -> Option<(usize, usize)> {
        if self.tokens.is_empty() {
            return None;
        }
        let bytes = &text.as_bytes()[at..];
        bytes.iter().enumerate().find_map(|(offset, byte)| {
            let rest = &bytes[offset..];
            let mut places = self.by_first[usize::from(*byte)].clone();
            places.find(|place| rest.starts_with(self.tokens[*place].1.content.as_bytes())).map(|p| (at + offset, p))
        })
    }

    /// How many stand in the messages of a prompt or a response.
    pub(super) fn count(&self, content: &Content) -> usize {
        texts(content).into_iter().map(|text| self.find(text).len()).sum()
    }
}

/// Whether no word goes on before or after.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    !text[..range.start].ends_with(is_word) && !text[range.end..].starts_with(is_word)
}

/// The token with the white space before and after it that it takes along; bytes before `free` belong to another.
fn taken(text: &str, token: &AddedToken, range: &Range<usize>, free: usize) -> Range<usize> {
    let start = if token.lstrip { text[..range.start].trim_end().len().max(free) } else { range.start };
    let after = &text[range.end..];
    let end = if token.rstrip { range.end + after.len() - after.trim_start().len() } else { range.end };
    start..end
}

/// Texts in which every control token begins with another sign, so that it is none.
pub(super) struct Masked<'a> {
    tokens: &'a ControlTokens,
    /// The first characters of control tokens that occur.
    firsts: Vec<char>,
    /// The sign of the first of them; the others follow.
    base: u32,
}

impl<'a> Masked<'a> {
    /// What hides the control tokens of these texts; `None` where there are none to hide.
    pub(super) fn of<'t>(tokens: &'a ControlTokens, texts: impl Iterator<Item = &'t str> + Clone) -> Option<Self> {
        if texts.clone().all(|text| tokens.find(text).is_empty()) {
            return None;
        }
        let mut firsts: Vec<char> =
            tokens.tokens.iter().filter_map(|(_, token)| token.content.chars().next()).collect();
        firsts.dedup();
        let used: HashSet<u32> = texts.flat_map(str::chars).map(u32::from).filter(|c| PRIVATE.contains(c)).collect();
        let count = firsts.len() as u32;
        let mut bases = PRIVATE.step_by(firsts.len()).take_while(|base| base + count <= PRIVATE.end);
        let base = bases.find(|base| (*base..base + count).all(|sign| !used.contains(&sign)))?;
        Some(Self { tokens, firsts, base })
    }

    /// The text without control tokens.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        loop {
            let found = self.tokens.find(&masked);
            if found.is_empty() {
                return masked;
            }
            for Found { token, .. } in found.iter().rev() {
                let letters = masked[token.clone()].chars().next().map_or(0, char::len_utf8);
                let first = token.start..token.start + letters;
                let sign = self.sign(&masked[first.clone()]);
                masked.replace_range(first, &sign);
            }
        }
    }

    fn sign(&self, first: &str) -> String {
        let place = self.firsts.iter().position(|letter| first.starts_with(*letter)).unwrap_or(0);
        char::from_u32(self.base + place as u32).map(String::from).unwrap_or_default()
    }

    /// The text as it was.
    pub(super) fn unmask(&self, text: &str) -> String {
        let letter = |sign: char| {
            let place = u32::from(sign).checked_sub(self.base).and_then(|place| self.firsts.get(place as usize));
            place.copied().unwrap_or(sign)
        };
        text.chars().map(letter).collect()
    }

    /// The messages without control tokens.
    pub(super) fn content(&self, content: &Content) -> Content {
        let mask = |Message { role, content }: &Message| Message { role: self.mask(role), content: self.mask(content) };
        match content {
            Content::Text(text) => Content::Text(self.mask(text)),
            Content::Messages(turns) => Content::Messages(turns.iter().map(mask).collect()),
        }
    }
}

/// Every text that a content brings into a rendering.
pub(super) fn texts(content: &Content) -> Vec<&str> {
    match content {
        Content::Text(text) => vec![text],
        Content::Messages(turns) => turns.iter().flat_map(|turn| [turn.role.as_str(), &turn.content]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> ControlTokens {
        let plain = |text: &str| AddedToken::from(text, true);
        let tokens = [
            plain("</s>"),
            plain("<|end|>").rstrip(true),
            plain("<|end|>er"),
            plain("<mask>").lstrip(true),
            plain("WORD").single_word(true),
            plain("▁é"),
        ];
        ControlTokens::new(tokens.into_iter().enumerate().map(|(id, token)| (id as u32, token)).collect())
    }

    /// Ids and what each takes.
    fn found(text: &str) -> Vec<(u32, &str)> {
        tokens().find(text).into_iter().map(|found| (found.id, &text[found.taken])).collect()
    }

    #[test]
    fn they_are_found_as_a_tokenizer_finds_them() {
        assert_eq!(found("a </s> b"), [(0, "</s>")]);
        assert_eq!(found("<|end|> \n x<|end|>er"), [(1, "<|end|> \n "), (2, "<|end|>er")]);
        assert_eq!(found("a  <mask> b"), [(3, "  <mask>")]);
        assert_eq!(found("<|end|>  <mask>"), [(1, "<|end|>  "), (3, "<mask>")]);
        assert_eq!(found("WORDS aWORD WORD, WORD_"), [(4, "WORD")]);
        assert_eq!(found("▁é<</s>>"), [(5, "▁é"), (0, "</s>")]);
        assert!(
            found("").is_empty() && found("< / s >").is_empty() && ControlTokens::new(Vec::new()).find("a").is_empty()
        );
    }

    #[test]
    fn masked_texts_have_none_and_come_back() {
        let tokens = tokens();
        let private: String = (0..40).filter_map(|n| char::from_u32(0xF_0000 + n)).collect();
        for text in ["</s>", "▁é", "a <|end|>er</s></s> <<|end|>", &format!("{private} </s>")] {
            let masked = Masked::of(&tokens, [text, "x"].into_iter()).unwrap();
            let hidden = masked.mask(text);
            assert!(tokens.find(&hidden).is_empty(), "{hidden:?}");
            assert_eq!(hidden.chars().count(), text.chars().count());
            assert_eq!(masked.unmask(&hidden), text);
        }
        assert!(Masked::of(&tokens, ["nothing here"].into_iter()).is_none());
    }

    #[test]
    fn roles_count_too() {
        let turn = Message { role: "user</s>".into(), content: "<mask> </s>".into() };
        assert_eq!(tokens().count(&Content::Messages(vec![turn])), 3);
        assert_eq!(tokens().count(&Content::Text("WORD".into())), 1);
    }
}
