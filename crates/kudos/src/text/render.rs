//! From contents to the text that is tokenised, for the renderings that need no template.
//!
//! Chat-format data is rendered even when the model knows no chat: one message is its content, several
//! turns become a small document ([`Content::as_text`], which also decides which prompts are one).

use crate::data::{ASSISTANT, Content, USER};

/// A text to tokenise: one sequence, or two with the tokenizer's separators.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rendered {
    /// `tokenizer(first, second)`.
    Pair {
        /// The prompt's text.
        prompt: String,
        /// The response's text.
        response: String,
    },
    /// One sequence.
    Single {
        /// The whole text.
        text: String,
        /// Characters at the start of `text` that are the prompt's.
        prompt_chars: usize,
    },
}

/// Two sequences. An empty response leaves a single one, as in transformers (`if text_pair` is false for "").
pub(super) fn pair(prompt: Option<&Content>, response: &Content) -> Rendered {
    let response = response.as_text(ASSISTANT).into_owned();
    match prompt.map(|prompt| prompt.as_text(USER).into_owned()) {
        None => single(String::new(), response),
        Some(prompt) if response.is_empty() => single(prompt, response),
        Some(prompt) => Rendered::Pair { prompt, response },
    }
}

/// One sequence: prompt, response, end-of-sequence token, with nothing in between. A prompt of several
/// turns is a document, which the response continues as the assistant's next block.
pub(super) fn concat(prompt: Option<&Content>, response: &Content, eos: Option<&str>) -> Rendered {
    let mut start = prompt.map_or_else(String::new, |prompt| prompt.as_text(USER).into_owned());
    if let Some(Content::Messages(turns)) = prompt
        && turns.len() > 1
    {
        start.push_str("\n\nassistant: ");
    }
    let mut response = response.as_text(ASSISTANT).into_owned();
    // The rule is about the response's end (TRL appends before it joins), so that a prompt cannot supply the token.
    if let Some(eos) = eos
        && !response.ends_with(eos)
    {
        response.push_str(eos);
    }
    single(start, response)
}

fn single(mut prompt: String, response: String) -> Rendered {
    let prompt_chars = prompt.chars().count();
    prompt.push_str(&response);
    Rendered::Single { text: prompt, prompt_chars }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Message;

    fn text(text: &str) -> Content {
        Content::Text(text.into())
    }

    fn turns(turns: &[(&str, &str)]) -> Content {
        let message = |&(role, content): &(&str, &str)| Message { role: role.into(), content: content.into() };
        Content::Messages(turns.iter().map(message).collect())
    }

    fn one(text: &str, prompt_chars: usize) -> Rendered {
        Rendered::Single { text: text.into(), prompt_chars }
    }

    fn two(prompt: &str, response: &str) -> Rendered {
        Rendered::Pair { prompt: prompt.into(), response: response.into() }
    }

    #[test]
    fn pairs() {
        let chat = turns(&[("system", "Be kind."), ("user", "Hi")]);
        let cases = [
            (Some(text("p")), text("r"), two("p", "r")),
            (Some(text("")), text("r"), two("", "r")),
            (Some(text("p")), text(""), one("p", 1)),
            (None, text("whole"), one("whole", 0)),
            (Some(turns(&[("user", "Hi")])), turns(&[("assistant", "Yo")]), two("Hi", "Yo")),
            (Some(chat), text("Yo"), two("system: Be kind.\n\nuser: Hi", "Yo")),
            (None, turns(&[("user", "a"), ("assistant", "b")]), one("user: a\n\nassistant: b", 0)),
            (None, turns(&[]), one("", 0)),
        ];
        for (prompt, response, expected) in cases {
            assert_eq!(pair(prompt.as_ref(), &response), expected);
        }
    }

    #[test]
    fn concatenations() {
        let long = turns(&[("user", "a"), ("assistant", "b"), ("user", "c")]);
        let cases = [
            (Some(text("p ")), text("r"), one("p r</s>", 2)),
            (Some(text("p")), text("r</s>"), one("pr</s>", 1)),
            (Some(text("p</s>")), text(""), one("p</s></s>", 5)),
            (None, text("t"), one("t</s>", 0)),
            (Some(long), text("d"), one("user: a\n\nassistant: b\n\nuser: c\n\nassistant: d</s>", 43)),
        ];
        for (prompt, response, expected) in cases {
            assert_eq!(concat(prompt.as_ref(), &response, Some("</s>")), expected);
        }
        assert_eq!(concat(Some(&text("p")), &text("r"), None), one("pr", 1));
    }
}
