//! THE reward model: text → ids → packed batch → hidden states → score.
//!
//! Training, evaluation, scoring and serving all come through here, with the judge's `reward.json`. A judge is read only:
//! any number of threads score with one, each with a [`Workspace`] of its own.

use super::config::Config;
use super::judge::Opened;
use super::load::LoadError;
use super::model::Model;
use super::reward_config::RewardConfig;
use super::scoring::{ScoreError, Workspace, all_or_first, features_each, logits, logits_each};
use crate::data::Content;
use crate::nn::Precision;
use crate::text::{EncodeSettings, Encoded, Encoder, TextError, pooled_index};
use std::borrow::Borrow;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a judge cannot be loaded or cannot score.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Config or weights.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Tokenizer or rendering.
    #[error(transparent)]
    Text(#[from] TextError),
    /// `reward.json`.
    #[error("{path}: {reason}; expected the reward.json that `kudos train` writes")]
    Reward {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A classifier with several outputs.
    #[error(
        "{path}: the checkpoint has {labels} outputs, a judge has one, or one an attribute that its reward.json names; train one with `kudos train DATA --base {path} --new-head`"
    )]
    Labels {
        /// Directory.
        path: PathBuf,
        /// Outputs.
        labels: usize,
    },
    /// More tokens than the position table has rows.
    #[error("{path}: max_length {asked} exceeds the model's {limit} positions; set it to at most {limit}")]
    TooLong {
        /// File or directory.
        path: PathBuf,
        /// Asked for.
        asked: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// A text has no score, and all were asked for.
    #[error("{error}")]
    Unscored {
        /// Place of the text among those that were scored, from 0.
        text: usize,
        /// Why it has none.
        error: ScoreError,
    },
}

/// A (prompt, response) to score; without a prompt the response is a whole transcript.
pub type Input<'a> = (Option<&'a Content>, &'a Content);

/// A score with what it was computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The raw logit; of a judge of attributes, the weighted sum of its outputs.
    pub score: f32,
    /// Tokens the model read.
    pub tokens: usize,
    /// Whether tokens were cut.
    pub truncated: bool,
}

impl Scored {
    /// The score of an encoded text.
    pub fn new(score: f32, encoded: &Encoded) -> Self {
        Self { score, tokens: encoded.ids.len(), truncated: encoded.truncated }
    }
}

/// A score with what each attribute contributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Rated {
    /// The overall score.
    pub scored: Scored,
    /// The outputs in the order of [`RewardModel::attributes`]; empty for a judge without attributes.
    pub attributes: Vec<f32>,
}

/// A trained judge, ready to score. Threads share it.
pub struct RewardModel {
    /// The network. Weights that are packed are not in its parameters too.
    pub model: Model,
    /// Text to ids; shared, so that another thread can encode ahead.
    pub encoder: Arc<Encoder>,
    /// Its `reward.json`.
    pub reward: RewardConfig,
    precision: Precision,
}

impl RewardModel {
    /// Loads a judge directory, to score in `precision`; `None` is int8 for a judge that is stored so, else
    /// [`Precision::best`]. Where the processor or the model's sizes forbid it, it scores in f32.
    ///
    /// # Errors
    /// [`JudgeError`] for anything that would make its scores differ from what it was trained for.
    pub fn load(dir: &Path, precision: Option<Precision>) -> Result<Self, JudgeError> {
        let opened = Opened::of(dir)?;
        // The tokenizer of a large vocabulary takes as long as the weights: both at once.
        let (weights, encoder) = std::thread::scope(|scope| {
            let encoder = scope.spawn(|| load_encoder(dir, &opened.reward));
            let weights = opened.weights(precision);
            (weights, encoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (model, precision) = weights?;
        Ok(Self { model, encoder: Arc::new(encoder?), reward: opened.reward, precision })
    }

    /// What its outputs rate, in their order; nothing for a judge whose one output is the score.
    pub fn attributes(&self) -> &[String] {
        self.reward.attributes.as_ref().map_or(&[], |head| &head.names)
    }

    /// What to know of a decoder whose texts end in its pad id: it reads the token before, as transformers does.
    pub fn pad_note(&self) -> Option<String> {
        let text = Content::Text("a".into());
        let ids = self.encoder.encode(Some(&text), &text).ok()?.ids;
        let pad = self.model.config.pad().filter(|pad| ids.last() == Some(pad))?;
        let read = ids[pooled_index(&ids, Some(pad))?];
        let name = |id: u32| self.encoder.token(id).unwrap_or_else(|| id.to_string());
        Some(format!(
            "note: texts end in {:?}, the judge's pad_token_id {pad}: the score is read at {:?} before it, as in transformers",
            name(pad),
            name(read)
        ))
    }

    /// The arithmetic it scores with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Scores one packed batch of texts that its encoder has encoded: a result for each, in the order given.
    /// [`super::pack`] says which texts to run together. A score depends on its own text alone, bit for bit.
    pub fn run(&self, texts: &[&Encoded], workspace: &mut Workspace) -> Vec<Result<Rated, ScoreError>> {
        self.rated(texts, logits(&self.model, texts, workspace))
    }

    /// As [`Self::run`], for any number of texts: they are packed here.
    pub fn rate_each<E: Borrow<Encoded> + Sync>(
        &self,
        texts: &[E],
        workspace: &mut Workspace,
    ) -> Vec<Result<Rated, ScoreError>> {
        self.rated(texts, logits_each(&self.model, texts, workspace))
    }

    /// Encodes and scores: a result for each input, in the order given.
    pub fn rate_inputs(&self, inputs: &[Input], workspace: &mut Workspace) -> Vec<Result<Rated, ScoreError>> {
        let (encoded, failed) = self.encode_each(inputs);
        let mut rated = self.rate_each(&encoded, workspace).into_iter();
        let next = |failed: Option<ScoreError>| match failed {
            Some(error) => Err(error),
            None => rated.next().expect("a result for each text that was encoded"),
        };
        failed.into_iter().map(next).collect()
    }

    /// The texts that can be encoded, and for each input why it cannot.
    fn encode_each(&self, inputs: &[Input]) -> (Vec<Encoded>, Vec<Option<ScoreError>>) {
        let mut encoded = Vec::with_capacity(inputs.len());
        let mut failed = Vec::with_capacity(inputs.len());
        for result in self.encoder.encode_each(inputs) {
            match result {
                Ok(text) => {
                    encoded.push(text);
                    failed.push(None);
                }
                Err(error) => failed.push(Some(Arc::new(error).into())),
            }
        }
        (encoded, failed)
    }

    fn rated<E: Borrow<Encoded>>(
        &self,
        texts: &[E],
        outputs: Vec<Result<Vec<f32>, ScoreError>>,
    ) -> Vec<Result<Rated, ScoreError>> {
        let rate = |(outputs, text): (Result<_, _>, &E)| self.rate(outputs?, text.borrow());
        outputs.into_iter().zip(texts).map(rate).collect()
    }

    fn rate(&self, outputs: Vec<f32>, text: &Encoded) -> Result<Rated, ScoreError> {
        let (score, attributes) = match &self.reward.attributes {
            None => (outputs[0], Vec::new()),
            Some(head) => (head.overall(&outputs), outputs),
        };
        if score.is_finite() {
            Ok(Rated { scored: Scored::new(score, text), attributes })
        } else {
            Err(ScoreError::NotFinite { value: score })
        }
    }
}

/// A judge with a workspace: for callers that score on one thread and want all scores or an error.
pub struct Scorer {
    judge: Arc<RewardModel>,
    workspace: Workspace,
}

impl Deref for Scorer {
    type Target = RewardModel;

    fn deref(&self) -> &RewardModel {
        &self.judge
    }
}

impl From<Arc<RewardModel>> for Scorer {
    fn from(judge: Arc<RewardModel>) -> Self {
        Self { judge, workspace: Workspace::default() }
    }
}

impl Scorer {
    /// As [`RewardModel::load`].
    ///
    /// # Errors
    /// As [`RewardModel::load`].
    pub fn load(dir: &Path, precision: Option<Precision>) -> Result<Self, JudgeError> {
        Ok(Arc::new(RewardModel::load(dir, precision)?).into())
    }

    /// The judge, to be shared.
    pub fn judge(&self) -> &Arc<RewardModel> {
        &self.judge
    }

    /// Scores, in the order of the inputs. A score depends on its own input alone, bit for bit.
    ///
    /// # Errors
    /// [`JudgeError`] for texts that cannot be encoded and scores that are no numbers.
    pub fn score(&mut self, inputs: &[Input]) -> Result<Vec<Scored>, JudgeError> {
        Ok(self.rate(inputs)?.into_iter().map(|rated| rated.scored).collect())
    }

    /// As [`Self::score`], with the output for each attribute.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn rate(&mut self, inputs: &[Input]) -> Result<Vec<Rated>, JudgeError> {
        let encoded = self.judge.encoder.encode_batch(inputs)?;
        self.rate_encoded(&encoded)
    }

    /// Scores of texts that its encoder has encoded.
    ///
    /// # Errors
    /// [`JudgeError::Unscored`].
    pub fn score_encoded(&mut self, encoded: &[Encoded]) -> Result<Vec<f32>, JudgeError> {
        Ok(self.rate_encoded(encoded)?.into_iter().map(|rated| rated.scored.score).collect())
    }

    /// As [`Self::score_encoded`], with the output for each attribute.
    ///
    /// # Errors
    /// [`JudgeError::Unscored`].
    pub fn rate_encoded(&mut self, encoded: &[Encoded]) -> Result<Vec<Rated>, JudgeError> {
        all_or_first(self.judge.rate_each(encoded, &mut self.workspace))
    }

    /// What the head's last layer reads of each text, `[inputs, width]`, in the order of the inputs.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn features(&mut self, inputs: &[Input]) -> Result<Vec<f32>, JudgeError> {
        let encoded = self.judge.encoder.encode_batch(inputs)?;
        Ok(all_or_first(features_each(&self.judge.model, &encoded, &mut self.workspace))?.concat())
    }
}

fn load_encoder(dir: &Path, reward: &RewardConfig) -> Result<Encoder, JudgeError> {
    Ok(Encoder::load(&super::adapter::tokenizer_dir(dir)?, reward.encode.clone())?)
}

/// One output, or the outputs that `reward.json` describes.
pub(super) fn check_outputs(dir: &Path, reward: &RewardConfig, labels: usize) -> Result<(), JudgeError> {
    match &reward.attributes {
        None if labels == 1 => Ok(()),
        None => Err(JudgeError::Labels { path: dir.into(), labels }),
        Some(head) => match head.fault(labels) {
            None => Ok(()),
            Some(reason) => Err(JudgeError::Reward { path: dir.join("reward.json"), reason }),
        },
    }
}

/// Refuses a token limit that the position table cannot hold.
///
/// # Errors
/// [`JudgeError::TooLong`].
pub fn check_length(path: &Path, encode: &EncodeSettings, config: &Config) -> Result<(), JudgeError> {
    check_positions(path, encode, config.max_tokens())
}

/// As [`check_length`], for a model of `limit` positions.
pub(super) fn check_positions(path: &Path, encode: &EncodeSettings, limit: usize) -> Result<(), JudgeError> {
    match encode.max_length > limit {
        true => Err(JudgeError::TooLong { path: path.into(), asked: encode.max_length, limit }),
        false => Ok(()),
    }
}
