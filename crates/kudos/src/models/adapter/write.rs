//! An adapter that was trained here, as PEFT writes it.
//!
//! PEFT's loader makes what neither base nor adapter has anew, at random, and says nothing. So the whole head is stored
//! (`modules_to_save`), even where the base has one.

use super::attach::{LoraSettings, PREFIX};
use super::pattern::ends;
use crate::models::model::Model;
use crate::nn::weights::{Checkpoint, Raw, WeightError, write_raw};
use crate::nn::{Form, ParameterSpec, Parameters, Role};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// What the file calls a trained tensor.
fn stored_name(spec: &ParameterSpec) -> String {
    if spec.name.starts_with(PREFIX) { spec.name.clone() } else { format!("{PREFIX}{}", spec.name) }
}

/// Writes what is trained: adapters and head.
///
/// # Errors
/// [`WeightError::Io`].
pub fn write_tensors(path: &Path, parameters: &Parameters) -> Result<(), WeightError> {
    let mut trained: Vec<&ParameterSpec> = parameters.specs().iter().filter(|spec| spec.trained).collect();
    trained.sort_by_key(|spec| stored_name(spec));
    let values = |spec: &&ParameterSpec| spec.form.stored(&parameters.values[spec.span.range()], &spec.shape);
    let values: Vec<_> = trained.iter().map(values).collect();
    let tensors = trained.iter().zip(&values).map(|(spec, values)| Raw {
        name: stored_name(spec),
        dtype: "F32",
        shape: spec.shape.clone(),
        bytes: bytemuck::cast_slice(values),
    });
    write_raw(path, &tensors.collect::<Vec<_>>(), &[])
}

/// Reads what [`write_tensors`] wrote.
///
/// # Errors
/// [`WeightError`] for a file that holds other tensors.
pub fn read_tensors(path: &Path, parameters: &mut Parameters) -> Result<(), WeightError> {
    let file = Checkpoint::open_file(path)?;
    for spec in parameters.specs().to_vec().iter().filter(|spec| spec.trained) {
        let (name, values) = (stored_name(spec), &mut parameters.values[spec.span.range()]);
        file.expect(&name, &spec.shape)?;
        file.read(&name, values)?;
        spec.form.read(values, &spec.shape);
    }
    Ok(())
}

/// The `adapter_config.json` of a model's adapters over `base`.
pub fn adapter_config(model: &Model, settings: &LoraSettings, base: &Path) -> Map<String, Value> {
    let transposed = model.parameters.specs().iter().any(|spec| spec.form == Form::Transposed);
    let (first, layers) = (settings.first_layer(model.config.layers()), model.config.layers());
    let transformed: Option<Vec<usize>> = settings.top.map(|_| (first..layers).collect());
    let config = json!({
        "base_model_name_or_path": base.display().to_string(),
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": true,
        "layers_to_transform": transformed,
        "init_lora_weights": true,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "modules_to_save": saved_modules(model),
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": target_modules(model, first),
        "task_type": "SEQ_CLS",
        "use_rslora": settings.rslora,
    });
    match config {
        Value::Object(config) => config,
        _ => unreachable!("an object was written above"),
    }
}

/// The modules of the head, by the first part of their names in the model.
fn saved_modules(model: &Model) -> BTreeSet<String> {
    let prefix = model.names().prefix;
    let head = model.parameters.specs().iter().filter(|spec| spec.role >= Role::Head);
    let own = head.map(|spec| spec.name.strip_prefix(prefix).unwrap_or(&spec.name));
    own.filter_map(|name| name.split('.').next()).map(str::to_owned).collect()
}

/// The shortest ends of names that tell the adapted modules from all others. "dense" is one of BERT's pooler, too. What is
/// in layers below `first` is told apart by its layer.
fn target_modules(model: &Model, first: usize) -> BTreeSet<String> {
    let below = |spec: &&ParameterSpec| matches!(spec.role, Role::Layer(layer) if layer < first);
    let names = model.parameters.specs().iter().filter(|spec| !below(spec)).map(|spec| spec.name.as_str());
    let is_adapted = |module: &str| {
        let a = format!("{PREFIX}{module}.lora_A.weight");
        model.parameters.specs().iter().any(|spec| spec.name == a)
    };
    let all: Vec<&str> =
        names.filter(|name| !name.starts_with(PREFIX)).filter_map(|name| name.strip_suffix(".weight")).collect();
    let (adapted, others): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|module| is_adapted(module));
    let tells = |end: &str| !others.iter().any(|other| *other == end || ends(other, end));
    let shortest = |module: &&str| {
        let starts = module.rmatch_indices('.').map(|(at, _)| &module[at + 1..]);
        starts.chain([*module]).find(|end| tells(end)).unwrap_or(module).to_owned()
    };
    adapted.iter().map(shortest).collect()
}
