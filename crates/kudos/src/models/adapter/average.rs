//! The mean of several trainings of a model's adapters.
//!
//! What adapters add to a matrix is a product, and the mean of products is no product of means. But it is one of matrices of
//! the ranks together: all A one above the other, times all B side by side, each divided by their number. So the mean is
//! exact, and an adapter like any other.

use super::AdapterError;
use super::attach::{LoraSettings, attach};
use crate::models::model::Model;
use crate::nn::{ParameterSpec, Parameters};

/// The model with adapters that hold those of `members` trainings, all 0 yet, and their settings. What the model has packed
/// stays with it.
///
/// # Errors
/// As [`attach`], for ranks beyond all memory.
pub fn widened(model: &Model, settings: &LoraSettings, members: usize) -> Result<(Model, LoraSettings), AdapterError> {
    let count = members as f64;
    // The factor alpha / rank, or alpha / √rank, stays what it is.
    let alpha = settings.alpha * if settings.rslora { count.sqrt() } else { count };
    let settings = LoraSettings { rank: settings.rank * members, alpha, ..settings.clone() };
    let mut wide = model.without_adapters()?;
    attach(&mut wide, &settings, 0)?;
    for spec in wide.parameters.specs().to_vec().iter().filter(|spec| spec.trained) {
        wide.parameters.values[spec.span.range()].fill(0.0);
    }
    Ok((wide, settings))
}

/// Adds training `place` of `members` to what [`widened`] gave.
pub fn add_to_mean(wide: &mut Parameters, member: &Parameters, place: usize, members: usize) {
    for spec in wide.specs().to_vec().iter().filter(|spec| spec.trained) {
        let own = member.specs().iter().find(|own| own.name == spec.name).expect("the same modules are adapted");
        let values = &member.values[own.span.range()];
        add(&mut wide.values[spec.span.range()], values, spec, own, (place, members as f32));
    }
}

/// A of a member is its own rows, B its own columns of those of the mean; the head is averaged.
fn add(wide: &mut [f32], values: &[f32], spec: &ParameterSpec, own: &ParameterSpec, (place, members): (usize, f32)) {
    if spec.name.ends_with(".lora_A.weight") {
        wide[place * values.len()..][..values.len()].copy_from_slice(values);
        return;
    }
    let (width, rank) = (wide.len() / spec.shape[0], values.len() / own.shape[0]);
    let column = if spec.name.ends_with(".lora_B.weight") { place * rank } else { 0 };
    for (row, values) in wide.chunks_exact_mut(width).zip(values.chunks_exact(rank)) {
        row[column..][..rank].iter_mut().zip(values).for_each(|(mean, value)| *mean += value / members);
    }
}
