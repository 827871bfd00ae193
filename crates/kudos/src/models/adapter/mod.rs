//! LoRA adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors` over a base.
//!
//! PEFT loads many adapters that do not fit their base and says nothing: then the head reads a body that the adapter
//! never saw. Here an adapter is read strictly. Which modules it adapts is told by its tensors and held to its config,
//! and what cannot be done exactly is refused by name. An adapter is merged into the tensors of its base as these are
//! read, so no loader has to know of it, and a judge with an adapter is as fast as one without.
//!
//! | product | merged |
//! |---|---|
//! | linear | `W + s·B·A` |
//! | linear, stored `[inputs, outputs]` (GPT-2) | `W + s·(B·A)ᵀ` |
//! | DoRA (Liu et al. 2024) | `m ⊙ (W + s·B·A) / ‖rows of it‖` |
//! | embedding | `W + s·(B·A)ᵀ` |
//!
//! This module must not know training.

mod apply;
mod attach;
mod average;
mod config;
mod merge;
mod pattern;
mod source;
mod tensors;
mod write;

use super::config::ConfigError;
use crate::nn::weights::{Checkpoint, WeightError};
pub use attach::{LoraSettings, attach};
pub use average::{add_to_mean, widened};
use config::AdapterConfig;
pub use merge::{Merged, merge};
pub(super) use source::open;
pub use source::{find_base, find_base_with, fingerprint, reward_config, tokenizer_dir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
pub use write::{adapter_config, read_tensors, write_tensors};

/// The settings of an adapter.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Its tensors.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";

/// The directory, in that of an adapter over fewer layers, of its base.
pub const LOWER_BASE: &str = "lower-base";

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// `adapter_config.json`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors of the adapter or of the base.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A directory without tensors.
    #[error("{dir}: no {TENSORS_FILE} here{found}; save the adapter with safe_serialization=True")]
    NoTensors {
        /// Directory.
        dir: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A tensor that is missing, of another shape or of no known use.
    #[error("{path}: `{tensor}`: {reason}")]
    Tensor {
        /// File.
        path: PathBuf,
        /// Tensor or module, by its name in the base.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The base is not at hand.
    #[error(
        "{adapter}: the base of this adapter is not here: {reason}; `kudos merge {adapter} --base DIR -o JUDGE` takes it from anywhere"
    )]
    NoBase {
        /// Directory of the adapter.
        adapter: PathBuf,
        /// What was looked for, and what to do.
        reason: String,
    },
    /// The base is no model that can be adapted.
    #[error("{path}: {reason}")]
    Base {
        /// Directory of the base.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A target of a new adapter that the model does not have.
    #[error("--lora-targets: no linear layer of the base is called `{target}`, expected some of {known}")]
    Target {
        /// What was asked for.
        target: String,
        /// What there is.
        known: String,
    },
}

/// One adapted module.
#[derive(Clone, Debug, PartialEq)]
struct Module {
    /// `[rank, inputs]`; of an embedding `[rank, words]`.
    a: Vec<f32>,
    /// `[outputs, rank]`; of an embedding `[width, rank]`.
    b: Vec<f32>,
    rank: usize,
    scale: f32,
    /// Whether the base stores its matrix `[inputs, outputs]`: an embedding, or any of some families.
    is_transposed: bool,
    /// Of DoRA, one for each output.
    magnitude: Option<Vec<f32>>,
    /// What is added to the bias, before it is scaled.
    bias: Option<Vec<f32>>,
}

impl Module {
    fn inputs(&self) -> usize {
        self.a.len() / self.rank
    }

    fn outputs(&self) -> usize {
        self.b.len() / self.rank
    }
}

/// An adapter, read and found consistent in itself. Names are those of the base's tensors, as its class has them.
#[derive(Debug)]
pub struct Adapter {
    dir: PathBuf,
    config: AdapterConfig,
    file: Checkpoint,
    modules: BTreeMap<String, Module>,
    /// The tensors that it replaces or adds, and what its file calls them.
    replaced: BTreeMap<String, String>,
}

impl Adapter {
    /// Whether a directory holds an adapter.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(CONFIG_FILE).is_file()
    }

    /// Reads an adapter directory.
    ///
    /// # Errors
    /// [`AdapterError`] for anything that is not exactly an adapter that can be merged.
    pub fn open(dir: &Path) -> Result<Self, AdapterError> {
        let config = AdapterConfig::read(&dir.join(CONFIG_FILE))?;
        let whole = ["model.safetensors", "model.safetensors.index.json", crate::nn::weights::INT8_FILE];
        if let Some(name) = whole.iter().find(|name| dir.join(name).exists()) {
            let reason =
                format!("{name} and {CONFIG_FILE} are both here: move one of them, a model or an adapter is meant");
            return Err(AdapterError::Base { path: dir.into(), reason });
        }
        let path = dir.join(TENSORS_FILE);
        if !path.is_file() {
            let pickled = dir.join("adapter_model.bin").exists();
            let found = if pickled { ", but adapter_model.bin, which can run code when it is opened" } else { "" };
            return Err(AdapterError::NoTensors { dir: dir.into(), found: found.into() });
        }
        let file = Checkpoint::open_file(&path)?;
        let (modules, replaced) = tensors::read(&file, &config)?;
        Ok(Self { dir: dir.into(), config, file, modules, replaced })
    }

    /// What its config calls its base; empty where it does not say.
    pub fn base(&self) -> &str {
        &self.config.base
    }

    /// The shape of a tensor that it replaces, or adds to a base without it.
    fn brings(&self, name: &str) -> Option<&[usize]> {
        Some(&self.file.tensors[self.replaced.get(name)?].shape)
    }

    /// Whether it changes or replaces a tensor of the base.
    fn changes(&self, name: &str) -> bool {
        let module = |end: &str| name.strip_suffix(end).and_then(|module| self.modules.get(module));
        let bias = module(".bias").is_some_and(|module| module.bias.is_some());
        self.replaced.contains_key(name) || module(".weight").is_some() || bias
    }

    /// All of these, with their shapes.
    fn all_brought(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.replaced.iter().map(|(name, stored)| (name.as_str(), self.file.tensors[stored].shape.as_slice()))
    }

    fn tensor_error(&self, tensor: &str, reason: impl Into<String>) -> AdapterError {
        AdapterError::Tensor { path: self.file.path().into(), tensor: tensor.into(), reason: reason.into() }
    }
}
