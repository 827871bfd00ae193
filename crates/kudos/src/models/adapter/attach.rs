//! New adapters for a model that is trained: where they go, and how they start.

use super::AdapterError;
use super::pattern::ends;
use crate::models::layer::{Adapters, Layer};
use crate::models::model::Model;
use crate::nn::{Initial, LinearSpec, LowRank, LowRankPart, Parameters, Role};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How adapters are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraSettings {
    /// Rows of each A, columns of each B.
    pub rank: usize,
    /// What the product is multiplied by, times the rank (or its root).
    pub alpha: f64,
    /// Chance of a value to be dropped on its way to A.
    pub dropout: f32,
    /// Whether alpha is divided by the root of the rank (Kalajdzievski 2023), not by the rank.
    pub rslora: bool,
    /// The adapted modules: their names, or ends of these after a dot. None are all linear layers.
    pub targets: Vec<String>,
    /// So many top layers are adapted; all if it is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
}

impl LoraSettings {
    /// The lowest layer that is adapted, of so many.
    pub(super) fn first_layer(&self, layers: usize) -> usize {
        layers.saturating_sub(self.top.unwrap_or(layers))
    }

    fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }

    fn adapts(&self, module: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| target == module || ends(module, target))
    }
}

/// Names of an adapter's tensors begin so.
pub(super) const PREFIX: &str = "base_model.model.";

/// The products of a layer, and where their adapters are kept.
type Product = (fn(&Layer) -> LinearSpec, fn(&mut Adapters) -> &mut LowRank);

const PRODUCTS: [Product; 4] = [
    (|layer| layer.qkv, |adapters| &mut adapters.qkv),
    (|layer| layer.attention_out, |adapters| &mut adapters.attention_out),
    (|layer| layer.up, |adapters| &mut adapters.up),
    (|layer| layer.down, |adapters| &mut adapters.down),
];

/// Gives a loaded model adapters that change nothing yet, and freezes all else but the head. A starts as in PEFT, uniform
/// within ±1/√inputs and by `seed`; B starts at 0.
///
/// # Errors
/// [`AdapterError::Target`] for a target that names no linear layer of the model; [`AdapterError::Weights`] for a rank
/// beyond all memory.
pub fn attach(model: &mut Model, settings: &LoraSettings, seed: u64) -> Result<(), AdapterError> {
    let modules = linear_modules(model);
    for target in &settings.targets {
        if !modules.iter().any(|module| target == module || ends(module, target)) {
            return Err(AdapterError::Target { target: target.clone(), known: last_names(&modules) });
        }
    }
    let first = model.parameters.specs().len();
    for index in settings.first_layer(model.layers().len())..model.layers().len() {
        model.parameters.begin(Role::Layer(index));
        for (product, adapters) in PRODUCTS {
            let spec = product(&model.layers()[index]);
            let parts = modules_of(&model.parameters, &spec).into_iter().filter(|(module, _)| settings.adapts(module));
            let adapter = declare(&mut model.parameters, settings, &spec, &parts.collect::<Vec<_>>())?;
            *adapters(&mut model.layers_mut()[index].adapters) = adapter;
        }
    }
    model.parameters.freeze(|spec| spec.role < Role::Head && !spec.name.starts_with(PREFIX));
    model.parameters.allocate_rest();
    (first..model.parameters.specs().len()).for_each(|index| model.parameters.initialise(index, seed));
    Ok(())
}

/// All A of a product side by side, then all B.
fn declare(
    parameters: &mut Parameters,
    settings: &LoraSettings,
    spec: &LinearSpec,
    modules: &[(String, Range<usize>)],
) -> Result<LowRank, AdapterError> {
    let rank = settings.rank;
    let start = Initial::Uniform(1.0 / (spec.inputs as f32).sqrt());
    let mut parts = Vec::new();
    for (module, outputs) in modules {
        let a = parameters.declare(format!("{PREFIX}{module}.lora_A.weight"), &[rank, spec.inputs], start)?;
        parts.push(LowRankPart { outputs: outputs.clone(), rank, a, b: a, scale: settings.scale() });
    }
    for (part, (module, outputs)) in parts.iter_mut().zip(modules) {
        let shape = [outputs.len(), rank];
        part.b = parameters.declare(format!("{PREFIX}{module}.lora_B.weight"), &shape, Initial::Uniform(0.0))?;
    }
    Ok(LowRank { parts, dropout: settings.dropout })
}

/// The modules that a product joins, with their outputs.
fn modules_of(parameters: &Parameters, product: &LinearSpec) -> Vec<(String, Range<usize>)> {
    let whole = product.weight.range();
    let inside = parameters.specs().iter().filter(|spec| spec.span.len > 0 && whole.contains(&spec.span.start));
    let mut modules: Vec<(String, Range<usize>)> = inside
        .filter_map(|spec| {
            let first = (spec.span.start - whole.start) / product.inputs;
            let outputs = first..first + spec.span.len / product.inputs;
            Some((spec.name.strip_suffix(".weight")?.to_owned(), outputs))
        })
        .collect();
    modules.sort_by_key(|(_, outputs)| outputs.start);
    modules
}

/// The linear layers of all layers.
fn linear_modules(model: &Model) -> Vec<String> {
    let products = model.layers().iter().flat_map(|layer| PRODUCTS.map(|(product, _)| product(layer)));
    products.flat_map(|spec| modules_of(&model.parameters, &spec)).map(|(module, _)| module).collect()
}

/// The last parts of names, each once.
fn last_names(modules: &[String]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in modules.iter().filter_map(|module| module.rsplit('.').next()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
