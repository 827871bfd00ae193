//! Whether the judge's probabilities hold, as they are and with a temperature fitted on other prompts.

use super::super::Bin;

/// Reliability at one temperature (or, cross-fitted, at one a fold).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Calibrated {
    /// Expected calibration error, ten bins.
    pub ece: Option<f64>,
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
