//! Groups → pairs, and how often the judge, the length and the place in the list pick the better one.
//!
//! A pair is a comparison with a preferred side; a soft target counts for the side with the
//! majority. Ties are no pairs: no order of the scores could be right or wrong about them. All
//! pairs weigh the same here, whatever
//! `weight` says: weights are for training, and an accuracy must be countable by hand. A comparison of weight 0 is none.

use super::{ScoredGroup, length};

/// One (better, worse) pair of a group, as indices of its responses.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub scored: ScoredGroup<'a>,
    pub better: usize,
    pub worse: usize,
    /// Index of its comparison in the group.
    pub comparison: usize,
}

/// A pair counted in halves: 2 is right, 1 undecided, 0 wrong. Integers, so that sums are exact.
pub(super) type Halves = u64;

impl Pair<'_> {
    /// Score of the better side less score of the worse one.
    pub fn margin(&self) -> f64 {
        f64::from(self.scored.scores[self.better]) - f64::from(self.scored.scores[self.worse])
    }

    /// What the judge's scores make of the pair.
    pub fn judged(&self) -> Halves {
        let scores = self.scored.scores;
        halves(scores[self.better].partial_cmp(&scores[self.worse]))
    }

    /// What "the longer one wins" makes of it (characters).
    pub fn by_length(&self) -> Halves {
        let responses = &self.scored.group.responses;
        let characters = |index: usize| length::characters(&responses[index].content);
        halves(characters(self.better).partial_cmp(&characters(self.worse)))
    }

    /// What "the one listed first wins" makes of it.
    pub fn by_place(&self) -> Halves {
        halves(self.worse.partial_cmp(&self.better))
    }
}

pub(super) fn halves(better_against_worse: Option<std::cmp::Ordering>) -> Halves {
    match better_against_worse {
        Some(std::cmp::Ordering::Greater) => 2,
        Some(std::cmp::Ordering::Equal) => 1,
        _ => 0,
    }
}

/// All pairs, in the order of the file.
pub(super) fn of<'a>(data: &[ScoredGroup<'a>]) -> Vec<Pair<'a>> {
    let of_group = |&scored: &ScoredGroup<'a>| {
        let comparisons = scored.group.comparisons.iter().enumerate().filter(|(_, c)| c.counts());
        comparisons.filter_map(move |(comparison, c)| {
            let (better, worse) = c.better_worse()?;
            Some(Pair { scored, better, worse, comparison })
        })
    };
    data.iter().flat_map(of_group).collect()
}

/// Share of the pairs that `rule` gets right; `None` without pairs.
pub(super) fn accuracy<'a>(pairs: &[Pair<'a>], rule: impl Fn(&Pair<'a>) -> Halves) -> Option<f64> {
    let total: Halves = pairs.iter().map(rule).sum();
    (!pairs.is_empty()).then(|| total as f64 / (2 * pairs.len()) as f64)
}

/// True when the file lists the better one first by its format (`chosen` before `rejected`), so
/// that its order says nothing: every target is 1 and nothing has a rank.
pub(super) fn chosen_first(data: &[ScoredGroup]) -> bool {
    data.iter().all(|scored| {
        let unranked = scored.group.responses.iter().all(|r| r.rank.is_none());
        unranked && scored.group.counted().all(|c| c.target == 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{comparison, ranked, scored, unranked};
    use super::*;

    #[test]
    fn accuracy_counts_equal_scores_half_and_ties_not_at_all() {
        let cases: [(&[f64], &[f32], Option<f64>); 6] = [
            (&[1.0, 2.0], &[3.0, 1.0], Some(1.0)),
            (&[1.0, 2.0], &[1.0, 3.0], Some(0.0)),
            (&[1.0, 2.0], &[1.0, 1.0], Some(0.5)),
            (&[1.0, 1.0], &[1.0, 3.0], None),
            (&[1.0, 1.0, 2.0], &[5.0, 0.0, 1.0], Some(0.5)),
            (&[3.0, 2.0, 1.0], &[0.0, 1.0, 1.0], Some(2.5 / 3.0)),
        ];
        for (ranks, scores, expected) in cases {
            let (groups, scores) = ([ranked("p", ranks)], [scores.to_vec()]);
            let pairs = of(&scored(&groups, &scores)).len();
            let found = accuracy(&of(&scored(&groups, &scores)), Pair::judged);
            assert_eq!(found, expected, "{ranks:?} {scores:?}, {pairs} pairs");
        }
    }

    #[test]
    fn soft_targets_count_for_the_majority() {
        let mut group = unranked("p", &["long text", "text"]);
        group.comparisons = vec![comparison(0, 1, 0.6), comparison(0, 1, 0.1)];
        let (groups, scores) = ([group], [vec![2.0, 1.0]]);
        let data = scored(&groups, &scores);
        assert_eq!(accuracy(&of(&data), Pair::judged), Some(0.5));
        assert!(!chosen_first(&data));
    }

    #[test]
    fn the_baselines_see_length_and_place_alone() {
        let groups = [ranked("p", &[2.0, 1.0, 3.0])]; // lengths 1, 2, 3
        let scores = [vec![0.0; 3]];
        let pairs = of(&scored(&groups, &scores));
        assert_eq!(accuracy(&pairs, Pair::by_length), Some(1.0 / 3.0));
        assert_eq!(accuracy(&pairs, Pair::by_place), Some(2.0 / 3.0));
    }

    #[test]
    fn a_file_of_pairs_lists_the_chosen_first() {
        let mut group = unranked("p", &["a", "b"]);
        group.comparisons = vec![comparison(0, 1, 1.0)];
        let scores = [vec![0.0, 1.0]];
        let groups = [group];
        assert!(chosen_first(&scored(&groups, &scores)));
        let groups = [ranked("p", &[1.0, 2.0])];
        assert!(!chosen_first(&scored(&groups, &scores)));
    }
}
