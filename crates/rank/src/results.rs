//! All figures of a database: how far the work is, how far people agree, what may have steered them, what to look at.

use crate::agreement::{self, Estimate, Rankings};
use crate::export::{self, Stored};
use crate::informative::Curve;
use crate::merge::{self, Labels, MergeSettings, Method, preferences};
use crate::votes::Vote;
use crate::{ItemId, Store, StoreError};
use kudos::data::{Content, USER};
use std::collections::{BTreeMap, HashMap};

/// What is asked of the results.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultSettings {
    /// Votes that an item should have.
    pub overlap: usize,
    /// How votes are merged.
    pub merge: MergeSettings,
    /// Disputed items that are listed, at most.
    pub disputed: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Default for ResultSettings {
    fn default() -> Self {
        ResultSettings { overlap: 1, merge: MergeSettings::default(), disputed: 50, seed: 42 }
    }
}

/// The figures.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Results {
    /// Items.
    pub items: usize,
    /// Their responses.
    pub responses: usize,
    /// Items with at least one ranking.
    pub ranked_items: usize,
    /// Items with as many rankings as the overlap says.
    pub complete: usize,
    /// Items with rankings of at least two people.
    pub overlapping: usize,
    /// Rankings that stand, repeats left out.
    pub rankings: usize,
    /// Planned repeats that stand.
    pub repeats: usize,
    /// Skips that stand.
    pub skips: usize,
    /// Votes that were withdrawn.
    pub withdrawn: usize,
    /// Everybody, in the order in which they came.
    pub people: Vec<Person>,
    /// Agreement of people with each other.
    pub agreement: Agreement,
    /// What may have steered people.
    pub bias: Bias,
    /// Seconds a ranking: 25, 50 and 75 of 100 rankings took at most so long.
    pub seconds: Option<[f64; 3]>,
    /// Items on which people disagree, the most disputed first.
    pub disputed: Vec<Disputed>,
    /// How people's votes stand to what the file had said; `None` if it had said nothing.
    pub review: Option<Review>,
    /// How votes become labels, in words.
    pub merging: String,
    /// The method.
    pub method: Method,
    /// How well a head on a judge's features foretells the votes; `None` without features.
    pub curve: Option<Curve>,
}

/// The figures of one person.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Person {
    /// Who.
    pub name: String,
    /// Rankings that stand, repeats left out.
    pub rankings: usize,
    /// Repeats that stand.
    pub repeats: usize,
    /// Skips that stand.
    pub skips: usize,
    /// Median seconds a ranking.
    pub seconds: Option<f64>,
    /// Agreement with themselves, on repeats.
    pub consistency: Option<Estimate>,
    /// Mean agreement with the others, on items that both ranked.
    pub agreement: Option<f64>,
    /// The reliability of Crowd-Bradley-Terry, where it was fitted.
    pub reliability: Option<f64>,
}

/// Agreement of people with each other; `None` where no two ranked the same item.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Krippendorff's alpha, ordinal.
    pub alpha: Option<Estimate>,
    /// Kendall's W.
    pub kendall_w: Option<Estimate>,
    /// Pairwise agreement.
    pub pairwise: Option<Estimate>,
}

/// What may have steered people. Ties say nothing here.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Bias {
    /// Share of preferences for the response that was shown earlier: 0.5 without bias.
    pub earlier: Option<Estimate>,
    /// Share of preferences for the longer response: one half where length says nothing, which it may well do.
    pub longer: Option<Estimate>,
    /// For each position, the share of rankings whose best stood there, and what chance would make of it.
    pub best_at: Vec<[f64; 2]>,
}

/// An item on which people disagree.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Disputed {
    /// The item.
    pub item: ItemId,
    /// The prompt, or what the first transcript begins with.
    pub prompt: String,
    /// Pairwise agreement.
    pub agreement: f64,
    /// People who ranked it.
    pub people: usize,
}

/// How votes stand to what the file had said.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Review {
    /// Items that the file had judged and people ranked.
    pub items: usize,
    /// Of these, those whose label the merged votes agree with.
    pub stand: usize,
    /// Those whose label the merged votes turn round.
    pub turned: usize,
    /// Those of which the votes say neither.
    pub open: usize,
    /// Share of the file's preferences that people agree with.
    pub agreement: Option<Estimate>,
}

/// Characters of a prompt that are shown in a list.
const SNIPPET: usize = 200;

impl Store {
    /// All figures.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn results(&self, settings: &ResultSettings) -> Result<Results, StoreError> {
        let names: BTreeMap<i64, String> = self.annotators()?.into_iter().map(|(id, name)| (id.0, name)).collect();
        let (items, votes, given, stored) = self.query(|connection| {
            let stored = connection.query_row("SELECT count(*) FROM vote", [], |row| row.get::<_, i64>(0))?;
            Ok((
                export::items(connection)?,
                crate::votes::standing(connection)?,
                export::given_orders(connection)?,
                stored,
            ))
        })?;
        let labels = Labels::of(&votes, &settings.merge);
        let of_item = merge::by_item(&votes);
        let rankings: Vec<Rankings> = of_item.values().map(|votes| ranks_of(votes)).collect();
        let firsts: Vec<&Vote> = of_item.values().flatten().copied().collect();
        Ok(Results {
            items: items.len(),
            responses: items.iter().map(|item| item.responses.len()).sum(),
            ranked_items: of_item.len(),
            complete: of_item.values().filter(|votes| votes.len() >= settings.overlap).count(),
            overlapping: of_item.values().filter(|votes| votes.len() > 1).count(),
            rankings: firsts.len(),
            repeats: votes.iter().filter(|vote| vote.repeat && vote.skipped.is_none()).count(),
            skips: votes.iter().filter(|vote| vote.skipped.is_some()).count(),
            withdrawn: stored as usize - votes.len(),
            people: people(&names, &votes, &labels, settings.seed),
            agreement: Agreement {
                alpha: agreement::krippendorff_alpha(&rankings, settings.seed),
                kendall_w: agreement::kendall_w(&rankings, settings.seed),
                pairwise: agreement::pairwise_agreement(&rankings, settings.seed),
            },
            bias: bias(&items, &of_item, settings.seed),
            seconds: quartiles(firsts.iter().filter_map(|vote| vote.seconds).collect()),
            disputed: disputed(&items, &of_item, settings.disputed),
            review: review(&given, &of_item, &labels, settings.seed),
            merging: labels.describe(&names),
            method: labels.method,
            curve: self.curve(),
        })
    }
}

fn ranks_of(votes: &[&Vote]) -> Rankings {
    votes.iter().map(|vote| vote.ranks.clone()).collect()
}

fn people(names: &BTreeMap<i64, String>, votes: &[Vote], labels: &Labels, seed: u64) -> Vec<Person> {
    let person = |(id, name): (&i64, &String)| {
        let own: Vec<&Vote> = votes.iter().filter(|vote| vote.annotator.0 == *id).collect();
        let ranked: Vec<&&Vote> = own.iter().filter(|vote| vote.skipped.is_none()).collect();
        let standing = labels.people.iter().find(|person| person.annotator == *id);
        Person {
            name: name.clone(),
            rankings: ranked.iter().filter(|vote| !vote.repeat).count(),
            repeats: ranked.iter().filter(|vote| vote.repeat).count(),
            skips: own.len() - ranked.len(),
            seconds: quartiles(ranked.iter().filter_map(|vote| vote.seconds).collect()).map(|quartiles| quartiles[1]),
            consistency: consistency(&ranked, seed),
            agreement: standing.map(|person| person.agreement),
            reliability: standing.and_then(|person| person.reliability),
        }
    };
    names.iter().map(person).collect()
}

/// Agreement of a person's repeats with their first rankings.
fn consistency(ranked: &[&&Vote], seed: u64) -> Option<Estimate> {
    let first: HashMap<ItemId, &Vote> =
        ranked.iter().filter(|vote| !vote.repeat).map(|vote| (vote.item, **vote)).collect();
    let repeats = ranked.iter().filter(|vote| vote.repeat);
    let pairs = repeats.filter_map(|vote| first.get(&vote.item).map(|first| merge::alike(&first.ranks, &vote.ranks)));
    agreement::ratio(&pairs.filter(|(_, count)| *count > 0).collect::<Vec<_>>(), seed)
}

fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (!values.is_empty()).then(|| [at(0.25), at(0.5), at(0.75)])
}

fn bias(items: &[Stored], of_item: &BTreeMap<i64, Vec<&Vote>>, seed: u64) -> Bias {
    let stored: HashMap<i64, &Stored> = items.iter().map(|item| (item.item, item)).collect();
    let (mut earlier, mut longer) = (Vec::new(), Vec::new());
    for (item, votes) in of_item {
        let (mut shown, mut length) = ((0.0, 0), (0.0, 0));
        for vote in votes {
            let position = |place: usize| vote.shown.iter().position(|shown| *shown == place).unwrap_or_default();
            let chars = |place: usize| stored[item].responses[place].chars;
            for (better, worse) in strict(&vote.ranks) {
                shown = (shown.0 + f64::from(u8::from(position(better) < position(worse))), shown.1 + 1);
                if chars(better) != chars(worse) {
                    length = (length.0 + f64::from(u8::from(chars(better) > chars(worse))), length.1 + 1);
                }
            }
        }
        earlier.push(shown);
        longer.push(length);
    }
    let said = |each: Vec<(f64, usize)>| each.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    Bias {
        earlier: agreement::ratio(&said(earlier), seed),
        longer: agreement::ratio(&said(longer), seed),
        best_at: best_at(of_item),
    }
}

/// `(better, worse)` of every preference that is no tie.
fn strict(ranks: &[Option<u32>]) -> impl Iterator<Item = (usize, usize)> {
    preferences(ranks)
        .into_iter()
        .filter(|(_, _, target)| *target != 0.5)
        .map(|(first, second, target)| if target > 0.5 { (first, second) } else { (second, first) })
}

fn best_at(of_item: &BTreeMap<i64, Vec<&Vote>>) -> Vec<[f64; 2]> {
    let mut sums: Vec<[f64; 2]> = Vec::new();
    let mut votes = 0.0;
    for vote in of_item.values().flatten() {
        let best: Vec<usize> = (0..vote.shown.len()).filter(|at| vote.ranks[vote.shown[*at]] == Some(1)).collect();
        if best.len() == vote.shown.len() {
            continue;
        }
        votes += 1.0;
        sums.resize(sums.len().max(vote.shown.len()), [0.0; 2]);
        (0..vote.shown.len()).for_each(|at| sums[at][1] += 1.0 / vote.shown.len() as f64);
        best.iter().for_each(|at| sums[*at][0] += 1.0 / best.len() as f64);
    }
    sums.into_iter().map(|pair| pair.map(|sum| sum / votes)).collect()
}

fn disputed(items: &[Stored], of_item: &BTreeMap<i64, Vec<&Vote>>, most: usize) -> Vec<Disputed> {
    let stored: HashMap<i64, &Stored> = items.iter().map(|item| (item.item, item)).collect();
    let one = |(item, votes): (&i64, &Vec<&Vote>)| {
        let ranks: Vec<&[Option<u32>]> = votes.iter().map(|vote| vote.ranks.as_slice()).collect();
        let agreement = merge::agreement_of(&ranks).filter(|agreement| *agreement < 1.0)?;
        Some((*item, agreement, votes.len()))
    };
    let mut found: Vec<(i64, f64, usize)> = of_item.iter().filter_map(one).collect();
    found.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    found.truncate(most);
    let listed =
        |(item, agreement, people)| Disputed { item: ItemId(item), prompt: snippet(stored[&item]), agreement, people };
    found.into_iter().map(listed).collect()
}

fn snippet(item: &Stored) -> String {
    let content: &Content = item.prompt.as_ref().unwrap_or(&item.responses[0].content);
    let text = content.as_text(USER);
    let mut short: String = text.chars().take(SNIPPET).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn review(
    given: &HashMap<i64, Vec<merge::Preference>>,
    of_item: &BTreeMap<i64, Vec<&Vote>>,
    labels: &Labels,
    seed: u64,
) -> Option<Review> {
    let mut review = Review { items: 0, stand: 0, turned: 0, open: 0, agreement: None };
    let mut each = Vec::new();
    for (item, votes) in of_item {
        let Some(given) = given.get(item) else { continue };
        let consensus = labels.ranks(*item, votes[0].ranks.len()).unwrap_or_default();
        let Some(share) = merge::share_agreed(&consensus, given) else { continue };
        review.items += 1;
        match share {
            share if share > 0.5 => review.stand += 1,
            share if share < 0.5 => review.turned += 1,
            _ => review.open += 1,
        }
        let shares = votes.iter().filter_map(|vote| merge::share_agreed(&vote.ranks, given));
        each.push(shares.fold((0.0, 0), |(sum, count), share| (sum + share, count + 1)));
    }
    review.agreement = agreement::ratio(&each, seed);
    (review.items > 0).then_some(review)
}
