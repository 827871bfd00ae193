//! The base of an adapter: where it is, and its tensors under the names that its class has for them.

use super::apply::BaseTensors;
use super::{Adapter, AdapterError};
use crate::nn::weights::{Checkpoint, Stored};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules outside of the body, at the names of their classes.
const HEADS: [&str; 3] = ["score", "classifier", "pre_classifier"];

/// The base of an adapter: what its config names, as a directory beside the adapter or in the working directory.
///
/// # Errors
/// [`AdapterError::NoBase`].
pub fn find_base(adapter: &Adapter) -> Result<PathBuf, AdapterError> {
    let named = adapter.base();
    let places = [adapter.dir.join(named), PathBuf::from(named)];
    let found = places.into_iter().find(|place| !named.is_empty() && place.join("config.json").is_file());
    found.ok_or_else(|| AdapterError::NoBase { adapter: adapter.dir.clone(), named: named.into() })
}

/// A base whose tensors carry the names of its class.
pub(super) struct Base {
    pub(super) file: Checkpoint,
    /// What the file calls a tensor.
    pub(super) stored: BTreeMap<String, String>,
}

impl Base {
    /// Opens a base for an adapter, whose names tell what a checkpoint of the bare model leaves away.
    pub(super) fn open(dir: &Path, adapter: &Adapter) -> Result<Self, AdapterError> {
        let file = Checkpoint::open(dir)?;
        let fault = |reason: &str| AdapterError::Base { path: dir.into(), reason: reason.into() };
        if file.tensors.keys().any(|name| file.is_int8(name)) {
            return Err(fault("the base is stored in 8 bits: an adapter is merged into whole weights"));
        }
        let is_head = |module: &&String| HEADS.contains(&module.split('.').next().unwrap_or_default());
        let body = adapter.modules.keys().find(|module| !is_head(module));
        let body = body.and_then(|module| module.split_once('.')).map(|(body, _)| format!("{body}."));
        let is_whole = |body: &str| file.tensors.keys().any(|name| name.starts_with(body));
        let left_away = body.clone().filter(|body| !is_whole(body)).unwrap_or_default();
        let is_used = |name: &String| body.as_ref().is_none_or(|body| name.starts_with(body) || is_head(&name));
        let named = file.tensors.keys().map(|name| (whole_name(&left_away, name), name.clone()));
        let stored = named.filter(|(name, _)| is_used(name)).collect();
        Ok(Self { file, stored })
    }

    /// How the file has a tensor.
    pub(super) fn tensor(&self, name: &str) -> &Stored {
        &self.file.tensors[&self.stored[name]]
    }

    pub(super) fn tensors(&self, transposed: bool) -> BaseTensors {
        let shapes = self.stored.keys().map(|name| (name.clone(), self.tensor(name).shape.clone())).collect();
        BaseTensors { shapes, transposed }
    }
}

/// The name that a class has for a tensor: with what the bare model leaves away, and without the `gamma` and `beta` of
/// checkpoints that came from TensorFlow.
fn whole_name(left_away: &str, stored: &str) -> String {
    let is_head = HEADS.contains(&stored.split('.').next().unwrap_or_default());
    let name = if is_head { stored.to_owned() } else { format!("{left_away}{stored}") };
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(stem), _) => format!("{stem}LayerNorm.weight"),
        (_, Some(stem)) => format!("{stem}LayerNorm.bias"),
        _ => name,
    }
}
