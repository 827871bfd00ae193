//! An adapter over its base, as any loader sees it: the tensors of one model, with the adapter in them.

use super::apply::BaseTensors;
use super::{Adapter, AdapterError, CONFIG_FILE, LOWER_BASE};
use crate::hub;
use crate::models::config::{Config, read_object};
use crate::models::load::LoadError;
use crate::models::model::Model;
use crate::models::reward_config::RewardConfig;
use crate::models::reward_model::JudgeError;
use crate::models::source::{Stored, TensorSource, is_gguf};
use crate::nn::Form;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The base of an adapter directory: what its config names, beside it, from the working directory on, or, for the name of
/// a published model, among what was pulled. No connection is opened.
///
/// # Errors
/// [`AdapterError::NoBase`]; [`AdapterError::Config`].
pub fn find_base(adapter: &Path) -> Result<PathBuf, AdapterError> {
    find_base_with(adapter, &hub::Settings::from_env())
}

/// As [`find_base`], with settings given.
///
/// # Errors
/// As [`find_base`].
pub fn find_base_with(adapter: &Path, settings: &hub::Settings) -> Result<PathBuf, AdapterError> {
    let config = super::AdapterConfig::read(&adapter.join(CONFIG_FILE))?;
    let missing = |reason: String| AdapterError::NoBase { adapter: adapter.into(), reason };
    if config.base.is_empty() {
        return Err(missing("its config names none".into()));
    }
    let is_model = |place: &PathBuf| place.join("config.json").is_file() || is_gguf(place);
    let places = [adapter.join(&config.base), PathBuf::from(&config.base), adapter.join(LOWER_BASE)];
    if let Some(place) = places.into_iter().find(is_model) {
        return Ok(place);
    }
    let pulled = hub::resolve_with(&config.published(), settings).map_err(|error| missing(error.to_string()))?;
    match is_model(&pulled) {
        true => Ok(pulled),
        false => Err(missing(format!("{} holds no model", pulled.display()))),
    }
}

/// Where the files of a model's tokenizer are: in its directory, or in that of the base of an adapter without any.
///
/// # Errors
/// As [`find_base`].
pub fn tokenizer_dir(model: &Path) -> Result<PathBuf, JudgeError> {
    match Adapter::is_in(model) && !model.join("tokenizer.json").exists() {
        true => Ok(find_base(model).map_err(LoadError::from)?),
        false => Ok(model.into()),
    }
}

/// The `reward.json` of a model. An adapter without one is read as its base is; what was measured of the base's scores
/// does not hold for the adapter's.
///
/// # Errors
/// As [`RewardConfig::read`] and [`find_base`].
pub fn reward_config(model: &Path) -> Result<Option<RewardConfig>, JudgeError> {
    match RewardConfig::read(model)? {
        None if Adapter::is_in(model) => reward_of_base(&find_base(model).map_err(LoadError::from)?),
        own => Ok(own),
    }
}

pub(super) fn reward_of_base(base: &Path) -> Result<Option<RewardConfig>, JudgeError> {
    let without_scores = |reward: RewardConfig| RewardConfig {
        attributes: reward.attributes.clone(),
        ..RewardConfig::new(reward.encode)
    };
    Ok(RewardConfig::read(base)?.map(without_scores))
}

/// Opens an adapter over its base, or over the one that its config names.
pub(in crate::models) fn open(dir: &Path, base: Option<&Path>) -> Result<Stored, LoadError> {
    let adapter = Adapter::open(dir)?;
    let base = match base {
        Some(base) => base.to_path_buf(),
        None => find_base(dir)?,
    };
    over(adapter, &base)
}

fn over(adapter: Adapter, base: &Path) -> Result<Stored, LoadError> {
    let fault = |reason: &str| AdapterError::Base { path: base.into(), reason: reason.into() };
    if Adapter::is_in(base) {
        return Err(fault("this is an adapter too; merge it first, and name what comes of it").into());
    }
    let Stored { path, json, tensors } = Stored::open(base)?;
    check_fingerprint(&adapter.dir, base)?;
    let own = adapter.dir.join("config.json");
    let (path, json) = match own.is_file() {
        true => (own.clone(), read_object(&own)?),
        false => (path, judge_config(&adapter, json)),
    };
    if tensors.all().iter().any(|(name, _)| tensors.is_int8(name)) {
        return Err(fault("the base is stored in 8 bits: an adapter is merged into whole weights").into());
    }
    let model = Model::declare(Config::check(&path, json.clone())?)?;
    let mut names = BTreeMap::new();
    let mut of_base = BaseTensors::default();
    for spec in model.parameters.specs() {
        let held = model.names().of(&spec.name).into_iter().find(|name| tensors.stored(name).is_some());
        let Some(held) = held else { continue };
        if spec.form == Form::Transposed {
            of_base.transposed.insert(spec.name.clone());
        }
        of_base.shapes.insert(spec.name.clone(), tensors.shape(&held));
        names.insert(held, spec.name.clone());
    }
    let adapter = adapter.over(&of_base)?;
    Ok(Stored { path, json, tensors: Box::new(Adapted { base: tensors, adapter, names }) })
}

/// What tells a model from another one: names and sizes of its weight files, and of each up to a megabyte of its bytes,
/// evenly from all of it. Training moves every weight, and reading them all would take as long as loading the model.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(model: &Path) -> std::io::Result<String> {
    let mut files = vec![model.to_path_buf()];
    if model.is_dir() {
        let entries = std::fs::read_dir(model)?.map(|entry| entry.map(|entry| entry.path()));
        files = entries.collect::<std::io::Result<_>>()?;
        files.retain(|path| path.extension().is_some_and(|end| end == "safetensors") && path.is_file());
        files.sort();
    }
    let mut hash = Sha256::new();
    for path in &files {
        let mut file = std::fs::File::open(path)?;
        let (length, name) = (file.metadata()?.len(), path.file_name().unwrap_or_default());
        hash.update(format!("{} {length}\n", name.to_string_lossy()));
        let blocks = BLOCKS.min(length / BLOCK as u64 + 1);
        for block in 0..blocks {
            let mut bytes = Vec::with_capacity(BLOCK);
            file.seek(SeekFrom::Start(length.saturating_sub(BLOCK as u64) / blocks.max(2).saturating_sub(1) * block))?;
            file.by_ref().take(BLOCK as u64).read_to_end(&mut bytes)?;
            hash.update(&bytes);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes that are read at a time, and how often at most.
const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;

/// Refuses a base that is not the one of training: the adapter would change a model that it never saw.
fn check_fingerprint(adapter: &Path, base: &Path) -> Result<(), LoadError> {
    let reward = RewardConfig::read(adapter).ok().flatten();
    let Some(expected) = reward.and_then(|reward| reward.base_fingerprint) else { return Ok(()) };
    let fault = |reason: String| AdapterError::Base { path: base.into(), reason };
    match fingerprint(base).map_err(|error| fault(error.to_string()))? == expected {
        true => Ok(()),
        false => {
            let adapter = adapter.display();
            let reason = "its weights are not those that it was trained over; name the base of training";
            Err(fault(format!("{adapter} is no adapter of this base: {reason}")).into())
        }
    }
}

/// The tensors of a base with an adapter.
struct Adapted {
    base: Box<dyn TensorSource>,
    adapter: Adapter,
    /// What the model calls a tensor, by the name that the base is asked by.
    names: BTreeMap<String, String>,
}

impl Adapted {
    /// What the adapter calls a tensor that a loader names so.
    fn own_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

impl TensorSource for Adapted {
    fn stored(&self, name: &str) -> Option<String> {
        match self.adapter.brings(name).is_some() {
            true => Some(name.to_owned()),
            false => self.base.stored(name),
        }
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.adapter.brings(name).map_or_else(|| self.base.shape(name), <[usize]>::to_vec)
    }

    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), LoadError> {
        if self.adapter.brings(name).is_none() {
            self.base.read(name, values)?;
        }
        let own = self.own_name(name);
        Ok(self.adapter.apply(own, &self.shape(name), values)?)
    }

    fn dtype(&self, name: &str) -> String {
        match self.adapter.changes(self.own_name(name)) {
            true => "F32".into(),
            false => self.base.dtype(name),
        }
    }

    fn is_int8(&self, _: &str) -> bool {
        false
    }

    fn read_units(&self, name: &str) -> Result<(Vec<i8>, Vec<f32>), LoadError> {
        unreachable!("{name}: no base of an adapter is stored in 8 bits")
    }

    fn all(&self) -> Vec<(String, Vec<usize>)> {
        let replaced: Vec<String> = self
            .names
            .iter()
            .filter(|(_, own)| self.adapter.brings(own).is_some())
            .filter_map(|(held, _)| self.base.stored(held))
            .collect();
        let of_base = self.base.all().into_iter().filter(|(name, _)| !replaced.contains(name));
        let of_adapter = self.adapter.all_brought().map(|(name, shape)| (name.to_owned(), shape.to_vec()));
        of_base.chain(of_adapter).collect()
    }

    fn path(&self) -> &Path {
        self.adapter.file.path()
    }
}

/// The config of a base as that of a judge with the head that the adapter brings.
fn judge_config(adapter: &Adapter, mut json: Map<String, Value>) -> Map<String, Value> {
    if let Some(family) = crate::models::families::Family::of(&json) {
        json.insert("architectures".into(), Value::from(vec![family.judge]));
    }
    let heads = ["score.weight", "classifier.weight", "classifier.out_proj.weight"];
    let brought = heads.iter().find_map(|head| adapter.brings(head)?.first().copied());
    let said = json.get("id2label").and_then(Value::as_object).map_or(2, Map::len);
    if let Some(labels) = brought.filter(|labels| *labels != said) {
        let label = |i: usize| format!("LABEL_{i}");
        let id2label: Map<_, _> = (0..labels).map(|i| (i.to_string(), label(i).into())).collect();
        let label2id: Map<_, _> = (0..labels).map(|i| (label(i), i.into())).collect();
        json.insert("id2label".into(), id2label.into());
        json.insert("label2id".into(), label2id.into());
        json.remove("num_labels");
    }
    json
}
