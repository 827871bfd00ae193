//! `kudos eval DATA --judge J --calibrate`: the temperature, fitted on held-out data and stored with the judge.

use super::{Args, ScoredFile};
use crate::commands::{Global, announce_precision};
use anyhow::{Context, bail};
use kudos::data::{FileInfo, Group};
use kudos::eval::{Analysis, AnalysisOptions, Calibrated, analyse};
use kudos::models::{Calibration, RewardConfig};
use serde_json::json;
use std::path::Path;

/// Fits on all files together.
pub fn run(args: &Args, name: &str, global: &Global) -> anyhow::Result<()> {
    let dir = Path::new(name);
    if !dir.is_dir() {
        bail!("--calibrate: expected a judge directory to store the temperature in, found no directory {name}");
    }
    let mut judge = args.judge(name)?;
    announce_precision(&judge, global);
    let (mut groups, mut scores): (Vec<Group>, Vec<Vec<f32>>) = Default::default();
    for path in &args.data {
        let loaded = args.load(path, global)?;
        if !args.allow_training_data {
            loaded.files.iter().try_for_each(|file| refuse_training_data(file, &judge.reward))?;
        }
        let scored =
            ScoredFile::new(&mut judge, &loaded, args.strict, global).with_context(|| path.display().to_string())?;
        groups.extend(scored.groups);
        scores.extend(scored.scores);
    }
    let options = AnalysisOptions { eval: args.options(&judge), ..AnalysisOptions::default() };
    let analysis = analyse("calibration data", &groups, &scores, &options)?;
    let calibration = fitted(&analysis)?;
    judge.reward.store_calibration(dir, calibration)?;
    let section = &analysis.calibration;
    let value = json!({"judge": name, "calibration": calibration, "before": section.before, "stored": section.stored,
        "after": section.after, "pairs": analysis.data.metrics.pairs, "prompts": analysis.data.metrics.prompts});
    args.print(&value, &render(name, &analysis, &calibration))
}

/// Margins on training data are wider than on others, so a temperature fitted there is too small.
fn refuse_training_data(file: &FileInfo, reward: &RewardConfig) -> anyhow::Result<()> {
    match reward.data.iter().find(|trained| trained.sha256 == file.sha256) {
        Some(trained) => bail!(
            "{}: expected held-out data, found a file that the judge was trained on ({} in reward.json, same SHA-256); \
             give other pairs, or --allow-training-data if you must",
            file.file,
            trained.file
        ),
        None => Ok(()),
    }
}

fn fitted(analysis: &Analysis) -> anyhow::Result<Calibration> {
    let metrics = &analysis.data.metrics;
    match (analysis.calibration.fitted_temperature, metrics.score_mean, metrics.score_std) {
        (Some(temperature), Some(mean), Some(std)) => {
            Ok(Calibration { temperature, mean: mean as f32, std: std as f32 })
        }
        _ => bail!("no temperature can be fitted: expected scores that differ, found the same score everywhere"),
    }
}

fn render(name: &str, analysis: &Analysis, calibration: &Calibration) -> String {
    let section = &analysis.calibration;
    let Calibration { temperature, mean, std } = calibration;
    let metrics = &analysis.data.metrics;
    let mut text = format!("{} pairs of {} prompts\n", metrics.pairs, metrics.prompts);
    text += "temperature      ECE  Brier  log loss\n";
    text += &row(section.stored_temperature, &section.stored, "before");
    match &section.after {
        Some(after) => text += &row(*temperature, after, "after (each fifth with the temperature of the others)"),
        None => text += "fewer than ten prompts: what it changes cannot be measured on them\n",
    }
    if *temperature > 99.0 {
        text += "the judge is no better than chance on these data: the temperature is at its upper end\n";
    }
    if *temperature < 0.0101 {
        text += "the judge is right on everything here: the temperature is at its lower end; use more data\n";
    }
    text + &format!("{name}/reward.json: temperature {temperature:.3}, mean {mean:.3}, std {std:.3}\n")
}

fn row(temperature: f32, figures: &Calibrated, what: &str) -> String {
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.3}"));
    let [ece, brier, loss] = [figures.ece, figures.brier, figures.log_loss].map(number);
    format!("{temperature:>11.3}  {ece:>7}  {brier:>5}  {loss:>8}  {what}\n")
}
