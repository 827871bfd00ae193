//! Whole conversations → prompt and reply.
//!
//! Some files repeat the prompt inside the responses (`prompt` beside `chosen` and `rejected` that are whole
//! conversations), others have conversations alone, which begin alike. Read as they stand, a prompt would be read
//! twice, or be no prompt at all. The turns that both sides share are the prompt, as TRL's `extract_prompt` has it.
//! A list of messages that begins with the assistant is a reply, and stays as it is.

use super::record::{ASSISTANT, Content, Message, USER};

/// Roles that open a conversation, where a reply would begin with the assistant's turn.
const OPENING: [&str; 3] = ["system", "developer", USER];

/// A prompt and the replies to it.
pub(super) type Exchange = (Content, Vec<Content>);

/// Takes the turns that repeat the prompt off each response that is a whole conversation. A system turn before
/// them becomes part of the prompt.
///
/// # Errors
/// The index of the first conversation that begins with another prompt.
pub(super) fn replies(mut prompt: Content, mut responses: Vec<Content>) -> Result<Exchange, usize> {
    let asked = prompt.turns(USER).into_owned();
    let mut opening: Option<Vec<Message>> = None;
    for (at, response) in responses.iter_mut().enumerate() {
        let Some(turns) = conversation(response) else { continue };
        let length = repeated(&asked, turns).ok_or(at)?;
        let (start, reply) = turns.split_at(length);
        if opening.get_or_insert_with(|| start.to_vec()) != start {
            return Err(at);
        }
        *response = Content::Messages(reply.to_vec());
    }
    if let Some(opening) = opening.filter(|opening| opening.len() > asked.len()) {
        prompt = Content::Messages(opening);
    }
    Ok((prompt, responses))
}

/// The same of two sides: further turns that both conversations share belong to the prompt, too.
///
/// # Errors
/// As [`replies`].
pub(super) fn replies_of_two(prompt: Content, sides: [Content; 2]) -> Result<(Content, [Content; 2]), usize> {
    let whole = sides.iter().all(|side| conversation(side).is_some());
    let (prompt, replies) = replies(prompt, sides.to_vec())?;
    let [a, b] = replies.try_into().expect("two sides");
    match shared_start(&a, &b).filter(|_| whole) {
        None => Ok((prompt, [a, b])),
        Some((more, sides)) => Ok((Content::Messages([&prompt.turns(USER), more.as_slice()].concat()), sides)),
    }
}

/// The turns that two transcripts begin with, and what is left of each; `None` where they begin differently. At least one turn
/// is left of each, the assistant's where that can be.
pub(super) fn shared_start(a: &Content, b: &Content) -> Option<(Vec<Message>, [Content; 2])> {
    let (Content::Messages(a), Content::Messages(b)) = (a, b) else { return None };
    let alike = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let most = alike.min(a.len().saturating_sub(1)).min(b.len().saturating_sub(1));
    let is_reply = |at: &usize| [a, b].iter().all(|turns| turns.get(*at).is_some_and(|turn| turn.role == ASSISTANT));
    let length = (0..=most).rev().find(is_reply).unwrap_or(most);
    let rest = [a, b].map(|turns| Content::Messages(turns[length..].to_vec()));
    (length > 0).then(|| (a[..length].to_vec(), rest))
}

/// The turns of a response that is more than a reply.
fn conversation(response: &Content) -> Option<&[Message]> {
    match response {
        Content::Messages(turns) => {
            turns.first().filter(|turn| OPENING.contains(&turn.role.as_str())).map(|_| &turns[..])
        }
        Content::Text(_) => None,
    }
}

/// The number of turns that repeat what was asked (white space around it aside), system turns before it included.
fn repeated(asked: &[Message], turns: &[Message]) -> Option<usize> {
    let same = |(a, b): (&Message, &Message)| a.role == b.role && a.content.trim() == b.content.trim();
    let begins = |turns: &[Message]| turns.len() >= asked.len() && turns.iter().zip(asked).all(same);
    let system = turns.iter().take_while(|turn| turn.role != USER).count();
    let skipped = [0, system].into_iter().find(|skipped| begins(&turns[*skipped..]))?;
    Some(skipped + asked.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `u:hi a:yo` as messages; without a colon, a text.
    fn content(words: &str) -> Content {
        let role = |short: &str| match short {
            "u" => USER.to_owned(),
            "a" => ASSISTANT.to_owned(),
            "s" => "system".to_owned(),
            other => other.to_owned(),
        };
        let turn = |word: &str| {
            let (short, text) = word.split_once(':')?;
            Some(Message { role: role(short), content: text.to_owned() })
        };
        let turns: Option<Vec<Message>> = words.split_whitespace().map(turn).collect();
        turns.filter(|turns| !turns.is_empty()).map_or_else(|| Content::Text(words.to_owned()), Content::Messages)
    }

    #[test]
    fn f9_a_prompt_that_the_responses_repeat_is_read_once() {
        let cases = [
            ("p", "u:p a:x", "u:p a:y", Ok(("p", "a:x", "a:y"))),
            ("u:p", "u:p a:x", "u:p a:y", Ok(("u:p", "a:x", "a:y"))),
            ("p", "a:x", "y", Ok(("p", "a:x", "y"))),
            ("p", "u:p a:x", "y", Ok(("p", "a:x", "y"))),
            ("p", "s:be u:p a:x", "s:be u:p a:y", Ok(("s:be u:p", "a:x", "a:y"))),
            ("s:be u:p", "s:be u:p a:x", "s:be u:p a:y", Ok(("s:be u:p", "a:x", "a:y"))),
            ("p", "s:be u:p a:x", "u:p a:y", Err(1)),
            ("p", "u:p a:1 u:q a:x", "u:p a:1 u:q a:y", Ok(("u:p a:1 u:q", "a:x", "a:y"))),
            ("p", "u:p a:1 u:q a:x", "u:p a:2 u:q a:y", Ok(("p", "a:1 u:q a:x", "a:2 u:q a:y"))),
            ("p", "a:1 u:q a:x", "a:1 u:q a:y", Ok(("p", "a:1 u:q a:x", "a:1 u:q a:y"))),
            ("p", "u:other a:x", "u:p a:y", Err(0)),
            ("p", "u:p a:x", "u:other a:y", Err(1)),
            ("u:p a:1 u:q", "u:p a:1 u:q a:x", "a:y", Ok(("u:p a:1 u:q", "a:x", "a:y"))),
            ("p", "u:p", "u:p a:y", Ok(("p", "", "a:y"))),
            (" p ", "u:p a:x", "u:p a:y", Ok((" p ", "a:x", "a:y"))),
        ];
        for (prompt, a, b, expected) in cases {
            let found = replies_of_two(content(prompt), [content(a), content(b)]);
            let expected = expected.map(|(prompt, a, b): (&str, &str, &str)| {
                let side = |words: &str| if words.is_empty() { Content::Messages(Vec::new()) } else { content(words) };
                (content(prompt), [side(a), side(b)])
            });
            assert_eq!(found, expected, "{prompt} | {a} | {b}");
        }
    }

    #[test]
    fn transcripts_that_begin_alike_have_a_prompt() {
        let cases = [
            ("u:p a:x", "u:p a:y", Some(("u:p", "a:x", "a:y"))),
            ("u:p a:1 u:q a:x", "u:p a:1 u:q a:y", Some(("u:p a:1 u:q", "a:x", "a:y"))),
            ("u:p a:1 u:q", "u:p a:1 u:r", Some(("u:p", "a:1 u:q", "a:1 u:r"))),
            ("u:p a:x", "u:p a:x", Some(("u:p", "a:x", "a:x"))),
            ("u:p gpt:x", "u:p gpt:y", Some(("u:p", "gpt:x", "gpt:y"))),
            ("u:p a:x", "u:p", None),
            ("u:p a:x", "u:q a:x", None),
            ("a:x", "a:y", None),
            ("x", "x", None),
        ];
        for (a, b, expected) in cases {
            let expected =
                expected.map(|(start, a, b)| (content(start).turns(USER).into_owned(), [content(a), content(b)]));
            assert_eq!(shared_start(&content(a), &content(b)), expected, "{a} | {b}");
        }
    }
}
