//! What can stop an improvement.

use crate::generate::GenerateError;
use crate::models::{JudgeError, LoadError};
use crate::nn::weights::WeightError;
use crate::text::TextError;
use crate::train::{Bytes, TrainError};
use std::path::PathBuf;

/// Why an improvement stopped.
#[derive(Debug, thiserror::Error)]
pub enum ImproveError {
    /// A setting that makes no sense.
    #[error("{flag} {found}: expected {expected}")]
    Setting {
        /// The flag.
        flag: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// The start model.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// Its tokenizer.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A response that is no text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A judge.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// No prompt is left to learn from.
    #[error("expected prompts to learn from, found {found}")]
    NoPrompts {
        /// What there is.
        found: String,
    },
    /// A prompt that the model cannot answer.
    #[error("{0}")]
    Prompt(String),
    /// The judge scores none of the responses.
    #[error("step {step}: the judge scored none of the {responses} responses; the first: {first}")]
    Unscored {
        /// Step, from 1; 0 is the measurement before.
        step: u64,
        /// Responses that it was asked about.
        responses: usize,
        /// Why not.
        first: String,
    },
    /// More memory than was allowed.
    #[error(
        "--memory: the limit is {limit}, and the run needs {needed} at least ({where_to}); lower -n or --max-new-tokens, or take a smaller model"
    )]
    Memory {
        /// Allowed.
        limit: Bytes,
        /// Needed.
        needed: Bytes,
        /// Where it goes.
        where_to: String,
    },
    /// Checkpoint and log.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The output directory.
    #[error("{path}: {source}; the last checkpoint is intact")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Whoever watched asked to stop.
    #[error("interrupted; step {step} is saved in {dir}: the same command with --resume continues")]
    Interrupted {
        /// Last step done.
        step: u64,
        /// Output directory.
        dir: PathBuf,
    },
}

impl ImproveError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| ImproveError::Io { path, source }
    }
}
