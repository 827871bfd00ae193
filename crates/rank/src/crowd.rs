//! Crowd-Bradley-Terry: scores of responses and a reliability for each person, from their comparisons.
//!
//! After Chen, Bennett, Collins-Thompson and Horvitz, "Pairwise ranking aggregation in a crowdsourced setting" (WSDM 2013).
//! Person w reports the truth with probability η_w, and its opposite otherwise; the truth is Bradley-Terry. So
//! P(w says i > j) = η_w σ(s_i − s_j) + (1 − η_w) σ(s_j − s_i). Scores have a normal prior around 0 and reliabilities a Beta
//! prior; both are fitted by expectation maximisation, which never lowers the posterior.

use crate::merge::sigmoid;

/// Precision of the prior of scores: two responses differ by about 4.5 in the scale of log odds.
const PRECISION: f64 = 0.1;
/// The prior of reliabilities, Beta(3, 2): most people mean well, and it takes few comparisons to say otherwise.
const GOOD: f64 = 3.0;
const BAD: f64 = 2.0;
const MOST_ROUNDS: usize = 1000;
const CLOSE: f64 = 1e-9;

/// What one person said of two responses of an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// Who.
    pub person: usize,
    /// Which responses of the item.
    pub first: usize,
    /// The other one.
    pub second: usize,
    /// 1 if the first is better, 0 if the second is, 0.5 for a tie, which counts as half a vote for each.
    pub target: f64,
}

/// An item: how many responses, and what was said of them.
#[derive(Clone, Debug, Default)]
pub struct CrowdItem {
    /// Responses.
    pub responses: usize,
    /// Comparisons.
    pub said: Vec<Said>,
}

/// What was fitted.
#[derive(Clone, Debug)]
pub struct CrowdFit {
    /// By person: 1 always reports the truth, 0.5 says nothing, 0 reports the opposite.
    pub reliability: Vec<f64>,
    /// By item and response: log odds.
    pub scores: Vec<Vec<f64>>,
    /// Logarithm of the posterior after each round, up to a constant.
    pub course: Vec<f64>,
}

/// Fits the model to the comparisons of `people` people.
pub fn fit(items: &[CrowdItem], people: usize) -> CrowdFit {
    let scores = items.iter().map(|item| vec![0.0; item.responses]).collect();
    let start = (GOOD - 1.0) / (GOOD + BAD - 2.0);
    let mut fit = CrowdFit { reliability: vec![start; people], scores, course: Vec::new() };
    for _ in 0..MOST_ROUNDS {
        let posterior = fit.round(items);
        fit.course.push(posterior);
        if let [.., before, now] = fit.course[..]
            && now - before < CLOSE * (1.0 + now.abs())
        {
            break;
        }
    }
    fit
}

impl CrowdFit {
    /// Probability that the first response is better, given that `said` was said.
    pub fn truth(&self, item: usize, said: &Said) -> f64 {
        let scores = &self.scores[item];
        let better = sigmoid(scores[said.first] - scores[said.second]);
        let honest = self.reliability[said.person];
        let given_first = honest * better / (honest * better + (1.0 - honest) * (1.0 - better));
        let given_second = (1.0 - honest) * better / ((1.0 - honest) * better + honest * (1.0 - better));
        said.target * given_first + (1.0 - said.target) * given_second
    }

    /// One round; returns the logarithm of the posterior before it.
    fn round(&mut self, items: &[CrowdItem]) -> f64 {
        let mut honest = vec![(GOOD - 1.0, GOOD + BAD - 2.0); self.reliability.len()];
        let mut posterior = self.prior();
        for (i, item) in items.iter().enumerate() {
            let mut truths = Vec::with_capacity(item.said.len());
            for said in &item.said {
                let better = sigmoid(self.scores[i][said.first] - self.scores[i][said.second]);
                let eta = self.reliability[said.person];
                let says_first = eta * better + (1.0 - eta) * (1.0 - better);
                posterior += said.target * says_first.ln() + (1.0 - said.target) * (1.0 - says_first).ln();
                let told_truth = said.target * eta * better / says_first
                    + (1.0 - said.target) * eta * (1.0 - better) / (1.0 - says_first);
                honest[said.person].0 += told_truth;
                honest[said.person].1 += 1.0;
                truths.push(self.truth(i, said));
            }
            maximise(&mut self.scores[i], &item.said, &truths);
        }
        self.reliability = honest.into_iter().map(|(told, all)| told / all).collect();
        posterior
    }

    fn prior(&self) -> f64 {
        let scores: f64 = self.scores.iter().flatten().map(|score| -0.5 * PRECISION * score * score).sum();
        let of = |eta: &f64| (GOOD - 1.0) * eta.ln() + (BAD - 1.0) * (1.0 - eta).ln();
        scores + self.reliability.iter().map(of).sum::<f64>()
    }
}

/// Newton's method on the scores of one item, for soft truths; the prior makes the problem strictly concave.
fn maximise(scores: &mut [f64], said: &[Said], truths: &[f64]) {
    const MOST_STEPS: usize = 50;
    let k = scores.len();
    for _ in 0..MOST_STEPS {
        let mut gradient: Vec<f64> = scores.iter().map(|score| -PRECISION * score).collect();
        let mut curvature = vec![vec![0.0; k]; k];
        (0..k).for_each(|r| curvature[r][r] = PRECISION);
        for (said, truth) in said.iter().zip(truths) {
            let (i, j) = (said.first, said.second);
            let better = sigmoid(scores[i] - scores[j]);
            gradient[i] += truth - better;
            gradient[j] -= truth - better;
            let bend = better * (1.0 - better);
            curvature[i][i] += bend;
            curvature[j][j] += bend;
            curvature[i][j] -= bend;
            curvature[j][i] -= bend;
        }
        let step = solved(curvature, gradient);
        // A long step is cut: far from the top the curve is flatter than Newton's method takes it to be.
        let longest = step.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let scale = if longest > 2.0 { 2.0 / longest } else { 1.0 };
        scores.iter_mut().zip(&step).for_each(|(score, x)| *score += scale * x);
        if longest < 1e-12 {
            break;
        }
    }
}

/// Solves a symmetric positive definite system by Gauss's elimination.
fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let k = right.len();
    for p in 0..k {
        let pivot = matrix[p].clone();
        for row in p + 1..k {
            let factor = matrix[row][p] / pivot[p];
            (p..k).for_each(|column| matrix[row][column] -= factor * pivot[column]);
            right[row] -= factor * right[p];
        }
    }
    for p in (0..k).rev() {
        let known: f64 = (p + 1..k).map(|column| matrix[p][column] * right[column]).sum();
        right[p] = (right[p] - known) / matrix[p][p];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge;
    use kudos::random::Stream;

    /// People with a noise (`None` votes at random) and a sign, who rank `items` of 4 responses of known worth.
    fn simulated(people: &[(Option<f64>, f64)], items: usize, seed: u64) -> (Vec<Vec<f64>>, Vec<CrowdItem>) {
        let mut stream = Stream::new(seed, 0);
        let mut worths = Vec::new();
        let mut crowd = Vec::new();
        for _ in 0..items {
            let worth: Vec<f64> = (0..4).map(|_| stream.normal()).collect();
            let mut item = CrowdItem { responses: 4, said: Vec::new() };
            for (person, (noise, sign)) in people.iter().enumerate() {
                let seen: Vec<f64> = worth
                    .iter()
                    .map(|w| noise.map_or(0.0, |_| sign * w) + noise.unwrap_or(1.0) * stream.normal())
                    .collect();
                let ranks = merge::ranked(seen.into_iter().map(Some).collect());
                let said = merge::preferences(&ranks).into_iter();
                item.said.extend(said.map(|(first, second, target)| Said { person, first, second, target }));
            }
            worths.push(worth);
            crowd.push(item);
        }
        (worths, crowd)
    }

    /// Share of pairs that scores put in the true order.
    fn right(worths: &[Vec<f64>], scores: impl Fn(usize, usize) -> f64) -> f64 {
        let (mut right, mut all) = (0.0, 0.0);
        for (i, worth) in worths.iter().enumerate() {
            for a in 0..worth.len() {
                for b in a + 1..worth.len() {
                    all += 1.0;
                    let product = (worth[a] - worth[b]) * (scores(i, a) - scores(i, b));
                    right += if product > 0.0 {
                        1.0
                    } else if product == 0.0 {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
        }
        right / all
    }

    fn by_shares(crowd: &[CrowdItem]) -> Vec<Vec<f64>> {
        let won = |item: &CrowdItem| {
            let mut won = vec![0.0; item.responses];
            for said in &item.said {
                won[said.first] += said.target;
                won[said.second] += 1.0 - said.target;
            }
            won
        };
        crowd.iter().map(won).collect()
    }

    #[test]
    fn good_careless_and_adversarial_people_are_told_apart() {
        let people = [(Some(0.3), 1.0), (Some(0.6), 1.0), (None, 0.0), (Some(0.3), -1.0)];
        for seed in 0..5 {
            let (worths, crowd) = simulated(&people, 100, seed);
            let fit = fit(&crowd, people.len());
            let eta = &fit.reliability;
            assert!(eta[0] > 0.85 && eta[1] > 0.8 && (0.35..0.65).contains(&eta[2]) && eta[3] < 0.15, "{eta:?}");
            let shares = by_shares(&crowd);
            let (crowded, shared) = (right(&worths, |i, r| fit.scores[i][r]), right(&worths, |i, r| shares[i][r]));
            println!(
                "seed {seed}: right in {crowded:.3} by reliability, {shared:.3} by shares; reliabilities {eta:.2?}"
            );
            assert!(
                crowded > 0.85 && crowded > shared + 0.1,
                "seed {seed}: {crowded:.3} by reliability, {shared:.3} by shares"
            );
        }
    }

    #[test]
    fn among_equals_nothing_is_lost() {
        let people = [(Some(0.6), 1.0); 3];
        let (worths, crowd) = simulated(&people, 150, 9);
        let fit = fit(&crowd, 3);
        let shares = by_shares(&crowd);
        let (crowded, shared) = (right(&worths, |i, r| fit.scores[i][r]), right(&worths, |i, r| shares[i][r]));
        assert!(crowded > shared - 0.01, "{crowded:.3} {shared:.3}");
        assert!(fit.reliability.iter().all(|eta| *eta > 0.85), "{:?}", fit.reliability);
    }

    #[test]
    fn the_posterior_never_falls() {
        let (_, crowd) = simulated(&[(Some(0.3), 1.0), (None, 0.0), (Some(0.3), -1.0)], 20, 3);
        let course = fit(&crowd, 3).course;
        assert!(course.windows(2).all(|two| two[1] >= two[0] - 1e-9), "{course:?}");
        assert!(course.len() < MOST_ROUNDS, "it settles");
    }

    #[test]
    fn edges_are_finite() {
        let said = |target| Said { person: 0, first: 0, second: 1, target };
        let items = [
            CrowdItem { responses: 2, said: vec![said(1.0); 500] },
            CrowdItem { responses: 2, said: vec![said(0.5)] },
            CrowdItem { responses: 3, said: vec![] },
        ];
        let fit = fit(&items, 2);
        assert!(fit.scores.iter().flatten().chain(&fit.reliability).all(|x| x.is_finite()));
        assert!((fit.reliability[1] - 2.0 / 3.0).abs() < 1e-12, "of a silent person the prior is known");
        assert_eq!(fit.scores[2], [0.0; 3]);
    }
}
