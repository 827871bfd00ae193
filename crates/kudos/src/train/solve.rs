//! The head's convex problem, and how it is solved: Bradley-Terry over frozen features with λ/2·|w − w₀|².
//!
//! Scores are linear in the weights, so a step needs two passes over the features: one product with the direction, which
//! gives the scores at every length of the step, and one for the gradient where it ends. Directions are conjugate
//! (Polak and Ribière 1969), preconditioned by the features' second moments, which are summed once a part; twenty
//! steps or so bring the gradient down by seven digits.

use super::Example;
use super::head::centred;
use super::loss::bradley_terry;
use crate::data::Comparison;
use crate::nn::numerics::sigmoid;
use kernels::dots::{add_scaled_rows, dot, row_dots};
use kernels::gemm::{Store, linear_weight_gradient};

/// Steps of one fit at most.
const STEPS: usize = 200;
/// Squared norm of the gradient, relative to that at the prior, at which a fit is done.
const TOLERANCE: f64 = 1e-14;
/// Slope at the end of a step, relative to that at its start, that is small enough.
const FLAT: f64 = 0.1;
/// Lengths that are tried for one step at most.
const LENGTHS: usize = 30;
/// Rows whose second moments are summed at once.
const MOMENT_ROWS: usize = 1024;

/// An example as the fit sees it.
pub(super) struct Member<'a> {
    comparisons: &'a [Comparison],
    responses: usize,
    /// How much it counts: its responses, 1 on average. Fine-tuning, too, reads more of a larger group.
    share: f64,
}

impl<'a> Member<'a> {
    /// The example among others of so many responses on average.
    pub(super) fn of(example: &'a Example, mean_responses: f64) -> Self {
        let responses = example.sequences.len();
        Self { comparisons: &example.comparisons, responses, share: responses as f64 / mean_responses }
    }
}

/// Examples that a fit sees together or not at all.
pub(super) struct Part<'a> {
    members: Vec<Member<'a>>,
    /// Features of each response but the first of its example, less those of the first, `[rows, width]`: what differences of
    /// scores depend on.
    rows: Vec<f32>,
    /// Σ share·2/(responses − 1)·cᵀc over the centred features c in units of their mean square, `[width, width]`: the second
    /// moments of a comparison's difference, for examples whose responses are all compared.
    moments: Vec<f32>,
    /// That mean square.
    unit: f64,
}

impl<'a> Part<'a> {
    /// From members with their features `[responses, width]`, whose mean square is `unit`.
    pub(super) fn new<'f>(members: impl Iterator<Item = (Member<'a>, &'f [f32])>, width: usize, unit: f64) -> Self {
        let mut part = Part { members: Vec::new(), rows: Vec::new(), moments: vec![0.0; width * width], unit };
        let mut waiting = Vec::new();
        for (member, features) in members {
            let (first, others) = features.split_at(width);
            for other in others.chunks_exact(width) {
                part.rows.extend(other.iter().zip(first).map(|(v, first)| (f64::from(*v) - f64::from(*first)) as f32));
            }
            let scale = (member.share * 2.0 / (member.responses.max(2) - 1) as f64 / unit).sqrt();
            waiting.extend(centred(features, width).iter().map(|v| (f64::from(*v) * scale) as f32));
            part.members.push(member);
            if waiting.len() >= MOMENT_ROWS * width {
                part.add_moments(&mut waiting, width);
            }
        }
        part.add_moments(&mut waiting, width);
        part
    }

    fn add_moments(&mut self, rows: &mut Vec<f32>, width: usize) {
        if !rows.is_empty() {
            linear_weight_gradient(&mut self.moments, Store::Add, rows, rows, rows.len() / width, width, width);
            rows.clear();
        }
    }

    /// Number of examples.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Each row's product with a vector.
    fn products(&self, vector: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.rows.len() / vector.len().max(1)];
        row_dots(&mut out, &self.rows, vector);
        out
    }

    /// Loss of each example under a head, times its share.
    pub(super) fn losses(&self, head: &[f64]) -> impl Iterator<Item = f64> {
        let scores = self.products(head);
        let mut slopes = vec![0.0; scores.len()];
        let mut losses = Vec::with_capacity(self.len());
        self.slopes(&scores, &mut slopes, |loss| losses.push(loss));
        losses.into_iter()
    }

    /// Slopes of the loss by the score of each row; tells each example's loss. The score of an example's first response is 0.
    fn slopes(&self, scores: &[f64], slopes: &mut [f64], mut tell: impl FnMut(f64)) {
        let (mut own, mut own_slopes) = (Vec::new(), Vec::new());
        let mut at = 0;
        for member in &self.members {
            let rows = at..at + member.responses - 1;
            own.clear();
            own.push(0.0);
            own.extend_from_slice(&scores[rows.clone()]);
            own_slopes.clear();
            own_slopes.resize(member.responses, 0.0);
            tell(member.share * bradley_terry(member.comparisons, &own, &mut own_slopes));
            slopes[rows.clone()].iter_mut().zip(&own_slopes[1..]).for_each(|(slope, own)| *slope = member.share * own);
            at = rows.end;
        }
    }

    /// Sum over the examples of share times mean of p·(1 − p): how curved the loss is at these scores.
    fn curvature(&self, scores: &[f64]) -> f64 {
        let (mut sum, mut at) = (0.0, 0);
        for member in &self.members {
            let score = |r: usize| if r == 0 { 0.0 } else { scores[at + r - 1] };
            let bend = |c: &Comparison| {
                let p = sigmoid(score(c.first) - score(c.second));
                p * (1.0 - p)
            };
            let total: f64 = member.comparisons.iter().map(bend).sum();
            sum += member.share * total / member.comparisons.len().max(1) as f64;
            at += member.responses - 1;
        }
        sum
    }
}

/// Parts to fit a head to, and what regularisation draws it to.
pub(super) struct Problem<'a> {
    parts: &'a [&'a Part<'a>],
    prior: &'a [f64],
    /// One over the number of examples.
    each: f64,
    /// Squared norm of the gradient at which a fit is done.
    enough: f64,
    /// Second moments of all parts, one example's on average.
    moments: Vec<f64>,
}

/// Weights with what follows from them, whatever the regularisation.
pub(super) struct Point {
    pub(super) head: Vec<f64>,
    /// Scores of the rows of each part.
    scores: Vec<Vec<f64>>,
    /// Gradient of the loss alone.
    loss_gradient: Vec<f64>,
}

impl<'a> Problem<'a> {
    pub(super) fn new(parts: &'a [&'a Part<'a>], prior: &'a [f64]) -> Self {
        let examples: usize = parts.iter().map(|part| part.len()).sum();
        let each = 1.0 / examples.max(1) as f64;
        let mut moments = vec![0.0; prior.len() * prior.len()];
        for part in parts {
            moments.iter_mut().zip(&part.moments).for_each(|(sum, own)| *sum += each * part.unit * f64::from(*own));
        }
        let mut problem = Self { parts, prior, each, enough: 0.0, moments };
        problem.enough = TOLERANCE * squared(&problem.start().loss_gradient);
        problem
    }

    /// The prior.
    pub(super) fn start(&self) -> Point {
        let head = self.prior.to_vec();
        let scores: Vec<Vec<f64>> = self.parts.iter().map(|part| part.products(&head)).collect();
        let loss_gradient = self.loss_gradient(&self.slopes(&scores));
        Point { head, scores, loss_gradient }
    }

    /// Moves the point to the weights with the least loss for the regularisation λ.
    pub(super) fn fit(&self, strength: f64, point: &mut Point) {
        let mut gradient = self.gradient(point, strength);
        if squared(&gradient) <= self.enough {
            return;
        }
        let precondition = self.preconditioner(strength, point);
        let mut steepest = precondition.solve(&gradient);
        let mut direction: Vec<f64> = steepest.iter().map(|v| -v).collect();
        for _ in 0..STEPS {
            if !self.advance(point, &direction, dot(&gradient, &direction), strength) {
                return;
            }
            let before = gradient;
            gradient = self.gradient(point, strength);
            if squared(&gradient) <= self.enough {
                return;
            }
            let old = dot(&steepest, &before);
            steepest = precondition.solve(&gradient);
            let carry = (dot(&steepest, &gradient) - dot(&steepest, &before)) / old;
            let carry = if carry.is_finite() { carry.max(0.0) } else { 0.0 };
            direction.iter_mut().zip(&steepest).for_each(|(d, s)| *d = carry * *d - s);
            if dot(&direction, &gradient) >= 0.0 {
                direction.iter_mut().zip(&steepest).for_each(|(d, s)| *d = -s);
            }
        }
    }

    /// Slopes of the mean loss by each score.
    fn slopes(&self, scores: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let of = |(part, scores): (&&Part, &Vec<f64>)| {
            let mut slopes = vec![0.0; scores.len()];
            part.slopes(scores, &mut slopes, |_| ());
            slopes.iter_mut().for_each(|slope| *slope *= self.each);
            slopes
        };
        self.parts.iter().zip(scores).map(of).collect()
    }

    /// Of the loss and the regularisation.
    fn gradient(&self, point: &Point, strength: f64) -> Vec<f64> {
        let moved = point.head.iter().zip(self.prior).map(|(w, w0)| strength * (w - w0));
        moved.zip(&point.loss_gradient).map(|(pull, slope)| pull + slope).collect()
    }

    fn loss_gradient(&self, slopes: &[Vec<f64>]) -> Vec<f64> {
        let mut gradient = vec![0.0; self.prior.len()];
        for (part, slopes) in self.parts.iter().zip(slopes) {
            add_scaled_rows(&mut gradient, &part.rows, slopes);
        }
        gradient
    }

    /// Goes along a direction, on which the objective has this slope, to where it is nearly flat; false where it does not fall.
    fn advance(&self, point: &mut Point, direction: &[f64], slope: f64, strength: f64) -> bool {
        let moves: Vec<Vec<f64>> = self.parts.iter().map(|part| part.products(direction)).collect();
        let pull = strength * (dot(&point.head, direction) - dot(self.prior, direction));
        let bend = strength * squared(direction);
        let at = |length: f64| {
            let ends =
                point.scores.iter().zip(&moves).map(|(s, m)| s.iter().zip(m).map(|(s, m)| s + length * m).collect());
            let scores: Vec<Vec<f64>> = ends.collect();
            let slopes = self.slopes(&scores);
            let slope = slopes.iter().zip(&moves).map(|(slopes, moves)| dot(slopes, moves)).sum::<f64>();
            (slope + pull + length * bend, scores, slopes)
        };
        let Some((length, scores, slopes)) = flat_length(slope, at) else { return false };
        point.head.iter_mut().zip(direction).for_each(|(w, d)| *w += length * d);
        point.loss_gradient = self.loss_gradient(&slopes);
        point.scores = scores;
        true
    }

    /// What brings the gradient nearly to the minimum: the inverse of the mean curvature times the moments, plus λ.
    fn preconditioner(&self, strength: f64, point: &Point) -> Cholesky {
        let bends = self.parts.iter().zip(&point.scores).map(|(part, scores)| part.curvature(scores));
        let scale = self.each * bends.sum::<f64>();
        let width = self.prior.len();
        let mut matrix: Vec<f64> = self.moments.iter().map(|m| scale * m).collect();
        (0..width).for_each(|i| matrix[i * width + i] += strength);
        Cholesky::of(matrix, width).unwrap_or_else(|| Cholesky::scaled_identity(strength.sqrt(), width))
    }
}

/// The length at which the slope of a convex function is within [`FLAT`] of its start's, by false position; with what
/// `at` found there. `None` when it does not fall at the start, or no such length is found.
fn flat_length<A, B>(start: f64, at: impl Fn(f64) -> (f64, A, B)) -> Option<(f64, A, B)> {
    if start >= 0.0 || start.is_nan() {
        return None;
    }
    let (mut low, mut high) = ((0.0, start), None::<(f64, f64)>);
    let mut length = 1.0;
    for _ in 0..LENGTHS {
        let (slope, a, b) = at(length);
        if slope.abs() <= FLAT * -start {
            return Some((length, a, b));
        }
        if slope < 0.0 {
            low = (length, slope);
        } else {
            high = Some((length, slope)); // No number counts as too far.
        }
        length = match high {
            Some((far, steep)) if steep.is_finite() => {
                let guess = low.0 - low.1 * (far - low.0) / (steep - low.1);
                // Away from the ends, so that a strongly curved slope does not hold one of them for ever.
                guess.clamp(low.0 + 0.05 * (far - low.0), far - 0.05 * (far - low.0))
            }
            Some((far, _)) => 0.5 * (low.0 + far),
            None => 4.0 * length,
        };
    }
    None
}

/// A symmetric positive definite matrix as L·Lᵀ, rows of the lower triangle.
struct Cholesky {
    lower: Vec<f64>,
    width: usize,
}

impl Cholesky {
    /// Factors a matrix `[width, width]`; `None` when it is not positive definite.
    fn of(mut matrix: Vec<f64>, width: usize) -> Option<Self> {
        for i in 0..width {
            let (above, row) = matrix.split_at_mut(i * width);
            for j in 0..i {
                let other = &above[j * width..][..=j];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let square = row[i] - squared(&row[..i]);
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            row[i] = square.sqrt();
        }
        Some(Self { lower: matrix, width })
    }

    fn scaled_identity(scale: f64, width: usize) -> Self {
        let mut lower = vec![0.0; width * width];
        (0..width).for_each(|i| lower[i * width + i] = scale);
        Self { lower, width }
    }

    /// x of L·Lᵀ·x = right.
    fn solve(&self, right: &[f64]) -> Vec<f64> {
        let row = |i: usize| &self.lower[i * self.width..][..=i];
        let mut x = right.to_vec();
        for i in 0..self.width {
            x[i] = (x[i] - dot(&row(i)[..i], &x[..i])) / row(i)[i];
        }
        for i in (0..self.width).rev() {
            x[i] /= row(i)[i];
            let own = x[i];
            x[..i].iter_mut().zip(row(i)).for_each(|(x, l)| *x -= own * l);
        }
        x
    }
}

fn squared(vector: &[f64]) -> f64 {
    dot(vector, vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use crate::train::{Judged, Loss, group_loss};

    const WIDTH: usize = 6;

    /// Examples of two to four responses with random orders and weights, and features of length about `scale`.
    fn cases(count: usize, scale: f32) -> Vec<(Vec<Comparison>, Vec<f32>)> {
        let mut random = Stream::named(11, "solve");
        let mut example = |n: usize| {
            let responses = 2 + n % 3;
            let features: Vec<f32> = (0..responses * WIDTH).map(|_| scale * random.normal() as f32).collect();
            let mut comparisons = Vec::new();
            for second in 1..responses {
                let target = [1.0, 0.0, 0.5, 0.75][random.below(4)];
                let (margin, weight) = (0.25 * (n % 2) as f32, 1.0 + (n % 4) as f32);
                comparisons.push(Comparison { first: second - 1, second, target, margin, weight });
            }
            (comparisons, features)
        };
        (0..count).map(&mut example).collect()
    }

    fn part(cases: &[(Vec<Comparison>, Vec<f32>)]) -> Part<'_> {
        let members = cases.iter().map(|(comparisons, features)| {
            let responses = features.len() / WIDTH;
            (Member { comparisons, responses, share: responses as f64 / 3.0 }, features.as_slice())
        });
        Part::new(members, WIDTH, 1.0)
    }

    /// The objective by the loss of training, and its gradient.
    fn objective(cases: &[(Vec<Comparison>, Vec<f32>)], prior: &[f64], strength: f64, head: &[f64]) -> (f64, Vec<f64>) {
        let each = 1.0 / cases.len() as f64;
        let mut gradient: Vec<f64> = head.iter().zip(prior).map(|(w, w0)| strength * (w - w0)).collect();
        let mut value = 0.5 * strength * head.iter().zip(prior).map(|(w, w0)| (w - w0).powi(2)).sum::<f64>();
        for (comparisons, features) in cases {
            let rows = features.chunks(WIDTH);
            let score = |row: &[f32]| row.iter().zip(head).map(|(v, w)| f64::from(*v) * w).sum::<f64>() as f32;
            let scores: Vec<f32> = rows.clone().map(score).collect();
            let (mut slopes, ranks) = (vec![0.0; scores.len()], vec![None; scores.len()]);
            let share = each * scores.len() as f64 / 3.0;
            let judged = Judged { comparisons, ranks: &ranks };
            value += share * group_loss(Loss::BradleyTerry, 0.0, judged, &scores, 1.0, &mut slopes);
            for (row, slope) in rows.zip(slopes) {
                gradient.iter_mut().zip(row).for_each(|(g, v)| *g += share * f64::from(slope) * f64::from(*v));
            }
        }
        (value, gradient)
    }

    /// Nesterov's accelerated gradient with a step that adapts and restarts when the value rises (O'Donoghue and Candès
    /// 2015): the plain way to the same minimum.
    fn fit_reference(cases: &[(Vec<Comparison>, Vec<f32>)], prior: &[f64], strength: f64) -> Vec<f64> {
        let (mut head, mut ahead) = (prior.to_vec(), prior.to_vec());
        let mut current = objective(cases, prior, strength, &head).0;
        let (mut rate, mut momentum) = (1.0, 1.0f64);
        for _ in 0..600 {
            let (at, gradient) = objective(cases, prior, strength, &ahead);
            let norm: f64 = gradient.iter().map(|g| g * g).sum();
            let step = |rate: f64| -> Vec<f64> { ahead.iter().zip(&gradient).map(|(w, g)| w - rate * g).collect() };
            while rate > 1e-9 && objective(cases, prior, strength, &step(rate)).0 > at - 0.25 * rate * norm {
                rate *= 0.5;
            }
            let next = step(rate);
            let value = objective(cases, prior, strength, &next).0;
            let grown = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt());
            let carry = if value > current { 0.0 } else { (momentum - 1.0) / grown };
            momentum = if value > current { 1.0 } else { grown };
            ahead = next.iter().zip(&head).map(|(new, old)| new + carry * (new - old)).collect();
            (head, current) = (next, value);
            rate *= 1.5;
        }
        head
    }

    #[test]
    fn a_fit_ends_where_the_plain_one_does() {
        let prior = [0.5, -0.5, 0.0, 0.1, 0.0, 0.2];
        for (count, scale) in [(60, 1.0), (9, 4.0)] {
            let cases = cases(count, scale);
            let all = part(&cases);
            let parts = [&all];
            let problem = Problem::new(&parts, &prior);
            for strength in [10.0, 0.3, 0.01] {
                let mut point = problem.start();
                problem.fit(strength, &mut point);
                let (found, expected) = (point.head, fit_reference(&cases, &prior, strength));
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{count} {scale} {strength}: {found} instead of {expected}"
                    );
                }
                let (_, gradient) = objective(&cases, &prior, strength, &found);
                assert!(gradient.iter().all(|g| g.abs() < 1e-6), "{strength}: {gradient:?}");
            }
        }
    }

    /// With features of a length of thousands the scores would be far out at the first length that is tried.
    #[test]
    fn extreme_features_are_fitted_too() {
        for scale in [1e-6, 1e6] {
            let cases = cases(30, scale);
            let all = part(&cases);
            let parts = [&all];
            let strength = 0.1 * f64::from(scale).powi(2);
            let problem = Problem::new(&parts, &[0.0; WIDTH]);
            let mut point = problem.start();
            problem.fit(strength, &mut point);
            let gradient = objective(&cases, &[0.0; WIDTH], strength, &point.head).1;
            let least = objective(&cases, &[0.0; WIDTH], strength, &[0.0; WIDTH]).1;
            assert!(squared(&gradient) < 1e-8 * squared(&least), "{scale}: {gradient:?}");
        }
    }

    #[test]
    fn equations_are_solved() {
        let matrix = vec![4.0, 9.0, 9.0, 2.0, 5.0, 9.0, -2.0, 0.5, 3.0]; // Above the diagonal nothing is read.
        let x = Cholesky::of(matrix, 3).unwrap().solve(&[1.0, 2.0, 3.0]);
        let product = [
            4.0 * x[0] + 2.0 * x[1] - 2.0 * x[2],
            2.0 * x[0] + 5.0 * x[1] + 0.5 * x[2],
            -2.0 * x[0] + 0.5 * x[1] + 3.0 * x[2],
        ];
        assert!(product.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{product:?}");
        assert!(Cholesky::of(vec![1.0, 0.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::of(vec![f64::NAN], 1).is_none());
    }
}
