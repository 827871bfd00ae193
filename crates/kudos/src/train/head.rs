//! The head alone on frozen features: a judge within seconds, and where fine-tuning starts.
//!
//! With few rankings the encoder as it is, under a well regularised linear head, is hard to beat, and a head that
//! fits the features keeps the first steps of fine-tuning from tearing them apart (Kumar et al. 2022). The problem
//! is convex: Bradley-Terry over the examples plus λ/2·|w − w₀|², where w₀ is the head the base came with, or zero.
//! λ is the strongest whose loss in cross-validation over examples cannot be told from the least one (the rule of one
//! standard error, Breiman et al. 1984, here of the difference of both on the same examples).

use super::Example;
use super::log::is_clearly_positive;
use super::loss::{Judged, Loss, group_loss};
use crate::models::{JudgeError, Model, Workspace, features_encoded};
use rayon::prelude::*;

/// Strengths of the regularisation that are tried, from strong to weak, in units of the features' mean square within examples.
const STRENGTHS: [f64; 9] = [10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001];
/// Parts of the cross-validation.
const FOLDS: usize = 5;
/// Gradient steps of one fit at most.
const ITERATIONS: usize = 200;
/// Squared norm of the gradient, relative to that at the prior, at which a fit is done.
const TOLERANCE: f64 = 1e-10;

/// A fitted head.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Weights, `[width]`.
    pub weight: Vec<f32>,
    /// Makes the mean score 0.
    pub bias: f32,
    /// λ, in units of the features' mean square.
    pub strength: f64,
    /// Mean loss on the examples that a fit had not seen, a response counting one.
    pub loss: f64,
}

/// An example's features `[responses, width]`, less their mean over the example: what differences of scores depend on.
struct Centred<'a> {
    example: &'a Example,
    rows: Vec<f32>,
    /// How much it counts: its responses, 1 on average. Fine-tuning, too, reads more of a larger group.
    share: f64,
}

/// What the head reads of each example, `[responses, width]`.
pub(super) fn frozen_features(
    model: &Model,
    examples: &[&Example],
    workspace: &mut Workspace,
) -> Result<Vec<Vec<f32>>, JudgeError> {
    examples.iter().map(|example| features_encoded(model, &example.sequences, workspace)).collect()
}

/// Fits the head to `features`, one `[responses, width]` matrix an example, starting from `prior` (`[width]`).
///
/// # Panics
/// When the features do not have one row a response.
pub fn fit_head(examples: &[&Example], features: &[Vec<f32>], prior: &[f32]) -> Head {
    let width = prior.len();
    let responses: usize = examples.iter().map(|e| e.sequences.len()).sum();
    let mean = responses as f64 / examples.len().max(1) as f64;
    let data: Vec<Centred> = examples.iter().zip(features).map(|(e, rows)| centred(e, rows, width, mean)).collect();
    let prior: Vec<f64> = prior.iter().map(|v| f64::from(*v)).collect();
    let unit = mean_square(&data);
    let all: Vec<&Centred> = data.iter().collect();
    let losses = cross_validated(&all, &prior, unit);
    let chosen = strongest_good(&losses);
    let strength = STRENGTHS[chosen];
    let loss = losses.iter().map(|of| of[chosen]).sum::<f64>() / losses.len().max(1) as f64;
    let weight: Vec<f32> = fit(&all, &prior, strength * unit, &prior).iter().map(|v| *v as f32).collect();
    let total: f64 = features.iter().flat_map(|f| f.chunks(width)).map(|row| dot(row, &weight)).sum();
    Head { weight, bias: -(total / responses.max(1) as f64) as f32, strength, loss }
}

fn centred<'a>(example: &'a Example, rows: &[f32], width: usize, mean_responses: f64) -> Centred<'a> {
    assert_eq!(rows.len(), example.sequences.len() * width, "one row of features a response");
    let mut mean = vec![0.0f64; width];
    for row in rows.chunks(width) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / example.sequences.len() as f64);
    }
    let rows = rows.iter().enumerate().map(|(i, v)| (f64::from(*v) - mean[i % width]) as f32).collect();
    Centred { example, rows, share: example.sequences.len() as f64 / mean_responses }
}

fn mean_square(data: &[Centred]) -> f64 {
    let (sum, count) = data.iter().fold((0.0, 0), |(sum, count), c| {
        (sum + c.rows.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>(), count + c.example.sequences.len())
    });
    (sum / count.max(1) as f64).max(1e-12)
}

/// In eight sums, which the compiler keeps in vectors.
fn dot<T: Copy + Into<f64>>(row: &[f32], weight: &[T]) -> f64 {
    let mut sums = [0.0f64; 8];
    for (row, weight) in row.chunks(8).zip(weight.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(row).zip(weight) {
            *sum += f64::from(*a) * (*b).into();
        }
    }
    sums.iter().sum()
}

/// Loss of each example for each strength, under the head fitted to the other parts.
fn cross_validated(data: &[&Centred], prior: &[f64], unit: f64) -> Vec<[f64; STRENGTHS.len()]> {
    let folds = FOLDS.min(data.len());
    let losses = |fold: usize| {
        let part = |inside: bool| -> Vec<&Centred> {
            data.iter().enumerate().filter(|(i, _)| (i % folds == fold) == inside).map(|(_, c)| *c).collect()
        };
        let (others, own) = (part(false), part(true));
        let mut found = vec![[0.0; STRENGTHS.len()]; own.len()];
        let mut head = prior.to_vec();
        for (place, strength) in STRENGTHS.into_iter().enumerate() {
            head = fit(&others, prior, strength * unit, &head);
            own.iter().zip(&mut found).for_each(|(c, of)| of[place] = example_loss(c, &head, None));
        }
        found
    };
    (0..folds).into_par_iter().flat_map(losses).collect()
}

/// The strongest regularisation whose mean loss is within one standard error of the least, by the differences of both
/// on the same examples.
fn strongest_good(losses: &[[f64; STRENGTHS.len()]]) -> usize {
    let sum = |place: usize| losses.iter().map(|of| of[place]).sum::<f64>();
    let least = (0..STRENGTHS.len()).min_by(|a, b| sum(*a).total_cmp(&sum(*b))).expect("there are strengths");
    let is_worse = |strong: usize| is_clearly_positive(losses.iter().map(|of| of[strong] - of[least]), 1.0);
    (0..least).find(|strong| !is_worse(*strong)).unwrap_or(least)
}

/// Loss of one example under the head, times its share; adds its gradient.
fn example_loss(data: &Centred, head: &[f64], gradient: Option<&mut [f64]>) -> f64 {
    let width = head.len();
    let scores: Vec<f32> = data.rows.chunks(width).map(|row| dot(row, head) as f32).collect();
    let mut slopes = vec![0.0; scores.len()];
    let judged = Judged { comparisons: &data.example.comparisons, ranks: &data.example.ranks };
    let loss = data.share * group_loss(Loss::BradleyTerry, 0.0, judged, &scores, 1.0, &mut slopes);
    if let Some(gradient) = gradient {
        for (row, slope) in data.rows.chunks(width).zip(slopes) {
            gradient.iter_mut().zip(row).for_each(|(g, v)| *g += data.share * f64::from(slope) * f64::from(*v));
        }
    }
    loss
}

/// Mean loss with the regularisation.
fn value(data: &[&Centred], prior: &[f64], strength: f64, head: &[f64]) -> f64 {
    let loss: f64 = data.iter().map(|c| example_loss(c, head, None)).sum();
    loss / data.len().max(1) as f64 + penalty(prior, strength, head)
}

fn penalty(prior: &[f64], strength: f64, head: &[f64]) -> f64 {
    0.5 * strength * head.iter().zip(prior).map(|(w, w0)| (w - w0).powi(2)).sum::<f64>()
}

/// [`value`], and its gradient.
fn slope(data: &[&Centred], prior: &[f64], strength: f64, head: &[f64]) -> (f64, Vec<f64>) {
    let mut gradient = vec![0.0; head.len()];
    let share = 1.0 / data.len().max(1) as f64;
    let loss = share * data.iter().map(|c| example_loss(c, head, Some(&mut gradient))).sum::<f64>();
    for ((g, w), w0) in gradient.iter_mut().zip(head).zip(prior) {
        *g = share * *g + strength * (w - w0);
    }
    (loss + penalty(prior, strength, head), gradient)
}

/// Nesterov's accelerated gradient from `start`, with a step that adapts and restarts when the value rises (O'Donoghue and
/// Candès 2015): the objective is smooth and strongly convex.
fn fit(data: &[&Centred], prior: &[f64], strength: f64, start: &[f64]) -> Vec<f64> {
    let (mut head, mut ahead) = (start.to_vec(), start.to_vec());
    let mut current = value(data, prior, strength, &head);
    let tolerance = TOLERANCE * squared(&slope(data, prior, strength, prior).1);
    let (mut rate, mut momentum) = (1.0 / strength.max(1e-6), 1.0f64);
    for _ in 0..ITERATIONS {
        let (at, gradient) = slope(data, prior, strength, &ahead);
        let norm = squared(&gradient);
        if norm <= tolerance {
            break;
        }
        let (next, next_value) = loop {
            let next: Vec<f64> = ahead.iter().zip(&gradient).map(|(w, g)| w - rate * g).collect();
            let next_value = value(data, prior, strength, &next);
            if next_value <= at - 0.25 * rate * norm || rate < 1e-9 {
                break (next, next_value);
            }
            rate *= 0.5;
        };
        let rose = next_value > current;
        let grown = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt());
        let carry = if rose { 0.0 } else { (momentum - 1.0) / grown };
        momentum = if rose { 1.0 } else { grown };
        ahead = next.iter().zip(&head).map(|(new, old)| new + carry * (new - old)).collect();
        (head, current) = (next, next_value);
        rate *= 1.5;
    }
    head
}

fn squared(vector: &[f64]) -> f64 {
    vector.iter().map(|v| v * v).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Comparison;
    use crate::random::Stream;
    use crate::text::Encoded;

    const WIDTH: usize = 4;

    /// Examples of three responses whose order follows the first feature, with noise in the other features.
    fn cases(count: usize) -> (Vec<Example>, Vec<Vec<f32>>) {
        let mut random = Stream::named(7, "head");
        let (mut examples, mut features) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let rows: Vec<f32> = (0..3 * WIDTH).map(|_| random.normal() as f32).collect();
            let better = |i: usize, j: usize| if rows[i * WIDTH] > rows[j * WIDTH] { 1.0 } else { 0.0 };
            let comparison =
                |(first, second)| Comparison { first, second, target: better(first, second), margin: 0.0, weight: 1.0 };
            let comparisons = [(0, 1), (0, 2), (1, 2)].map(comparison).to_vec();
            let encoded = Encoded { ids: vec![1], type_ids: vec![0], truncated: false, tokens_before_truncation: 1 };
            examples.push(Example {
                sequences: vec![encoded; 3],
                comparisons,
                ranks: vec![None; 3],
                ratings: Vec::new(),
            });
            features.push(rows);
        }
        (examples, features)
    }

    fn all(examples: &[Example]) -> Vec<&Example> {
        examples.iter().collect()
    }

    #[test]
    fn the_feature_that_orders_is_found() {
        let (examples, features) = cases(60);
        let head = fit_head(&all(&examples), &features, &[0.0; WIDTH]);
        let others = head.weight[1..].iter().fold(0.0f32, |most, w| most.max(w.abs()));
        assert!(head.weight[0] > 5.0 * others, "{head:?}");
        assert!(head.loss < 0.5, "{head:?}");
    }

    #[test]
    fn the_gradient_vanishes_at_the_fit() {
        let (examples, features) = cases(20);
        let data: Vec<Centred> = examples.iter().zip(&features).map(|(e, f)| centred(e, f, WIDTH, 3.0)).collect();
        let all: Vec<&Centred> = data.iter().collect();
        let prior = [0.5, -0.5, 0.0, 0.1];
        for strength in [0.01, 1.0] {
            let head = fit(&all, &prior, strength, &prior);
            let (_, gradient) = slope(&all, &prior, strength, &head);
            assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{strength}: {gradient:?}");
        }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_objective() {
        let (examples, features) = cases(5);
        let data: Vec<Centred> = examples.iter().zip(&features).map(|(e, f)| centred(e, f, WIDTH, 3.0)).collect();
        let all: Vec<&Centred> = data.iter().collect();
        let (prior, head) = ([0.0; WIDTH], [0.3, -0.2, 0.1, 0.0]);
        let (_, gradient) = slope(&all, &prior, 0.1, &head);
        for i in 0..WIDTH {
            let moved = |by: f64| {
                let mut head = head;
                head[i] += by;
                value(&all, &prior, 0.1, &head)
            };
            let rise = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((rise - gradient[i]).abs() < 1e-3, "{i}: {rise} {}", gradient[i]);
        }
    }

    #[test]
    fn a_stronger_regularisation_wins_where_the_difference_is_chance() {
        let mut losses = vec![[0.7; STRENGTHS.len()]; 100];
        for (example, of) in losses.iter_mut().enumerate() {
            of[0] += 0.1; // always worse than the least
            of[2] += if example % 2 == 0 { 0.2 } else { -0.2 }; // worse by a hundredth on average: half a standard error
            of[4] -= 0.01;
        }
        assert_eq!(strongest_good(&losses), 2);
        losses.iter_mut().for_each(|of| of[2] += 0.2);
        assert_eq!(strongest_good(&losses), 4);
        let _ = strongest_good(&[[f64::NAN; STRENGTHS.len()]; 2]);
        assert_eq!(strongest_good(&[[0.5; STRENGTHS.len()]]), 0, "one example decides nothing, and all are equal");
    }

    #[test]
    fn a_group_counts_by_its_responses() {
        let (examples, features) = cases(1);
        let slope = |mean_responses: f64| {
            let mut gradient = vec![0.0; WIDTH];
            let data = centred(&examples[0], &features[0], WIDTH, mean_responses);
            let loss = example_loss(&data, &[0.3, -0.2, 0.1, 0.0], Some(&mut gradient));
            [vec![loss], gradient].concat()
        };
        let twice: Vec<f64> = slope(3.0).iter().map(|v| 2.0 * v).collect();
        assert_eq!(slope(1.5), twice, "among groups of one and a half responses, three count double");
    }

    #[test]
    fn nothing_to_learn_leaves_the_prior() {
        let (mut examples, features) = cases(6);
        examples.iter_mut().flat_map(|e| &mut e.comparisons).for_each(|c| c.target = 0.5);
        let flat: Vec<Vec<f32>> = features.iter().map(|f| vec![1.0; f.len()]).collect();
        let head = fit_head(&all(&examples), &flat, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(head.weight, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(head.bias, -10.0);
    }
}
