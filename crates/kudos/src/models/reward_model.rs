//! THE reward model: text → ids → packed batch → hidden states → score.
//!
//! Training, evaluation, scoring and serving all come through here, with the judge's `reward.json`.

use super::attributes::AttributeHead;
use super::checkpoint::{LoadError, load_for_scoring};
use super::config::Config;
use super::encoder::Model;
use crate::data::Content;
use crate::nn::{Batch, BatchError, Mode, Packed, Precision, Sequence, Tape, Var, Weights};
use crate::text::{EncodeSettings, Encoded, Encoder, Rendering, TextError, Truncation};
use kernels::parallel::inside;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Borrow;
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
    /// The tokenizer knows more words than the model.
    #[error(
        "token id {id} lies outside the model's {vocabulary} embeddings: the tokenizer files belong to another model"
    )]
    Vocabulary {
        /// Largest id met.
        id: u32,
        /// Rows of the table.
        vocabulary: usize,
    },
    /// The tokenizer gives segments that the model has no vectors for.
    #[error(
        "a token has segment {segment}, but config.json gives the model a `type_vocab_size` of {segments}: \
         the tokenizer files belong to another model"
    )]
    Segment {
        /// Largest segment met.
        segment: u32,
        /// Rows of the table.
        segments: usize,
    },
    /// A text has more tokens than the model has positions.
    #[error(
        "a text has {tokens} tokens, the model has {limit} positions: encode it with a `max_length` of at most {limit}"
    )]
    Tokens {
        /// Tokens of the text.
        tokens: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// A text that cannot be scored: mostly one without tokens.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The score is not a number.
    #[error("the judge gave the score {score}: its weights are broken or its training diverged")]
    NotFinite {
        /// The score.
        score: f32,
        /// Place of its text among those that were scored, from 0.
        text: usize,
    },
}

/// One data file a judge was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// As the user named it.
    pub file: String,
    /// Hash of its bytes.
    pub sha256: String,
    /// Groups used.
    pub groups: usize,
    /// Pairs used.
    pub pairs: usize,
}

/// How scores are read as probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Divides margins.
    pub temperature: f32,
    /// Mean score of the data the judge was trained on.
    pub mean: f32,
    /// Standard deviation of those scores.
    pub std: f32,
}

impl Calibration {
    /// The judge's own probability that a response of this score is better than a typical one of its training: the Bradley-Terry
    /// probability at the temperature, averaged over normally distributed scores of `mean` and `std`.
    pub fn beats_typical(&self, score: f32) -> f64 {
        let [score, temperature, mean, std] = [score, self.temperature, self.mean, self.std].map(f64::from);
        let places = (-600..=600).map(|hundredth| f64::from(hundredth) / 100.0);
        let (wins, weight) = places.fold((0.0, 0.0), |(wins, total), z| {
            let weight = (-z * z / 2.0).exp();
            (wins + weight / (1.0 + ((mean + std * z - score) / temperature).exp()), total + weight)
        });
        wins / weight
    }
}

/// `reward.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardConfig {
    /// Version of this file: 1.
    pub format: u32,
    /// Rendering, token limit and truncation.
    #[serde(flatten)]
    pub encode: EncodeSettings,
    /// What training started from.
    #[serde(default)]
    pub base: String,
    /// What it was trained on.
    #[serde(default)]
    pub data: Vec<TrainedOn>,
    /// The settings of the training run.
    #[serde(default)]
    pub recipe: Map<String, Value>,
    /// How to read the scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What its outputs are, where it has one an attribute; without it, the judge's one output is the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<AttributeHead>,
}

impl RewardConfig {
    /// What a checkpoint without `reward.json` means: an encoder reads `tokenizer(prompt, response,
    /// truncation=True, max_length=512)`.
    pub fn default_for(config: &Config) -> Self {
        let encode = EncodeSettings::new(Rendering::Pair, config.max_tokens().min(512), Truncation::LongestFirst);
        let (base, data, recipe) = (String::new(), Vec::new(), Map::new());
        Self { format: 1, encode, base, data, recipe, calibration: None, attributes: None }
    }

    /// What divides a margin before it is read as a probability: 1 until a temperature is fitted.
    pub fn temperature(&self) -> f32 {
        self.calibration.map_or(1.0, |calibration| calibration.temperature)
    }

    /// Reads `reward.json` of a judge directory; `None` when there is none.
    ///
    /// # Errors
    /// [`JudgeError::Reward`] for an unreadable file or another format.
    pub fn read(dir: &Path) -> Result<Option<Self>, JudgeError> {
        let path = dir.join("reward.json");
        let bad = |reason: String| JudgeError::Reward { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(bad(e.to_string())),
        };
        let config: Self = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        match config.format {
            1 => Ok(Some(config)),
            other => Err(bad(format!("format {other} is not 1: it was written by a newer version"))),
        }
    }

    /// Puts a calibration into the `reward.json` of a judge directory, in one step; everything else that stands in the
    /// file stays. A directory without one gets this config.
    ///
    /// # Errors
    /// [`JudgeError::Reward`] for a file that cannot be read or replaced.
    pub fn store_calibration(&self, dir: &Path, calibration: Calibration) -> Result<(), JudgeError> {
        let path = dir.join("reward.json");
        let bad = |reason: String| JudgeError::Reward { path: path.clone(), reason };
        let mut json: Map<String, Value> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                serde_json::from_value(json!(self)).map_err(|e| bad(e.to_string()))?
            }
            Err(e) => return Err(bad(e.to_string())),
        };
        json.insert("calibration".into(), json!(calibration));
        let text = format!("{:#}\n", Value::Object(json));
        crate::files::write(&path, text.as_bytes()).map_err(|e| bad(e.to_string()))
    }
}

/// The `config.json` of a judge made from a base: one label, raw scores everywhere; or the names of its attributes, in
/// the order of the outputs.
pub fn config_of_new_judge(config: &Config, attributes: &[String]) -> Map<String, Value> {
    let architecture = match config.json.get("model_type").and_then(Value::as_str) {
        Some("distilbert") => "DistilBertForSequenceClassification",
        Some("roberta") => "RobertaForSequenceClassification",
        Some("xlm-roberta") => "XLMRobertaForSequenceClassification",
        _ => "BertForSequenceClassification",
    };
    let mut json = config.json.clone();
    let plain = ["LABEL_0".to_owned()];
    let labels = if attributes.is_empty() { &plain } else { attributes };
    let id2label: Map<_, _> = labels.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
    let label2id: Map<_, _> = labels.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
    json.remove("num_labels");
    json.remove("torch_dtype");
    json.remove("_name_or_path");
    for (key, value) in [
        ("architectures", json!([architecture])),
        ("dtype", json!("float32")),
        ("id2label", id2label.into()),
        ("label2id", label2id.into()),
        ("problem_type", if attributes.is_empty() { Value::Null } else { json!("regression") }),
        ("sentence_transformers", json!({"activation_fn": "torch.nn.modules.linear.Identity"})),
    ] {
        json.insert(key.into(), value);
    }
    json
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

/// A trained judge, ready to score.
pub struct RewardModel {
    /// The network. Weights that are packed are not in its parameters too.
    pub model: Model,
    /// Text to ids; shared, so that another thread can encode ahead.
    pub encoder: Arc<Encoder>,
    /// Its `reward.json`.
    pub reward: RewardConfig,
    precision: Precision,
    workspace: Workspace,
}

/// What a model computes with besides its parameters: kept from batch to batch, so that a warm one allocates nothing.
#[derive(Default)]
pub struct Workspace {
    /// The ops and their memory.
    pub tape: Tape,
    /// The packed sequences.
    pub batch: Batch,
    /// The linear weights as the kernels want them.
    pub packed: Packed,
}

impl Workspace {
    /// Runs the model forward over the batch; the logits stay on the tape.
    pub fn forward(&mut self, model: &Model, mode: Mode) -> Var {
        self.run(model, mode, Model::build)
    }

    fn run(&mut self, model: &Model, mode: Mode, build: Build) -> Var {
        self.tape.start(mode, self.packed.storage());
        let output = build(model, &mut self.tape, &self.batch);
        self.tape.forward(output, Weights { values: &model.parameters.values, packed: &self.packed }, &self.batch);
        output
    }
}

/// Tokens of one packed batch when scoring: enough to keep the products large, small in memory.
const SCORING_TOKENS: usize = 2048;

impl RewardModel {
    /// Loads a judge directory, to score in `precision`; `None` is int8 for a judge that is stored so, else
    /// [`Precision::best`]. Where the processor or the model's sizes forbid it, it scores in f32.
    ///
    /// # Errors
    /// [`JudgeError`] for anything that would make its scores differ from what it was trained for.
    pub fn load(dir: &Path, precision: Option<Precision>) -> Result<Self, JudgeError> {
        let (model, packed, precision) = load_for_scoring(dir, precision)?;
        let reward = RewardConfig::read(dir)?.unwrap_or_else(|| RewardConfig::default_for(&model.config));
        check_outputs(dir, &reward, &model.config)?;
        check_length(&dir.join("reward.json"), &reward.encode, &model.config)?;
        let encoder = Arc::new(Encoder::load(dir, reward.encode.clone())?);
        let workspace = Workspace { packed, ..Workspace::default() };
        Ok(Self { model, encoder, reward, precision, workspace })
    }

    /// Scores of texts that its encoder has encoded.
    ///
    /// # Errors
    /// As [`score_encoded`].
    pub fn score_encoded(&mut self, encoded: &[Encoded]) -> Result<Vec<f32>, JudgeError> {
        let outputs = score_encoded(&self.model, encoded, &mut self.workspace)?;
        match &self.reward.attributes {
            None => Ok(outputs),
            Some(head) => Ok(head.overalls(&outputs)),
        }
    }

    /// What its outputs rate, in their order; nothing for a judge whose one output is the score.
    pub fn attributes(&self) -> &[String] {
        self.reward.attributes.as_ref().map_or(&[], |head| &head.names)
    }

    /// Scores of texts that its encoder has encoded, with the output for each attribute.
    ///
    /// # Errors
    /// As [`score_encoded`].
    pub fn rate_encoded(&mut self, encoded: &[Encoded]) -> Result<Vec<Rated>, JudgeError> {
        let outputs = score_encoded(&self.model, encoded, &mut self.workspace)?;
        let rows = outputs.chunks_exact(self.model.config.labels).zip(encoded);
        let rate = |(outputs, encoded): (&[f32], _)| match &self.reward.attributes {
            None => Rated { scored: Scored::new(outputs[0], encoded), attributes: Vec::new() },
            Some(head) => Rated { scored: Scored::new(head.overall(outputs), encoded), attributes: outputs.to_vec() },
        };
        Ok(rows.map(rate).collect())
    }

    /// As [`Self::score`], with the output for each attribute.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn rate(&mut self, inputs: &[Input]) -> Result<Vec<Rated>, JudgeError> {
        let encoded = self.encoder.encode_batch(inputs)?;
        self.rate_encoded(&encoded)
    }

    /// What the head's last layer reads of each text, `[inputs, width]`, in the order of the inputs.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn features(&mut self, inputs: &[Input]) -> Result<Vec<f32>, JudgeError> {
        let encoded = self.encoder.encode_batch(inputs)?;
        features_encoded(&self.model, &encoded, &mut self.workspace)
    }

    /// The arithmetic it scores with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Scores, in the order of the inputs. A score depends on its own input alone, bit for bit.
    ///
    /// # Errors
    /// [`JudgeError`] for texts that cannot be encoded and scores that are no numbers.
    pub fn score(&mut self, inputs: &[Input]) -> Result<Vec<Scored>, JudgeError> {
        Ok(self.rate(inputs)?.into_iter().map(|rated| rated.scored).collect())
    }
}

/// One output, or the outputs that `reward.json` describes.
fn check_outputs(dir: &Path, reward: &RewardConfig, config: &Config) -> Result<(), JudgeError> {
    let labels = config.labels;
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
    let limit = config.max_tokens();
    match encode.max_length > limit {
        true => Err(JudgeError::TooLong { path: path.into(), asked: encode.max_length, limit }),
        false => Ok(()),
    }
}

/// Packs sequences of similar length together and runs the model; outputs `[sequences, labels]` in the order given.
///
/// # Errors
/// As [`push`], and [`JudgeError::NotFinite`].
pub fn score_encoded(model: &Model, encoded: &[Encoded], workspace: &mut Workspace) -> Result<Vec<f32>, JudgeError> {
    let scores = outputs(model, encoded, workspace, Model::build)?;
    match scores.iter().position(|s| !s.is_finite()) {
        Some(at) => Err(JudgeError::NotFinite { score: scores[at], text: at / model.config.labels }),
        None => Ok(scores),
    }
}

/// What the head's last layer reads of each text, `[encoded, hidden]`, in the order given.
///
/// # Errors
/// As [`push`].
pub fn features_encoded<E: Borrow<Encoded> + Sync>(
    model: &Model,
    encoded: &[E],
    workspace: &mut Workspace,
) -> Result<Vec<f32>, JudgeError> {
    outputs(model, encoded, workspace, Model::features)
}

/// What one row a text is computed by.
type Build = fn(&Model, &mut Tape, &Batch) -> Var;

/// Packs sequences of similar length together and runs what `build` pushes; one row of its output a text, in the order
/// given. All of it runs on a thread of the pool: from any other, each parallel loop would wake and await one.
fn outputs<E: Borrow<Encoded> + Sync>(
    model: &Model,
    encoded: &[E],
    workspace: &mut Workspace,
    build: Build,
) -> Result<Vec<f32>, JudgeError> {
    inside(|| outputs_inside(model, encoded, workspace, build))
}

fn outputs_inside<E: Borrow<Encoded>>(
    model: &Model,
    encoded: &[E],
    workspace: &mut Workspace,
    build: Build,
) -> Result<Vec<f32>, JudgeError> {
    let mut order: Vec<usize> = (0..encoded.len()).collect();
    order.sort_by_key(|i| encoded[*i].borrow().ids.len());
    let mut rows = Vec::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let batch = &mut workspace.batch;
        batch.clear();
        let mut taken = 0;
        while taken < rest.len()
            && (taken == 0 || batch.tokens() + encoded[rest[taken]].borrow().ids.len() <= SCORING_TOKENS)
        {
            push(model, encoded[rest[taken]].borrow(), batch)?;
            taken += 1;
        }
        let output = workspace.run(model, Mode::Score, build);
        let values = workspace.tape.value(output);
        let width = values.len() / taken;
        rows.resize(width * encoded.len(), 0.0);
        for (index, row) in rest[..taken].iter().zip(values.chunks(width)) {
            rows[index * width..][..width].copy_from_slice(row);
        }
        rest = &rest[taken..];
    }
    Ok(rows)
}

/// Appends one encoded text to a batch, as the model's family counts positions. Every id, segment and position is one
/// that the model has a vector for.
///
/// # Errors
/// [`JudgeError::Vocabulary`], [`JudgeError::Segment`], [`JudgeError::Tokens`], and [`JudgeError::Batch`] for a text
/// without tokens.
pub fn push(model: &Model, encoded: &Encoded, batch: &mut Batch) -> Result<(), JudgeError> {
    let Config { vocabulary, types: segments, padding, .. } = model.config;
    if let Some(id) = encoded.ids.iter().copied().find(|id| *id as usize >= vocabulary) {
        return Err(JudgeError::Vocabulary { id, vocabulary });
    }
    // A family without segments reads none, whatever stands there.
    if let Some(segment) = encoded.type_ids.iter().copied().find(|s| segments > 0 && *s as usize >= segments) {
        return Err(JudgeError::Segment { segment, segments });
    }
    let (tokens, limit) = (encoded.ids.len(), model.config.max_tokens());
    if tokens > limit {
        return Err(JudgeError::Tokens { tokens, limit });
    }
    Ok(batch.push(Sequence { ids: &encoded.ids, type_ids: &encoded.type_ids }, padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_beats_a_typical_one_by_its_distance() {
        let chance = |temperature, std, score| Calibration { temperature, mean: 2.0, std }.beats_typical(score);
        assert!((chance(0.9, 1.1, 2.0) - 0.5).abs() < 1e-12, "the mean beats half");
        // Without noise in the comparison it is the normal distribution, without spread the logistic one.
        assert!((chance(1e-3, 1.0, 3.0) - 0.841_345).abs() < 2e-3);
        assert!((chance(0.5, 1e-6, 3.0) - 0.880_797).abs() < 1e-6);
        // scipy.integrate.quad of the logistic times the normal density.
        assert!((chance(0.9, 1.1, 3.5) - 0.787_416).abs() < 1e-6);
        assert!(chance(0.9, 1.1, 1e6) > 0.999 && chance(0.9, 1.1, -1e6) < 0.001);
    }
}
