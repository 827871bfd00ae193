//! A judge as a base: its own head, or a new one over its lower layers.
//!
//! What a judge's upper layers say is what its own rankings were about. For rankings of another kind its lower layers can say more, and
//! its head, which regularisation pulls to, is then in the way (docs/recipe.md). Both are tried as heads on frozen features, and
//! the loss in cross-validation decides.

use super::head::fit_head;
use super::{Example, Features, Settings, TrainError};
use crate::models::{Model, Opened, Workspace};

/// What the two heads are worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Starts {
    /// Loss in cross-validation of the base's own head, fitted to the examples.
    pub own: f64,
    /// Of a new head over its lower layers.
    pub reopened: f64,
    /// How many these are.
    pub kept: usize,
}

impl Starts {
    /// Whether the new head is the better start.
    pub fn reopens(&self) -> bool {
        self.reopened < self.own
    }
}

/// Fits both heads to the examples; `None` for a base that has no lower layers to read the mean of. Only the settings'
/// precision and number of layers matter. `features` are those of the better start afterwards, and the model is packed for
/// that precision.
///
/// # Errors
/// A text with tokens that the model does not have; features or losses that are not finite.
pub fn compare_starts(
    model: &mut Model,
    settings: &Settings,
    examples: &[Example],
    features: &mut Features,
) -> Result<Option<Starts>, TrainError> {
    let mut opened = model.clone();
    let Opened::HeadAndLastLayer { kept } = opened.open_anew(settings.keep_layers) else { return Ok(None) };
    let layer = model.head_out().weight;
    let prior = model.parameters.values[layer.range()].to_vec();
    let mut lower = Features::default();
    let own = cross_validated(model, settings, examples, &prior, features)?;
    let reopened = cross_validated(&mut opened, settings, examples, &vec![0.0; layer.len], &mut lower)?;
    let starts = Starts { own, reopened, kept };
    if starts.reopens() {
        *features = lower;
    }
    Ok(Some(starts))
}

fn cross_validated(
    model: &mut Model,
    settings: &Settings,
    examples: &[Example],
    prior: &[f32],
    features: &mut Features,
) -> Result<f64, TrainError> {
    let precision = model.precision(settings.precision);
    model.pack_for_training(precision);
    let examples: Vec<&Example> = examples.iter().collect();
    let features = features.of_examples(model, precision, &examples, &mut Workspace::default())?;
    let head = fit_head(&examples, &features, prior);
    match head.not_finite() {
        Some(value) => Err(TrainError::Head { value }),
        None => Ok(head.loss),
    }
}
