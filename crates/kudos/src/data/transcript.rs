//! Transcripts of plain text, as HH-RLHF writes them, → messages.
//!
//! `"\n\nHuman: … \n\nAssistant: …"`: each turn is a paragraph that its speaker opens. A text is a transcript only
//! if the human's mark opens it; the marks inside of any other text are text.

use super::record::{ASSISTANT, Message, USER};

/// The marks that open a turn, and the role of its speaker.
const MARKS: [(&str, &str); 2] = [("Human:", USER), ("Assistant:", ASSISTANT)];

/// The turns of a transcript, without the white space around them; `None` for any other text. A last turn may be empty: there
/// the reply belongs.
pub(super) fn turns(text: &str) -> Option<Vec<Message>> {
    let mut rest = text.trim_start();
    let (mut role, after) = opening(rest).filter(|(role, _)| *role == USER)?;
    rest = after;
    let mut turns = Vec::new();
    loop {
        let (content, next) = until_next(rest);
        turns.push(Message { role: role.to_owned(), content: content.trim().to_owned() });
        let Some((speaker, after)) = next else { return Some(turns) };
        (role, rest) = (speaker, after);
    }
}

/// The same of a prompt, which may end with the mark of the reply that is missing. The mark alone is no turn.
pub(super) fn prompt(text: &str) -> Option<Vec<Message>> {
    let mut turns = turns(text)?;
    if turns.last().is_some_and(|turn| turn.role == ASSISTANT && turn.content.is_empty()) {
        turns.pop();
    }
    Some(turns)
}

/// A reply without the mark that may open it.
pub(super) fn reply(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix(MARKS[1].0).map_or(text, str::trim_start)
}

/// The speaker that opens a text, and what follows the mark.
fn opening(text: &str) -> Option<(&'static str, &str)> {
    MARKS.iter().find_map(|(mark, role)| Some((*role, text.strip_prefix(mark)?)))
}

/// What stands before the next mark that opens a paragraph, and that turn.
fn until_next(text: &str) -> (&str, Option<(&'static str, &str)>) {
    let mut from = 0;
    while let Some(found) = text[from..].find("\n\n") {
        let at = from + found;
        if let Some(next) = opening(text[at..].trim_start_matches('\n')) {
            return (&text[..at], Some(next));
        }
        from = at + 1;
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(turns: Option<Vec<Message>>) -> Option<String> {
        turns.map(|turns| turns.iter().map(|turn| format!("{}:{}|", &turn.role[..1], turn.content)).collect())
    }

    #[test]
    fn transcripts_and_other_texts() {
        let cases = [
            ("\n\nHuman: a\n\nAssistant: b", Some("u:a|a:b|")),
            ("Human: a\n\nAssistant: b\n\n\nHuman: c\n\nd\n\nAssistant:", Some("u:a|a:b|u:c\n\nd|a:|")),
            ("\n\nHuman: a\nAssistant: no turn", Some("u:a\nAssistant: no turn|")),
            ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", Some("u:a|u:b|a:c|")),
            ("\n\nAssistant: b", None),
            ("He said:\n\nHuman: a", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(outline(turns(text)).as_deref(), expected, "{text:?}");
        }
        assert_eq!(outline(prompt("\n\nHuman: a\n\nAssistant: ")).as_deref(), Some("u:a|"));
        assert_eq!(outline(prompt("\n\nHuman: a\n\nAssistant: b")).as_deref(), Some("u:a|a:b|"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_lost(text in "(\n{0,3}(Human:|Assistant:|x|é| ){0,4}){0,6}") {
            let words = |text: &str| text.replace("Human:", "").replace("Assistant:", "").split_whitespace().collect::<String>();
            if let Some(turns) = turns(&text) {
                let read: String = turns.iter().map(|turn| turn.content.as_str()).collect::<Vec<_>>().join(" ");
                proptest::prop_assert_eq!(words(&read), words(&text));
            }
        }
    }
}
