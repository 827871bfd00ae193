//! Where the tensors of a model come from: safetensors or GGUF, each asked by Hugging Face's names.

use super::adapter::{self, Adapter};
use super::config::read_object;
use super::gguf::{self, GgufModelError};
use super::load::LoadError;
use super::reward_model::JudgeError;
use crate::nn::gguf::Gguf;
use crate::nn::weights::Checkpoint;
use crate::text::{TextError, write_tokenizer};
use kernels::bf16::Bf16;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Where tensors come from.
pub(super) trait TensorSource {
    /// What the file calls a tensor, if it holds it.
    fn stored(&self, name: &str) -> Option<String>;
    /// Dimensions of a tensor that it holds.
    fn shape(&self, name: &str) -> Vec<usize>;
    /// Its values.
    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), LoadError>;
    /// The type of a tensor that it holds, as safetensors spell it; blocks of a GGUF file are read as F32.
    fn dtype(&self, name: &str) -> String;
    /// Whether a tensor is stored in 8 bits, with a scale for each row.
    fn is_int8(&self, name: &str) -> bool;
    /// Whether a tensor is stored in bf16, and can be read so.
    fn is_bf16(&self, _: &str) -> bool {
        false
    }
    /// The values of such a tensor, as they are stored.
    fn read_bf16(&self, name: &str, _: &mut [Bf16]) -> Result<(), LoadError> {
        unreachable!("{name} is not stored in bf16")
    }
    /// Units and scales of a tensor in 8 bits.
    fn read_units(&self, name: &str) -> Result<(Vec<i8>, Vec<f32>), LoadError>;
    /// What the file calls all of its tensors, with their dimensions. Scales stand with what they scale.
    fn all(&self) -> Vec<(String, Vec<usize>)>;
    /// What errors name.
    fn path(&self) -> &Path;
}

impl TensorSource for Checkpoint {
    fn stored(&self, name: &str) -> Option<String> {
        self.tensors.contains_key(name).then(|| name.to_owned())
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors[name].shape.clone()
    }

    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), LoadError> {
        Ok(Checkpoint::read(self, name, values)?)
    }

    fn dtype(&self, name: &str) -> String {
        self.tensors[name].dtype().to_owned()
    }

    fn is_int8(&self, name: &str) -> bool {
        Checkpoint::is_int8(self, name)
    }

    fn is_bf16(&self, name: &str) -> bool {
        self.tensors[name].dtype() == "BF16"
    }

    fn read_bf16(&self, name: &str, bits: &mut [Bf16]) -> Result<(), LoadError> {
        Ok(Checkpoint::read_bf16(self, name, bits)?)
    }

    fn read_units(&self, name: &str) -> Result<(Vec<i8>, Vec<f32>), LoadError> {
        Ok(Checkpoint::read_units(self, name)?)
    }

    fn all(&self) -> Vec<(String, Vec<usize>)> {
        let is_scale = |name: &str| {
            let scaled = name.strip_suffix(crate::nn::weights::SCALE_SUFFIX);
            scaled.is_some_and(|name| self.tensors.contains_key(name) && Checkpoint::is_int8(self, name))
        };
        let own = self.tensors.iter().filter(|(name, _)| !is_scale(name));
        own.map(|(name, stored)| (name.clone(), stored.shape.clone())).collect()
    }

    fn path(&self) -> &Path {
        Checkpoint::path(self)
    }
}

impl TensorSource for Gguf {
    fn stored(&self, name: &str) -> Option<String> {
        gguf::stored_name(self, name)
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        gguf::shape(self, name).unwrap_or_default()
    }

    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), LoadError> {
        Ok(gguf::read_tensor(self, name, values)?)
    }

    fn dtype(&self, _: &str) -> String {
        "F32".into()
    }

    fn is_int8(&self, _: &str) -> bool {
        false
    }

    fn read_units(&self, name: &str) -> Result<(Vec<i8>, Vec<f32>), LoadError> {
        unreachable!("{name}: blocks of GGUF have scales of their own")
    }

    fn all(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
    }

    fn path(&self) -> &Path {
        Gguf::path(self)
    }
}

/// A model as it lies on disk: a directory with `config.json` and safetensors, a `.gguf` file, or an adapter over one of
/// these.
pub(super) struct Stored {
    /// What errors about the config name.
    pub(super) path: PathBuf,
    /// The config.
    pub(super) json: Map<String, Value>,
    /// The tensors.
    pub(super) tensors: Box<dyn TensorSource>,
}

impl Stored {
    /// Opens a model; tensors are not read yet.
    pub(super) fn open(model: &Path) -> Result<Self, LoadError> {
        if is_gguf(model) {
            let file = Gguf::open(model).map_err(GgufModelError::from)?;
            let json = gguf::config(&file)?;
            return Ok(Self { path: model.into(), json, tensors: Box::new(file) });
        }
        if Adapter::is_in(model) {
            return adapter::open(model, None);
        }
        let path = model.join("config.json");
        let json = read_object(&path)?;
        Ok(Self { path, json, tensors: Box::new(Checkpoint::open(model)?) })
    }
}

/// Whether a model is one GGUF file.
pub fn is_gguf(model: &Path) -> bool {
    model.is_file()
}

/// The directory of a model's tokenizer files: the model's own; of an adapter without any, its base's; of a `.gguf` file,
/// one that is made of what it says and lives as long as this.
pub struct TokenizerDir {
    path: PathBuf,
    _made: Option<tempfile::TempDir>,
}

impl TokenizerDir {
    /// Finds or makes it.
    ///
    /// # Errors
    /// A GGUF file whose tokenizer is not known; a directory that cannot be written.
    pub fn of(model: &Path) -> Result<Self, JudgeError> {
        let model = &adapter::tokenizer_dir(model)?;
        if !is_gguf(model) {
            return Ok(Self { path: model.into(), _made: None });
        }
        let file = Gguf::open(model).map_err(|error| LoadError::from(GgufModelError::from(error)))?;
        let vocabulary = gguf::vocabulary(&file).map_err(LoadError::from)?;
        let unwritable = |path: &Path, source| TextError::Unwritable { path: path.into(), source };
        let made = tempfile::tempdir().map_err(|source| unwritable(&std::env::temp_dir(), source))?;
        write_tokenizer(&vocabulary, made.path())?;
        let config = Value::Object(gguf::config(&file).map_err(LoadError::from)?).to_string();
        let path = made.path().join("config.json");
        crate::files::write(&path, config.as_bytes()).map_err(|source| unwritable(&path, source))?;
        Ok(Self { path: made.path().into(), _made: Some(made) })
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
