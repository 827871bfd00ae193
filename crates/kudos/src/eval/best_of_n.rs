//! What picking by this judge would bring: the quality of the response it scores highest among n.
//!
//! The n responses are drawn from the k of a group. All draws are averaged exactly instead of
//! simulated: with the responses in ascending order of score, the one at place i (from 0) is the
//! top of `C(i, n−1)` of the `C(k, n)` draws, which is the unbiased estimator of Nakano et al. 2021
//! (WebGPT).

use super::mean;
use super::ranking::{Ranking, wins};
use std::collections::BTreeMap;

/// Expected quality of one pick among n, as the share of the other responses to its prompt that it
/// beats in people's order (ties half). `judge` lies between `random` and `oracle` when the judge
/// is of use.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct BestOfN {
    /// Picked by the judge's score; equal scores are picked among at random.
    pub judge: f64,
    /// Picked at random: always one half.
    pub random: f64,
    /// Picked by people's order: the most that any judge can reach.
    pub oracle: f64,
    /// Groups with n or more ranked responses, the only ones that count.
    pub groups: usize,
}

/// Best of n for n = 2, 4, 8, … as far as the groups reach.
pub(super) fn curve(rankings: &[Ranking]) -> BTreeMap<usize, BestOfN> {
    let sizes = std::iter::successors(Some(2), |n| Some(2 * n));
    sizes.map_while(|n| Some((n, best_of(rankings, n)?))).collect()
}

/// `None` when no ranking has n responses.
fn best_of(rankings: &[Ranking], n: usize) -> Option<BestOfN> {
    let mut picks = Vec::new();
    for ranking in rankings.iter().filter(|r| r.quality.len() >= n) {
        let others = (ranking.quality.len() - 1) as f64;
        let win_counts = ranking.quality.iter().map(|q| wins(&ranking.quality, *q));
        let quality: Vec<f64> = win_counts.map(|w| w / others).collect();
        let judge = expected_top(&quality, &ranking.scores, n);
        picks.push((judge, expected_top(&quality, &quality, n)));
    }
    Some(BestOfN {
        judge: mean(picks.iter().map(|p| p.0))?,
        random: 0.5,
        oracle: mean(picks.iter().map(|p| p.1))?,
        groups: picks.len(),
    })
}

/// Expected quality of the top-scored of n responses drawn without replacement; n ≤ their number.
fn expected_top(quality: &[f64], scores: &[f64], n: usize) -> f64 {
    let k = quality.len();
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut chance = n as f64 / k as f64; // that the best-scored one is drawn
    let mut above = 0; // responses scored higher
    let mut total = 0.0;
    for tied in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let mean_quality = tied.iter().map(|i| quality[*i]).sum::<f64>() / tied.len() as f64;
        for _ in tied {
            total += chance * mean_quality;
            above += 1;
            // C(i−1, n−1) = C(i, n−1) · (i − n + 1) / i, with i = k − above.
            let i = k - above;
            chance *= (i + 1).saturating_sub(n) as f64 / i.max(1) as f64;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(quality: &[f64], scores: &[f64]) -> Ranking {
        Ranking { quality: quality.to_vec(), scores: scores.to_vec() }
    }

    #[test]
    fn the_pick_of_all_is_the_top_one_and_of_one_is_the_mean() {
        let quality = [0.0, 0.25, 0.5, 1.0];
        let scores = [3.0, 1.0, 2.0, 0.0];
        let close = |n, expected: f64| (expected_top(&quality, &scores, n) - expected).abs() < 1e-12;
        assert!(close(4, 0.0));
        assert!(close(1, 1.75 / 4.0));
        // Draws of two: {3,1} {3,2} {3,0} → 0; {1,2} → .5; {1,0} → .25; {2,0} → .5.
        assert!(close(2, 1.25 / 6.0));
    }

    #[test]
    fn equal_scores_pick_at_random() {
        for n in 1..=5 {
            let found = expected_top(&[0.0, 0.25, 0.5, 0.75, 1.0], &[7.0; 5], n);
            assert!((found - 0.5).abs() < 1e-12, "{n}: {found}");
        }
    }

    #[test]
    fn a_perfect_judge_is_the_oracle() {
        let perfect = ranking(&[5.0, 1.0, 3.0, 3.0], &[9.0, 6.0, 7.0, 7.0]);
        let curve = curve(&[perfect, ranking(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0])]);
        assert_eq!(curve.keys().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!((curve[&2].groups, curve[&4].groups), (2, 1));
        assert_eq!((curve[&4].judge, curve[&4].oracle), (1.0, 1.0));
        assert!((curve[&2].judge - curve[&2].oracle).abs() < 1e-12);
    }

    #[test]
    fn nothing_ranked_gives_nothing() {
        assert!(curve(&[]).is_empty());
    }
}
