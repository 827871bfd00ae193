//! Whether the judge's probabilities hold, as they are and with a temperature fitted on other prompts.

use super::super::calibration::{self, Forecast};
use super::super::{Bin, ScoredGroup};
use super::folds::FOLDS;
use super::material::Material;
use rayon::prelude::*;

/// Reliability at one temperature (or, cross-fitted, at one a fold).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Calibrated {
    /// Expected calibration error, ten bins.
    pub ece: Option<f64>,
    /// What chance alone would make of it were every probability exact, on as many unrelated comparisons.
    pub ece_by_chance: Option<f64>,
    /// Mean squared error of the probabilities.
    pub brier: Option<f64>,
    /// Mean negative log-likelihood.
    pub log_loss: Option<f64>,
    /// The reliability diagram: ten bins of the confidence from .5 to 1.
    pub bins: Vec<Bin>,
}

/// Reliability before and after.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct CalibrationSection {
    /// Margins read as they are (temperature 1).
    pub before: Calibrated,
    /// The temperature that `reward.json` holds (1 if none).
    pub stored_temperature: f32,
    /// With that temperature: the `ece`, `brier` and `log_loss` of `eval --json`.
    pub stored: Calibrated,
    /// With a temperature fitted on these data, cross-fitted: each fifth of the prompts is measured
    /// with the temperature fitted on the other four. `None` with fewer than ten prompts or when
    /// no temperature can be fitted.
    pub after: Option<Calibrated>,
    /// The temperature fitted on all of the data: what `--calibrate` would store.
    pub fitted_temperature: Option<f32>,
    /// The temperatures of the folds, behind `after`; their spread says how sure the fit is.
    pub fold_temperatures: Vec<f32>,
}

pub(super) fn section(material: &Material) -> CalibrationSection {
    let at = |temperature| calibrated(&calibration::forecasts(&material.data, temperature));
    let fitted = |data: &[ScoredGroup]| calibration::best_temperature(&calibration::forecasts(data, 1.0), 0.0);
    let fold_temperatures = material.folds.as_ref().and_then(|folds| {
        let without = |fold| fitted(&of_folds(material, folds, |f| f != fold));
        (0..FOLDS).into_par_iter().map(without).collect::<Option<Vec<f32>>>()
    });
    CalibrationSection {
        before: at(1.0),
        stored_temperature: material.options.temperature,
        stored: at(material.options.temperature),
        after: fold_temperatures.as_ref().map(|temperatures| cross_fitted(material, temperatures)),
        fitted_temperature: fitted(&material.data),
        fold_temperatures: fold_temperatures.unwrap_or_default(),
    }
}

fn calibrated(forecasts: &[Forecast]) -> Calibrated {
    Calibrated {
        ece: calibration::expected_calibration_error(forecasts),
        ece_by_chance: calibration::calibration_error_by_chance(forecasts),
        brier: calibration::brier(forecasts),
        log_loss: calibration::log_loss(forecasts),
        bins: calibration::bins(forecasts),
    }
}

fn of_folds<'a>(material: &Material<'a>, folds: &[usize], wanted: impl Fn(usize) -> bool) -> Vec<ScoredGroup<'a>> {
    material.data.iter().filter(|scored| wanted(folds[scored.index])).copied().collect()
}

/// Each fold at the temperature of the others.
fn cross_fitted(material: &Material, temperatures: &[f32]) -> Calibrated {
    let folds = material.folds.as_deref().unwrap_or_default();
    let own = |(fold, temperature): (usize, &f32)| {
        calibration::forecasts(&of_folds(material, folds, |f| f == fold), *temperature)
    };
    calibrated(&temperatures.iter().enumerate().flat_map(own).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::super::EvalOptions;
    use super::super::super::testing::{comparison, scored, unranked};
    use super::*;
    use crate::data::Group;
    use crate::random::Stream;

    /// Pairs whose votes follow σ(margin / 3), each prompt once.
    fn simulated(prompts: usize) -> (Vec<Group>, Vec<Vec<f32>>) {
        let mut stream = Stream::new(5, 0);
        let mut one = |n: usize| {
            let margin = 4.0 * stream.normal();
            let first = stream.uniform() < 1.0 / (1.0 + (-margin / 3.0).exp());
            let mut group = unranked(&format!("p{n}"), &["a", "b"]);
            group.comparisons = vec![comparison(0, 1, if first { 1.0 } else { 0.0 })];
            (group, vec![margin as f32, 0.0])
        };
        (0..prompts).map(&mut one).unzip()
    }

    #[test]
    fn cross_fitting_finds_the_temperature_and_mends_the_error() {
        let (groups, scores) = simulated(3000);
        let options = EvalOptions { temperature: 3.0, ..EvalOptions::default() };
        let found = section(&Material::new(scored(&groups, &scores), options));
        assert!((found.fitted_temperature.unwrap() - 3.0).abs() < 0.3, "{:?}", found.fitted_temperature);
        assert_eq!(found.fold_temperatures.len(), FOLDS);
        let after = found.after.unwrap();
        assert!(after.ece.unwrap() < 0.03 && found.before.ece.unwrap() > 0.08);
        assert!(after.log_loss.unwrap() < found.before.log_loss.unwrap());
        assert_eq!(after.bins.iter().map(|bin| bin.count).sum::<usize>(), 3000);
        assert!(found.stored.ece.unwrap() < 0.03);
    }

    /// Exact probabilities: over many draws of the votes the error is what chance is said to make of it.
    #[test]
    fn chance_alone_makes_an_error() {
        for prompts in [60, 600] {
            let (groups, scores) = simulated(prompts);
            let options = EvalOptions { temperature: 3.0, ..EvalOptions::default() };
            let stated = section(&Material::new(scored(&groups, &scores), options)).stored.ece_by_chance.unwrap();
            let mut stream = Stream::new(6, 0);
            let mut drawn = || {
                let votes = |(mut group, scores): (Group, &Vec<f32>)| {
                    let probability = 1.0 / (1.0 + f64::from(-scores[0] / 3.0).exp());
                    group.comparisons[0].target = if stream.uniform() < probability { 1.0 } else { 0.0 };
                    group
                };
                let groups: Vec<Group> = groups.iter().cloned().zip(&scores).map(votes).collect();
                let forecasts = calibration::forecasts(&scored(&groups, &scores), 3.0);
                calibration::expected_calibration_error(&forecasts).unwrap()
            };
            let mean = (0..400).map(|_| drawn()).sum::<f64>() / 400.0;
            assert!((stated / mean - 1.0).abs() < 0.08, "{prompts}: {stated} {mean}");
        }
    }

    #[test]
    fn few_prompts_are_not_fitted_on_folds() {
        let (groups, scores) = simulated(9);
        let found = section(&Material::new(scored(&groups, &scores), EvalOptions::default()));
        assert_eq!((found.after.is_none(), found.fold_temperatures.len()), (true, 0));
        assert!(found.fitted_temperature.is_some());
    }
}
