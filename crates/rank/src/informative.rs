//! Which item's vote would tell most: expected information for a Bradley-Terry head on frozen features.
//!
//! The head scores a response by w · x, where x are features of a judge's frozen body, and P(i beats j) = σ(w · (x_i − x_j)).
//! What is known of w is a normal distribution. A vote on k responses counts as its k − 1 comparisons of neighbours; each is
//! one step of the Laplace approximation (Spiegelhalter and Lauritzen 1990), a change of rank one to the covariance.
//!
//! What a comparison is worth is by how much it would lower the variances of all pairs of responses, on average: I-optimal
//! design. D-optimal design, which shrinks the volume of the covariance, asks for the most unusual texts first; on two of three
//! sets of data it needed more rankings (`bench/rank.md`).
//!
//! Scores of all responses, and what all pairs are worth, are kept, so that a vote costs one pass over the features.

use crate::merge::sigmoid;
use crate::{ItemId, ResponseId, Store, StoreError, TaskId, Vote, votes};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// Prior variance of the difference of two typical responses, in log odds squared.
const PRIOR: f32 = 4.0;
/// Votes whose effect can be taken back.
const REMEMBERED: usize = 200;
/// Parts of the learning curve.
const PARTS: usize = 10;
/// Comparisons that a learning curve needs.
const ENOUGH: usize = 100;

/// Features of responses: one row each.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Numbers in a row.
    pub width: usize,
    /// Whose row each is.
    pub responses: Vec<ResponseId>,
    /// All rows, end to end.
    pub rows: Vec<f32>,
}

/// How well the head foretold votes before it learned them.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Curve {
    /// After so many rankings, the share of preferences foretold since the point before. An order that asks what is least
    /// certain makes it lower than it would be on items by chance.
    pub points: Vec<(usize, f64)>,
    /// Rankings until one more of 100 is foretold, by a curve through the points; `None` where it shows no such rise.
    pub more_for_a_point: Option<usize>,
}

/// The head.
#[derive(Clone, Debug)]
pub struct Head {
    width: usize,
    rows: Vec<f32>,
    items: Vec<HeadItem>,
    at: HashMap<ItemId, usize>,
    mean: Vec<f32>,
    /// width × width, symmetric.
    covariance: Vec<f32>,
    /// Mean of z zᵀ over the differences z of all pairs, each item counting the same: width × width, symmetric.
    pairs: Vec<f32>,
    /// w · x of each row, at the mean.
    scores: Vec<f32>,
    learned: VecDeque<(TaskId, Vec<Step>)>,
    /// For each ranking that was learned, preferences and how many of them were foretold.
    foretold: Vec<(usize, f64)>,
}

#[derive(Clone, Debug)]
struct HeadItem {
    /// Its rows.
    rows: Range<usize>,
    /// What is known of each two, in the order (0, 1), (0, 2), …, (1, 2), ….
    pairs: Vec<Pair>,
}

/// Two responses, by the difference z of their features, the covariance S and the mean M of all z zᵀ.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// zᵀ S z: the variance of the difference of their scores.
    variance: f32,
    /// zᵀ S M S z: how much of the mean variance of all pairs lies along it.
    reach: f32,
}

/// One comparison that was learned: the covariance lost `shrink` · u uᵀ, the mean gained `shift` · u.
#[derive(Clone, Debug)]
struct Step {
    u: Vec<f32>,
    /// S M u, with the covariance S from before the step.
    t: Vec<f32>,
    /// uᵀ M u.
    own: f32,
    shrink: f32,
    shift: f32,
}

impl Head {
    /// A head that knows nothing yet. Each feature is scaled to one unit of variance within items.
    pub fn new(items: &[(ItemId, Vec<ResponseId>)], features: &Features) -> Head {
        let row_of: HashMap<ResponseId, usize> =
            features.responses.iter().enumerate().map(|(row, response)| (*response, row)).collect();
        let width = features.width;
        let mut head = Head {
            width,
            rows: Vec::with_capacity(features.rows.len()),
            items: Vec::with_capacity(items.len()),
            at: HashMap::new(),
            mean: vec![0.0; width],
            covariance: vec![0.0; width * width],
            pairs: vec![0.0; width * width],
            scores: Vec::new(),
            learned: VecDeque::new(),
            foretold: Vec::new(),
        };
        for (item, responses) in items {
            let Some(found) = responses.iter().map(|r| row_of.get(r)).collect::<Option<Vec<_>>>() else { continue };
            let first = head.rows.len() / width.max(1);
            found.iter().for_each(|row| head.rows.extend_from_slice(&features.rows[*row * width..(*row + 1) * width]));
            head.at.insert(*item, head.items.len());
            head.items.push(HeadItem { rows: first..first + found.len(), pairs: Vec::new() });
        }
        head.scores = vec![0.0; head.rows.len() / width.max(1)];
        head.scale();
        head.average();
        let typical = 2.0 * width as f32; // E |x_i − x_j|² of scaled features
        (0..width).for_each(|d| head.covariance[d * width + d] = PRIOR / typical);
        head.measure();
        head
    }

    /// Takes the mean of each item from its rows, and divides each feature by its deviation. Differences within items are all
    /// that the head sees.
    fn scale(&mut self) {
        let width = self.width;
        let mut squares = vec![0.0f64; width];
        for item in &self.items {
            let rows = &mut self.rows[item.rows.start * width..item.rows.end * width];
            for d in 0..width {
                let mean = rows.iter().skip(d).step_by(width).sum::<f32>() / item.rows.len() as f32;
                rows.iter_mut().skip(d).step_by(width).for_each(|x| *x -= mean);
                squares[d] += rows.iter().skip(d).step_by(width).map(|x| f64::from(x * x)).sum::<f64>();
            }
        }
        let freedom: usize = self.items.iter().map(|item| item.rows.len() - 1).sum();
        // A feature that hardly ever differs is rounding, and scaled up it would be noise.
        let least = 1e-10 * squares.iter().copied().fold(0.0, f64::max);
        let of = |sum: &f64| if *sum > least { (freedom.max(1) as f64 / sum).sqrt() as f32 } else { 0.0 };
        let scale: Vec<f32> = squares.iter().map(of).collect();
        for row in self.rows.chunks_exact_mut(width.max(1)) {
            row.iter_mut().zip(&scale).for_each(|(x, scale)| *x *= scale);
        }
    }

    /// The mean of z zᵀ. Of an item with rows x around their mean, that over its pairs is 2 / (k − 1) Σ x xᵀ.
    fn average(&mut self) {
        let Head { width, rows, items, pairs, .. } = self;
        for item in items.iter() {
            let weight = 2.0 / (item.rows.len() - 1) as f32 / items.len() as f32;
            for x in rows[item.rows.start * *width..item.rows.end * *width].chunks_exact(*width) {
                for (row, a) in pairs.chunks_exact_mut(*width).zip(x) {
                    let factor = weight * a;
                    row.iter_mut().zip(x).for_each(|(sum, b)| *sum += factor * b);
                }
            }
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.width..(row + 1) * self.width]
    }

    /// Covariance times a vector.
    fn spread(&self, z: &[f32]) -> Vec<f32> {
        times(&self.covariance, z)
    }

    /// What is known of all pairs, from the covariance.
    fn measure(&mut self) {
        for at in 0..self.items.len() {
            let rows = self.items[at].rows.clone();
            let spread: Vec<Vec<f32>> = rows.clone().map(|row| self.spread(self.row(row))).collect();
            let reach: Vec<Vec<f32>> = spread.iter().map(|along| times(&self.pairs, along)).collect();
            let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f32>>();
            let pair = |(i, j): (usize, usize)| {
                let z = difference(self.row(rows.start + i), self.row(rows.start + j));
                let along = difference(&spread[i], &spread[j]);
                Pair { variance: dot(&along, &z), reach: dot(&along, &difference(&reach[i], &reach[j])) }
            };
            self.items[at].pairs = pairs(rows.len()).map(pair).collect();
        }
    }

    /// By how much a ranking of the item is expected to lower the mean variance of all pairs, in log odds squared; `None` for
    /// an item without features.
    pub fn value(&self, item: ItemId) -> Option<f64> {
        let item = &self.items[*self.at.get(&item)?];
        let lowered = pairs(item.rows.len()).zip(&item.pairs).map(|((i, j), pair)| {
            let margin = self.scores[item.rows.start + i] - self.scores[item.rows.start + j];
            let better = expected(margin, pair.variance);
            let weight = better * (1.0 - better);
            f64::from(weight * pair.reach / (1.0 + weight * pair.variance))
        });
        // A ranking of k responses makes k − 1 of the k (k − 1) / 2 comparisons.
        Some(lowered.sum::<f64>() * 2.0 / item.rows.len() as f64)
    }

    /// Scores of the item's responses, as the head has them now.
    pub fn scores(&self, item: ItemId) -> Option<&[f32]> {
        self.at.get(&item).map(|at| &self.scores[self.items[*at].rows.clone()])
    }

    /// Learns a ranking (ranks by place) of an item.
    pub fn learn(&mut self, item: ItemId, task: TaskId, ranks: &[Option<u32>]) {
        let Some(at) = self.at.get(&item).copied().filter(|at| self.items[*at].rows.len() == ranks.len()) else {
            return;
        };
        self.foretell(at, ranks);
        let steps = self.steps(at, ranks);
        self.apply(&steps, 1.0);
        self.learned.push_back((task, steps));
        if self.learned.len() > REMEMBERED {
            self.learned.pop_front();
        }
    }

    /// Learns many votes at once, and then brings all scores and variances up to them.
    pub fn learn_all(&mut self, votes: &[Vote]) {
        let mut learned = false;
        for vote in votes.iter().filter(|vote| counts(vote)) {
            let at = self.at.get(&vote.item).copied();
            let Some(at) = at.filter(|at| self.items[*at].rows.len() == vote.ranks.len()) else { continue };
            for row in self.items[at].rows.clone() {
                self.scores[row] = dot(&self.mean, self.row(row));
            }
            self.foretell(at, &vote.ranks);
            let steps = self.steps(at, &vote.ranks);
            self.learned.push_back((vote.task, steps));
            if self.learned.len() > REMEMBERED {
                self.learned.pop_front();
            }
            learned = true;
        }
        if learned {
            self.scores = self.rows.chunks_exact(self.width).map(|row| dot(&self.mean, row)).collect();
            self.measure();
        }
    }

    /// Takes back what a vote taught, if it is one of the last.
    pub fn unlearn(&mut self, task: TaskId) {
        let Some(at) = self.learned.iter().rposition(|(learned, _)| *learned == task) else { return };
        let (_, steps) = self.learned.remove(at).expect("it was just found");
        for step in &steps {
            self.update(step, -1.0);
        }
        self.apply(&steps, -1.0);
    }

    fn foretell(&mut self, at: usize, ranks: &[Option<u32>]) {
        let start = self.items[at].rows.start;
        let mut told = (0, 0.0);
        for (i, j, target) in crate::merge::preferences(ranks).into_iter().filter(|said| said.2 != 0.5) {
            let margin = self.scores[start + i] - self.scores[start + j];
            let right = if margin == 0.0 { 0.5 } else { f64::from(u8::from((margin > 0.0) == (target > 0.5))) };
            told = (told.0 + 1, told.1 + right);
        }
        self.foretold.push(told);
    }

    /// The comparisons of a ranking, each learned by the mean and the covariance after those before it.
    fn steps(&mut self, at: usize, ranks: &[Option<u32>]) -> Vec<Step> {
        let start = self.items[at].rows.start;
        let mut steps = Vec::new();
        for (better, worse, target) in neighbours(ranks) {
            let z: Vec<f32> =
                self.row(start + better).iter().zip(self.row(start + worse)).map(|(a, b)| a - b).collect();
            let u = self.spread(&z);
            let (variance, margin) = (dot(&u, &z), dot(&self.mean, &z));
            let chance = expected(margin, variance);
            let weight = chance * (1.0 - chance);
            let whole = 1.0 + weight * variance;
            let along = times(&self.pairs, &u);
            let (t, own) = (self.spread(&along), dot(&u, &along));
            let step = Step { u, t, own, shrink: weight / whole, shift: (target - chance) / whole };
            self.update(&step, 1.0);
            steps.push(step);
        }
        steps
    }

    fn update(&mut self, step: &Step, sign: f32) {
        self.mean.iter_mut().zip(&step.u).for_each(|(w, u)| *w += sign * step.shift * u);
        for (row, u) in self.covariance.chunks_exact_mut(self.width).zip(&step.u) {
            let factor = sign * step.shrink * u;
            row.iter_mut().zip(&step.u).for_each(|(c, other)| *c -= factor * other);
        }
    }

    /// Brings scores and pairs up to steps that were taken: one pass over the features.
    fn apply(&mut self, steps: &[Step], sign: f32) {
        let Head { width, rows, items, scores, .. } = self;
        let mut along: Vec<[f32; 2]> = Vec::new();
        for item in items {
            let part = &rows[item.rows.start * *width..item.rows.end * *width];
            for step in steps {
                along.clear();
                along.extend(part.chunks_exact(*width).map(|row| [dot(row, &step.u), dot(row, &step.t)]));
                let own = scores[item.rows.clone()].iter_mut().zip(&along);
                own.for_each(|(score, [u, _])| *score += sign * step.shift * u);
                for ((i, j), pair) in pairs(item.rows.len()).zip(&mut item.pairs) {
                    let [u, t] = [along[i][0] - along[j][0], along[i][1] - along[j][1]];
                    let lost = step.shrink * u;
                    pair.variance = (pair.variance - sign * lost * u).max(0.0);
                    pair.reach = (pair.reach - sign * (2.0 * lost * t - lost * lost * step.own)).max(0.0);
                }
            }
        }
    }

    /// How well votes were foretold; `None` before there are enough.
    pub fn curve(&self) -> Option<Curve> {
        if self.foretold.iter().map(|told| told.0).sum::<usize>() < ENOUGH {
            return None;
        }
        let size = self.foretold.len().div_ceil(PARTS);
        let point = |(part, told): (usize, &[(usize, f64)])| {
            let (all, right) = told.iter().fold((0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            ((part * size + told.len()), right / all.max(1) as f64)
        };
        let points: Vec<(usize, f64)> = self.foretold.chunks(size).enumerate().map(point).collect();
        Some(Curve { more_for_a_point: more_for_a_point(&points), points })
    }
}

/// accuracy ≈ a − b / √n by least squares; the n at which it is one of 100 higher than now, less the n of now.
fn more_for_a_point(points: &[(usize, f64)]) -> Option<usize> {
    let x = |n: usize| 1.0 / (n as f64).sqrt();
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|p| x(p.0)).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let together: f64 = points.iter().map(|p| (x(p.0) - mean_x) * (p.1 - mean_y)).sum();
    let alone: f64 = points.iter().map(|p| (x(p.0) - mean_x).powi(2)).sum();
    let slope = -together / alone;
    let now = points.last()?.0;
    let then = x(now) - 0.01 / slope;
    (slope > 0.0 && then > 0.0).then(|| (1.0 / (then * then)).ceil() as usize - now)
}

/// E σ(m) for m normal, by MacKay's approximation (1992).
fn expected(mean: f32, variance: f32) -> f32 {
    sigmoid(f64::from(mean / (1.0 + std::f32::consts::PI * variance.max(0.0) / 8.0).sqrt())) as f32
}

/// Every two of `k`.
fn pairs(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k).flat_map(move |i| (i + 1..k).map(move |j| (i, j)))
}

/// Each response with the next in the ranking; those that were not placed come after the last that was, which is compared with
/// each of them. The target is 1, or 0.5 for a tie.
fn neighbours(ranks: &[Option<u32>]) -> Vec<(usize, usize, f32)> {
    let mut placed: Vec<usize> = (0..ranks.len()).filter(|r| ranks[*r].is_some()).collect();
    placed.sort_by_key(|r| (ranks[*r], *r));
    let of = |two: &[usize]| (two[0], two[1], if ranks[two[0]] == ranks[two[1]] { 0.5 } else { 1.0 });
    let mut steps: Vec<(usize, usize, f32)> = placed.windows(2).map(of).collect();
    let rest = (0..ranks.len()).filter(|r| ranks[*r].is_none());
    steps.extend(placed.last().into_iter().flat_map(|last| rest.clone().map(|r| (*last, r, 1.0))));
    steps
}

/// A square matrix times a vector.
fn times(matrix: &[f32], z: &[f32]) -> Vec<f32> {
    matrix.chunks_exact(z.len()).map(|row| dot(row, z)).collect()
}

/// Sum of products in sixteen lanes, which compilers turn into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a.zip(b) {
        (0..LANES).for_each(|lane| sums[lane] += x[lane] * y[lane]);
    }
    sums.iter().sum::<f32>() + rest
}

impl Store {
    /// Features of the responses, for the informative order and the learning curve. The votes that stand are learned at once.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn set_features(&self, features: &Features) -> Result<(), StoreError> {
        let items: Vec<(ItemId, Vec<ResponseId>)> = self.query(|connection| {
            let mut rows = connection.prepare("SELECT item, response FROM response ORDER BY item, place")?;
            let mut items: Vec<(ItemId, Vec<ResponseId>)> = Vec::new();
            for row in rows.query_map([], |row| Ok((ItemId(row.get(0)?), ResponseId(row.get(1)?))))? {
                let (item, response) = row?;
                match items.last_mut().filter(|last| last.0 == item) {
                    Some((_, responses)) => responses.push(response),
                    None => items.push((item, vec![response])),
                }
            }
            Ok(items)
        })?;
        let mut head = Head::new(&items, features);
        head.learn_all(&self.standing()?);
        self.state().head = Some(head);
        Ok(())
    }

    /// How well the head foretold votes; `None` without features or before there are enough votes.
    pub fn curve(&self) -> Option<Curve> {
        self.state().head.as_ref().and_then(Head::curve)
    }

    /// Tells the head of a vote that was just stored.
    pub(crate) fn learn(&self, item: ItemId, task: TaskId) -> Result<(), StoreError> {
        if self.state().head.is_none() {
            return Ok(());
        }
        let condition = format!("WHERE withdrawal.vote IS NULL AND vote.task = {}", task.0);
        let votes = self.query(|connection| votes::select(connection, &condition))?;
        if let (Some(head), Some(vote)) = (&mut self.state().head, votes.last().filter(|vote| counts(vote))) {
            head.learn(item, task, &vote.ranks);
        }
        Ok(())
    }
}

fn counts(vote: &Vote) -> bool {
    !vote.repeat && vote.skipped.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kudos::random::Stream;

    /// `items` items of `k` responses with features by chance.
    fn drawn(items: usize, k: usize, width: usize, seed: u64) -> (Vec<(ItemId, Vec<ResponseId>)>, Features) {
        let mut stream = Stream::new(seed, 0);
        let ids =
            (0..items).map(|i| (ItemId(i as i64), (0..k).map(|r| ResponseId((i * k + r) as i64)).collect())).collect();
        let responses = (0..items * k).map(|r| ResponseId(r as i64)).collect();
        let rows = (0..items * k * width).map(|_| stream.normal() as f32).collect();
        (ids, Features { width, responses, rows })
    }

    fn ranks(ranks: &[u32]) -> Vec<Option<u32>> {
        ranks.iter().map(|rank| (*rank > 0).then_some(*rank)).collect()
    }

    /// Scores and variances from the mean and the covariance, as they would be without bookkeeping.
    fn anew(head: &Head) -> Head {
        let mut head = head.clone();
        head.scores = (0..head.scores.len()).map(|row| dot(&head.mean, head.row(row))).collect();
        head.measure();
        head
    }

    #[test]
    fn bookkeeping_keeps_up_with_the_posterior() {
        let (ids, features) = drawn(20, 4, 37, 1);
        let mut head = Head::new(&ids, &features);
        for item in 0..15 {
            head.learn(ItemId(item), TaskId(item), &ranks(&[2, 1, 0, 2]));
        }
        let fresh = anew(&head);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-3 * b.abs().max(0.1);
        for (kept, new) in head.items.iter().zip(&fresh.items) {
            for (a, b) in kept.pairs.iter().zip(&new.pairs) {
                assert!(near(a.variance, b.variance) && near(a.reach, b.reach), "{a:?} {b:?}");
            }
        }
        assert!(head.scores.iter().zip(&fresh.scores).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_ranking_is_worth_what_it_lowers() {
        let (ids, features) = drawn(12, 2, 9, 6);
        let mut head = Head::new(&ids, &features);
        head.learn(ItemId(3), TaskId(1), &ranks(&[2, 1]));
        let mean = |head: &Head| head.items.iter().map(|item| f64::from(item.pairs[0].variance)).sum::<f64>() / 12.0;
        let (before, worth) = (mean(&head), head.value(ItemId(5)).unwrap());
        head.learn(ItemId(5), TaskId(2), &ranks(&[1, 2]));
        assert!((before - mean(&head) - worth).abs() < 1e-3 * worth, "{before} {} {worth}", mean(&head));
    }

    #[test]
    fn many_votes_at_once_teach_what_they_teach_one_by_one() {
        let (ids, features) = drawn(10, 3, 16, 2);
        let (mut one, mut all) = (Head::new(&ids, &features), Head::new(&ids, &features));
        let vote = |n: i64| Vote {
            number: n,
            vote: n.to_string(),
            task: TaskId(n),
            item: ItemId(n),
            annotator: crate::AnnotatorId(1),
            repeat: false,
            ranks: ranks(&[1, 3, 2]),
            ratings: Default::default(),
            flags: Vec::new(),
            shown: vec![0, 1, 2],
            comment: None,
            skipped: None,
            seconds: None,
            stored_at: String::new(),
            withdrawn_at: None,
        };
        let votes: Vec<Vote> = (0..8).map(vote).collect();
        votes.iter().for_each(|vote| one.learn(vote.item, vote.task, &vote.ranks));
        all.learn_all(&votes);
        assert!(one.scores.iter().zip(&all.scores).all(|(a, b)| (a - b).abs() < 1e-4));
        assert_eq!(one.foretold.len(), all.foretold.len());
    }

    #[test]
    fn a_vote_lowers_what_its_item_would_tell_and_can_be_taken_back() {
        let (ids, features) = drawn(30, 3, 24, 3);
        let mut head = Head::new(&ids, &features);
        let before: Vec<f64> = ids.iter().map(|(id, _)| head.value(*id).unwrap()).collect();
        let scores = head.scores.clone();
        head.learn(ItemId(4), TaskId(1), &ranks(&[1, 2, 3]));
        assert!(head.value(ItemId(4)).unwrap() < 0.9 * before[4], "{:?} {}", head.value(ItemId(4)), before[4]);
        let told = head.scores(ItemId(4)).unwrap();
        assert!(told[0] > told[1] && told[1] > told[2], "{told:?}");
        head.unlearn(TaskId(1));
        for ((id, _), before) in ids.iter().zip(&before) {
            assert!((head.value(*id).unwrap() - before).abs() < 1e-4);
        }
        assert!(head.scores.iter().zip(&scores).all(|(a, b)| (a - b).abs() < 1e-4));
        assert_eq!(head.value(ItemId(99)), None);
    }

    #[test]
    fn the_head_learns_a_known_truth_and_says_how_well() {
        let width = 12;
        let (ids, features) = drawn(400, 2, width, 4);
        let mut stream = Stream::new(8, 8);
        let truth: Vec<f32> = (0..width).map(|_| stream.normal() as f32).collect();
        let worth = |r: usize| dot(&features.rows[r * width..(r + 1) * width], &truth);
        let mut head = Head::new(&ids, &features);
        for item in 0..300 {
            let first = worth(2 * item) > worth(2 * item + 1);
            head.learn(ItemId(item as i64), TaskId(item as i64), &ranks(if first { &[1, 2] } else { &[2, 1] }));
        }
        let right = (300..400).filter(|item| {
            let scores = head.scores(ItemId(*item as i64)).unwrap();
            (scores[0] > scores[1]) == (worth(2 * item) > worth(2 * item + 1))
        });
        let right = right.count();
        assert!(right >= 90, "{right} of 100");
        let curve = head.curve().unwrap();
        assert_eq!(curve.points.last().unwrap().0, 300);
        assert!(curve.points.last().unwrap().1 > curve.points[0].1);
    }

    #[test]
    fn rankings_to_the_next_point() {
        let points =
            |accuracy: fn(f64) -> f64| (1..=10).map(|n| (50 * n, accuracy(50.0 * n as f64))).collect::<Vec<_>>();
        let more = more_for_a_point(&points(|n| 0.8 - 1.0 / n.sqrt())).unwrap();
        // 0.8 − 1/√n is one of 100 higher than at 500 at n = 829.
        assert!((325..=333).contains(&more), "{more}");
        assert_eq!(more_for_a_point(&points(|_| 0.6)), None, "flat");
        assert_eq!(more_for_a_point(&points(|n| 0.8 - 0.1 / n.sqrt())), None, "no whole point is left");
    }

    #[test]
    fn order_of_learning() {
        assert_eq!(neighbours(&ranks(&[2, 1, 3])), [(1, 0, 1.0), (0, 2, 1.0)]);
        assert_eq!(neighbours(&ranks(&[1, 1])), [(0, 1, 0.5)]);
        assert_eq!(neighbours(&ranks(&[0, 1, 0])), [(1, 0, 1.0), (1, 2, 1.0)]);
    }
}
