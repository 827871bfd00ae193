//! Several people's rankings of one prompt: kept apart while a file is read, and merged as votes at its end.

use super::super::group::{Comparison, Group, Judged, Response};
use super::super::record::{ASSISTANT, Kind, USER};
use super::Grouping;
use std::collections::HashMap;
use std::sync::Arc;

impl Grouping {
    /// A column that names another person in every row of a prompt says something else, such as who wrote the response.
    pub(super) fn one_person_a_row(&mut self) {
        let places = |group: &Group| group.responses.iter().filter(|r| r.rank.is_some() || r.score.is_some()).count();
        let by_person = || self.groups.iter().zip(&self.rankers).filter(|(_, ranker)| ranker.is_some());
        if !self.is_guessed || by_person().next().is_none() || by_person().any(|(group, _)| places(group) > 1) {
            return;
        }
        let mut first: HashMap<String, usize> = HashMap::new();
        for g in 0..self.groups.len() {
            let Some(prompt) = self.groups[g].prompt.as_ref().filter(|_| self.rankers[g].is_some()) else { continue };
            let key = format!("{:?}", prompt.reading(USER));
            let to = *first.entry(key).or_insert(g);
            if to != g {
                let mut moved = std::mem::take(&mut self.groups[g].responses);
                self.groups[to].responses.append(&mut moved);
            }
        }
        self.rankers.iter_mut().for_each(|ranker| *ranker = None);
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        let kept: Vec<bool> = self.groups.iter().map(|group| !group.responses.is_empty()).collect();
        let mut keep = kept.iter().copied();
        self.groups.retain(|_| keep.next() == Some(true));
        let mut keep = kept.iter().copied();
        self.origins.retain(|_| keep.next() == Some(true));
        let mut keep = kept.iter().copied();
        self.rankers.retain(|_| keep.next() == Some(true));
    }

    /// Rankings of one prompt by several people become one group, whose comparisons are their votes.
    pub(super) fn merge_people(&mut self) {
        let mut of_prompt: HashMap<String, Vec<usize>> = HashMap::new();
        for (g, group) in self.groups.iter().enumerate().filter(|(g, _)| self.rankers[*g].is_some()) {
            if let Some(prompt) = &group.prompt {
                of_prompt.entry(format!("{:?}", prompt.reading(USER))).or_default().push(g);
            }
        }
        for rankings in of_prompt.into_values().filter(|rankings| rankings.len() > 1) {
            let (first, others) = rankings.split_first().expect("two at least");
            let mut merged = Votes::new(&self.groups[*first]);
            for g in &rankings {
                let voter =
                    self.rankers[*g].as_ref().map(|ranker| ranker.split('\n').next().unwrap_or_default().into());
                let ranking = taken(&mut self.groups[*g]);
                merged.add(ranking, voter, self.origins[*g].kind);
            }
            self.groups[*first] = merged.group;
            debug_assert!(others.iter().all(|g| self.groups[*g].responses.is_empty()));
        }
        self.drop_empty();
    }
}

/// A group, of which its place keeps the prompt alone.
fn taken(group: &mut Group) -> Group {
    let (responses, comparisons) = (std::mem::take(&mut group.responses), std::mem::take(&mut group.comparisons));
    let (judged, prompt, location) = (std::mem::take(&mut group.judged), group.prompt.clone(), group.location.clone());
    Group { prompt, responses, comparisons, judged, location }
}

/// Several people's rankings of one prompt while they become one group.
struct Votes {
    group: Group,
}

impl Votes {
    fn new(first: &Group) -> Votes {
        let (responses, comparisons, judged) = (Vec::new(), Vec::new(), Vec::new());
        let (prompt, location) = (first.prompt.clone(), first.location.clone());
        Votes { group: Group { prompt, responses, comparisons, judged, location } }
    }

    /// Adds one ranking: its comparisons, each with the later of the rows of its responses. A response is one by its reading.
    fn add(&mut self, ranking: Group, voter: Option<Arc<str>>, kind: Kind) {
        let rows: Vec<Judged> = (0..ranking.comparisons.len())
            .map(|c| Judged {
                kind,
                location: ranking.comparison_location(c).clone(),
                extra: ranking.comparison_extra(c).into(),
                voter: voter.clone(),
            })
            .collect();
        let places: Vec<usize> = ranking.responses.into_iter().map(|response| self.place_of(response)).collect();
        for (comparison, row) in ranking.comparisons.into_iter().zip(rows) {
            let (first, second) = (places[comparison.first], places[comparison.second]);
            self.group.comparisons.push(Comparison { first, second, ..comparison });
            self.group.judged.push(row);
        }
    }

    fn place_of(&mut self, response: Response) -> usize {
        let reading = response.content.reading(ASSISTANT);
        let found = self.group.responses.iter().position(|known| known.content.reading(ASSISTANT) == reading);
        found.unwrap_or_else(|| {
            self.group.responses.push(Response { rank: None, score: None, ..response });
            self.group.responses.len() - 1
        })
    }
}
