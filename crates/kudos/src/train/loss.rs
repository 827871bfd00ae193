//! Losses over the scores of one group, with their gradients.
//!
//! All in f64 on a handful of numbers: what is hard here is to be right, not to be fast.

use crate::data::Comparison;
use crate::nn::numerics::{log_sigmoid, log_sum_exp, sigmoid};

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// −log σ(better − worse − margin) over a group's comparisons (Bradley and Terry 1952), a share of
    /// votes t weighing the two directions t and 1 − t; a tie is t = ½.
    BradleyTerry,
    /// The likelihood of the whole ranking (Plackett 1975, Luce 1959), tied responses sharing their place
    /// (Breslow's form). A group without ranks falls back to Bradley-Terry.
    PlackettLuce,
}

/// What a loss is computed from: one group, or the part of it that one visit takes.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Comparisons between indices into the scores.
    pub comparisons: &'a [Comparison],
    /// Ranks, lower is better; `None` is unranked.
    pub ranks: &'a [Option<f64>],
}

/// Loss of one group; adds `weight` · ∂loss/∂score to `gradient`.
///
/// `center` weighs the mean of (score + score)² over the comparisons (Eisenstein et al. 2023), as TRL does. Comparisons of
/// weight 0 are none; a group that has no others has the loss 0.
pub fn group_loss(loss: Loss, center: f64, judged: Judged, scores: &[f32], weight: f64, gradient: &mut [f32]) -> f64 {
    let mut slopes = vec![0.0; scores.len()];
    let scores: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
    let counts_nothing = !judged.comparisons.is_empty() && !judged.comparisons.iter().any(Comparison::counts);
    let value = match loss {
        _ if counts_nothing => 0.0,
        Loss::PlackettLuce if judged.ranks.iter().flatten().count() >= 2 => {
            plackett_luce(judged.ranks, &scores, &mut slopes)
        }
        _ => bradley_terry(judged.comparisons, &scores, &mut slopes),
    };
    let centring = center * centre(judged.comparisons, &scores, center, &mut slopes);
    for (gradient, slope) in gradient.iter_mut().zip(slopes) {
        *gradient += (weight * slope) as f32;
    }
    value + centring
}

/// The weighted mean of −log σ over the comparisons; adds its slopes by the scores.
pub(super) fn bradley_terry(comparisons: &[Comparison], scores: &[f64], slopes: &mut [f64]) -> f64 {
    let total: f64 = comparisons.iter().map(|c| f64::from(c.weight)).sum();
    let mut loss = 0.0;
    for c in comparisons.iter().filter(|c| c.counts()) {
        let share = f64::from(c.weight) / total;
        let (target, margin) = (f64::from(c.target), f64::from(c.margin));
        let difference = scores[c.first] - scores[c.second];
        loss -= share * target * log_sigmoid(difference - margin);
        loss -= share * (1.0 - target) * log_sigmoid(-difference - margin);
        let slope = (1.0 - target) * sigmoid(difference + margin) - target * sigmoid(margin - difference);
        slopes[c.first] += share * slope;
        slopes[c.second] -= share * slope;
    }
    loss
}

/// Mean over the ranked responses but one of −log P(this one is chosen next).
fn plackett_luce(ranks: &[Option<f64>], scores: &[f64], slopes: &mut [f64]) -> f64 {
    let ranked: Vec<(usize, f64)> = ranks.iter().enumerate().filter_map(|(i, r)| r.map(|r| (i, r))).collect();
    let share = 1.0 / (ranked.len() - 1) as f64;
    let mut loss = 0.0;
    for &(i, rank) in &ranked {
        let field = ranked.iter().filter(|(_, r)| *r >= rank).map(|(j, _)| *j);
        if field.clone().count() == 1 {
            continue;
        }
        let log_total = log_sum_exp(field.clone().map(|j| scores[j]));
        loss += share * (log_total - scores[i]);
        slopes[i] -= share;
        for j in field {
            slopes[j] += share * (scores[j] - log_total).exp();
        }
    }
    loss
}

fn centre(comparisons: &[Comparison], scores: &[f64], center: f64, slopes: &mut [f64]) -> f64 {
    let counted = comparisons.iter().filter(|c| c.counts());
    let count = counted.clone().count() as f64;
    let mut mean = 0.0;
    for c in counted {
        let sum = scores[c.first] + scores[c.second];
        mean += sum * sum / count;
        let slope = center * 2.0 * sum / count;
        slopes[c.first] += slope;
        slopes[c.second] += slope;
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn comparison(first: usize, second: usize, target: f32) -> Comparison {
        Comparison { first, second, target, margin: 0.0, weight: 1.0 }
    }

    fn value(loss: Loss, center: f64, judged: Judged, scores: &[f32]) -> f64 {
        group_loss(loss, center, judged, scores, 1.0, &mut vec![0.0; scores.len()])
    }

    /// −logsigmoid in PyTorch f64: (1.2 − 0.2), margin 0.5, and the TRL centring of both.
    #[test]
    fn bradley_terry_is_trls() {
        let scores = [1.2, 0.2];
        let mut c = [comparison(0, 1, 1.0)];
        fn judged(c: &[Comparison]) -> Judged<'_> {
            Judged { comparisons: c, ranks: &[None, None] }
        }
        assert!((value(Loss::BradleyTerry, 0.0, judged(&c), &scores) - 0.313_261_687_518_222_8).abs() < 1e-7);
        assert!((value(Loss::BradleyTerry, 0.1, judged(&c), &scores) - 0.313_261_687_518_222_8 - 0.196).abs() < 1e-7);
        c[0].margin = 0.5;
        assert!((value(Loss::BradleyTerry, 0.0, judged(&c), &scores) - 0.474_076_984_180_106_7).abs() < 1e-7);
    }

    /// Two responses: Plackett-Luce is Bradley-Terry. Three in order: the product of the choices.
    #[test]
    fn plackett_luce_multiplies_choices() {
        let ranks = [Some(1.0), Some(2.0)];
        let c = [comparison(0, 1, 1.0)];
        let judged = Judged { comparisons: &c, ranks: &ranks };
        let two = [0.3, -0.4];
        let difference = value(Loss::PlackettLuce, 0.0, judged, &two) - value(Loss::BradleyTerry, 0.0, judged, &two);
        assert!(difference.abs() < 1e-12);
        let ranks = [Some(2.0), None, Some(1.0), Some(3.0)];
        let judged = Judged { comparisons: &[], ranks: &ranks };
        let (a, b, d) = (1f64.exp(), 0.5f64.exp(), 0.25f64.exp());
        let expected = -((b / (a + b + d)).ln() + (a / (a + d)).ln()) / 2.0;
        assert!((value(Loss::PlackettLuce, 0.0, judged, &[1.0, 9.0, 0.5, 0.25]) - expected).abs() < 1e-12);
    }

    #[test]
    fn ties_pull_scores_together_and_extremes_stay_finite() {
        let tie = [comparison(0, 1, 0.5)];
        for loss in [Loss::BradleyTerry, Loss::PlackettLuce] {
            let judged = Judged { comparisons: &tie, ranks: &[Some(1.0), Some(1.0)] };
            let mut gradient = [0.0; 2];
            group_loss(loss, 0.0, judged, &[1.0, 0.0], 1.0, &mut gradient);
            assert!(gradient[0] > 0.0 && gradient[1] < 0.0, "{loss:?}: {gradient:?}");
            let value = group_loss(loss, 0.01, judged, &[1e4, -1e4], 1.0, &mut gradient);
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn c1_a_comparison_of_weight_0_is_none() {
        let with = [comparison(0, 1, 1.0), Comparison { weight: 0.0, ..comparison(2, 1, 1.0) }];
        let none = with.map(|c| Comparison { weight: 0.0, ..c });
        for loss in [Loss::BradleyTerry, Loss::PlackettLuce] {
            let of = |comparisons: &[Comparison], ranks: &[Option<f64>]| {
                let mut gradient = vec![0.0; 3];
                let judged = Judged { comparisons, ranks };
                (group_loss(loss, 0.1, judged, &[0.3, -0.2, 5.0], 1.0, &mut gradient), gradient)
            };
            assert_eq!(of(&none, &[Some(1.0), Some(2.0), None]), (0.0, vec![0.0; 3]), "{loss:?}");
            let ranks = [Some(1.0), Some(2.0), None];
            assert_eq!(of(&with, &ranks), of(&with[..1], &ranks), "{loss:?}");
        }
    }

    proptest! {
        #[test]
        fn gradients_match_finite_differences(
            scores in proptest::collection::vec(-3.0f32..3.0, 4),
            ranks in proptest::collection::vec(proptest::option::of(0u8..3), 4),
            rows in proptest::collection::vec((0usize..4, 1usize..4, 0.0f32..=1.0, 0.0f32..2.0, 0.1f32..2.0), 1..6),
            plackett in any::<bool>(),
        ) {
            let comparisons: Vec<_> = rows.iter().map(|&(first, step, target, margin, weight)|
                Comparison { first, second: (first + step) % 4, target, margin, weight }).collect();
            let ranks: Vec<_> = ranks.into_iter().map(|r| r.map(f64::from)).collect();
            let judged = Judged { comparisons: &comparisons, ranks: &ranks };
            let loss = if plackett { Loss::PlackettLuce } else { Loss::BradleyTerry };
            let mut gradient = vec![0.0; 4];
            group_loss(loss, 0.05, judged, &scores, 1.0, &mut gradient);
            for i in 0..4 {
                let (mut up, mut down) = (scores.clone(), scores.clone());
                up[i] += 1e-2;
                down[i] -= 1e-2;
                let difference = (value(loss, 0.05, judged, &up) - value(loss, 0.05, judged, &down)) / f64::from(up[i] - down[i]);
                prop_assert!((f64::from(gradient[i]) - difference).abs() < 1e-3, "{} instead of {}", gradient[i], difference);
            }
        }
    }
}
