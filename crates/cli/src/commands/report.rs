//! The HTML report: what `kudos eval --report` and the end of `kudos train` write.

use anyhow::Context;
use kudos::data::{Loaded, check};
use kudos::eval::page::{JudgeInfo, ReportInput, TrainingInfo, TrainingStep, render};
use kudos::eval::{Analysis, EvalOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a report is about, before the judge's directory is read.
pub struct About<'a> {
    /// Directory of the judge.
    pub dir: &'a Path,
    /// What the page calls it.
    pub name: String,
    /// Arithmetic of the scores.
    pub precision: String,
    /// The command that makes the report again.
    pub command: String,
    /// Bootstrap and seed.
    pub options: EvalOptions,
    /// Step whose weights were kept, where it is known.
    pub kept: Option<u64>,
    /// What the reader must know first.
    pub caution: Option<String>,
}

/// Writes the report of an evaluation: the data are what was evaluated.
pub fn of_evaluation(path: &Path, about: About, analyses: &[Analysis], loaded: Vec<Loaded>) -> anyhow::Result<()> {
    let loaded = merged(loaded);
    let checked = (!loaded.files.is_empty()).then(|| check::run(&loaded, &check::CheckOptions::default()));
    let input = ReportInput { analyses, check: checked.as_ref(), files: &loaded.files, ..read(about)? };
    write(path, &input)
}

/// Writes the report of a training into the judge's directory: the data are what was trained on.
pub fn of_training(about: About, analyses: &[Analysis], checked: &check::Report) -> anyhow::Result<()> {
    let path = about.dir.join("report.html");
    write(&path, &ReportInput { analyses, check: Some(checked), ..read(about)? })
}

fn write(path: &Path, input: &ReportInput) -> anyhow::Result<()> {
    kudos::files::write(path, render(input).as_bytes()).with_context(|| path.display().to_string())
}

/// Files that were read one by one, as if they had been read together.
pub fn merged(parts: Vec<Loaded>) -> Loaded {
    let mut all = Loaded::default();
    for mut part in parts {
        let before = all.files.len();
        part.origins.iter_mut().for_each(|origin| origin.file += before);
        all.groups.append(&mut part.groups);
        all.origins.append(&mut part.origins);
        all.problems.append(&mut part.problems);
        all.files.append(&mut part.files);
    }
    all
}

/// The judge's directory, as the page shows it.
fn read(about: About) -> anyhow::Result<ReportInput<'static>> {
    let reward = reward(about.dir)?;
    let spread = |key: &str| reward.get("calibration")?.get(key)?.as_f64();
    let trained_spread = spread("mean").zip(spread("std")).map(|(mean, std)| [mean, std]);
    let hashes = hashes(about.dir)?;
    let judge = JudgeInfo { name: about.name, reward, precision: about.precision, hashes, trained_spread };
    Ok(ReportInput {
        judge,
        training: training(about.dir, about.kept)?,
        command: about.command,
        bootstrap: (about.options.bootstrap, about.options.seed),
        caution: about.caution,
        ..ReportInput::default()
    })
}

/// The file's content; `None` when there is no such file.
fn optional(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn reward(dir: &Path) -> anyhow::Result<Value> {
    let path = dir.join("reward.json");
    match optional(&path)? {
        Some(text) => serde_json::from_str(&text).with_context(|| path.display().to_string()),
        None => Ok(Value::Null),
    }
}

fn training(dir: &Path, kept: Option<u64>) -> anyhow::Result<Option<TrainingInfo>> {
    let lines = optional(&dir.join("run").join("metrics.jsonl"))?;
    Ok(lines.map(|lines| TrainingInfo { steps: TrainingStep::parse(&lines), kept }))
}

/// Weights, configuration and tokenizer of a judge with their SHA-256, by name.
///
/// # Errors
/// If the directory or a file cannot be read.
pub fn hashes(dir: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| is_part(p)).collect();
    files.sort();
    let hash = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, kudos::files::sha256(&path).with_context(|| path.display().to_string())?))
    };
    files.into_iter().map(hash).collect()
}

/// Whether scores depend on the file.
fn is_part(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    path.is_file() && matches!(extension, Some("safetensors" | "json" | "txt" | "model"))
}
