//! Which tokens end a response.
//!
//! Settings name one or two of them, and files often leave out the one that matters: early Llama 3 files end a text
//! with `<|end_of_text|>` and do not mention `<|eot_id|>`, which ends each turn. So the ends are those that a setting
//! names, and those that are known by name. The names are the ones that llama.cpp knows, in its `llama-vocab.cpp`.
//!
//! A name counts only where the vocabulary sets the token apart from text: `</s>` is a plain token in Qwen's
//! vocabulary. (llama.cpp takes it for an end there.)

/// How a vocabulary marks a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A control token, or a special one.
    Control,
    /// Found in text as it stands, and text all the same.
    Added,
}

/// Ends of a text, of a turn or of a message; and the starts of another file, which end the present one.
const NAMES: [&str; 31] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
];
const FILE: &str = "<|file_sep|>";
/// Also the HTML tag that ends struck-out text, which some vocabularies have as a token.
const CLOSED: &str = "</s>";

/// The ids that end a response: `named` by the settings, then those known by name, by id. `marked` are the tokens that
/// the vocabulary sets apart from text.
pub(super) fn ends<'a>(
    named: impl IntoIterator<Item = u32>,
    marked: impl IntoIterator<Item = (u32, &'a str, Mark)>,
) -> Vec<u32> {
    let marked: Vec<(u32, &str, Mark)> = marked.into_iter().collect();
    let has = |name: &str| marked.iter().any(|(_, text, _)| *text == name);
    // In these vocabularies `<|end|>` ends a part of a turn: another part follows.
    let parts = has("<|call|>") && has("<|return|>") || (has("<|call|>") || has("<|calls|>")) && has("<|flush|>");
    let ends = |text: &str, mark: Mark| match text {
        "<|end|>" => !parts,
        CLOSED => mark == Mark::Control && !has("<|tool_response>"),
        _ => text == FILE || NAMES.contains(&text),
    };
    let known = marked.iter().filter(|(_, text, mark)| ends(text, *mark)).map(|(id, ..)| *id);
    let mut known: Vec<u32> = known.collect();
    known.sort_unstable();
    let mut all: Vec<u32> = Vec::new();
    for id in named.into_iter().chain(known) {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mark::{Added, Control};

    #[test]
    fn names_count_where_they_are_marked() {
        type Tokens = &'static [(u32, &'static str, Mark)];
        let cases: [(&[u32], Tokens, &[u32]); 8] = [
            (&[1], &[(9, "<|eot_id|>", Control), (1, "<|end_of_text|>", Control)], &[1, 9]),
            (&[5], &[(3, "<|endoftext|>", Control), (5, "<|im_end|>", Control), (4, "<|im_start|>", Control)], &[5, 3]),
            (&[], &[(2, "<end_of_turn>", Added), (7, "</s>", Added)], &[2]),
            (&[], &[(7, "</s>", Control)], &[7]),
            (&[], &[(7, "</s>", Control), (8, "<|tool_response>", Control)], &[8]),
            (&[1], &[(2, "<|end|>", Control), (3, "<|return|>", Control), (4, "<|call|>", Control)], &[1, 3, 4]),
            (&[], &[(2, "<|end|>", Control), (3, "<|flush|>", Control), (4, "<|calls|>", Control)], &[3, 4]),
            (&[6, 6], &[(2, "<|end|>", Control), (3, "<|call|>", Control)], &[6, 2, 3]),
        ];
        for (named, marked, expected) in cases {
            assert_eq!(ends(named.iter().copied(), marked.iter().copied()), expected, "{marked:?}");
        }
    }
}
