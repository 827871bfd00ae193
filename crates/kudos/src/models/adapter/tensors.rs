//! The tensors of an adapter: which modules they adapt and what they replace, held to the config.

use super::config::{AdapterConfig, Biases};
use super::{AdapterError, Module};
use crate::nn::weights::Checkpoint;
use std::collections::BTreeMap;

/// What all names begin with.
const PREFIX: &str = "base_model.model.";

/// The parts of one adapted module, by their names in the file.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    is_embedding: bool,
    magnitude: Option<String>,
    bias: Option<String>,
}

/// The names of a file, sorted by what they are.
#[derive(Default)]
struct Sorted {
    modules: BTreeMap<String, Parts>,
    replaced: BTreeMap<String, String>,
    /// Second copies: the name they have in the base, and in the file.
    copies: Vec<(String, String)>,
}

type Found = (BTreeMap<String, Module>, BTreeMap<String, String>);

/// The adapted modules, and the tensors that are replaced, by the names of the base.
pub(super) fn read(file: &Checkpoint, config: &AdapterConfig) -> Result<Found, AdapterError> {
    let fault =
        |tensor: &str, reason: String| AdapterError::Tensor { path: file.path().into(), tensor: tensor.into(), reason };
    let mut sorted = Sorted::default();
    for name in file.tensors.keys() {
        let own = name.strip_prefix(PREFIX);
        let own = own.ok_or_else(|| fault(name, format!("names of an adapter begin with `{PREFIX}`")))?;
        sorted.place(own, name).map_err(|reason| fault(name, reason))?;
    }
    for (tensor, stored) in &sorted.replaced {
        expected(config, &sorted.modules, tensor).map_err(|reason| fault(stored, reason))?;
    }
    for (tensor, copy) in &sorted.copies {
        same(file, sorted.replaced.get(tensor), copy).map_err(|reason| fault(copy, reason))?;
    }
    if sorted.modules.is_empty() {
        return Err(fault("lora_A", "there is no such tensor: nothing is adapted".into()));
    }
    let mut modules = BTreeMap::new();
    for (name, parts) in sorted.modules {
        if !config.adapts(&name) {
            return Err(fault(&name, "the file adapts this module, the config does not (target_modules)".into()));
        }
        if config.saves(&format!("{name}.weight")) {
            return Err(fault(&name, "it is adapted and in modules_to_save, which is not known".into()));
        }
        let module = parts.read(file, config, &name)?;
        modules.insert(name, module);
    }
    Ok((modules, sorted.replaced))
}

/// The place of one tensor among those of a module.
type Part = fn(&mut Parts) -> &mut Option<String>;

impl Sorted {
    /// Places a tensor by what the end of its name says.
    fn place(&mut self, own: &str, stored: &str) -> Result<(), String> {
        let parts: [(&str, Part); 4] = [
            (".lora_A.weight", |parts| &mut parts.a),
            (".lora_B.weight", |parts| &mut parts.b),
            (".lora_B.bias", |parts| &mut parts.bias),
            (".lora_magnitude_vector", |parts| &mut parts.magnitude),
        ];
        for (end, part) in parts {
            if let Some(module) = own.strip_suffix(end) {
                return self.part(module, false, part, stored);
            }
        }
        let embedding: [(&str, Part); 2] =
            [(".lora_embedding_A", |parts| &mut parts.a), (".lora_embedding_B", |parts| &mut parts.b)];
        for (end, part) in embedding {
            if let Some(module) = own.strip_suffix(end) {
                return self.part(module, true, part, stored);
            }
        }
        if own.contains("lora_") || own.ends_with(".base_layer.weight") {
            return Err("no adapter that is known has such a tensor".into());
        }
        if let Some(tensor) = without(own, ".modules_to_save.") {
            self.copies.push((tensor, stored.into()));
        } else if without(own, ".original_module.").is_none() {
            let tensor = without(own, ".base_layer.").unwrap_or_else(|| own.to_owned());
            if self.replaced.insert(tensor, stored.into()).is_some() {
                return Err("the file has it under two names".into());
            }
        }
        Ok(())
    }

    fn part(
        &mut self,
        module: &str,
        is_embedding: bool,
        part: fn(&mut Parts) -> &mut Option<String>,
        stored: &str,
    ) -> Result<(), String> {
        let parts = self.modules.entry(module.into()).or_default();
        parts.is_embedding |= is_embedding;
        match part(parts).replace(stored.into()) {
            None => Ok(()),
            Some(_) => Err("the module is adapted twice, as a layer and as an embedding".into()),
        }
    }
}

/// A name without what a wrapper of PEFT put into it.
fn without(name: &str, wrapper: &str) -> Option<String> {
    name.split_once(wrapper).map(|(module, tensor)| format!("{module}.{tensor}"))
}

/// Refuses a tensor that the config gives no reason for.
fn expected(config: &AdapterConfig, modules: &BTreeMap<String, Parts>, tensor: &str) -> Result<(), String> {
    let bias_of = tensor.strip_suffix(".bias");
    let is_trained_bias = match config.biases {
        Biases::None => false,
        Biases::All => bias_of.is_some(),
        Biases::Adapted => bias_of.is_some_and(|module| modules.contains_key(module)),
    };
    match is_trained_bias || config.saves(tensor) {
        true => Ok(()),
        false => Err("the config gives no reason for this tensor (modules_to_save, bias)".into()),
    }
}

/// Refuses a second copy with other values.
fn same(file: &Checkpoint, first: Option<&String>, copy: &str) -> Result<(), String> {
    let first = first.ok_or("it stands only under the name of PEFT's wrapper")?;
    let shape = &file.tensors[copy].shape;
    let read = |name: &str| {
        let mut values = vec![0.0; shape.iter().product()];
        file.read(name, &mut values).map(|()| values).map_err(|error| error.to_string())
    };
    match file.tensors[first].shape == *shape && read(first)? == read(copy)? {
        true => Ok(()),
        false => Err(format!("its values are not those of `{first}`")),
    }
}

impl Parts {
    fn read(self, file: &Checkpoint, config: &AdapterConfig, name: &str) -> Result<Module, AdapterError> {
        let rank = config.rank_of(name);
        let fault = |reason: String| AdapterError::Tensor { path: file.path().into(), tensor: name.into(), reason };
        let (Some(a), Some(b)) = (&self.a, &self.b) else {
            let missing = if self.a.is_none() { "A" } else { "B" };
            return Err(fault(format!("{missing} of the adapter is missing")));
        };
        let (of_a, of_b) = (&file.tensors[a].shape, &file.tensors[b].shape);
        let (&[rows, inputs], &[outputs, columns]) = (&of_a[..], &of_b[..]) else {
            return Err(fault(format!("A and B are matrices, found the shapes {of_a:?} and {of_b:?}")));
        };
        if rows != rank || columns != rank || inputs == 0 || outputs == 0 {
            let found = format!("A is {of_a:?} and B {of_b:?}");
            return Err(fault(format!("{found}, the config says rank {rank} (r, rank_pattern)")));
        }
        for (part, wanted, what) in [
            (&self.magnitude, config.dora, "a magnitude (use_dora)"),
            (&self.bias, config.lora_bias, "a bias of B (lora_bias)"),
        ] {
            if part.is_some() != wanted {
                let said = if wanted { "the config asks for" } else { "the config knows nothing of" };
                return Err(fault(format!("{said} {what}")));
            }
        }
        if self.is_embedding && (config.dora || config.lora_bias) {
            return Err(fault("an embedding is adapted without use_dora and lora_bias".into()));
        }
        let vector = |part: &Option<String>| part.as_ref().map(|part| values(file, part, &[outputs])).transpose();
        Ok(Module {
            a: values(file, a, of_a)?,
            b: values(file, b, of_b)?,
            rank,
            scale: config.scale_of(name),
            is_transposed: self.is_embedding,
            magnitude: vector(&self.magnitude)?,
            bias: vector(&self.bias)?,
        })
    }
}

fn values(file: &Checkpoint, name: &str, shape: &[usize]) -> Result<Vec<f32>, AdapterError> {
    file.expect(name, shape)?;
    let mut values = vec![0.0; shape.iter().product()];
    file.read(name, &mut values)?;
    Ok(values)
}
