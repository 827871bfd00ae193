//! What is cut of a rendered conversation that has too many tokens.
//!
//! transformers cuts the end of the one text that a template renders. There the judge reads its score: in the newline
//! after `<|im_end|>`, in Qwen's template. A judge that was trained on whole conversations would read it in the middle
//! of a sentence instead, and where the prompt alone is too long, all responses to it would become the same ids. So the
//! template's own words stay, as special tokens do around a pair, and only words of the messages are cut: the prompt
//! loses its start, where the earliest turns are, and the response loses its end.
//!
//! This file knows places in a text. It must not know templates or tokenizers.

use std::ops::Range;

use super::Truncation;
use super::chat::Parts;

/// The tokens that are kept, as ranges of indices; `None` where the template alone fills the limit. `spans` are the
/// tokens' places in the text.
pub(super) fn kept(
    spans: &[(usize, usize)],
    parts: &Parts,
    limit: usize,
    rule: Truncation,
) -> Option<[Range<usize>; 3]> {
    let (prompt, response) = (inside(spans, &parts.prompt), inside(spans, &parts.response));
    let template = spans.len() - prompt.len() - response.len();
    let room = limit.checked_sub(template).filter(|room| *room > 0)?;
    let (before, after) = shares(prompt.len(), response.len(), room, rule);
    Some([0..prompt.start, prompt.end - before..response.start + after, response.end..spans.len()])
}

/// Number of tokens that are the template's own.
pub(super) fn of_template(spans: &[(usize, usize)], parts: &Parts) -> usize {
    spans.len() - inside(spans, &parts.prompt).len() - inside(spans, &parts.response).len()
}

/// The tokens that lie in a part whole. One that holds words of both sides of a border is the template's.
fn inside(spans: &[(usize, usize)], part: &Range<usize>) -> Range<usize> {
    let start = spans.iter().position(|(start, _)| *start >= part.start).unwrap_or(spans.len());
    let length = spans[start..].iter().take_while(|(_, end)| *end <= part.end).count();
    start..start + length
}

/// How many of each side's tokens fit in the room.
fn shares(prompt: usize, response: usize, room: usize, rule: Truncation) -> (usize, usize) {
    match rule {
        _ if prompt + response <= room => (prompt, response),
        Truncation::KeepResponse => (room - response.min(room), response.min(room)),
        // As transformers for a pair: the longer loses until both are as long, then both; the odd one is the longer's.
        Truncation::LongestFirst => {
            let shorter = prompt.min(response).min(room / 2);
            if prompt > response { (room - shorter, shorter) } else { (shorter, room - shorter) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token a character.
    fn cut(text: &str, parts: [Range<usize>; 2], limit: usize, rule: Truncation) -> Option<String> {
        let spans: Vec<_> = (0..text.len()).map(|at| (at, at + 1)).collect();
        let [prompt, response] = parts;
        let kept = kept(&spans, &Parts { prompt, response }, limit, rule)?;
        Some(kept.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn the_template_stays() {
        use Truncation::{KeepResponse, LongestFirst};
        let text = "<abcdef|uvwxyz>";
        let cases = [
            (LongestFirst, 15, Some("<abcdef|uvwxyz>")),
            (LongestFirst, 14, Some("<bcdef|uvwxyz>")),
            (LongestFirst, 8, Some("<ef|uvw>")),
            (LongestFirst, 4, Some("<|u>")),
            (LongestFirst, 3, None),
            (KeepResponse, 12, Some("<def|uvwxyz>")),
            (KeepResponse, 9, Some("<|uvwxyz>")),
            (KeepResponse, 5, Some("<|uv>")),
            (KeepResponse, 3, None),
            (KeepResponse, 0, None),
        ];
        for (rule, limit, expected) in cases {
            assert_eq!(cut(text, [1..7, 8..14], limit, rule).as_deref(), expected, "{rule:?} {limit}");
        }
        assert_eq!(cut("<|uvw>", [1..1, 2..5], 4, LongestFirst).as_deref(), Some("<|u>"), "no prompt");
        assert_eq!(cut("<abc|>", [1..4, 5..5], 4, KeepResponse).as_deref(), Some("<c|>"), "no response");
        assert_eq!(cut("abc", [0..0, 3..3], 2, KeepResponse), None, "no words at all");
    }

    #[test]
    fn the_longer_side_loses_first() {
        let shares = |prompt, response, room| shares(prompt, response, room, Truncation::LongestFirst);
        assert_eq!(shares(10, 3, 8), (5, 3));
        assert_eq!(shares(3, 10, 8), (3, 5));
        assert_eq!(shares(10, 9, 7), (4, 3));
        assert_eq!(shares(9, 10, 7), (3, 4));
        assert_eq!(shares(4, 4, 7), (3, 4));
        assert_eq!(shares(0, 9, 5), (0, 5));
    }

    #[test]
    fn a_token_across_a_border_is_the_templates() {
        let spans = [(0, 1), (1, 3), (3, 6), (6, 8), (8, 9)];
        let parts = Parts { prompt: 1..5, response: 5..8 };
        assert_eq!(of_template(&spans, &parts), 3, "3..6 holds words of both");
        let all = kept(&spans, &parts, 4, Truncation::KeepResponse).unwrap();
        assert_eq!(all.map(|range| spans[range].to_vec()).concat(), [(0, 1), (3, 6), (6, 8), (8, 9)]);
    }
}
