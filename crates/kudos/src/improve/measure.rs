//! Held-out prompts before and after: what changed, and how sure one can be of it.

use super::log::Writing;
use super::reward::mean_and_deviation;
use super::sample::Response;
use crate::data::Content;
use serde::{Deserialize, Serialize};

/// A response to a held-out prompt, with its scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Whether it was cut at the limit of tokens.
    pub cut: bool,
    /// The judge's score; `None` where it cannot score the text.
    pub reward: Option<f64>,
    /// The second judge's.
    pub check: Option<f64>,
}

/// The responses to each held-out prompt at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// By prompt.
    pub answers: Vec<Vec<Answer>>,
    /// KL divergence from the start model a token, estimated from these responses (k3).
    pub kl: f64,
}

impl Measurement {
    /// How its responses look.
    pub fn writing(&self) -> Writing {
        let response =
            |answer: &Answer| Response { ids: vec![0; answer.tokens], text: answer.text.clone(), cut: answer.cut };
        Writing::of(&self.answers.iter().map(|answers| answers.iter().map(response).collect()).collect::<Vec<_>>())
    }

    /// The mean score of each prompt's responses; `None` for a prompt with none.
    fn means(&self, score: fn(&Answer) -> Option<f64>) -> Vec<Option<f64>> {
        let mean = |answers: &Vec<Answer>| {
            let scores: Vec<f64> = answers.iter().filter_map(score).collect();
            (!scores.is_empty()).then(|| mean_and_deviation(&scores).0)
        };
        self.answers.iter().map(mean).collect()
    }
}

/// A mean score before and after, over the prompts that have both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Mean before.
    pub before: f64,
    /// Mean after.
    pub after: f64,
    /// After − before.
    pub gain: f64,
    /// 95 % interval of the gain: Student's, of the differences of the prompts' means.
    pub gain_ci95: [f64; 2],
    /// Prompts.
    pub prompts: usize,
}

impl Change {
    /// From the scores of the same prompts; `None` for fewer than two of them.
    pub fn of(before: &Measurement, after: &Measurement, score: fn(&Answer) -> Option<f64>) -> Option<Self> {
        let pairs = before.means(score).into_iter().zip(after.means(score));
        let pairs: Vec<(f64, f64)> = pairs.filter_map(|(before, after)| Some((before?, after?))).collect();
        if pairs.len() < 2 {
            return None;
        }
        let differences: Vec<f64> = pairs.iter().map(|(before, after)| after - before).collect();
        let (gain, deviation) = mean_and_deviation(&differences);
        let count = pairs.len() as f64;
        let half = student(pairs.len() - 1) * deviation / count.sqrt();
        let mean = |one: fn(&(f64, f64)) -> f64| pairs.iter().map(one).sum::<f64>() / count;
        let (before, after) = (mean(|pair| pair.0), mean(|pair| pair.1));
        Some(Self { before, after, gain, gain_ci95: [gain - half, gain + half], prompts: pairs.len() })
    }

    /// Whether it is more than chance.
    pub fn rose(&self) -> bool {
        self.gain_ci95[0] > 0.0
    }

    /// Whether it is a loss, more than by chance.
    pub fn fell(&self) -> bool {
        self.gain_ci95[1] < 0.0
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let [low, high] = self.gain_ci95;
        write!(f, "{:+.3} (95 % interval {low:+.3} to {high:+.3})", self.gain)
    }
}

/// The 97.5 % quantile of Student's distribution: exact for few degrees of freedom, else the expansion of Abramowitz and
/// Stegun (26.7.5), which is right to three digits from five on.
fn student(freedom: usize) -> f64 {
    const FEW: [f64; 5] = [f64::INFINITY, 12.706_205, 4.302_653, 3.182_446, 2.776_445];
    if let Some(value) = FEW.get(freedom) {
        return *value;
    }
    let (z, n) = (1.959_964_f64, freedom as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / n + second / n.powi(2) + third / n.powi(3)
}

/// A held-out prompt with a response before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: Content,
    /// Before, and after.
    pub answers: [Answer; 2],
    /// Change of the judge's mean score over all responses to the prompt.
    pub gain: f64,
}

/// All prompts that have scores before and after, the largest loss first. Of each prompt stands the first response.
pub(super) fn samples(prompts: &[&Content], before: &Measurement, after: &Measurement) -> Vec<Sample> {
    let means = before.means(|answer| answer.reward).into_iter().zip(after.means(|answer| answer.reward));
    let sample = |(place, (own, then)): (usize, (Option<f64>, Option<f64>))| {
        let first = |of: &Measurement| of.answers[place].first().cloned();
        let answers = [first(before)?, first(after)?];
        Some(Sample { prompt: prompts[place].clone(), answers, gain: then? - own? })
    };
    let mut samples: Vec<Sample> = means.enumerate().filter_map(sample).collect();
    samples.sort_by(|a, b| a.gain.total_cmp(&b.gain));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(scores: &[&[f64]]) -> Measurement {
        let answer =
            |score: &f64| Answer { text: format!("{score}"), tokens: 3, cut: false, reward: Some(*score), check: None };
        Measurement { answers: scores.iter().map(|own| own.iter().map(answer).collect()).collect(), kl: 0.0 }
    }

    /// scipy.stats.t.ppf(0.975, n).
    #[test]
    fn quantiles_are_students() {
        let cases = [(1, 12.7062), (4, 2.7764), (5, 2.5706), (7, 2.3646), (15, 2.1314), (63, 1.9983), (1000, 1.9623)];
        for (freedom, expected) in cases {
            assert!((student(freedom) - expected).abs() < 3e-3, "{freedom}: {}", student(freedom));
        }
    }

    /// scipy.stats.ttest_rel([1.5, 0, 2, 1], [0.5, 0, 1.5, 0.5]).confidence_interval().
    #[test]
    fn a_gain_is_paired_by_prompt() {
        let before = measured(&[&[0.0, 1.0], &[0.0], &[1.5, 1.5], &[0.5]]);
        let after = measured(&[&[1.0, 2.0], &[0.0], &[2.0, 2.0], &[1.0]]);
        let change = Change::of(&before, &after, |answer| answer.reward).unwrap();
        assert_eq!((change.before, change.after, change.gain, change.prompts), (0.625, 1.125, 0.5, 4));
        assert!((change.gain_ci95[0] + 0.149_65).abs() < 1e-4 && (change.gain_ci95[1] - 1.149_65).abs() < 1e-4);
        assert!(!change.rose() && !change.fell());
        assert!(Change::of(&before, &after, |answer| answer.check).is_none());
    }

    #[test]
    fn the_worst_change_comes_first() {
        let contents = ["a", "b", "c"].map(|text| Content::Text(text.into()));
        let prompts: Vec<&Content> = contents.iter().collect();
        let found = samples(&prompts, &measured(&[&[1.0], &[1.0], &[1.0]]), &measured(&[&[2.0], &[0.0], &[1.5]]));
        assert_eq!(found.iter().map(|sample| sample.gain).collect::<Vec<_>>(), [-1.0, 0.5, 1.0]);
    }
}
