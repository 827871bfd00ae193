//! What can stop a run.

use super::memory::Bytes;
use super::{MemoryPlan, SettingsError};
use crate::eval::EvalError;
use crate::models::{JudgeError, ScoreError};
use crate::nn::weights::WeightError;
use std::path::PathBuf;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Nothing to learn from.
    #[error("no pairs to train on: {reason}; `kudos check` on the same files says why")]
    NoPairs {
        /// What was found instead.
        reason: String,
    },
    /// A score, a loss, a gradient or a weight is not a number.
    #[error(
        "step {step}, {place}: the {what} is {value}, expected a finite number; the run diverged. The last checkpoint (step \
         {saved}) and the best judge so far are intact in {dir}; lower --learning-rate or set --max-grad-norm"
    )]
    NotFinite {
        /// Step that failed.
        step: u64,
        /// Row of the group or response, or tensor.
        place: String,
        /// `score`, `loss`, …
        what: &'static str,
        /// Its value.
        value: f64,
        /// Step of the last checkpoint.
        saved: u64,
        /// Output directory.
        dir: PathBuf,
    },
    /// The base gives a text no finite features.
    #[error(
        "{place}: the base reads {value} in a response of this group, expected finite numbers; its weights are broken, or too \
         large for --precision: try --precision f32 or another --base"
    )]
    Features {
        /// Row of the group.
        place: String,
        /// The feature.
        value: f32,
    },
    /// The head's fit has no finite solution.
    #[error(
        "the head fitted to the features of the base has a weight or loss of {value}, expected finite numbers; its own head or \
         its features are out of all bounds: try --new-head or another --base"
    )]
    Head {
        /// What is not finite.
        value: f64,
    },
    /// A setting that makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A number of layers to keep that the base does not allow.
    #[error("--keep-layers {asked}: the base has {of} layers, expected from {fewest} to {most} of them")]
    LayersToKeep {
        /// Layers to keep.
        asked: usize,
        /// The fewest that can be kept.
        fewest: usize,
        /// The most that can be kept.
        most: usize,
        /// Layers of the base.
        of: usize,
    },
    /// Ratings of a head that cannot be shifted.
    #[error(
        "--attributes: the head of a {family} has no biases to hold a mean rating, and `centred` says that it has; expected ratings \
         as they are"
    )]
    NoBiases {
        /// Family of the base.
        family: String,
    },
    /// More memory than was allowed.
    #[error(
        "--memory: the limit is {limit}, and the run needs {needed} at least ({plan}); train less with --lora or --freeze, or lower \
         --max-length or --group-size"
    )]
    Memory {
        /// Allowed.
        limit: Bytes,
        /// Needed.
        needed: Bytes,
        /// Where it goes.
        plan: MemoryPlan,
    },
    /// More layers to train than there are.
    #[error("--freeze {asked}: the model has {most} layers, expected at most so many to stay trained")]
    TooManyTrained {
        /// Layers to train.
        asked: usize,
        /// Layers there are.
        most: usize,
    },
    /// Layers to keep of a base that keeps all.
    #[error(
        "--keep-layers {asked}: expected a BERT, an MPNet or a decoder under a new head (--new-head for one that has its own); \
         this base keeps all its layers"
    )]
    AllLayers {
        /// Layers to keep.
        asked: usize,
    },
    /// A text of the data that the model cannot read.
    #[error("{place}: {error}")]
    Text {
        /// Row of the group.
        place: String,
        /// Why not.
        error: ScoreError,
    },
    /// Encoding or scoring.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// Weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// Held-out scores cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
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
    /// A checkpoint of another run.
    #[error("{path}: {reason}; resume with the same data and flags, or choose another -o")]
    OtherRun {
        /// File.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

impl TrainError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| TrainError::Io { path, source }
    }
}
