//! `kudos quantize`: the weights of a judge in 8 bits.

use super::load::{LoadError, LoadOptions, load};
use super::model::Model;
use crate::nn::weights::{INT8_FILE, Raw, SCALE_SUFFIX, write_raw};
use crate::nn::{ParameterSpec, Span};
use kernels::gemm::{quantize_rows, quantize_weights};
use std::path::Path;

/// Stores a judge's weights in 8 bits with a scale per row: the linear layers of the network and the table of words.
/// The other tensors, one percent of all, stay f32.
///
/// # Errors
/// [`LoadError`] for a directory that is no judge, or an output that cannot be written.
pub fn quantize(dir: &Path, output: &Path) -> Result<Model, LoadError> {
    let (model, _) = load(dir, LoadOptions::Judge)?;
    let layers = model.packed_layers();
    let is_matrix = |span: Span| layers.iter().any(|layer| layer.weight.range().contains(&span.start));
    let mut quantized = Vec::new();
    for spec in model.parameters.specs() {
        let values = &model.parameters.values[spec.span.range()];
        quantized.push(match (is_matrix(spec.span), spec.sparse) {
            (true, _) => Some(quantize_weights(values, spec.buffer_shape()[1])),
            (false, true) => Some(quantize_rows(values, spec.shape[1])),
            (false, false) => None,
        });
    }
    let stored = |spec: &ParameterSpec| spec.form.stored(&model.parameters.values[spec.span.range()], &spec.shape);
    let stored: Vec<_> = model.parameters.specs().iter().map(stored).collect();
    let mut tensors = Vec::new();
    for ((spec, quantized), stored) in model.parameters.specs().iter().zip(&quantized).zip(&stored) {
        let name = spec.name.clone();
        match quantized {
            None => {
                let (shape, bytes) = (spec.shape.clone(), bytemuck::cast_slice(stored));
                tensors.push(Raw { name, dtype: "F32", shape, bytes });
            }
            Some((units, scales)) => {
                let shape = spec.buffer_shape();
                let (scale_name, rows) = (format!("{name}{SCALE_SUFFIX}"), vec![shape[0]]);
                tensors.push(Raw { name, dtype: "I8", shape, bytes: bytemuck::cast_slice(units) });
                tensors.push(Raw { name: scale_name, dtype: "F32", shape: rows, bytes: bytemuck::cast_slice(scales) });
            }
        }
    }
    write_raw(&output.join(INT8_FILE), &tensors, &[])?;
    Ok(model)
}
