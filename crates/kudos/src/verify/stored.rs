//! The judge as a file: written and read again it scores the same, and in each precision nearly the same.

use super::{Check, Found, Reference, Trouble, probes, require, scores};
use crate::models::{JudgeError, LoadOptions, RewardModel, Scorer, load};
use crate::nn::{Precision, weights};
use serde_json::Value;
use std::path::Path;

pub(super) fn checks(dir: &Path, judge: &RewardModel, reference: &Reference) -> Vec<Check> {
    let exact = match in_f32(dir, reference) {
        Ok(exact) => exact,
        Err(error) => return vec![Check::new("precision f32", Err(error.into()))],
    };
    let mut checks = vec![Check::new("after save and load", saved(dir, judge, &exact))];
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let found = if precision == judge.precision() {
            within(precision, reference, &exact)
        } else if precision == Precision::F32 {
            within(precision, &exact, &exact)
        } else {
            other(dir, precision, &exact)
        };
        checks.push(Check::new(format!("precision {precision}"), found));
    }
    checks
}

/// The scores in f32, where there are no packed weights: what the others are held to.
fn in_f32(dir: &Path, reference: &Reference) -> Result<Reference, JudgeError> {
    let scores = Scorer::load(dir, Some(Precision::F32))?.score(&probes::inputs(&reference.probes))?;
    Ok(Reference { probes: reference.probes.clone(), scores })
}

/// Writes the judge's weights as f32, with its tokenizer and settings, and scores with what is read back. In f32, so
/// that a judge stored in 8 bits is held to the same bits too.
fn saved(dir: &Path, judge: &RewardModel, exact: &Reference) -> Found {
    let copy = tempfile::tempdir()?;
    let (model, _) = load(dir, LoadOptions::Judge)?;
    weights::write(&copy.path().join("model.safetensors"), &model.parameters)?;
    for file in judge.encoder.files()? {
        crate::files::write(&copy.path().join(file.name), &file.bytes)?;
    }
    let json = [
        ("config.json", serde_json::to_vec(&Value::Object(model.config.json().clone()))?),
        ("reward.json", serde_json::to_vec(&judge.reward)?),
    ];
    for (name, bytes) in json {
        crate::files::write(&copy.path().join(name), &bytes)?;
    }
    drop(model); // One judge beside the one that is tested is enough.
    let mut again = Scorer::load(copy.path(), Some(Precision::F32))?;
    require(again.reward == judge.reward, || "reward.json does not come back as it was".into())?;
    scores::together(&mut again, exact)
}

/// The most a score may differ from f32's, as a share of 1 + |score|. Scores are log-odds: 0.05 moves a probability by
/// at most 1.3 points, 0.25 by 6, which is where rounding would show in what a judge prefers.
fn bound(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 0.0,
        Precision::Bf16 => 0.05,
        Precision::Int8 => 0.25,
    }
}

fn other(dir: &Path, precision: Precision, exact: &Reference) -> Found {
    let mut judge = Scorer::load(dir, Some(precision))?;
    if judge.precision() != precision {
        let lacks = match precision.runs_here() {
            true => "the model has layers of odd sizes".into(),
            false => format!("it needs {}", precision.processor()),
        };
        return Err(Trouble::Skipped(lacks));
    }
    let scores = judge.score(&probes::inputs(&exact.probes))?;
    within(precision, &Reference { probes: exact.probes.clone(), scores }, exact)
}

fn within(precision: Precision, found: &Reference, exact: &Reference) -> Found {
    let bound = bound(precision);
    let apart = |i: usize| (found.scores[i].score - exact.scores[i].score).abs() / (1.0 + exact.scores[i].score.abs());
    let largest = (0..exact.scores.len()).map(apart).fold(0.0, f32::max);
    let figure = format!("at most {largest:.1e} × (1 + |score|) from f32, bound {bound}");
    require(largest <= bound, || figure.clone())?;
    Ok(figure)
}
