//! Learning ratings: the scale of each attribute in the training data, the weights of the overall score, the loss.
//!
//! The network learns ratings of mean 0 and standard deviation 1 over the training data, so that attributes on any
//! scales weigh the same and a new head starts near the answer. [`AttributeHead`] turns its outputs into ratings.

use crate::data::{Attributes, Group};
use crate::models::{AttributeHead, Weighting};
use crate::nn::numerics::{log_sigmoid, sigmoid};

/// How the overall score weighs the attributes.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeWeights {
    /// Fitted where the data have an overall order, else equal.
    Auto,
    /// Fitted to the overall order or score.
    Fit,
    /// The mean of the ratings.
    Equal,
    /// These, in the order of the attributes.
    Declared(Vec<f64>),
}

/// Why attributes cannot be learnt.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AttributeError {
    /// No response is rated for it.
    #[error("--attributes {name}: no response of the training data is rated for it; found {found}")]
    Unknown {
        /// As asked for.
        name: String,
        /// What the data rate.
        found: String,
    },
    /// All ratings are equal.
    #[error("--attributes {name}: all {count} ratings are {rating}, so there is nothing to learn; leave it away")]
    Constant {
        /// As asked for.
        name: String,
        /// Ratings.
        count: usize,
        /// Their value.
        rating: f64,
    },
    /// Nothing to fit weights to.
    #[error(
        "--attribute-weights fit: expected responses with all of the attributes and an overall `score` or `rank`, found \
         none that differ; declare the weights (a=0.5,b=0.5), or use equal"
    )]
    NoFit,
}

/// Scales and weights of the attributes `names` from the training groups.
///
/// # Errors
/// [`AttributeError`].
pub fn attribute_head(
    groups: &[Group],
    names: &[String],
    weights: &AttributeWeights,
) -> Result<AttributeHead, AttributeError> {
    let scales = names.iter().map(|name| scale(groups, name)).collect::<Result<Vec<_>, _>>()?;
    let (means, stds) = scales.into_iter().unzip();
    let equal = vec![1.0 / names.len() as f64; names.len()];
    let head = AttributeHead {
        names: names.to_vec(),
        weights: equal,
        intercept: 0.0,
        weighting: Weighting::Equal,
        means,
        stds,
        centred: true,
    };
    match weights {
        AttributeWeights::Equal => Ok(head),
        AttributeWeights::Declared(weights) => {
            Ok(AttributeHead { weights: weights.clone(), weighting: Weighting::Declared, ..head })
        }
        AttributeWeights::Fit => fitted(groups, &head).ok_or(AttributeError::NoFit),
        AttributeWeights::Auto => Ok(fitted(groups, &head).unwrap_or(head)),
    }
}

/// Mean and standard deviation of the ratings for one attribute.
fn scale(groups: &[Group], name: &str) -> Result<(f64, f64), AttributeError> {
    let responses = || groups.iter().flat_map(|group| &group.responses);
    let ratings: Vec<f64> = responses().filter_map(|response| response.attributes.get(name).copied()).collect();
    let Some(&first) = ratings.first() else {
        let mut known: Vec<&String> = responses().flat_map(|response| response.attributes.keys()).collect();
        known.sort_unstable();
        known.dedup();
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        let found = if known.is_empty() { "no attributes at all".into() } else { known.join(", ") };
        return Err(AttributeError::Unknown { name: name.into(), found });
    };
    if ratings.iter().all(|rating| *rating == first) {
        return Err(AttributeError::Constant { name: name.into(), count: ratings.len(), rating: first });
    }
    let mean = ratings.iter().sum::<f64>() / ratings.len() as f64;
    let variance = ratings.iter().map(|rating| (rating - mean).powi(2)).sum::<f64>() / ratings.len() as f64;
    Ok((mean, variance.sqrt()))
}

/// The weights, in terms of ratings, that explain the overall judgement best: of `score` by least squares where responses
/// have one, else of the order by Bradley-Terry. `None` where there is none.
fn fitted(groups: &[Group], head: &AttributeHead) -> Option<AttributeHead> {
    let (standard, constant) = least_squares(groups, head).or_else(|| Some((logistic(groups, head)?, 0.0)))?;
    let weights: Vec<f64> = standard.iter().zip(&head.stds).map(|(weight, std)| weight / std).collect();
    let shift: f64 = weights.iter().zip(&head.means).map(|(weight, mean)| weight * mean).sum();
    // A constant means something beside a score of the data's own scale only.
    let intercept = if constant == 0.0 { 0.0 } else { constant - shift };
    Some(AttributeHead { weights, intercept, weighting: Weighting::Fitted, ..head.clone() })
}

/// All ratings of a response, standardised; `None` if one is missing.
fn complete(head: &AttributeHead, ratings: &Attributes) -> Option<Vec<f64>> {
    let known = head.names.iter().zip(head.means.iter().zip(&head.stds));
    known.map(|(name, (mean, std))| Some((ratings.get(name)? - mean) / std)).collect()
}

/// What keeps the regression of collinear ratings finite; too little to be seen otherwise.
const COLLINEAR: f64 = 1e-6;
/// What keeps the likelihood of an order finite that the ratings explain without an error.
const SEPARABLE: f64 = 1e-3;

/// (weights of standardised ratings, constant) of the regression of `score`; too few scores, or equal ones, give none.
fn least_squares(groups: &[Group], head: &AttributeHead) -> Option<(Vec<f64>, f64)> {
    let responses = groups.iter().flat_map(|group| &group.responses);
    let mut rows: Vec<(Vec<f64>, f64)> =
        responses.filter_map(|r| Some((complete(head, &r.attributes)?, r.score?))).collect();
    let (labels, count) = (head.names.len(), rows.len() as f64);
    if rows.len() < labels + 2 || rows.iter().all(|row| row.1 == rows[0].1) {
        return None;
    }
    let score = rows.iter().map(|row| row.1).sum::<f64>() / count;
    let centre: Vec<f64> = (0..labels).map(|i| rows.iter().map(|row| row.0[i]).sum::<f64>() / count).collect();
    for (ratings, target) in &mut rows {
        ratings.iter_mut().zip(&centre).for_each(|(rating, centre)| *rating -= centre);
        *target -= score;
    }
    let mut system = Normal::new(labels, COLLINEAR);
    rows.iter().for_each(|(ratings, target)| system.add(ratings, 1.0 / count, target / count));
    let weights = system.solve()?;
    let constant = score - weights.iter().zip(&centre).map(|(weight, centre)| weight * centre).sum::<f64>();
    Some((weights, constant))
}

/// Newton's method for −log σ of the comparisons, each by its weight, seen as differences of standardised ratings.
fn logistic(groups: &[Group], head: &AttributeHead) -> Option<Vec<f64>> {
    const STEPS: usize = 50;
    let mut rows = Vec::new();
    for group in groups {
        let ratings: Vec<_> = group.responses.iter().map(|r| complete(head, &r.attributes)).collect();
        for c in group.counted() {
            let (Some(first), Some(second)) = (&ratings[c.first], &ratings[c.second]) else { continue };
            let difference: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
            rows.push((difference, f64::from(c.target), f64::from(c.weight)));
        }
    }
    let informative =
        |(difference, target, _): &(Vec<f64>, f64, f64)| *target != 0.5 && difference.iter().any(|d| *d != 0.0);
    if !rows.iter().any(informative) {
        return None;
    }
    let total: f64 = rows.iter().map(|(.., weight)| weight).sum();
    let mut weights = vec![0.0; head.names.len()];
    for _ in 0..STEPS {
        let mut system = Normal::new(weights.len(), SEPARABLE);
        for (difference, target, weight) in &rows {
            let (p, share) = (sigmoid(difference.iter().zip(&weights).map(|(d, w)| d * w).sum()), weight / total);
            system.add(difference, share * p * (1.0 - p), share * (target - p));
        }
        system.right.iter_mut().zip(&weights).for_each(|(right, weight)| *right -= SEPARABLE * weight);
        let step = system.solve()?;
        weights.iter_mut().zip(&step).for_each(|(weight, step)| *weight += step);
        if step.iter().all(|step| step.abs() < 1e-9) {
            break;
        }
    }
    Some(weights)
}

/// Normal equations `left · x = right`.
struct Normal {
    left: Vec<Vec<f64>>,
    right: Vec<f64>,
}

impl Normal {
    fn new(size: usize, ridge: f64) -> Self {
        let row = |i| (0..size).map(|j| if i == j { ridge } else { 0.0 }).collect();
        Self { left: (0..size).map(row).collect(), right: vec![0.0; size] }
    }

    /// Adds `weight · x xᵀ` on the left and `target · x` on the right.
    fn add(&mut self, x: &[f64], weight: f64, target: f64) {
        for (row, &a) in self.left.iter_mut().zip(x) {
            row.iter_mut().zip(x).for_each(|(cell, &b)| *cell += weight * a * b);
        }
        self.right.iter_mut().zip(x).for_each(|(right, &a)| *right += target * a);
    }

    /// Gaussian elimination; the left side is positive definite, so no row needs to change its place.
    fn solve(mut self) -> Option<Vec<f64>> {
        let size = self.right.len();
        for pivot in 0..size {
            for row in pivot + 1..size {
                let factor = self.left[row][pivot] / self.left[pivot][pivot];
                let (above, below) = self.left.split_at_mut(row);
                below[0].iter_mut().zip(&above[pivot]).for_each(|(cell, above)| *cell -= factor * above);
                self.right[row] -= factor * self.right[pivot];
            }
        }
        let mut x = vec![0.0; size];
        for row in (0..size).rev() {
            let known: f64 = (row + 1..size).map(|j| self.left[row][j] * x[j]).sum();
            x[row] = (self.right[row] - known) / self.left[row][row];
        }
        x.iter().all(|x| x.is_finite()).then_some(x)
    }
}

/// Loss of the responses of one visit; adds `weight` · ∂loss/∂output to `gradient`.
///
/// `outputs` and `gradient` are `[responses, labels]`, `ratings[r]` is `[labels]`, both standardised. For each attribute: the
/// mean squared error over the rated responses, plus the mean of −log σ(better − worse) over the pairs whose ratings
/// differ. The loss is the mean over the attributes that any response is rated for.
pub fn attribute_loss(ratings: &[&[Option<f32>]], outputs: &[f32], weight: f64, gradient: &mut [f32]) -> f64 {
    let labels = ratings.first().map_or(0, |ratings| ratings.len());
    let rated: Vec<usize> = (0..labels).filter(|a| ratings.iter().any(|r| r[*a].is_some())).collect();
    let share = 1.0 / rated.len().max(1) as f64;
    let mut loss = 0.0;
    for a in rated {
        let known: Vec<(usize, f64, f64)> = (0..ratings.len())
            .filter_map(|r| Some((r * labels + a, f64::from(ratings[r][a]?), f64::from(outputs[r * labels + a]))))
            .collect();
        let mut slopes = vec![0.0; known.len()];
        loss += share * (squared_error(&known, &mut slopes) + pairwise(&known, &mut slopes));
        for ((at, ..), slope) in known.iter().zip(slopes) {
            gradient[*at] += (weight * share * slope) as f32;
        }
    }
    loss
}

/// Mean squared error of (place, rating, output).
fn squared_error(known: &[(usize, f64, f64)], slopes: &mut [f64]) -> f64 {
    let mut loss = 0.0;
    for ((_, rating, output), slope) in known.iter().zip(slopes) {
        let error = output - rating;
        loss += error * error / known.len() as f64;
        *slope += 2.0 * error / known.len() as f64;
    }
    loss
}

/// Bradley-Terry over the pairs whose ratings differ.
fn pairwise(known: &[(usize, f64, f64)], slopes: &mut [f64]) -> f64 {
    let pairs = || (0..known.len()).flat_map(|i| (0..known.len()).map(move |j| (i, j)));
    let pairs: Vec<_> = pairs().filter(|&(better, worse)| known[better].1 > known[worse].1).collect();
    let mut loss = 0.0;
    for &(better, worse) in &pairs {
        let margin = known[better].2 - known[worse].2;
        let slope = sigmoid(-margin) / pairs.len() as f64;
        loss -= log_sigmoid(margin) / pairs.len() as f64;
        slopes[better] -= slope;
        slopes[worse] += slope;
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Comparison, Content, Location, Response};
    use proptest::prelude::*;

    fn value(ratings: &[Vec<Option<f32>>], outputs: &[f32]) -> f64 {
        let ratings: Vec<&[Option<f32>]> = ratings.iter().map(Vec::as_slice).collect();
        attribute_loss(&ratings, outputs, 0.0, &mut vec![0.0; outputs.len()])
    }

    /// Two responses, two attributes; the second attribute of the second response is not rated.
    #[test]
    fn missing_ratings_contribute_nothing() {
        let ratings = [vec![Some(1.0), Some(-0.5)], vec![Some(0.0), None]];
        let outputs = [0.5, 0.5, -0.5, 9.0];
        let regression = (0.25 + 0.25) / 2.0;
        let pair = (1.0 + (-1.0f64).exp()).ln();
        let expected = (regression + pair + 1.0) / 2.0;
        assert!((value(&ratings, &outputs) - expected).abs() < 1e-12);
        let rows: Vec<&[Option<f32>]> = ratings.iter().map(Vec::as_slice).collect();
        let mut gradient = [0.0; 4];
        attribute_loss(&rows, &outputs, 1.0, &mut gradient);
        let push = 1.0 / (1.0 + 1f32.exp());
        let expected = [(-0.5 - push) / 2.0, 1.0, (-0.5 + push) / 2.0, 0.0];
        assert!(gradient.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{gradient:?}");
        assert_eq!(value(&[vec![None], vec![None]], &[1.0, 2.0]), 0.0);
        assert_eq!(value(&[], &[]), 0.0);
        assert!(value(&[vec![Some(1.0)], vec![Some(-1.0)]], &[-1e4, 1e4]).is_finite());
    }

    proptest! {
        #[test]
        fn gradients_match_finite_differences(
            outputs in proptest::collection::vec(-2.0f32..2.0, 12),
            ratings in proptest::collection::vec(proptest::option::weighted(0.7, -2i8..3), 12),
        ) {
            let ratings: Vec<Vec<Option<f32>>> =
                ratings.chunks(3).map(|row| row.iter().map(|r| r.map(f32::from)).collect()).collect();
            let rows: Vec<&[Option<f32>]> = ratings.iter().map(Vec::as_slice).collect();
            let mut gradient = vec![0.0; 12];
            attribute_loss(&rows, &outputs, 1.0, &mut gradient);
            for i in 0..12 {
                let (mut up, mut down) = (outputs.clone(), outputs.clone());
                up[i] += 1e-2;
                down[i] -= 1e-2;
                let difference = (value(&ratings, &up) - value(&ratings, &down)) / f64::from(up[i] - down[i]);
                prop_assert!((f64::from(gradient[i]) - difference).abs() < 1e-3, "{} instead of {}", gradient[i], difference);
            }
        }
    }

    /// Ratings and the overall score of one response.
    type Row<'a> = (&'a [(&'a str, f64)], Option<f64>);

    fn group(rows: &[Row]) -> Group {
        let location = Location { file: "t".into(), line: 1 };
        let response = |(ratings, score): &Row| Response {
            content: Content::Text("x".into()),
            rank: None,
            score: *score,
            attributes: ratings.iter().map(|(name, rating)| (name.to_string(), *rating)).collect(),
            location: location.clone(),
            extra: Default::default(),
        };
        let responses = rows.iter().map(response).collect();
        Group { prompt: None, responses, comparisons: Vec::new(), judged: Vec::new(), location: location.clone() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// score = 0.5 a + 2 b + 1, exactly.
    #[test]
    fn least_squares_finds_the_weights_of_a_score() {
        let ratings = [(1.0, 10.0), (2.0, 10.0), (3.0, 40.0), (5.0, 20.0), (4.0, 30.0), (1.0, 0.0)];
        let rows: Vec<_> =
            ratings.iter().map(|&(a, b)| ([("a", a), ("b", b)], Some(0.5 * a + 2.0 * b + 1.0))).collect();
        let mut rows: Vec<Row> = rows.iter().map(|(ratings, score)| (&ratings[..], *score)).collect();
        rows.push((&[("a", 5.0)], Some(-99.0)));
        let head = attribute_head(&[group(&rows)], &names(&["a", "b"]), &AttributeWeights::Auto).unwrap();
        assert_eq!(head.weighting, Weighting::Fitted);
        for (found, expected) in head.weights.iter().zip([0.5, 2.0]) {
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} instead of {expected}");
        }
        assert!((head.overall(&[3.0, 20.0]) - 42.5).abs() < 1e-2, "{}", head.overall(&[3.0, 20.0]));
        assert_eq!(head.means, [3.0, 110.0 / 6.0]);
    }

    #[test]
    fn an_order_alone_gives_weights_too() {
        let rows: [Row; 4] = [
            (&[("a", 1.0), ("b", 5.0)], None),
            (&[("a", 2.0), ("b", 1.0)], None),
            (&[("a", 3.0), ("b", 4.0)], None),
            (&[("a", 4.0), ("b", 2.0)], None),
        ];
        let mut ordered = group(&rows);
        let better = |first, second| Comparison { first, second, target: 1.0, margin: 0.0, weight: 1.0 };
        ordered.comparisons = vec![better(3, 2), better(3, 1), better(2, 1), better(1, 0), better(3, 0), better(2, 0)];
        let head = attribute_head(&[ordered], &names(&["a", "b"]), &AttributeWeights::Fit).unwrap();
        assert!(head.weights[0] > 3.0 * head.weights[1].abs(), "{:?}", head.weights);
        assert_eq!(head.intercept, 0.0);
    }

    #[test]
    fn what_cannot_be_learnt_is_named() {
        let rows: [(&[(&str, f64)], _); 2] =
            [(&[("a", 1.0), ("flat", 2.0)], None), (&[("a", 3.0), ("flat", 2.0)], None)];
        let groups = [group(&rows)];
        let of = |name: &str, weights: AttributeWeights| attribute_head(&groups, &names(&[name]), &weights);
        let message = of("b", AttributeWeights::Auto).unwrap_err().to_string();
        assert!(message.contains("--attributes b: no response") && message.contains("found a, flat"), "{message}");
        assert!(of("flat", AttributeWeights::Auto).unwrap_err().to_string().contains("all 2 ratings are 2"));
        assert_eq!(of("a", AttributeWeights::Fit), Err(AttributeError::NoFit));
        assert_eq!(of("a", AttributeWeights::Auto).unwrap().weighting, Weighting::Equal);
        let declared = of("a", AttributeWeights::Declared(vec![0.3])).unwrap();
        assert_eq!((declared.weights, declared.means, declared.stds), (vec![0.3], vec![2.0], vec![1.0]));
    }
}
