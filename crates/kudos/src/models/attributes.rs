//! A judge with one output an attribute: what the outputs are called, on which scale they are, and how they make one score.
//!
//! The outputs of a stored judge are ratings, in the units of the data. Training works on ratings of mean 0 and standard
//! deviation 1, and converts the last layer when it writes a judge. Where that layer has no biases, as in decoders, there is
//! nothing that could hold a mean: then training works on ratings of standard deviation 1 alone.

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
    /// Whether the network learns ratings less their mean, as it does where its head has biases.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub centred: bool,
}

fn yes() -> bool {
    true
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

    /// What is taken from each rating before it is divided by its deviation.
    fn shifts(&self) -> Vec<f64> {
        if self.centred { self.means.clone() } else { vec![0.0; self.means.len()] }
    }

    /// The mean ratings of the training data, standardised: what says nothing of a response.
    pub fn standardised_means(&self) -> Vec<f64> {
        let scales = self.means.iter().zip(self.shifts()).zip(&self.stds);
        scales.map(|((mean, shift), std)| (mean - shift) / std).collect()
    }

    /// Standardised outputs `[responses, labels]` as ratings.
    pub fn ratings(&self, outputs: &[f32]) -> Vec<f32> {
        let shifts = self.shifts();
        let scales = shifts.iter().zip(&self.stds).cycle();
        outputs.iter().zip(scales).map(|(z, (shift, std))| (f64::from(*z) * std + shift) as f32).collect()
    }

    /// The ratings of one response, standardised: `[labels]`, `None` where it has none.
    pub fn standardised(&self, ratings: &Attributes) -> Vec<Option<f32>> {
        let scales = self.names.iter().zip(self.shifts().into_iter().zip(&self.stds));
        scales.map(|(name, (shift, std))| Some(((ratings.get(name)? - shift) / std) as f32)).collect()
    }

    /// Turns a model that gives standardised ratings into one that gives ratings.
    pub fn to_ratings(&self, model: &mut Model) {
        model.rescale_outputs(&self.stds, &self.shifts());
    }

    /// Turns a model that gives ratings into one that gives them standardised.
    pub fn to_standardised(&self, model: &mut Model) {
        let scales: Vec<f64> = self.stds.iter().map(|std| 1.0 / std).collect();
        let shifts: Vec<f64> = self.shifts().iter().zip(&self.stds).map(|(shift, std)| -shift / std).collect();
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
            centred: true,
        }
    }

    #[test]
    fn outputs_ratings_and_the_overall_score() {
        let head = head();
        assert_eq!(head.ratings(&[1.0, -1.0, 0.0, 0.5]), [3.5, 30.0, 3.0, 60.0]);
        assert_eq!(head.overalls(&[4.0, 1.0, 0.0, 0.0]), [2.0, -1.0]);
        let ratings = Attributes::from([("b".to_owned(), 70.0), ("c".to_owned(), 1.0)]);
        assert_eq!(head.standardised(&ratings), [None, Some(1.0)]);
        assert_eq!(head.standardised_means(), [0.0, 0.0]);
        assert!(serde_json::to_value(&head).unwrap().get("centred").is_none(), "reward.json of a head with biases");
        let without = AttributeHead { centred: false, ..head };
        assert_eq!(without.ratings(&[7.0, 2.5]), [3.5, 50.0]);
        assert_eq!(without.standardised(&ratings), [None, Some(3.5)]);
        assert_eq!(without.standardised_means(), [6.0, 2.5]);
        let stored = serde_json::to_value(&without).unwrap();
        assert_eq!(serde_json::from_value::<AttributeHead>(stored).unwrap(), without);
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
