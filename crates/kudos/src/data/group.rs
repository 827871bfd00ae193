//! A group: one prompt, its k responses, and a partial order over them. Pairs are groups of two.

use super::record::{Content, Location};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Ratings of one response by the name of what was rated (helpfulness, correctness, …), on whatever scale the file has.
/// A rating that is missing is not in it.
pub type Attributes = BTreeMap<String, f64>;

/// One prompt with its responses and every comparison known between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `None` when the responses are whole transcripts (HH-RLHF style).
    pub prompt: Option<Content>,
    /// The responses, in the order of the file.
    pub responses: Vec<Response>,
    /// What is known of the order: empty for unlabelled data.
    pub comparisons: Vec<Comparison>,
    /// First row of the group.
    pub location: Location,
    /// Extra columns of the first row (`id`, `subset`, …).
    pub extra: Map<String, Value>,
}

/// One response of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its text or messages.
    pub content: Content,
    /// Place in the ranking: lower is better, equal is a tie, `None` is unranked.
    pub rank: Option<f64>,
    /// The rating it was ranked by, when the file gives one (higher is better).
    pub score: Option<f64>,
    /// What it was rated in particular.
    pub attributes: Attributes,
    /// The row it came from.
    pub location: Location,
}

/// A judgement between two responses of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Index in [`Group::responses`] of the one listed first.
    pub first: usize,
    /// Index of the one listed second.
    pub second: usize,
    /// Probability (share of votes) that `first` is better: 1, 0, 0.5 for a tie, or between.
    pub target: f32,
    /// How much better the better one is, where the file says; 0 otherwise (TRL's `margin`).
    pub margin: f32,
    /// Weight of this judgement; 1 unless the file says. One of weight 0 is none: see [`Comparison::counts`].
    pub weight: f32,
}

impl Group {
    /// Every preference as `(chosen, rejected, margin)`, indices into [`Group::responses`]; ties make none.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, f32)> + '_ {
        self.counted().filter_map(|comparison| {
            let (chosen, rejected) = comparison.better_worse()?;
            Some((chosen, rejected, comparison.margin))
        })
    }

    /// The prompt as text, with white space made even: equal for groups that ask the same. Of whole
    /// transcripts it is what stands before the last turn.
    pub fn prompt_key(&self) -> String {
        let text = match (&self.prompt, self.responses.first()) {
            (Some(prompt), _) => plain(prompt),
            (None, Some(Response { content: Content::Messages(turns), .. })) => {
                plain(&Content::Messages(turns[..turns.len().saturating_sub(1)].to_vec()))
            }
            (None, Some(Response { content: Content::Text(text), .. })) => {
                let end = text.rfind(LAST_TURN).unwrap_or(text.len());
                text[..end].to_owned()
            }
            (None, None) => String::new(),
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The comparisons that count: those of weight 0 are left out. [`load_groups`](super::load_groups) makes no others.
    pub fn counted(&self) -> impl Iterator<Item = &Comparison> + Clone {
        self.comparisons.iter().filter(|comparison| comparison.counts())
    }

    /// Comparisons that prefer neither side.
    pub fn ties(&self) -> usize {
        self.counted().filter(|comparison| comparison.is_tie()).count()
    }
}

/// What opens a reply in the transcripts of HH-RLHF.
const LAST_TURN: &str = "\n\nAssistant:";

fn plain(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Messages(turns) => turns.iter().map(|turn| format!("{}: {}\n", turn.role, turn.content)).collect(),
    }
}

impl Comparison {
    /// False for a weight of 0: such a judgement is no comparison, neither to learn from nor to be measured with.
    pub fn counts(&self) -> bool {
        self.weight > 0.0
    }

    /// True when neither side is preferred.
    pub fn is_tie(&self) -> bool {
        self.target == 0.5
    }

    /// `(better, worse)` indices, or `None` for a tie.
    pub fn better_worse(&self) -> Option<(usize, usize)> {
        match self.target.partial_cmp(&0.5)? {
            std::cmp::Ordering::Greater => Some((self.first, self.second)),
            std::cmp::Ordering::Less => Some((self.second, self.first)),
            std::cmp::Ordering::Equal => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Message;

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    fn chat(turns: &[(&str, &str)]) -> Content {
        let turn = |(role, content): &(&str, &str)| Message { role: role.to_string(), content: content.to_string() };
        Content::Messages(turns.iter().map(turn).collect())
    }

    fn group(prompt: Option<Content>, response: Content) -> Group {
        let location = Location { file: "f".into(), line: 1 };
        let attributes = Attributes::new();
        let response = Response { content: response, rank: None, score: None, attributes, location: location.clone() };
        Group { prompt, responses: vec![response], comparisons: Vec::new(), location, extra: Map::new() }
    }

    #[test]
    fn prompt_keys() {
        let cases = [
            (group(Some(text(" a\n b ")), text("x")), "a b"),
            (group(Some(chat(&[("user", "a"), ("assistant", "b")])), text("x")), "user: a assistant: b"),
            (
                group(None, text("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d")),
                "Human: a Assistant: b Human: c",
            ),
            (group(None, text("no turns")), "no turns"),
            (group(None, chat(&[("user", "a"), ("assistant", "b")])), "user: a"),
            (group(None, chat(&[])), ""),
        ];
        for (group, expected) in cases {
            assert_eq!(group.prompt_key(), expected);
        }
    }

    #[test]
    fn pairs_leave_ties_out() {
        let mut group = group(None, text("x"));
        let comparison = Comparison { first: 0, second: 1, target: 1.0, margin: 2.0, weight: 1.0 };
        let targets = [1.0, 0.0, 0.5, 0.6];
        group.comparisons = targets.map(|target| Comparison { target, ..comparison }).to_vec();
        assert_eq!(group.pairs().collect::<Vec<_>>(), [(0, 1, 2.0), (1, 0, 2.0), (0, 1, 2.0)]);
        assert_eq!(group.ties(), 1);
    }
}
