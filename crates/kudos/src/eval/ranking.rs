//! Whole rankings: Kendall's tau-b, Spearman's rho and NDCG of each group.
//!
//! These are for groups of three and more. On two responses tau and rho are ±1 and their mean is
//! twice the accuracy less one, so pairs in the same file would only dilute what the rankings say.

use super::{ScoredGroup, length, mean};
use crate::data::Response;

/// The ranked responses of a group, with the judge's scores of them.
#[derive(Clone)]
pub(super) struct Ranking {
    /// Higher is better; only its order is used.
    pub quality: Vec<f64>,
    pub scores: Vec<f64>,
}

/// The rankings that can be measured: three or more ranked responses, not all of them tied.
///
/// The quality is −rank or, in a group that has no ranks, the rating. Unranked responses are left out.
pub(super) fn rankings(data: &[ScoredGroup]) -> Vec<Ranking> {
    data.iter().map(ranking).filter(Ranking::is_usable).collect()
}

impl Ranking {
    /// Three or more responses, not all of them tied.
    pub fn is_usable(&self) -> bool {
        self.quality.len() >= 3 && varies(&self.quality)
    }
}

fn ranking(scored: &ScoredGroup) -> Ranking {
    let responses = &scored.group.responses;
    let has_ranks = responses.iter().any(|r| r.rank.is_some());
    let quality = |r: &Response| match has_ranks {
        true => r.rank.map(|rank| -rank),
        false => r.score,
    };
    let known = responses.iter().zip(scored.scores);
    let (quality, scores) = known.filter_map(|(r, &score)| Some((quality(r)?, f64::from(score)))).unzip();
    Ranking { quality, scores }
}

fn varies(values: &[f64]) -> bool {
    values.iter().any(|v| *v != values[0])
}

/// Mean of a figure over the rankings; `None` when there are none.
pub(super) fn mean_over(rankings: &[Ranking], figure: fn(&Ranking) -> f64) -> Option<f64> {
    mean(rankings.iter().map(figure))
}

/// Kendall's tau-b (Kendall 1945): (concordant − discordant) / √(untied by people × untied by the
/// judge).
///
/// 0 when the judge gives all the same score: it would be undefined, and leaving such groups out
/// would reward them.
pub(super) fn kendall_tau_b(ranking: &Ranking) -> f64 {
    let (mut net, mut untied_quality, mut untied_scores) = (0.0, 0.0, 0.0);
    for i in 0..ranking.quality.len() {
        for j in i + 1..ranking.quality.len() {
            let quality = sign(ranking.quality[i], ranking.quality[j]);
            let score = sign(ranking.scores[i], ranking.scores[j]);
            net += quality * score;
            untied_quality += quality.abs();
            untied_scores += score.abs();
        }
    }
    match untied_scores {
        0.0 => 0.0,
        _ => net / f64::sqrt(untied_quality * untied_scores),
    }
}

fn sign(a: f64, b: f64) -> f64 {
    f64::from(i8::from(a > b) - i8::from(a < b))
}

/// Spearman's rho: Pearson's r of the two rank vectors, ties sharing their mean rank. 0 for equal
/// scores, as above.
pub(super) fn spearman(ranking: &Ranking) -> f64 {
    let centre = (ranking.quality.len() - 1) as f64 / 2.0;
    let ranks = |values: &[f64]| -> Vec<f64> {
        let win_counts = values.iter().map(|v| wins(values, *v));
        win_counts.map(|w| w - centre).collect()
    };
    length::correlation(&ranks(&ranking.quality), &ranks(&ranking.scores)).unwrap_or(0.0)
}

/// How many of the others a value beats, ties counted half: its mean rank from 0.
pub(super) fn wins(values: &[f64], value: f64) -> f64 {
    let beaten = values.iter().filter(|v| **v < value).count();
    let tied = values.iter().filter(|v| **v == value).count() - 1;
    beaten as f64 + tied as f64 / 2.0
}

/// NDCG (Järvelin & Kekäläinen 2002) as scikit-learn's `ndcg_score` computes it: linear gains,
/// discount 1 / log₂(place + 1), and responses of equal score share the mean gain of their places
/// (McSherry & Najork 2008).
///
/// The gain is the number of responses strictly worse, so the last has 0 and scales of ratings do
/// not matter.
pub(super) fn ndcg(ranking: &Ranking) -> f64 {
    let worse = |q: &f64| ranking.quality.iter().filter(|other| *other < q).count() as f64;
    let gains: Vec<f64> = ranking.quality.iter().map(worse).collect();
    discounted_gain(&gains, &ranking.scores) / discounted_gain(&gains, &gains)
}

/// DCG of the gains in descending order of the scores.
fn discounted_gain(gains: &[f64], scores: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..gains.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut place = 0;
    let mut total = 0.0;
    for tied in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let gain: f64 = tied.iter().map(|i| gains[*i]).sum();
        let places = place..place + tied.len();
        let discount: f64 = places.map(|p| 1.0 / (p as f64 + 2.0).log2()).sum();
        total += gain / tied.len() as f64 * discount;
        place += tied.len();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    type Figure = fn(&Ranking) -> f64;

    #[test]
    fn figures_of_known_rankings() {
        // (quality, scores, tau-b, rho, NDCG); values from SciPy and scikit-learn.
        let cases: [(&[f64], &[f64], [f64; 3]); 5] = [
            (&[3., 2., 1., 0.], &[9., 8., 7., 6.], [1.0, 1.0, 1.0]),
            (&[3., 2., 1., 0.], &[1., 2., 3., 4.], [-1.0, -1.0, 0.6138]),
            (&[3., 2., 1., 0.], &[5., 5., 5., 5.], [0.0, 0.0, 0.8069]),
            (&[2., 2., 0.], &[1., 0., 2.], [-0.8165, -0.8660, 0.6934]),
            (&[2., 1., 0.], &[1., 1., 0.], [0.8165, 0.8660, 0.9299]),
        ];
        for (quality, scores, expected) in cases {
            let ranking = Ranking { quality: quality.to_vec(), scores: scores.to_vec() };
            let figures: [Figure; 3] = [kendall_tau_b, spearman, ndcg];
            for (figure, expected) in figures.iter().zip(expected) {
                let found = figure(&ranking);
                assert!((found - expected).abs() < 1e-4, "{quality:?}: {found}");
            }
        }
    }

    #[test]
    fn pairs_and_full_ties_are_no_rankings() {
        let groups = [
            testing::ranked("a", &[1.0, 2.0]),
            testing::ranked("b", &[1.0, 1.0, 1.0]),
            testing::unranked("c", &["x", "y", "z"]),
            testing::ranked("d", &[1.0, 2.0, 2.0]),
        ];
        let scores = [vec![0.0; 2], vec![0.0; 3], vec![0.0; 3], vec![0.0; 3]];
        assert_eq!(rankings(&testing::scored(&groups, &scores)).len(), 1);
    }

    #[test]
    fn ratings_stand_in_for_ranks() {
        let mut group = testing::unranked("p", &["x", "y", "z", "w"]);
        for (response, rating) in group.responses.iter_mut().zip([4.0, 2.0, 5.0]) {
            response.score = Some(rating);
        }
        let (groups, scores) = ([group], [vec![1.0, 0.0, 2.0, 9.0]]);
        let rankings = rankings(&testing::scored(&groups, &scores));
        assert_eq!(rankings[0].quality, [4.0, 2.0, 5.0]);
        assert_eq!(mean_over(&rankings, kendall_tau_b), Some(1.0));
    }
}
