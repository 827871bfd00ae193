//! The output layer that reads the log odds of one answer over another: the difference of two rows of a language model's
//! head. A judge with it scores what the model would answer (`convert_judge.rs`), and training can start there.

use super::config::Config;
use super::decoder_config::DecoderConfig;
use super::load::{ClassifierSource, LoadError, LoadOptions, Reader, judge_config, set_labels};
use super::model::Model;
use super::reward_model::JudgeError;
use super::source::{Stored, TensorSource};
use crate::nn::weights::WeightError;
use crate::text::TextError;
use std::path::{Path, PathBuf};

/// Why a model gives no such judge.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Config or weights of the model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The weights, as they are written.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// Tokenizer, template or answers.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Whatever makes the written judge unusable.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// A file of the judge cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// An answer beyond the model's words.
    #[error("{path}: token {token} is beyond the {rows} rows of `{tensor}`: the tokenizer is another model's")]
    BeyondHead {
        /// File or directory.
        path: PathBuf,
        /// The token.
        token: u32,
        /// Rows of the head.
        rows: usize,
        /// The head's tensor.
        tensor: String,
    },
    /// Answers that the model does not tell apart.
    #[error("the answers {no:?} and {yes:?} are the same token {token}: a judge needs two that differ")]
    OneToken {
        /// The first answer.
        no: String,
        /// The second.
        yes: String,
        /// The token of both.
        token: u32,
    },
    /// Two tokens with the same weights.
    #[error("{path}: the rows of tokens {no} and {yes} in `{tensor}` are equal, so every score would be 0")]
    EqualRows {
        /// File or directory.
        path: PathBuf,
        /// The first token.
        no: u32,
        /// The second.
        yes: u32,
        /// The head's tensor.
        tensor: String,
    },
}

/// An output layer of one score: logit of the second token − logit of the first.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenHead {
    /// Weights, `[hidden]`: of what the head of a judge reads, the state after the last norm.
    pub weight: Vec<f32>,
    /// What a bias of the logits adds to every score (Phi); 0 elsewhere.
    pub shift: f32,
}

/// The output layer whose score is the log odds of `tokens[1]` over `tokens[0]` (`[no, yes]`) as the model's next word. The
/// model is a directory with `config.json` and safetensors, or a `.gguf` file.
///
/// # Errors
/// [`ConvertError`] for a model without logits or of an unknown family, and tokens that it has no rows for.
pub fn head_from_tokens(model: &Path, tokens: [u32; 2]) -> Result<TokenHead, ConvertError> {
    Origin::open(model)?.head(tokens)
}

/// A language model as it lies on disk, and the judge that it will be.
pub(super) struct Origin {
    /// Declared; it has no values.
    pub(super) judge: Model,
    tensors: Box<dyn TensorSource>,
}

impl Origin {
    pub(super) fn open(model: &Path) -> Result<Self, ConvertError> {
        let Stored { path, json, tensors } = Stored::open(model)?;
        DecoderConfig::of(&path, json.clone()).map_err(LoadError::from)?;
        let mut config =
            judge_config(&path, json, LoadOptions::Base { seed: 0, new_head: true }).map_err(LoadError::from)?;
        set_labels(&mut config, 1);
        let judge = Model::declare(config)?;
        Reader::match_tensors(&judge.parameters, judge.names(), tensors.as_ref(), ClassifierSource::New)?;
        Ok(Self { judge, tensors })
    }

    pub(super) fn config(&self) -> &DecoderConfig {
        match &self.judge.config {
            Config::Decoder(config) => config,
            Config::Encoder(_) => unreachable!("it is refused when it is opened"),
        }
    }

    /// The type in which a judge keeps a parameter: that of the checkpoint, or f32 for blocks of a GGUF file.
    pub(super) fn dtype(&self, name: &str) -> Result<&'static str, ConvertError> {
        let found = self.held(name).map(|held| self.tensors.dtype(&held)).unwrap_or_default();
        let known = ["F32", "BF16", "F16"].into_iter().find(|known| *known == found);
        let bad = || WeightError::Type { path: self.tensors.path().into(), tensor: name.into(), found };
        Ok(known.ok_or_else(bad)?)
    }

    /// What the source calls a parameter.
    fn held(&self, name: &str) -> Option<String> {
        self.judge.names().of(name).into_iter().find(|name| self.tensors.stored(name).is_some())
    }

    /// The values of a parameter as checkpoints have them, in this shape.
    pub(super) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ConvertError> {
        let (path, tensor) = (self.tensors.path().to_path_buf(), name.to_owned());
        let Some(held) = self.held(name) else {
            return Err(WeightError::Missing { path, tensor, shape: shape.into() }.into());
        };
        let found = self.tensors.shape(&held);
        if found != shape {
            return Err(WeightError::Shape { path, tensor, expected: shape.into(), found }.into());
        }
        let mut values = vec![0.0; shape.iter().product()];
        self.tensors.read(&held, &mut values)?;
        Ok(values)
    }

    /// The name of the head's tensor.
    fn table(&self) -> String {
        let config = self.config();
        if config.tied { format!("{}.weight", config.names.words) } else { "lm_head.weight".into() }
    }

    /// The rows of the head, one for each word, and the biases of the logits.
    pub(super) fn logits(&self) -> Result<(Vec<f32>, Option<Vec<f32>>), ConvertError> {
        let DecoderConfig { vocabulary, hidden, tied, biases, .. } = *self.config();
        let tensor = self.table();
        if self.held(&tensor).is_none() {
            return Err(LoadError::NoLogits { path: self.tensors.path().into(), tensor }.into());
        }
        let rows = self.read(&tensor, &[vocabulary, hidden])?;
        let biases = (biases.head && !tied).then(|| self.read("lm_head.bias", &[vocabulary])).transpose()?;
        Ok((rows, biases))
    }

    pub(super) fn head(&self, [no, yes]: [u32; 2]) -> Result<TokenHead, ConvertError> {
        let (rows, biases) = self.logits()?;
        let (path, tensor) = (self.tensors.path().to_path_buf(), self.table());
        let row = |token: u32| rows.chunks_exact(self.config().hidden).nth(token as usize);
        let beyond = |token| ConvertError::BeyondHead {
            path: path.clone(),
            token,
            rows: self.config().vocabulary,
            tensor: tensor.clone(),
        };
        let (no_row, yes_row) = (row(no).ok_or_else(|| beyond(no))?, row(yes).ok_or_else(|| beyond(yes))?);
        let weight: Vec<f32> = yes_row.iter().zip(no_row).map(|(yes, no)| yes - no).collect();
        if weight.iter().all(|weight| *weight == 0.0) {
            return Err(ConvertError::EqualRows { path, no, yes, tensor });
        }
        let shift = biases.map_or(0.0, |biases| biases[yes as usize] - biases[no as usize]);
        Ok(TokenHead { weight, shift })
    }
}
