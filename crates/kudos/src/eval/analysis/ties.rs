//! Whether the judge is undecided where people are, and whether the order of the list matters.

use super::super::pairs;
use super::Rate;
use super::material::Material;
use crate::data::Comparison;

/// Ties of people against decided pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct TieSection {
    /// Comparisons without a preferred side.
    pub ties: usize,
    /// Comparisons with one.
    pub pairs: usize,
    /// Share of the ties about which the judge is at most 60 % sure.
    pub unsure_of_ties: Option<f64>,
    /// Share of the pairs about which it is at most 60 % sure: to compare the above with.
    pub unsure_of_pairs: Option<f64>,
    /// Probability that a random pair has a wider margin than a random tie (area under the ROC
    /// curve of |margin|): .5, margins do not tell ties from pairs.
    pub auc: Option<f64>,
}

/// The order in which a comparison lists its two sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct OrderSection {
    /// Share of the comparisons with the same verdict when the two sides change places. A judge of
    /// single responses never sees the other side, so this is 1 by construction; it is counted all
    /// the same. `None` without comparisons.
    pub consistency: Option<f64>,
    /// Pairs whose better side is listed first.
    pub first_better_pairs: usize,
    /// The judge on them.
    pub first_better: Rate,
    /// Pairs whose better side is listed second.
    pub second_better_pairs: usize,
    /// The judge on them.
    pub second_better: Rate,
}

/// Confidence up to which the judge counts as undecided.
const UNSURE: f64 = 0.6;

pub(super) fn section(material: &Material) -> TieSection {
    let (mut tied, mut decided) = (Vec::new(), Vec::new());
    for scored in &material.data {
        for comparison in scored.group.counted() {
            let margin = f64::from(scored.scores[comparison.first]) - f64::from(scored.scores[comparison.second]);
            let side = if comparison.is_tie() { &mut tied } else { &mut decided };
            side.push((margin / f64::from(material.options.temperature)).abs());
        }
    }
    let threshold = (UNSURE / (1.0 - UNSURE)).ln();
    let unsure = |margins: &[f64]| {
        let count = margins.iter().filter(|m| **m <= threshold).count();
        (!margins.is_empty()).then(|| count as f64 / margins.len() as f64)
    };
    TieSection {
        ties: tied.len(),
        pairs: decided.len(),
        unsure_of_ties: unsure(&tied),
        unsure_of_pairs: unsure(&decided),
        auc: area_under_curve(&decided, tied),
    }
}

/// Probability that one of `above` exceeds one of `below`, equal ones half (Mann & Whitney 1947).
fn area_under_curve(above: &[f64], mut below: Vec<f64>) -> Option<f64> {
    below.sort_by(f64::total_cmp);
    let beaten = |x: &f64| {
        let less = below.partition_point(|b| b < x);
        let at_most = below.partition_point(|b| b <= x);
        (less + at_most) as f64 / 2.0
    };
    let total: f64 = above.iter().map(beaten).sum();
    let combinations = above.len() as f64 * below.len() as f64;
    (combinations > 0.0).then(|| total / combinations)
}

pub(super) fn order(material: &Material) -> OrderSection {
    if pairs::chosen_first(&material.data) {
        return OrderSection { consistency: consistency(material), ..OrderSection::default() };
    }
    let (first_better_pairs, first_better) = material.judge_where(|pair| pair.by_place() == 2);
    let (second_better_pairs, second_better) = material.judge_where(|pair| pair.by_place() == 0);
    OrderSection {
        consistency: consistency(material),
        first_better_pairs,
        first_better,
        second_better_pairs,
        second_better,
    }
}

/// Share of the comparisons whose verdict stays when the two sides change places.
fn consistency(material: &Material) -> Option<f64> {
    let (mut same, mut all) = (0, 0);
    for scored in &material.data {
        let verdict = |a: usize, b: usize| scored.scores[a].partial_cmp(&scored.scores[b]);
        let stays = |c: &Comparison| verdict(c.first, c.second) == verdict(c.second, c.first).map(|v| v.reverse());
        same += scored.group.counted().filter(|c| stays(c)).count();
        all += scored.group.counted().count();
    }
    (all > 0).then(|| same as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::super::super::EvalOptions;
    use super::super::super::testing::{comparison, ranked, scored, unranked};
    use super::*;

    #[test]
    fn narrow_margins_are_told_from_wide_ones() {
        let mut group = unranked("p", &["a", "b", "c", "d"]);
        group.comparisons = vec![
            comparison(0, 1, 0.5), // |margin| .25
            comparison(0, 2, 0.5), // 3
            comparison(1, 2, 1.0), // 2.75
            comparison(0, 3, 1.0), // .25
        ];
        let (groups, scores) = ([group], [vec![0.0, 0.25, 3.0, -0.25]]);
        let found = section(&Material::new(scored(&groups, &scores), EvalOptions::default()));
        assert_eq!((found.ties, found.pairs), (2, 2));
        assert_eq!((found.unsure_of_ties, found.unsure_of_pairs), (Some(0.5), Some(0.5)));
        assert_eq!(found.auc, Some((1.0 + 0.5) / 4.0));
        assert_eq!(area_under_curve(&[], vec![1.0]), None);
    }

    #[test]
    fn the_order_is_consistent_and_split_by_place() {
        let groups = [ranked("p", &[1.0, 2.0]), ranked("q", &[2.0, 1.0]), ranked("r", &[2.0, 1.0])];
        let scores = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        let found = order(&Material::new(scored(&groups, &scores), EvalOptions::default()));
        assert_eq!(found.consistency, Some(1.0));
        assert_eq!((found.first_better_pairs, found.first_better.accuracy), (1, Some(1.0)));
        assert_eq!((found.second_better_pairs, found.second_better.accuracy), (2, Some(0.5)));
    }
}
