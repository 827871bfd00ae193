//! How far people agree: Krippendorff's alpha, Kendall's W and pairwise agreement, each with a bootstrap interval over items.
//!
//! Only items that at least two people ranked say anything. Checked against published implementations by
//! `golden/make_rank_golden.py`.

use crate::merge;
use kudos::random::Stream;

/// Draws of a bootstrap, and of one over very many items.
const DRAWS: usize = 1000;
const FEWER_DRAWS: usize = 200;
const MANY_ITEMS: usize = 5000;

/// A figure and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// 95 of 100 draws of as many items, with replacement, lie between these; `None` for fewer than two items.
    pub ci95: Option<[f64; 2]>,
    /// Items that it is of.
    pub items: usize,
}

/// Rankings of one item by several people: ranks by place, `None` where a response was not placed.
pub type Rankings = Vec<Vec<Option<u32>>>;

/// Krippendorff's alpha with his ordinal metric (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"). A unit is a
/// response, its values are the ranks that people gave it, tied responses sharing the mean of their ranks. A response that a
/// person did not place is missing. 1 is perfect agreement, 0 is chance.
pub fn krippendorff_alpha(items: &[Rankings], seed: u64) -> Option<Estimate> {
    let coincidences: Vec<Vec<Coincidence>> =
        items.iter().map(coincidences).filter(|cells| !cells.is_empty()).collect();
    bootstrap(coincidences.len(), seed, |counts| alpha_of(&coincidences, counts))
}

/// Kendall's coefficient of concordance with the correction for ties (Kendall 1948), averaged over items. Of each item it takes
/// those who placed all responses. 1 is perfect agreement, 0 none.
pub fn kendall_w(items: &[Rankings], seed: u64) -> Option<Estimate> {
    let each: Vec<f64> = items.iter().filter_map(concordance).collect();
    bootstrap(each.len(), seed, |counts| mean(&each, counts))
}

/// Share of pairs of responses on which two people say the same; one who says a tie where the other prefers counts half.
pub fn pairwise_agreement(items: &[Rankings], seed: u64) -> Option<Estimate> {
    let each: Vec<(f64, usize)> = items.iter().map(alike_pairs).filter(|(_, count)| *count > 0).collect();
    ratio(&each, seed)
}

/// Σ sums / Σ counts with its interval.
pub fn ratio(each: &[(f64, usize)], seed: u64) -> Option<Estimate> {
    bootstrap(each.len(), seed, |counts| {
        let weighted = each.iter().zip(counts).map(|((sum, count), times)| (sum * times, *count as f64 * times));
        let (sum, count) = weighted.fold((0.0, 0.0), |total, one| (total.0 + one.0, total.1 + one.1));
        (count > 0.0).then(|| sum / count)
    })
}

/// Kendall's W of one item; `None` for fewer than two complete rankings, or where everything is tied.
pub fn concordance(rankings: &Rankings) -> Option<f64> {
    let complete: Vec<Vec<f64>> = rankings
        .iter()
        .filter(|ranks| ranks.iter().all(Option::is_some))
        .map(|ranks| mid_ranks(ranks))
        .map(placed)
        .collect();
    let (people, responses) = (complete.len() as f64, complete.first()?.len());
    if complete.len() < 2 {
        return None;
    }
    let k = responses as f64;
    let sums = (0..responses).map(|r| complete.iter().map(|ranks| ranks[r]).sum::<f64>());
    let spread: f64 = sums.map(|sum| (sum - people * (k + 1.0) / 2.0).powi(2)).sum();
    let ties: f64 = complete.iter().map(|ranks| ties(ranks)).sum();
    let most = people * people * (k.powi(3) - k) - people * ties;
    (most > 0.0).then(|| 12.0 * spread / most)
}

fn placed(ranks: Vec<Option<f64>>) -> Vec<f64> {
    ranks.into_iter().flatten().collect()
}

/// Σ t³ − t over groups of t tied responses.
fn ties(ranks: &[f64]) -> f64 {
    let size = |rank: &f64| ranks.iter().filter(|other| *other == rank).count() as f64;
    // Each member of a group contributes its t-th part.
    ranks.iter().map(|rank| size(rank).powi(2) - 1.0).sum()
}

/// Tied responses share the mean of the ranks that they take up.
fn mid_ranks(ranks: &[Option<u32>]) -> Vec<Option<f64>> {
    let mid = |rank: u32| {
        let above = ranks.iter().flatten().filter(|other| **other < rank).count() as f64;
        let same = ranks.iter().flatten().filter(|other| **other == rank).count() as f64;
        above + (same + 1.0) / 2.0
    };
    ranks.iter().map(|rank| rank.map(mid)).collect()
}

fn alike_pairs(rankings: &Rankings) -> (f64, usize) {
    let mut total = (0.0, 0);
    for (at, a) in rankings.iter().enumerate() {
        for b in &rankings[at + 1..] {
            let (sum, count) = merge::alike(a, b);
            total = (total.0 + sum, total.1 + count);
        }
    }
    total
}

/// Two values that a unit was given, and how often: values are mid ranks, doubled, so that they are whole.
type Coincidence = (usize, usize, f64);

/// Doubled mid ranks of 16 responses go up to 32.
const VALUES: usize = 2 * *crate::import::RESPONSES.end() + 1;

fn coincidences(rankings: &Rankings) -> Vec<Coincidence> {
    let ranks: Vec<Vec<Option<f64>>> = rankings.iter().map(|ranks| mid_ranks(ranks)).collect();
    let mut cells = Vec::new();
    for r in 0..ranks.first().map_or(0, Vec::len) {
        let values: Vec<usize> = ranks.iter().filter_map(|ranks| ranks[r]).map(|mid| (2.0 * mid) as usize).collect();
        let share = 1.0 / (values.len().max(2) - 1) as f64;
        for (i, a) in values.iter().enumerate() {
            for (_, b) in values.iter().enumerate().filter(|(j, _)| *j != i) {
                cells.push((*a, *b, share));
            }
        }
    }
    cells
}

fn alpha_of(items: &[Vec<Coincidence>], counts: &[f64]) -> Option<f64> {
    let mut observed = vec![[0.0; VALUES]; VALUES];
    for (cells, times) in items.iter().zip(counts).filter(|(_, times)| **times > 0.0) {
        cells.iter().for_each(|(a, b, share)| observed[*a][*b] += share * times);
    }
    let of_value: Vec<f64> = observed.iter().map(|row| row.iter().sum()).collect();
    let all: f64 = of_value.iter().sum();
    let (mut disagreement, mut by_chance) = (0.0, 0.0);
    for low in 0..VALUES {
        let mut between = of_value[low];
        for high in low + 1..VALUES {
            between += of_value[high];
            let distance = (between - (of_value[low] + of_value[high]) / 2.0).powi(2);
            disagreement += observed[low][high] * distance;
            by_chance += of_value[low] * of_value[high] * distance;
        }
    }
    (by_chance > 0.0).then(|| 1.0 - (all - 1.0) * disagreement / by_chance)
}

fn mean(values: &[f64], counts: &[f64]) -> Option<f64> {
    let total: f64 = counts.iter().sum();
    (total > 0.0).then(|| values.iter().zip(counts).map(|(value, times)| value * times).sum::<f64>() / total)
}

/// A statistic of items, each of which counts as often as it was drawn: its value, and the middle 95 % of its values when as
/// many items are drawn with replacement (Efron's percentile interval).
pub fn bootstrap(items: usize, seed: u64, statistic: impl Fn(&[f64]) -> Option<f64>) -> Option<Estimate> {
    let value = statistic(&vec![1.0; items])?;
    if items < 2 {
        return Some(Estimate { value, ci95: None, items });
    }
    let draws = if items > MANY_ITEMS { FEWER_DRAWS } else { DRAWS };
    let stream = Stream::named(seed, "bootstrap");
    let draw = |number: usize| {
        let mut stream = stream.fork(number as u64);
        let mut counts = vec![0.0; items];
        (0..items).for_each(|_| counts[stream.below(items)] += 1.0);
        statistic(&counts)
    };
    let mut drawn: Vec<f64> = (0..draws).filter_map(draw).collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
    let ci95 = (!drawn.is_empty()).then(|| [at(0.025), at(0.975)]);
    Some(Estimate { value, ci95, items })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::{self, CrowdItem, Said};
    use serde_json::Value;

    /// `golden/rank/votes.json`: votes of simulated people, and what other programs make of them.
    fn golden() -> (Vec<(Vec<usize>, Rankings)>, Value) {
        let golden: Value = serde_json::from_str(include_str!("../../../golden/rank/votes.json")).unwrap();
        let ranks = |vote: &Value| serde_json::from_value(vote["ranks"].clone()).unwrap();
        let person = |vote: &Value| vote["person"].as_u64().unwrap() as usize;
        let item = |item: &Value| {
            let votes = item["votes"].as_array().unwrap();
            (votes.iter().map(person).collect(), votes.iter().map(ranks).collect())
        };
        (golden["items"].as_array().unwrap().iter().map(item).collect(), golden)
    }

    #[test]
    fn the_figures_are_those_of_published_implementations() {
        let (items, golden) = golden();
        let rankings: Vec<Rankings> = items.into_iter().map(|(_, rankings)| rankings).collect();
        let expected = &golden["expected"];
        let near = |found: f64, expected: &Value| (found - expected.as_f64().unwrap()).abs() < 1e-9;
        let alpha = krippendorff_alpha(&rankings, 1).unwrap();
        assert!(near(alpha.value, &expected["alpha"]), "{alpha:?}");
        assert!(near(pairwise_agreement(&rankings, 1).unwrap().value, &expected["pairwise"]));
        let mut compared = 0;
        for (rankings, expected) in rankings.iter().zip(expected["kendall_w"].as_array().unwrap()) {
            if let (Some(found), true) = (concordance(rankings), expected.is_f64()) {
                assert!(near(found, expected), "{rankings:?}: {found}, {expected}");
                compared += 1;
            }
        }
        assert!(compared > 25, "{compared}");
    }

    #[test]
    fn reliabilities_are_those_of_another_optimizer() {
        let (items, golden) = golden();
        let said = |people: &Vec<usize>, rankings: &Rankings| {
            let all = people.iter().zip(rankings).flat_map(|(person, ranks)| {
                merge::preferences(ranks).into_iter().map(|(first, second, target)| Said {
                    person: *person,
                    first,
                    second,
                    target,
                })
            });
            all.collect::<Vec<_>>()
        };
        let responses = golden["items"].as_array().unwrap().iter().map(|item| item["truth"].as_array().unwrap().len());
        let crowd: Vec<CrowdItem> =
            items.iter().zip(responses).map(|((p, r), responses)| CrowdItem { responses, said: said(p, r) }).collect();
        let fit = crowd::fit(&crowd, 5);
        let expected = &golden["expected"]["crowd_bt"];
        let reliability: Vec<f64> = serde_json::from_value(expected["reliability"].clone()).unwrap();
        let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far(&fit.reliability, &reliability) < 1e-3, "{:?} {reliability:?}", fit.reliability);
        let scores: Vec<Vec<f64>> = serde_json::from_value(expected["scores"].clone()).unwrap();
        assert!(fit.scores.iter().zip(&scores).all(|(a, b)| far(a, b) < 0.02));
        let posterior = expected["posterior"].as_f64().unwrap();
        assert!(fit.course.last().unwrap() > &(posterior - 1e-4), "{:?} {posterior}", fit.course.last());
    }

    fn ranks(ranks: &[u32]) -> Vec<Option<u32>> {
        ranks.iter().map(|rank| (*rank > 0).then_some(*rank)).collect()
    }

    #[test]
    fn perfect_and_opposed() {
        let same: Vec<Rankings> = (0..10).map(|_| vec![ranks(&[1, 2, 3]), ranks(&[1, 2, 3])]).collect();
        let opposed: Vec<Rankings> = (0..10).map(|_| vec![ranks(&[1, 2, 3]), ranks(&[3, 2, 1])]).collect();
        for (items, alpha, w, pairwise) in [(same, 1.0, 1.0, 1.0), (opposed, -1.0, 0.0, 0.0)] {
            let found = krippendorff_alpha(&items, 1).unwrap();
            assert!((found.value - alpha).abs() < 0.06, "{found:?}");
            assert_eq!(kendall_w(&items, 1).unwrap().value, w);
            assert_eq!(pairwise_agreement(&items, 1).unwrap().value, pairwise);
        }
    }

    #[test]
    fn nothing_to_compare_is_no_figure() {
        let alone: Vec<Rankings> = vec![vec![ranks(&[1, 2])], vec![]];
        assert_eq!(
            (krippendorff_alpha(&alone, 1), kendall_w(&alone, 1), pairwise_agreement(&alone, 1)),
            (None, None, None)
        );
        let tied: Vec<Rankings> = vec![vec![ranks(&[1, 1]), ranks(&[1, 1])]];
        assert_eq!((krippendorff_alpha(&tied, 1), kendall_w(&tied, 1)), (None, None), "no variation at all");
        assert_eq!(pairwise_agreement(&tied, 1).unwrap().ci95, None, "one item has no interval");
    }

    #[test]
    fn intervals_cover_at_their_rate_and_repeat() {
        // 200 experiments of 60 items, each agreed on with probability 0.7.
        let mut covered = 0;
        for experiment in 0..200 {
            let mut stream = Stream::new(experiment, 3);
            let each: Vec<(f64, usize)> = (0..60).map(|_| (f64::from(u8::from(stream.uniform() < 0.7)), 1)).collect();
            let [low, high] = ratio(&each, experiment).unwrap().ci95.unwrap();
            covered += usize::from(low <= 0.7 && 0.7 <= high);
            assert_eq!(ratio(&each, experiment), ratio(&each, experiment));
        }
        assert!((178..=199).contains(&covered), "{covered} of 200");
    }
}
