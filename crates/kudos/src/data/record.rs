//! The vocabulary of the data files: contents, messages and the place a row came from.

use super::group::{Attributes, Comparison};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// The role of the turns that a prompt of plain text stands for.
pub const USER: &str = "user";
/// The role of the turns that a response of plain text stands for.
pub const ASSISTANT: &str = "assistant";

/// One turn of a conversation, as chat-format data sets store it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever the file says.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

/// A prompt, a response or a whole transcript: plain text, or a list of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// `[{role, content}, …]`.
    Messages(Vec<Message>),
}

/// A content as models read it: two contents are the same where their readings are, whatever renders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading<'a> {
    /// A text, or the content of a lone message of the expected role.
    Text(&'a str),
    /// Any other list of messages.
    Turns(&'a [Message]),
}

/// Where a row stands: what an error or a finding points at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The file as the user named it; `-` is standard input.
    pub file: Arc<str>,
    /// Line the row starts at, from 1 (row number, from 1, for Parquet).
    pub line: u64,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Content {
    /// Length in characters, of the texts alone.
    pub fn chars(&self) -> usize {
        match self {
            Content::Text(text) => text.chars().count(),
            Content::Messages(messages) => messages.iter().map(|m| m.content.chars().count()).sum(),
        }
    }

    /// True if there is nothing to read: white space only, no message, or a blank last message.
    pub fn is_blank(&self) -> bool {
        match self {
            Content::Text(text) => text.trim().is_empty(),
            Content::Messages(messages) => messages.last().is_none_or(|m| m.content.trim().is_empty()),
        }
    }

    /// What a model reads in the place of `role` ([`USER`] for prompts, [`ASSISTANT`] for responses).
    pub fn reading(&self, role: &str) -> Reading<'_> {
        match self {
            Content::Text(text) => Reading::Text(text),
            Content::Messages(turns) => match turns.as_slice() {
                [only] if only.role == role => Reading::Text(&only.content),
                turns => Reading::Turns(turns),
            },
        }
    }

    /// The text that renderings without a template make of it in the place of `role`: several turns, or one of
    /// another role, are a small document of `role: content` blocks.
    pub fn as_text(&self, role: &str) -> Cow<'_, str> {
        match self.reading(role) {
            Reading::Text(text) => text.into(),
            Reading::Turns(turns) => {
                let blocks: Vec<String> = turns.iter().map(|turn| format!("{}: {}", turn.role, turn.content)).collect();
                blocks.join("\n\n").into()
            }
        }
    }

    /// What makes two prompts one, for leaks, splits, folds and intervals: [`Self::as_text`] with white space made even,
    /// in lower case. Tokenizers drop both, some of them, and a prompt that differs in nothing else is no new one.
    pub fn prompt_key(&self) -> String {
        let text = self.as_text(USER);
        let even = text.split_whitespace().collect::<Vec<_>>().join(" ");
        even.chars().flat_map(char::to_lowercase).collect()
    }

    /// Its turns; a text is one of `role`.
    pub fn turns(&self, role: &str) -> Cow<'_, [Message]> {
        match self {
            Content::Text(text) => vec![Message { role: role.to_owned(), content: text.clone() }].into(),
            Content::Messages(turns) => turns.into(),
        }
    }

    /// As it stands in a data file: a string, or a list of `{role, content}`.
    pub fn to_value(&self) -> Value {
        match self {
            Content::Text(text) => text.as_str().into(),
            Content::Messages(messages) => messages.iter().map(Message::to_value).collect(),
        }
    }
}

impl Message {
    fn to_value(&self) -> Value {
        let entries = [("role", &self.role), ("content", &self.content)];
        Value::Object(entries.into_iter().map(|(key, text)| (key.to_owned(), text.as_str().into())).collect())
    }
}

/// The six kinds of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `prompt, answer, rank`: one row a response.
    Ranked,
    /// `prompt, chosen, rejected`.
    Pairs,
    /// `prompt, response_a, response_b, label`.
    Comparisons,
    /// `prompt, response, rating`: one row a response, higher is better.
    Rated,
    /// `prompt, responses: [{text, score or rank}]`.
    Groups,
    /// `prompt, response`, or `prompt, responses: [text]`: no order to learn from (ratings of attributes they may have).
    Unlabelled,
}

impl Kind {
    /// Which way the verdict runs, in words.
    pub fn direction(self) -> &'static str {
        match self {
            Kind::Ranked => "rank 1 is best",
            Kind::Rated => "the higher rating is better",
            Kind::Pairs => "chosen is better than rejected",
            Kind::Comparisons => "label a: response_a is better",
            Kind::Groups => "rank 1 is best, the higher score is better",
            Kind::Unlabelled => "no response is better than another",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Ranked => "ranked responses",
            Kind::Rated => "rated responses",
            Kind::Pairs => "pairs",
            Kind::Comparisons => "comparisons",
            Kind::Groups => "groups",
            Kind::Unlabelled => "unlabelled",
        })
    }
}

/// What one row says.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// One response with its place among those of the same prompt (`None`: unranked).
    Ranked {
        /// What was asked.
        prompt: Content,
        /// The answer.
        response: Content,
        /// Its rank or rating.
        place: RankOrRating,
        /// Its ratings.
        attributes: Attributes,
    },
    /// A response preferred to another.
    Pair {
        /// `None` when both sides are whole transcripts.
        prompt: Option<Content>,
        /// The better one.
        chosen: Content,
        /// The worse one.
        rejected: Content,
        /// How much better; 0 unless the row says.
        margin: f32,
        /// Weight of the judgement; 1 unless the row says.
        weight: f32,
    },
    /// Two responses and a verdict.
    Comparison {
        /// What was asked.
        prompt: Option<Content>,
        /// The response listed first.
        a: Content,
        /// The response listed second.
        b: Content,
        /// Share of votes for `a`: 1, 0, 0.5 for a tie, or between.
        target: f32,
        /// How much better the better one is; 0 unless the row says.
        margin: f32,
        /// Weight of the judgement; 1 unless the row says.
        weight: f32,
    },
    /// A whole group in one row.
    Group {
        /// What was asked.
        prompt: Content,
        /// Its responses, in the order of the row; a text may be empty.
        responses: Vec<Candidate>,
        /// What the row says of their order beside ranks and scores; empty where these decide.
        comparisons: Vec<Comparison>,
    },
    /// One response without a place in an order.
    Unlabelled {
        /// What was asked.
        prompt: Content,
        /// The answer.
        response: Content,
        /// Its ratings.
        attributes: Attributes,
    },
}

impl Record {
    /// The kind of row.
    pub fn kind(&self) -> Kind {
        match self {
            Record::Ranked { place: RankOrRating::Rank(_), .. } => Kind::Ranked,
            Record::Ranked { place: RankOrRating::Rating(_), .. } => Kind::Rated,
            Record::Pair { .. } => Kind::Pairs,
            Record::Comparison { .. } => Kind::Comparisons,
            Record::Group { responses, comparisons, .. }
                if !comparisons.is_empty() || responses.iter().any(Candidate::is_labelled) =>
            {
                Kind::Groups
            }
            Record::Group { .. } | Record::Unlabelled { .. } => Kind::Unlabelled,
        }
    }
}

/// What a row says of a response's place among those to the same prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RankOrRating {
    /// 1 is best, equal ranks are ties, `None` is unranked.
    Rank(Option<f64>),
    /// Higher is better, `None` is unrated.
    Rating(Option<f64>),
}

/// One response of a group row.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its text or messages.
    pub content: Content,
    /// Place in the ranking: 1 is best.
    pub rank: Option<f64>,
    /// Rating: higher is better.
    pub score: Option<f64>,
    /// What it was rated in particular.
    pub attributes: Attributes,
}

impl Candidate {
    /// A response of which nothing more is known.
    pub fn of(content: Content) -> Candidate {
        Candidate { content, rank: None, score: None, attributes: Attributes::new() }
    }

    /// As it stands in a group row of a data file.
    pub fn to_value(&self) -> Value {
        let mut fields = Map::from_iter([("text".to_owned(), self.content.to_value())]);
        fields.extend(self.rank.map(|rank| ("rank".to_owned(), rank.into())));
        fields.extend(self.score.map(|score| ("score".to_owned(), score.into())));
        if !self.attributes.is_empty() {
            let ratings = self.attributes.iter().map(|(name, rating)| (name.clone(), Value::from(*rating)));
            fields.insert("attributes".to_owned(), Value::Object(ratings.collect()));
        }
        Value::Object(fields)
    }

    /// True if the row says how good it is as a whole.
    pub fn is_labelled(&self) -> bool {
        self.rank.is_some() || self.score.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(turns: &[(&str, &str)]) -> Content {
        let turn = |(role, content): &(&str, &str)| Message { role: role.to_string(), content: content.to_string() };
        Content::Messages(turns.iter().map(turn).collect())
    }

    #[test]
    fn f3_a_lone_user_message_and_its_text_are_one_prompt() {
        let text = Content::Text("What is\n2 plus 2?".into());
        let lone = chat(&[("user", "What is\n2 plus 2?")]);
        assert_eq!((lone.reading(USER), lone.prompt_key()), (text.reading(USER), text.prompt_key()));
        assert_ne!(lone.reading(ASSISTANT), text.reading(ASSISTANT), "a user's turn is not a reply");
        let system = chat(&[("system", "What is\n2 plus 2?")]);
        assert_ne!((system.reading(USER), system.prompt_key()), (text.reading(USER), text.prompt_key()));
    }

    #[test]
    fn prompt_keys() {
        let cases = [
            (Content::Text(" A\n b ".into()), "a b"),
            (Content::Text("Straße ΣΑΣ".into()), "straße σασ"),
            (chat(&[("user", " A\n b ")]), "a b"),
            (chat(&[("user", "a"), ("assistant", "b")]), "user: a assistant: b"),
            (Content::Text("user: a\n\nassistant: b".into()), "user: a assistant: b"),
            (chat(&[]), ""),
        ];
        for (content, expected) in cases {
            assert_eq!(content.prompt_key(), expected, "{content:?}");
        }
    }
}
