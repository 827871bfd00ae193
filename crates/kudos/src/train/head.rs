//! The head alone on frozen features: a judge within seconds, and where fine-tuning starts.
//!
//! With few rankings the encoder as it is, under a well regularised linear head, is hard to beat, and a head that
//! fits the features keeps the first steps of fine-tuning from tearing them apart (Kumar et al. 2022). The problem
//! is convex: Bradley-Terry over the examples plus λ/2·|w − w₀|², where w₀ is the head the base came with, or zero.
//! λ is the strongest whose loss in cross-validation over prompts cannot be told from the least one (the rule of one
//! standard error, Breiman et al. 1984, here of the difference of both on the same examples).
//!
//! How a fit runs is in `solve`.

use super::Example;
use super::log::is_clearly_positive;
use super::solve::{Member, Part, Problem};
use rayon::prelude::*;
use std::collections::HashMap;

/// Strengths of the regularisation that are tried, from strong to weak, in units of the features' mean square within examples.
const STRENGTHS: [f64; 9] = [10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001];
/// Parts of the cross-validation.
const FOLDS: usize = 5;

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

impl Head {
    /// The first of its numbers that is not finite, if there is one.
    pub(super) fn not_finite(&self) -> Option<f64> {
        let numbers = self.weight.iter().chain([&self.bias]).map(|v| f64::from(*v)).chain([self.loss]);
        numbers.into_iter().find(|v| !v.is_finite())
    }
}

/// Fits the head to `features`, one `[responses, width]` matrix an example, starting from `prior` (`[width]`). All examples
/// of one prompt are in the same part of the cross-validation.
///
/// # Panics
/// When the features do not have one row a response.
pub fn fit_head(examples: &[&Example], features: &[Vec<f32>], prior: &[f32]) -> Head {
    let width = prior.len();
    let responses: usize = examples.iter().map(|e| e.sequences.len()).sum();
    let unit = mean_square(examples, features, width);
    let parts = parts(examples, features, width, unit);
    let prior: Vec<f64> = prior.iter().map(|v| f64::from(*v)).collect();
    let losses = cross_validated(&parts, &prior, unit);
    let chosen = strongest_good(&losses);
    let strength = STRENGTHS[chosen];
    let loss = losses.iter().map(|of| of[chosen]).sum::<f64>() / losses.len().max(1) as f64;
    let all: Vec<&Part> = parts.iter().collect();
    let problem = Problem::new(&all, &prior);
    let mut point = problem.start();
    problem.fit(strength * unit, &mut point);
    let weight: Vec<f32> = point.head.iter().map(|v| *v as f32).collect();
    let wide: Vec<f64> = weight.iter().map(|v| f64::from(*v)).collect();
    let total: f64 = features.iter().map(|rows| row_dots(rows, &wide).iter().sum::<f64>()).sum();
    Head { weight, bias: -(total / responses.max(1) as f64) as f32, strength, loss }
}

/// The product of each row with the vector.
fn row_dots(rows: &[f32], vector: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; rows.len() / vector.len().max(1)];
    kernels::dots::row_dots(&mut out, rows, vector);
    out
}

/// Mean square length of the features of a response, less their mean over its example.
fn mean_square(examples: &[&Example], features: &[Vec<f32>], width: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (example, rows) in examples.iter().zip(features) {
        assert_eq!(rows.len(), example.sequences.len() * width, "one row of features a response");
        sum += centred(rows, width).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        count += example.sequences.len();
    }
    (sum / count.max(1) as f64).max(1e-12)
}

/// Rows less their mean.
pub(super) fn centred(rows: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0f64; width];
    let share = width as f64 / rows.len().max(1) as f64;
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) * share);
    }
    rows.iter().enumerate().map(|(i, v)| (f64::from(*v) - mean[i % width]) as f32).collect()
}

/// The examples by their parts: the prompts are dealt in turn, each with all of its examples.
fn parts<'a>(examples: &[&'a Example], features: &[Vec<f32>], width: usize, unit: f64) -> Vec<Part<'a>> {
    let (part_of, count) = dealt(examples);
    let responses: usize = examples.iter().map(|e| e.sequences.len()).sum();
    let mean = responses as f64 / examples.len().max(1) as f64;
    let part = |fold: usize| {
        let own = (0..examples.len()).filter(|e| part_of[*e] == fold);
        let members = own.map(|e| (Member::of(examples[e], mean), features[e].as_slice()));
        Part::new(members, width, unit)
    };
    (0..count).into_par_iter().map(part).collect()
}

/// The part of each example, and the number of parts.
fn dealt(examples: &[&Example]) -> (Vec<usize>, usize) {
    let mut numbers = HashMap::new();
    for example in examples {
        let next = numbers.len();
        numbers.entry(example.prompt.as_str()).or_insert(next);
    }
    let parts = FOLDS.min(numbers.len());
    (examples.iter().map(|example| numbers[example.prompt.as_str()] % parts).collect(), parts)
}

/// Loss of each example for each strength, under the head fitted to the other parts.
fn cross_validated(parts: &[Part], prior: &[f64], unit: f64) -> Vec<[f64; STRENGTHS.len()]> {
    let losses = |fold: usize| {
        let others: Vec<&Part> = (0..parts.len()).filter(|p| *p != fold).map(|p| &parts[p]).collect();
        let problem = Problem::new(&others, prior);
        let mut found = vec![[0.0; STRENGTHS.len()]; parts[fold].len()];
        let mut point = problem.start();
        for (place, strength) in STRENGTHS.into_iter().enumerate() {
            problem.fit(strength * unit, &mut point);
            parts[fold].losses(&point.head).zip(&mut found).for_each(|(loss, of)| of[place] = loss);
        }
        found
    };
    (0..parts.len()).into_par_iter().flat_map_iter(losses).collect()
}

/// The strongest regularisation whose mean loss is within one standard error of the least, by the differences of both
/// on the same examples.
fn strongest_good(losses: &[[f64; STRENGTHS.len()]]) -> usize {
    let sum = |place: usize| losses.iter().map(|of| of[place]).sum::<f64>();
    let least = (0..STRENGTHS.len()).min_by(|a, b| sum(*a).total_cmp(&sum(*b))).expect("there are strengths");
    let is_worse = |strong: usize| is_clearly_positive(losses.iter().map(|of| of[strong] - of[least]), 1.0);
    (0..least).find(|strong| !is_worse(*strong)).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Comparison, Location};
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
                prompt: format!("prompt {}", examples.len()),
                location: Location { file: "t".into(), line: 1 },
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

    /// Half of the examples ask again what the example before them asked, and were judged the same by chance.
    #[test]
    fn c10_a_prompt_is_in_one_part() {
        let (mut examples, mut features) = cases(20);
        for (n, example) in examples.iter_mut().enumerate() {
            example
                .comparisons
                .iter_mut()
                .enumerate()
                .for_each(|(c, of)| of.target = f32::from((n * 7 + c * 3) % 5 < 2));
            example.prompt = format!("prompt {}", n / 2);
        }
        for twin in (0..20).step_by(2) {
            examples[twin + 1].comparisons = examples[twin].comparisons.clone();
            features[twin + 1] = features[twin].clone();
        }
        let (part_of, parts) = dealt(&all(&examples));
        assert_eq!(parts, 5);
        assert!(part_of.chunks(2).all(|twins| twins[0] == twins[1]), "{part_of:?}");
        let head = fit_head(&all(&examples), &features, &[0.0; WIDTH]);
        assert!(head.loss > 0.69, "nothing can be known of a prompt from the others: {head:?}");
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
        let losses = |mean_responses: f64| -> Vec<f64> {
            let member = (Member::of(&examples[0], mean_responses), features[0].as_slice());
            Part::new([member].into_iter(), WIDTH, 1.0).losses(&[0.3, -0.2, 0.1, 0.0]).collect()
        };
        let twice: Vec<f64> = losses(3.0).iter().map(|v| 2.0 * v).collect();
        assert_eq!(losses(1.5), twice, "among groups of one and a half responses, three count double");
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
