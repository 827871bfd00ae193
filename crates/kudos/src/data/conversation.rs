//! Whole conversations → prompt and reply.
//!
//! Some files repeat the prompt inside the responses (`prompt` beside `chosen` and `rejected` that are whole
//! conversations), others have conversations alone, which begin alike. Read as they stand, a prompt would be read
//! twice, or be no prompt at all. The turns that both sides share are the prompt, as TRL's `extract_prompt` has it.
//! A list of messages that begins with the assistant is a reply, and stays as it is. The transcripts of HH-RLHF are read as the
//! conversations that they are.

use super::record::{ASSISTANT, Content, Message, Reading, USER};
use super::transcript;
use std::cell::Cell;

/// Roles that open a conversation, where a reply would begin with the assistant's turn.
const OPENING: [&str; 3] = ["system", "developer", USER];

/// Two sides that are no replies to one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mismatch {
    /// This side (0 or 1) is a conversation that begins with another prompt.
    OtherPrompt(usize),
    /// There is no prompt, and the sides do not begin alike.
    NoSharedStart,
}

/// A prompt, if there is one, and the replies of both sides; transcripts of plain text (see [`transcript`]) are taken apart as
/// conversations are. `repeats` remembers whether texts of this file repeat their prompt.
///
/// # Errors
/// [`Mismatch`].
pub(super) fn two_sides(
    prompt: Option<Content>,
    sides: [Content; 2],
    repeats: &Cell<Option<bool>>,
) -> Result<(Option<Content>, [Content; 2]), Mismatch> {
    let Some(prompt) = prompt else { return without_prompt(sides) };
    let asked = prompt.turns(USER).into_owned();
    let sides = sides.map(|side| transcript_of(&asked, side));
    let (prompt, sides) = replies_of_two(prompt, sides).map_err(Mismatch::OtherPrompt)?;
    let sides = without_echo(&prompt, sides, repeats);
    Ok((Some(prompt), sides))
}

/// A text that is a transcript which begins with the prompt is a conversation.
fn transcript_of(asked: &[Message], side: Content) -> Content {
    let Content::Text(text) = &side else { return side };
    let turns = transcript::turns(text);
    let longer = |turns: &Vec<Message>| repeated(asked, turns).is_some_and(|length| length < turns.len());
    turns.filter(longer).map_or(side, Content::Messages)
}

/// True if two conversations go on alike up to a turn where their users ask different things.
fn ask_differently(a: &[Message], b: &[Message]) -> bool {
    let alike = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    alike > 0 && matches!((a.get(alike), b.get(alike)), (Some(a), Some(b)) if a.role == USER && b.role == USER)
}

fn without_prompt(sides: [Content; 2]) -> Result<(Option<Content>, [Content; 2]), Mismatch> {
    let turns = |side: &Content| match side {
        Content::Text(text) => transcript::turns(text),
        Content::Messages(turns) => Some(turns.clone()),
    };
    if let [Some(a), Some(b)] = [turns(&sides[0]), turns(&sides[1])] {
        if ask_differently(&a, &b) {
            return Err(Mismatch::OtherPrompt(1));
        }
        let shared = shared_start(&Content::Messages(a), &Content::Messages(b));
        return shared.map(|(prompt, sides)| (Some(Content::Messages(prompt)), sides)).ok_or(Mismatch::NoSharedStart);
    }
    match &sides {
        [Content::Text(a), Content::Text(b)] if share_words(a, b) => Ok((None, sides)),
        _ => Err(Mismatch::NoSharedStart),
    }
}

/// Words that two texts must begin with to be transcripts of one prompt.
const SHARED_WORDS: usize = 2;

/// True if two texts begin with the same words and then differ.
fn share_words(a: &str, b: &str) -> bool {
    let alike = a.split_whitespace().zip(b.split_whitespace()).take_while(|(a, b)| a == b).count();
    alike >= SHARED_WORDS || a == b
}

/// Takes the prompt off texts that both begin with it, in a file whose first pair does.
fn without_echo(prompt: &Content, sides: [Content; 2], repeats: &Cell<Option<bool>>) -> [Content; 2] {
    let Reading::Text(asked) = prompt.reading(USER) else { return sides };
    let asked = asked.trim();
    let reply = |side: &Content| match side {
        Content::Text(text) => {
            let rest = text.trim_start().strip_prefix(asked)?;
            rest.starts_with(|next: char| next.is_whitespace()).then(|| Content::Text(rest.trim().to_owned()))
        }
        Content::Messages(_) => None,
    };
    let replies = [reply(&sides[0]), reply(&sides[1])];
    let echoed = asked.split_whitespace().count() >= SHARED_WORDS && replies.iter().all(Option::is_some);
    let follow = repeats.get().unwrap_or(echoed);
    repeats.set(Some(follow));
    match replies {
        [Some(a), Some(b)] if echoed && follow => [a, b],
        _ => sides,
    }
}

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
fn replies_of_two(prompt: Content, sides: [Content; 2]) -> Result<(Content, [Content; 2]), usize> {
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
fn shared_start(a: &Content, b: &Content) -> Option<(Vec<Message>, [Content; 2])> {
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
    if let Some(skipped) = [0, system].into_iter().find(|skipped| begins(&turns[*skipped..])) {
        return Some(skipped + asked.len());
    }
    // A system turn may have come from a column of its own.
    let rest = asked.iter().position(|turn| turn.role == USER).filter(|own| *own > 0 && system == 0)?;
    repeated(&asked[rest..], turns)
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
