//! A group: one prompt, its k responses, and a partial order over them. Pairs are groups of two.

use super::record::{ASSISTANT, Content, Kind, Location};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Ratings of one response by the name of what was rated (helpfulness, correctness, …), on whatever scale the file has.
/// A rating that is missing is not in it.
pub type Attributes = BTreeMap<String, f64>;

/// The columns of a row that say nothing of the order (`id`, `subset`, `model`, …). All that came from the row shares them.
pub type Extra = Arc<Map<String, Value>>;

/// One prompt with its responses and every comparison known between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `None` when the responses are whole transcripts (HH-RLHF style).
    pub prompt: Option<Content>,
    /// The responses, in the order of the file.
    pub responses: Vec<Response>,
    /// What is known of the order: empty for unlabelled data.
    pub comparisons: Vec<Comparison>,
    /// The row behind each comparison, parallel to [`Self::comparisons`]; empty for rankings, whose comparisons follow
    /// from the rows of their responses.
    pub judged: Vec<Judged>,
    /// First row of the group.
    pub location: Location,
}

/// The row behind one comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What kind of row it is.
    pub kind: Kind,
    /// Where it stands.
    pub location: Location,
    /// Its extra columns.
    pub extra: Extra,
    /// Who judged, where the file says it.
    pub voter: Option<Arc<str>>,
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
    /// The row it came from: of judgements, the first in which it stands.
    pub location: Location,
    /// The extra columns of that row.
    pub extra: Extra,
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

    /// What groups that ask the same have in common: [`Content::prompt_key`] of the prompt, or, of whole transcripts, of what
    /// stands before the last turn.
    pub fn prompt_key(&self) -> String {
        match (&self.prompt, self.responses.first().map(|response| &response.content)) {
            (Some(prompt), _) => prompt.prompt_key(),
            (None, Some(Content::Messages(turns))) => {
                Content::Messages(turns[..turns.len().saturating_sub(1)].to_vec()).prompt_key()
            }
            (None, Some(Content::Text(text))) => {
                let end = text.rfind(LAST_TURN).unwrap_or(text.len());
                Content::Text(text[..end].to_owned()).prompt_key()
            }
            (None, None) => String::new(),
        }
    }

    /// The row that comparison `c` stands in; in a ranking, the later of the rows of its two responses.
    pub fn comparison_location(&self, c: usize) -> &Location {
        if let Some(judged) = self.judged.get(c) {
            return &judged.location;
        }
        let [first, second] = self.compared(c).map(|response| &response.location);
        if first.line > second.line { first } else { second }
    }

    /// What column `name` says of comparison `c`: the value of its own row, or, in a ranking, the one that both rows have.
    pub fn comparison_fact(&self, c: usize, name: &str) -> Option<&Value> {
        if let Some(judged) = self.judged.get(c) {
            return judged.extra.get(name);
        }
        let [first, second] = self.compared(c).map(|response| response.extra.get(name));
        first.filter(|_| first == second)
    }

    /// All that [`Self::comparison_fact`] knows of comparison `c`.
    pub fn comparison_extra(&self, c: usize) -> Map<String, Value> {
        if let Some(judged) = self.judged.get(c) {
            return Map::clone(&judged.extra);
        }
        let [first, second] = self.compared(c).map(|response| &response.extra);
        let mut shared = Map::clone(first);
        if !Arc::ptr_eq(first, second) {
            shared.retain(|name, value| second.get(name) == Some(value));
        }
        shared
    }

    fn compared(&self, c: usize) -> [&Response; 2] {
        let Comparison { first, second, .. } = self.comparisons[c];
        [first, second].map(|r| &self.responses[r])
    }

    /// The responses of these indices, in this order, with those comparisons between them that are `wanted` (by their
    /// index), each with its row.
    pub fn part(&self, responses: &[usize], wanted: impl Fn(usize) -> bool) -> Group {
        let mut place = vec![None; self.responses.len()];
        responses.iter().enumerate().for_each(|(new, old)| place[*old] = Some(new));
        let mut part = Group {
            prompt: self.prompt.clone(),
            responses: responses.iter().map(|r| self.responses[*r].clone()).collect(),
            comparisons: Vec::new(),
            judged: Vec::new(),
            location: self.location.clone(),
        };
        for (c, comparison) in self.comparisons.iter().enumerate().filter(|(c, _)| wanted(*c)) {
            if let (Some(first), Some(second)) = (place[comparison.first], place[comparison.second]) {
                part.comparisons.push(Comparison { first, second, ..*comparison });
                part.judged.extend(self.judged.get(c).cloned());
            }
        }
        part
    }

    /// For every response, the first of the group that a model reads the same.
    pub fn first_alike(&self) -> Vec<usize> {
        let mut first = HashMap::new();
        let readings = self.responses.iter().map(|response| response.content.reading(ASSISTANT)).enumerate();
        readings.map(|(r, reading)| *first.entry(reading).or_insert(r)).collect()
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

/// The shortest decimal that reads back as the same `f32`: 0.1, not 0.10000000149011612.
pub(super) fn decimal(value: f32) -> Value {
    let shortest: f64 = value.to_string().parse().unwrap_or(f64::from(value));
    shortest.into()
}

/// What opens a reply in the transcripts of HH-RLHF.
const LAST_TURN: &str = "\n\nAssistant:";

impl Comparison {
    /// The first response is better than the second, and nothing more is said.
    pub const BETTER: Comparison = Comparison { first: 0, second: 1, target: 1.0, margin: 0.0, weight: 1.0 };

    /// As it stands in the list `comparisons` of a group row.
    pub(super) fn to_value(self) -> Value {
        let mut fields = Map::new();
        fields.insert("first".to_owned(), self.first.into());
        fields.insert("second".to_owned(), self.second.into());
        fields.insert("target".to_owned(), decimal(self.target));
        if self.margin != 0.0 {
            fields.insert("margin".to_owned(), decimal(self.margin));
        }
        if self.weight != 1.0 {
            fields.insert("weight".to_owned(), decimal(self.weight));
        }
        Value::Object(fields)
    }

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
        let extra = Extra::default();
        let response =
            Response { content: response, rank: None, score: None, attributes, location: location.clone(), extra };
        Group { prompt, responses: vec![response], comparisons: Vec::new(), judged: Vec::new(), location }
    }

    #[test]
    fn keys_of_prompts_and_transcripts() {
        let cases = [
            (group(Some(text(" a\n b ")), text("x")), "a b"),
            (group(Some(chat(&[("user", "a"), ("assistant", "b")])), text("x")), "user: a assistant: b"),
            (
                group(None, text("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d")),
                "human: a assistant: b human: c",
            ),
            (group(None, text("no turns")), "no turns"),
            (group(None, chat(&[("user", "a"), ("assistant", "b")])), "a"),
            (group(None, chat(&[("user", "a"), ("assistant", "b"), ("user", "c")])), "user: a assistant: b"),
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
