//! A judge with one output an attribute: what the outputs are called, on which scale they are, and how they make one score.
//!
//! The outputs of a stored judge are ratings, in the units of the data. Training works on ratings of mean 0 and standard
//! deviation 1, and converts the last layer when it writes a judge.

use super::model::Model;
use crate::data::Attributes;
use serde::{Deserialize, Serialize};

/// Where the weights of the overall score came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// All alike: the overall score is the mean of the outputs.
    Equal,
    /// As the user said.
    Declared,
    /// To the overall order or score of the training data.
    Fitted,
}

/// `attributes` of `reward.json`; the lists have one entry an output, in the order of the outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributeHead {
    /// What each output rates.
    pub names: Vec<String>,
    /// Weight of each output in the overall score.
    pub weights: Vec<f64>,
    /// Added to the weighted sum.
    #[serde(default)]
    pub intercept: f64,
    /// Where the weights came from.
    pub weighting: Weighting,
    /// Mean rating in the training data.
    pub means: Vec<f64>,
    /// Standard deviation of those ratings (of the population).
    pub stds: Vec<f64>,
}

impl AttributeHead {
    /// Says what is wrong with a description of `labels` outputs.
    pub(super) fn fault(&self, labels: usize) -> Option<String> {
        let lists = [self.weights.len(), self.means.len(), self.stds.len(), self.names.len()];
        if lists.iter().any(|len| *len != labels) {
            return Some(format!("`attributes` describes {} outputs, the checkpoint has {labels}", self.names.len()));
        }
        let numbers = self.weights.iter().chain(&self.means).chain(&self.stds).chain([&self.intercept]);
        if numbers.into_iter().any(|number| !number.is_finite()) || self.stds.iter().any(|std| *std <= 0.0) {
            return Some(
                "`attributes` holds a number that is not finite, or a standard deviation that is not above 0".into(),
            );
        }
        None
    }

    /// The overall score of one response: weighted sum of its outputs `[labels]`.
    pub fn overall(&self, outputs: &[f32]) -> f32 {
        let sum = self.weights.iter().zip(outputs).map(|(weight, output)| weight * f64::from(*output)).sum::<f64>();
        (sum + self.intercept) as f32
    }

    /// Overall scores of responses whose outputs `[responses, labels]` lie end to end.
    pub fn overalls(&self, outputs: &[f32]) -> Vec<f32> {
        outputs.chunks_exact(self.names.len()).map(|outputs| self.overall(outputs)).collect()
    }

    /// Standardised outputs `[responses, labels]` as ratings.
    pub fn ratings(&self, outputs: &[f32]) -> Vec<f32> {
        let scales = self.means.iter().zip(&self.stds).cycle();
        outputs.iter().zip(scales).map(|(z, (mean, std))| (f64::from(*z) * std + mean) as f32).collect()
    }

    /// The ratings of one response, standardised: `[labels]`, `None` where it has none.
    pub fn standardised(&self, ratings: &Attributes) -> Vec<Option<f32>> {
        let scales = self.names.iter().zip(self.means.iter().zip(&self.stds));
        scales.map(|(name, (mean, std))| Some(((ratings.get(name)? - mean) / std) as f32)).collect()
    }

    /// Turns a model that gives standardised ratings into one that gives ratings.
    pub fn to_ratings(&self, model: &mut Model) {
        model.rescale_outputs(&self.stds, &self.means);
    }

    /// Turns a model that gives ratings into one that gives them standardised.
    pub fn to_standardised(&self, model: &mut Model) {
        let scales: Vec<f64> = self.stds.iter().map(|std| 1.0 / std).collect();
        let shifts: Vec<f64> = self.means.iter().zip(&self.stds).map(|(mean, std)| -mean / std).collect();
        model.rescale_outputs(&scales, &shifts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> AttributeHead {
        AttributeHead {
            names: vec!["a".into(), "b".into()],
            weights: vec![0.25, 2.0],
            intercept: -1.0,
            weighting: Weighting::Declared,
            means: vec![3.0, 50.0],
            stds: vec![0.5, 20.0],
        }
    }

    #[test]
    fn outputs_ratings_and_the_overall_score() {
        let head = head();
        assert_eq!(head.ratings(&[1.0, -1.0, 0.0, 0.5]), [3.5, 30.0, 3.0, 60.0]);
        assert_eq!(head.overalls(&[4.0, 1.0, 0.0, 0.0]), [2.0, -1.0]);
        let ratings = Attributes::from([("b".to_owned(), 70.0), ("c".to_owned(), 1.0)]);
        assert_eq!(head.standardised(&ratings), [None, Some(1.0)]);
    }

    #[test]
    fn descriptions_that_do_not_fit_are_refused() {
        assert_eq!(head().fault(2), None);
        assert!(head().fault(3).unwrap().contains("describes 2 outputs, the checkpoint has 3"));
        let flat = AttributeHead { stds: vec![0.0, 1.0], ..head() };
        let broken = AttributeHead { weights: vec![1.0, f64::NAN], ..head() };
        let short = AttributeHead { means: vec![1.0], ..head() };
        assert!([flat, broken, short].iter().all(|head| head.fault(2).is_some()));
    }
}
