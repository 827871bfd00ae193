//! Several people's votes on an item → one soft label for each two responses.
//!
//! By default a label is the share of votes. Where one person agrees with the others clearly less than the rest do, shares
//! let a careless person count as much as a good one: then labels come from a Bradley-Terry model with a reliability for each
//! person (Chen, Bennett, Collins-Thompson and Horvitz, WSDM 2013), fitted by expectation maximisation.

use crate::Vote;
use crate::crowd::{self, CrowdItem, Said};
use crate::votes::dense;
use std::collections::{BTreeMap, HashMap};

/// Two responses and how far the first is preferred: 1, 0, or 0.5 for a tie.
pub type Preference = (usize, usize, f64);

/// What a ranking says of each two responses. Those that were placed are better than those that were not; of two that were
/// not placed it says nothing.
pub fn preferences(ranks: &[Option<u32>]) -> Vec<Preference> {
    let mut preferences = Vec::new();
    for first in 0..ranks.len() {
        for second in first + 1..ranks.len() {
            let place = |r: usize| ranks[r].unwrap_or(u32::MAX);
            match place(first).cmp(&place(second)) {
                std::cmp::Ordering::Less => preferences.push((first, second, 1.0)),
                std::cmp::Ordering::Greater => preferences.push((first, second, 0.0)),
                std::cmp::Ordering::Equal if ranks[first].is_some() => preferences.push((first, second, 0.5)),
                std::cmp::Ordering::Equal => {}
            }
        }
    }
    preferences
}

/// How alike two statements on the same responses are: 1 the same, 0.5 if one of them is a tie, 0 opposed.
fn likeness(a: f64, b: f64) -> f64 {
    1.0 - (a - b).abs()
}

/// Sum of likenesses and their number, over all that two rankings both say.
pub fn alike(a: &[Option<u32>], b: &[Option<u32>]) -> (f64, usize) {
    let said: BTreeMap<(usize, usize), f64> = preferences(b).into_iter().map(|(x, y, t)| ((x, y), t)).collect();
    let both = preferences(a).into_iter().filter_map(|(x, y, t)| said.get(&(x, y)).map(|other| likeness(t, *other)));
    both.fold((0.0, 0), |(sum, count), likeness| (sum + likeness, count + 1))
}

/// Mean likeness over each two of some rankings of one item; `None` where no two say something of the same responses.
pub fn agreement_of(rankings: &[&[Option<u32>]]) -> Option<f64> {
    let mut total = (0.0, 0);
    for (at, a) in rankings.iter().enumerate() {
        for b in &rankings[at + 1..] {
            let (sum, count) = alike(a, b);
            total = (total.0 + sum, total.1 + count);
        }
    }
    (total.1 > 0).then(|| total.0 / total.1 as f64)
}

/// Share of the preferences in `given` (ties left out) that a ranking agrees with; `None` if they have none in common.
pub fn share_agreed(ranks: &[Option<u32>], given: &[Preference]) -> Option<f64> {
    let said: BTreeMap<(usize, usize), f64> = preferences(ranks).into_iter().map(|(x, y, t)| ((x, y), t)).collect();
    let of = |&(x, y, target): &Preference| match x < y {
        true => said.get(&(x, y)).map(|said| likeness(*said, target)),
        false => said.get(&(y, x)).map(|said| likeness(1.0 - said, target)),
    };
    let both: Vec<f64> = given.iter().filter(|given| given.2 != 0.5).filter_map(of).collect();
    (!both.is_empty()).then(|| both.iter().sum::<f64>() / both.len() as f64)
}

/// How far scores contradict preferences: the mean probability that they give to the opposite; ties are left out.
pub fn contradiction(preferences: &[Preference], scores: &[f64]) -> Option<f64> {
    let strict: Vec<f64> = preferences
        .iter()
        .filter(|preference| preference.2 != 0.5)
        .map(|&(a, b, target)| {
            let first_is_worse = sigmoid(scores[b] - scores[a]);
            if target > 0.5 { first_is_worse } else { 1.0 - first_is_worse }
        })
        .collect();
    (!strict.is_empty()).then(|| strict.iter().sum::<f64>() / strict.len() as f64)
}

/// [`contradiction`] with all that some rankings say.
pub fn against(rankings: &[&[Option<u32>]], scores: &[f64]) -> Option<f64> {
    let all: Vec<Preference> = rankings.iter().flat_map(|ranks| preferences(ranks)).collect();
    contradiction(&all, scores)
}

/// 1 / (1 + e^−x), without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// How votes become labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Shares, or Crowd-Bradley-Terry where agreement is uneven.
    #[default]
    Auto,
    /// The share of votes.
    Shares,
    /// Crowd-Bradley-Terry.
    CrowdBt,
}

/// What is asked of merging.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MergeSettings {
    /// How votes become labels.
    pub method: Method,
}

/// What the votes say of two responses of an item, by place.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Label {
    /// The one that stands first in the file.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// How far the first is preferred, from 0 to 1.
    pub target: f64,
    /// Votes that say it.
    pub votes: usize,
}

/// The merged votes of all items.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The method that was used: never [`Method::Auto`].
    pub method: Method,
    /// What is known of each person who ranked items that others ranked too.
    pub people: Vec<Standing>,
    /// People whose agreement with the others is clearly lower than the rest's.
    pub uneven: Vec<i64>,
    of_item: HashMap<i64, Vec<Label>>,
    /// Consensus ranks by item.
    ranks: HashMap<i64, Vec<Option<u32>>>,
}

/// How a person stands to the others.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Standing {
    /// The person.
    pub annotator: i64,
    /// Rankings of others with which this person's can be compared.
    pub compared: usize,
    /// Mean agreement with these.
    pub agreement: f64,
    /// The reliability of Crowd-Bradley-Terry; `None` if it was not fitted.
    pub reliability: Option<f64>,
}

impl Labels {
    /// Merges votes that stand. Skips say nothing; of a person's repeats, the first vote counts.
    pub fn of(votes: &[Vote], settings: &MergeSettings) -> Labels {
        let items = by_item(votes);
        let people = Agreements::of(&items);
        let uneven = people.uneven();
        let method = match settings.method {
            Method::Auto if uneven.is_empty() => Method::Shares,
            Method::Auto => Method::CrowdBt,
            asked => asked,
        };
        let (of_item, ranks) = (HashMap::new(), HashMap::new());
        let mut labels = Labels { method, people: people.standings(), uneven, of_item, ranks };
        match method {
            Method::CrowdBt => labels.by_crowd(&items),
            _ => labels.by_shares(&items),
        }
        labels
    }

    fn by_shares(&mut self, items: &BTreeMap<i64, Vec<&Vote>>) {
        for (item, votes) in items {
            let merged = shares(votes);
            self.ranks.insert(*item, consensus(&merged, votes));
            self.of_item.insert(*item, merged);
        }
    }

    /// A label is the mean probability, over the votes, that the first is better given what was said and by whom.
    fn by_crowd(&mut self, items: &BTreeMap<i64, Vec<&Vote>>) {
        let mut number: BTreeMap<i64, usize> = BTreeMap::new();
        number.extend(items.values().flatten().map(|vote| (vote.annotator.0, 0)));
        number.values_mut().enumerate().for_each(|(at, person)| *person = at);
        let item = |votes: &Vec<&Vote>| {
            let said = votes.iter().flat_map(|vote| {
                let person = number[&vote.annotator.0];
                preferences(&vote.ranks).into_iter().map(move |(first, second, target)| Said {
                    person,
                    first,
                    second,
                    target,
                })
            });
            CrowdItem { responses: votes[0].ranks.len(), said: said.collect() }
        };
        let crowd: Vec<CrowdItem> = items.values().map(item).collect();
        let fit = crowd::fit(&crowd, number.len());
        for (i, (item, votes)) in items.iter().enumerate() {
            let mut merged = shares(votes);
            for label in &mut merged {
                let same = |said: &&Said| (said.first, said.second) == (label.first, label.second);
                label.target =
                    crowd[i].said.iter().filter(same).map(|said| fit.truth(i, said)).sum::<f64>() / label.votes as f64;
            }
            let is_placed = |r: usize| votes.iter().any(|vote| vote.ranks[r].is_some());
            let scores = fit.scores[i].iter().enumerate().map(|(r, score)| is_placed(r).then_some(*score));
            self.ranks.insert(*item, ranked(scores.collect()));
            self.of_item.insert(*item, merged);
        }
        let reliability = |annotator: &i64| number.get(annotator).map(|person| fit.reliability[*person]);
        self.people.iter_mut().for_each(|person| person.reliability = reliability(&person.annotator));
    }

    /// The labels of an item; none if it has no vote.
    pub fn of_item(&self, item: i64) -> &[Label] {
        self.of_item.get(&item).map_or(&[], Vec::as_slice)
    }

    /// The consensus of an item of so many responses; `None` if it has no vote. A response that nobody placed has no rank.
    pub fn ranks(&self, item: i64, responses: usize) -> Option<Vec<Option<u32>>> {
        self.ranks.get(&item).filter(|ranks| ranks.len() == responses).cloned()
    }

    /// What was done and why, with the figures, in a sentence or two.
    pub fn describe(&self, names: &BTreeMap<i64, String>) -> String {
        let name = |id: &i64| names.get(id).cloned().unwrap_or_else(|| id.to_string());
        let figures = |person: &Standing| match person.reliability {
            Some(reliability) => format!("{} {reliability:.2}", name(&person.annotator)),
            None => format!("{} {:.0} %", name(&person.annotator), 100.0 * person.agreement),
        };
        let figures: Vec<String> = self.people.iter().map(figures).collect();
        let figures = figures.join(", ");
        let uneven: Vec<String> = self.uneven.iter().map(name).collect();
        let uneven = uneven.join(", ");
        match (self.method, self.people.is_empty(), self.uneven.is_empty()) {
            (Method::CrowdBt, _, false) => format!(
                "labels weigh people by their reliability (Crowd-Bradley-Terry), as {uneven} agrees with the others less than \
                 they do among themselves. Reliability: {figures}"
            ),
            (Method::CrowdBt, ..) => {
                format!("labels weigh people by their reliability (Crowd-Bradley-Terry). Reliability: {figures}")
            }
            (_, true, _) => "labels are the votes: no item was ranked by two people".to_owned(),
            (_, false, true) => format!("labels are shares of votes. Agreement with the others: {figures}"),
            (_, false, false) => format!(
                "labels are shares of votes. {uneven} agrees with the others less than they do among themselves: \
                 --merge crowd-bt weighs people by their reliability. Agreement with the others: {figures}"
            ),
        }
    }
}

/// Agreement of each two people, item by item.
struct Agreements {
    /// Mean agreement of (a, b) on an item that both ranked.
    each: Vec<(i64, i64, f64)>,
}

impl Agreements {
    fn of(items: &BTreeMap<i64, Vec<&Vote>>) -> Agreements {
        let mut each = Vec::new();
        for votes in items.values() {
            for (at, a) in votes.iter().enumerate() {
                for b in &votes[at + 1..] {
                    let (sum, count) = alike(&a.ranks, &b.ranks);
                    if count > 0 {
                        each.push((a.annotator.0, b.annotator.0, sum / count as f64));
                    }
                }
            }
        }
        Agreements { each }
    }

    /// Those who agree with the others less than these do among themselves: by 2.6 standard errors of the difference, on at
    /// least 10 items. Of two people it cannot be said who of them errs.
    fn uneven(&self) -> Vec<i64> {
        const CLEARLY: f64 = 2.576; // 99 of 100
        const FEWEST: usize = 10;
        let is_below = |person: &Standing| {
            let (with, without): (Vec<_>, Vec<_>) =
                self.each.iter().partition(|(a, b, _)| [*a, *b].contains(&person.annotator));
            let [with, without] =
                [with, without].map(|rows: Vec<&(i64, i64, f64)>| moments(rows.iter().map(|row| row.2)));
            with.0 >= FEWEST
                && without.0 >= FEWEST
                && without.1 - with.1 > CLEARLY * (with.2 / with.0 as f64 + without.2 / without.0 as f64).sqrt()
        };
        // The worst is taken away before the others are looked at: one who errs lowers everybody's agreement.
        let mut people = self.standings();
        people.sort_by(|a, b| a.agreement.total_cmp(&b.agreement));
        let Some(worst) = people.first().filter(|worst| is_below(worst)) else { return Vec::new() };
        let rest = self.each.iter().filter(|(a, b, _)| ![*a, *b].contains(&worst.annotator)).copied().collect();
        let mut uneven = Agreements { each: rest }.uneven();
        uneven.push(worst.annotator);
        uneven.sort_unstable();
        uneven
    }

    fn standings(&self) -> Vec<Standing> {
        let mut of_person: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (a, b, agreement) in &self.each {
            of_person.entry(*a).or_default().push(*agreement);
            of_person.entry(*b).or_default().push(*agreement);
        }
        let standing = |(annotator, agreements): (i64, Vec<f64>)| {
            let (compared, agreement, _) = moments(agreements.into_iter());
            Standing { annotator, compared, agreement, reliability: None }
        };
        of_person.into_iter().map(standing).collect()
    }
}

/// Count, mean and variance.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (usize, f64, f64) {
    let count = values.clone().count();
    let mean = values.clone().sum::<f64>() / count.max(1) as f64;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count.saturating_sub(1).max(1) as f64;
    (count, mean, variance)
}

/// Rankings that stand, of first showings, by item.
pub(crate) fn by_item(votes: &[Vote]) -> BTreeMap<i64, Vec<&Vote>> {
    let mut of_item: BTreeMap<i64, Vec<&Vote>> = BTreeMap::new();
    let counts = votes.iter().filter(|vote| !vote.repeat && vote.skipped.is_none() && vote.withdrawn_at.is_none());
    counts.for_each(|vote| of_item.entry(vote.item.0).or_default().push(vote));
    of_item
}

/// The share of votes for the first of each two responses.
fn shares(votes: &[&Vote]) -> Vec<Label> {
    let mut sums: BTreeMap<(usize, usize), (f64, usize)> = BTreeMap::new();
    for (first, second, target) in votes.iter().flat_map(|vote| preferences(&vote.ranks)) {
        let sum = sums.entry((first, second)).or_default();
        *sum = (sum.0 + target, sum.1 + 1);
    }
    let label = |((first, second), (sum, votes)): ((usize, usize), (f64, usize))| Label {
        first,
        second,
        target: sum / votes as f64,
        votes,
    };
    sums.into_iter().map(label).collect()
}

/// Ranks by the mean share that each response has against the others.
fn consensus(labels: &[Label], votes: &[&Vote]) -> Vec<Option<u32>> {
    let responses = votes.first().map_or(0, |vote| vote.ranks.len());
    let mut won = vec![(0.0, 0); responses];
    for label in labels {
        for (response, share) in [(label.first, label.target), (label.second, 1.0 - label.target)] {
            won[response] = (won[response].0 + share, won[response].1 + 1);
        }
    }
    let is_placed = |r: usize| votes.iter().any(|vote| vote.ranks[r].is_some());
    let score = |r: usize| (is_placed(r) && won[r].1 > 0).then(|| won[r].0 / won[r].1 as f64);
    ranked((0..responses).map(score).collect())
}

/// Scores → ranks: the highest is 1, scores that are equal but for rounding are a tie.
pub(crate) fn ranked(scores: Vec<Option<f64>>) -> Vec<Option<u32>> {
    const SAME: f64 = 1e-9;
    let above = |score: f64| 1 + scores.iter().flatten().filter(|other| **other > score + SAME).count() as u32;
    dense(&scores.iter().map(|score| score.map(above)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnnotatorId, ItemId, TaskId};
    use kudos::random::Stream;

    fn ranks(ranks: &[u32]) -> Vec<Option<u32>> {
        ranks.iter().map(|rank| (*rank > 0).then_some(*rank)).collect()
    }

    fn vote(number: i64, item: i64, annotator: i64, of: Vec<Option<u32>>) -> Vote {
        Vote {
            number,
            vote: number.to_string(),
            task: TaskId(number),
            item: ItemId(item),
            annotator: AnnotatorId(annotator),
            repeat: false,
            shown: (0..of.len()).collect(),
            ranks: of,
            ratings: BTreeMap::new(),
            flags: Vec::new(),
            comment: None,
            skipped: None,
            seconds: None,
            stored_at: String::new(),
            withdrawn_at: None,
        }
    }

    #[test]
    fn what_a_ranking_says() {
        assert_eq!(preferences(&ranks(&[2, 1])), [(0, 1, 0.0)]);
        assert_eq!(preferences(&ranks(&[1, 1, 2])), [(0, 1, 0.5), (0, 2, 1.0), (1, 2, 1.0)]);
        let top = [(0, 1, 0.0), (1, 2, 1.0)];
        assert_eq!(preferences(&ranks(&[0, 1, 0])), top, "the best is better than the rest, of which nothing is known");
        assert_eq!(preferences(&ranks(&[0, 0])), []);
    }

    #[test]
    fn agreement_of_rankings() {
        let of = |a: &[u32], b: &[u32]| agreement_of(&[&ranks(a), &ranks(b)]);
        assert_eq!(of(&[1, 2, 3], &[1, 2, 3]), Some(1.0));
        assert_eq!(of(&[1, 2], &[2, 1]), Some(0.0));
        assert_eq!(of(&[1, 1], &[2, 1]), Some(0.5));
        assert_eq!(of(&[1, 0, 0], &[1, 2, 3]), Some(1.0), "on the two pairs that both speak of");
        assert_eq!(of(&[0, 0], &[1, 2]), None);
        assert_eq!(share_agreed(&ranks(&[1, 2]), &[(1, 0, 1.0)]), Some(0.0));
        assert_eq!(share_agreed(&ranks(&[1, 2]), &[(1, 0, 0.5)]), None);
        assert!((contradiction(&[(0, 1, 1.0)], &[0.0, 1.0]).unwrap() - 0.731).abs() < 1e-3);
    }

    #[test]
    fn shares_and_the_consensus() {
        let votes =
            [vote(1, 7, 1, ranks(&[1, 2, 0])), vote(2, 7, 2, ranks(&[1, 1, 0])), vote(3, 7, 3, ranks(&[2, 1, 0]))];
        let labels = Labels::of(&votes, &MergeSettings::default());
        assert_eq!(labels.of_item(7)[0], Label { first: 0, second: 1, target: 0.5, votes: 3 });
        assert_eq!(labels.ranks(7, 3), Some(ranks(&[1, 1, 0])), "nobody placed the third");
        assert_eq!((labels.ranks(8, 3), labels.of_item(8)), (None, &[][..]));
        let one = Labels::of(&votes[..1], &MergeSettings::default());
        assert_eq!(one.ranks(7, 3), Some(ranks(&[1, 2, 0])));
        assert!(one.describe(&BTreeMap::new()).contains("no item was ranked by two people"));
    }

    #[test]
    fn one_full_ranking_is_its_own_consensus() {
        let mut stream = Stream::new(5, 0);
        for _ in 0..200 {
            let drawn: Vec<Option<u32>> = (0..6).map(|_| Some(1 + stream.below(6) as u32)).collect();
            let labels = Labels::of(&[vote(1, 1, 1, drawn.clone())], &MergeSettings::default());
            assert_eq!(labels.ranks(1, 6).unwrap(), dense(&drawn));
        }
    }

    /// Votes of people on `items` pairs; each says the truth (the first is better) with their own probability.
    fn people(honest: &[f64], items: i64) -> Vec<Vote> {
        let mut stream = Stream::new(11, 0);
        let mut votes = Vec::new();
        for item in 0..items {
            for (annotator, honest) in honest.iter().enumerate() {
                let of = if stream.uniform() < *honest { ranks(&[1, 2, 3]) } else { ranks(&[3, 2, 1]) };
                votes.push(vote(votes.len() as i64, item, annotator as i64, of));
            }
        }
        votes
    }

    #[test]
    fn uneven_agreement_changes_the_method_and_is_said() {
        let names = BTreeMap::from([(0, "anna".to_owned()), (1, "ben".into()), (2, "carl".into()), (3, "dora".into())]);
        let even = Labels::of(&people(&[0.9, 0.85, 0.9], 60), &MergeSettings::default());
        assert_eq!((even.method, even.uneven.len()), (Method::Shares, 0));
        assert!(
            even.describe(&names).contains("anna 8") || even.describe(&names).contains("anna 7"),
            "{}",
            even.describe(&names)
        );
        let votes = people(&[0.9, 0.9, 0.5, 0.9], 60);
        let uneven = Labels::of(&votes, &MergeSettings::default());
        assert_eq!((uneven.method, &uneven.uneven), (Method::CrowdBt, &vec![2]));
        let said = uneven.describe(&names);
        assert!(said.contains("as carl agrees") && said.contains("anna 0.9"), "{said}");
        let wrong = |labels: &Labels| (0..60).filter(|item| labels.of_item(*item)[0].target <= 0.5).count();
        let shares = Labels::of(&votes, &MergeSettings { method: Method::Shares });
        assert!(wrong(&uneven) < wrong(&shares), "{} {}", wrong(&uneven), wrong(&shares));
        assert!(shares.describe(&names).contains("--merge crowd-bt"));
        let two = Labels::of(&people(&[0.9, 0.3], 60), &MergeSettings::default());
        assert_eq!(two.method, Method::Shares, "of two people it cannot be said who errs");
    }
}
