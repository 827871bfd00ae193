//! What an adapter makes of the tensors of its base.

use super::config::Biases;
use super::{Adapter, AdapterError, Module};
use kernels::gemm::{Store, linear_input_gradient};
use std::collections::{BTreeMap, BTreeSet};

/// The tensors that a base holds, by the names that its class has for them.
#[derive(Default)]
pub(super) struct BaseTensors {
    /// With their shapes.
    pub(super) shapes: BTreeMap<String, Vec<usize>>,
    /// Those that are stored `[inputs, outputs]`.
    pub(super) transposed: BTreeSet<String>,
}

impl BaseTensors {
    fn is_transposed(&self, module: &str) -> bool {
        self.transposed.contains(&format!("{module}.weight"))
    }

    /// The modules with a matrix.
    fn matrices(&self) -> impl Iterator<Item = &str> {
        let matrix = |(name, shape): (&'_ String, &'_ Vec<usize>)| shape.len() == 2 && name.ends_with(".weight");
        self.shapes.iter().filter(move |entry| matrix(*entry)).filter_map(|(name, _)| name.strip_suffix(".weight"))
    }
}

impl Adapter {
    /// The adapter of this base. Refuses one that it was not made for.
    pub(super) fn over(mut self, base: &BaseTensors) -> Result<Self, AdapterError> {
        self.check(base)?;
        self.modules.iter_mut().for_each(|(name, module)| module.is_transposed |= base.is_transposed(name));
        Ok(self)
    }

    fn check(&self, base: &BaseTensors) -> Result<(), AdapterError> {
        if self.config.fan_in_fan_out && base.transposed.is_empty() {
            let expected = "false: this base stores its matrices [outputs, inputs]";
            let (path, field) = (self.dir.join(super::CONFIG_FILE), "fan_in_fan_out".into());
            let (expected, found) = (expected.into(), "true".into());
            return Err(super::ConfigError::Field { path, field, expected, found }.into());
        }
        for (name, module) in &self.modules {
            self.check_module(base, name, module)?;
        }
        for (name, stored) in &self.replaced {
            let shape = &self.file.tensors[stored].shape;
            match base.shapes.get(name) {
                Some(own) if own != shape => {
                    return Err(self.tensor_error(name, format!("shape {shape:?}, the base has {own:?}")));
                }
                None if !self.config.saves(name) => {
                    return Err(self.tensor_error(name, "the base has no such bias"));
                }
                _ => {}
            }
        }
        self.check_complete(base)
    }

    fn check_module(&self, base: &BaseTensors, name: &str, module: &Module) -> Result<(), AdapterError> {
        let Some(shape) = base.shapes.get(&format!("{name}.weight")) else {
            return Err(self.tensor_error(name, "the base has no such module"));
        };
        let is_transposed = module.is_transposed || base.is_transposed(name);
        self.check_shape(name, &Module { is_transposed, ..module.clone() }, shape)?;
        let bias = format!("{name}.bias");
        if module.bias.is_some() && !base.shapes.contains_key(&bias) {
            let reason = "B has a bias and the base's layer has none, so it cannot be merged (lora_bias)";
            return Err(self.tensor_error(&bias, reason));
        }
        Ok(())
    }

    fn check_shape(&self, name: &str, module: &Module, shape: &[usize]) -> Result<(), AdapterError> {
        let (inputs, outputs) = (module.inputs(), module.outputs());
        let expected = if module.is_transposed { [inputs, outputs] } else { [outputs, inputs] };
        if shape == expected {
            return Ok(());
        }
        let reason = format!("made for a matrix {expected:?}, the base has {shape:?}: this is another base");
        Err(self.tensor_error(name, reason))
    }

    /// Refuses an adapter that lacks something of what its config says it has.
    fn check_complete(&self, base: &BaseTensors) -> Result<(), AdapterError> {
        for module in base.matrices().filter(|module| !self.modules.contains_key(*module)) {
            let weight = format!("{module}.weight");
            // With "all-linear" a name does not tell a linear layer from a table.
            if self.config.adapts(module) && !self.config.saves(&weight) && !self.config.adapts_all_linear() {
                return Err(self.tensor_error(module, "the config adapts this module, the file does not"));
            }
        }
        for tensor in base.shapes.keys().filter(|tensor| !self.replaced.contains_key(*tensor)) {
            let of_module = tensor.strip_suffix(".bias");
            let is_trained = match self.config.biases {
                Biases::None => false,
                Biases::All => of_module.is_some(),
                Biases::Adapted => of_module.is_some_and(|module| self.modules.contains_key(module)),
            };
            if is_trained || self.config.saves(tensor) {
                let reason = "the config says that the adapter brings this tensor, and it is not in the file";
                return Err(self.tensor_error(tensor, reason));
            }
        }
        Ok(())
    }

    /// Makes of a tensor of the base what it is with the adapter. Of a tensor that the adapter replaces, the values given
    /// do not matter.
    ///
    /// # Errors
    /// [`AdapterError`] where the adapter's tensor cannot be read, or the result is not finite.
    pub fn apply(&self, name: &str, shape: &[usize], values: &mut [f32]) -> Result<(), AdapterError> {
        if let Some(stored) = self.replaced.get(name) {
            self.file.expect(stored, shape)?;
            self.file.read(stored, values)?;
        }
        let module = |end: &str| name.strip_suffix(end).and_then(|module| self.modules.get(module));
        if let Some(module) = module(".weight") {
            self.check_shape(name, module, shape)?;
            module.add_product(values);
        }
        if let Some(Module { bias: Some(bias), scale, .. }) = module(".bias") {
            values.iter_mut().zip(bias).for_each(|(value, bias)| *value += scale * bias);
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(self.tensor_error(name, format!("element {at} is {} once it is merged", values[at]))),
        }
    }
}

impl Module {
    /// Adds to a weight, whose shape was checked.
    fn add_product(&self, weight: &mut [f32]) {
        if !self.is_transposed {
            return self.add_to_rows(weight);
        }
        let mut rows = transpose(weight, self.inputs());
        self.add_to_rows(&mut rows);
        weight.copy_from_slice(&transpose(&rows, self.outputs()));
    }

    /// As [`Self::add_product`], to `[outputs, inputs]`.
    fn add_to_rows(&self, weight: &mut [f32]) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let b: Vec<f32> = self.b.iter().map(|value| self.scale * value).collect();
        linear_input_gradient(weight, Store::Add, &b, &self.a, outputs, inputs, self.rank);
        for (row, magnitude) in weight.chunks_exact_mut(inputs).zip(self.magnitude.iter().flatten()) {
            let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            row.iter_mut().for_each(|value| *value = (f64::from(*value) * f64::from(*magnitude) / norm) as f32);
        }
    }
}

/// `[rows, columns]` → `[columns, rows]`.
fn transpose(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}
