//! The judge directory: what `AutoModelForSequenceClassification.from_pretrained` loads, and `reward.json`.

use super::{Finished, FoldResult, Measured, TrainError, Trainer, card};
use crate::models::{Calibration, RewardConfig, TrainedOn, config_of_new_judge};
use crate::text::{EncodeSettings, Encoder};
use serde_json::{Map, Value};
use std::path::Path;

/// What the loop does not know about a judge.
pub struct JudgeFiles<'a> {
    /// Tokenizer and rendering.
    pub encoder: &'a Encoder,
    /// The base, as the user named it.
    pub base: &'a str,
    /// Whether the base brought its own classification head.
    pub new_head: bool,
    /// The data files.
    pub data: Vec<TrainedOn>,
    /// What folds over the data found.
    pub folds: Option<&'a FoldResult>,
}

/// Writes everything but the weights, which the run itself has written.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_judge(dir: &Path, trainer: &Trainer, finished: &Finished, files: &JudgeFiles) -> Result<(), TrainError> {
    let settings = serde_json::to_value(trainer.settings()).expect("settings are plain data");
    let encode: &EncodeSettings = files.encoder.settings();
    let reward = RewardConfig {
        format: 1,
        encode: encode.clone(),
        base: files.base.into(),
        data: files.data.clone(),
        recipe: recipe(&settings),
        calibration: calibration(finished),
        attributes: trainer.settings().attributes.clone(),
    };
    let card = card::render(trainer, finished, files, &reward);
    for file in files.encoder.files().map_err(crate::models::JudgeError::from)? {
        write(dir, file.name, &file.bytes)?;
    }
    let names = reward.attributes.as_ref().map_or(&[][..], |head| &head.names);
    write(dir, "config.json", &pretty(&Value::Object(config_of_new_judge(&trainer.model.config, names))))?;
    write(dir, "reward.json", &pretty(&serde_json::to_value(&reward).expect("plain data")))?;
    write(dir, "training_args.json", &pretty(&training_args(settings, files, finished)))?;
    write(dir, "README.md", card.as_bytes())
}

/// The settings, without the attributes, which stand beside them.
fn recipe(settings: &Value) -> Map<String, Value> {
    let mut recipe = settings.as_object().cloned().unwrap_or_default();
    recipe.remove("attributes");
    recipe
}

fn training_args(settings: Value, files: &JudgeFiles, finished: &Finished) -> Value {
    let mut args = Map::new();
    args.insert("kudos_version".into(), env!("CARGO_PKG_VERSION").into());
    args.insert("base".into(), files.base.into());
    args.extend(settings.as_object().cloned().unwrap_or_default());
    if let Some(ensemble) = &finished.ensemble {
        args.insert("ensemble".into(), ensemble.members.len().into());
    }
    Value::Object(args)
}

/// The spread of the held-out scores, and the temperature fitted to them.
fn calibration(finished: &Finished) -> Option<Calibration> {
    let Measured { report, temperature, .. } = finished.held_out.as_ref()?;
    let (mean, std) = (report.metrics.score_mean?, report.metrics.score_std?);
    Some(Calibration { temperature: *temperature, mean: mean as f32, std: std as f32 })
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data");
    text.push(b'\n');
    text
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
    let path = dir.join(name);
    crate::files::write(&path, bytes).map_err(TrainError::io(&path))
}
