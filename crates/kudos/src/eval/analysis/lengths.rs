//! Score against length, and what the judge would say if the length were taken out.

use super::super::length;
use super::super::pairs::{Pair, halves};
use super::Rate;
use super::lowess::Curve;
use super::material::Material;

/// One response.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct LengthPoint {
    /// ln(1 + characters).
    pub log_length: f64,
    /// The score, or the height of the curve.
    pub score: f64,
}

/// What subtracting the curve from the scores changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct LengthCorrection {
    /// With the scores as they are.
    pub before: Rate,
    /// With score − curve(log length).
    pub after: Rate,
    /// Pairs whose verdict is another one after it.
    pub changed: usize,
    /// Of those, pairs that became right.
    pub mended: usize,
    /// Of those, pairs that became wrong.
    pub broken: usize,
}

/// How the score follows the length.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct LengthSection {
    /// Responses, at most 1000 of them, evenly spaced through the file.
    pub points: Vec<LengthPoint>,
    /// Local linear regression (LOWESS, tricube weights, two thirds of the responses, no robustness
    /// steps) of score on log length over all responses, at rising lengths.
    pub curve: Vec<LengthPoint>,
    /// As in [`Metrics`](crate::eval::Metrics).
    pub partial_correlation: Option<f64>,
    /// Pairs whose better side is the longer one.
    pub longer_right_pairs: usize,
    /// The judge on them.
    pub longer_right: Rate,
    /// Pairs whose better side is the shorter one.
    pub longer_wrong_pairs: usize,
    /// The judge on them.
    pub longer_wrong: Rate,
    /// The correction by the curve; `None` without pairs or without a curve.
    pub correction: Option<LengthCorrection>,
}

/// Responses drawn as points.
const POINTS: usize = 1000;

pub(super) fn section(material: &Material) -> LengthSection {
    let points = points(material);
    let curve = Curve::fit(points.iter().map(|p| (p.log_length, p.score)).collect());
    let (longer_right_pairs, longer_right) = material.judge_where(|p| longer(material, p) == Some(true));
    let (longer_wrong_pairs, longer_wrong) = material.judge_where(|p| longer(material, p) == Some(false));
    LengthSection {
        curve: curve.as_ref().map_or(Vec::new(), |c| c.anchors.iter().map(|&(x, y)| point(x, y)).collect()),
        points: spaced(&points),
        partial_correlation: length::partial_correlation(&material.data),
        longer_right_pairs,
        longer_right,
        longer_wrong_pairs,
        longer_wrong,
        correction: curve.and_then(|curve| correction(material, &curve)),
    }
}

fn point(log_length: f64, score: f64) -> LengthPoint {
    LengthPoint { log_length, score }
}

fn points(material: &Material) -> Vec<LengthPoint> {
    let responses = material.data.iter().flat_map(|scored| {
        let lengths = &material.characters[scored.index];
        lengths.iter().zip(scored.scores)
    });
    responses.map(|(characters, score)| point((*characters as f64).ln_1p(), f64::from(*score))).collect()
}

/// At most [`POINTS`] of them, evenly spaced.
fn spaced(points: &[LengthPoint]) -> Vec<LengthPoint> {
    let count = points.len().min(POINTS);
    (0..count).map(|i| points[i * points.len() / count]).collect()
}

/// Whether the better side is the longer one; `None` for equal lengths.
fn longer(material: &Material, pair: &Pair) -> Option<bool> {
    let (better, worse) = material.lengths(pair);
    (better != worse).then_some(better > worse)
}

fn correction(material: &Material, curve: &Curve) -> Option<LengthCorrection> {
    let expected = |characters: usize| curve.at((characters as f64).ln_1p());
    let corrected = |pair: &Pair| {
        let (better, worse) = material.lengths(pair);
        halves((pair.margin() - (expected(better) - expected(worse))).partial_cmp(&0.0))
    };
    let verdicts: Vec<_> = material.pairs.iter().map(|pair| (pair, [pair.judged(), corrected(pair)])).collect();
    let [before, after] = material.rates(verdicts.iter().copied());
    let count = |wanted: fn(u64, u64) -> bool| verdicts.iter().filter(|(_, [b, a])| wanted(*b, *a)).count();
    (!verdicts.is_empty()).then(|| LengthCorrection {
        before,
        after,
        changed: count(|before, after| before != after),
        mended: count(|before, after| before < after && after == 2),
        broken: count(|before, after| before > after && after == 0),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::EvalOptions;
    use super::super::super::testing::{ranked, scored};
    use super::*;
    use crate::data::Group;

    /// Groups of texts with 1 to 6 characters; the score is a merit plus `slope` a log character.
    fn section_of(slope: f64) -> LengthSection {
        let merits = [[3.0, 1.0, 2.0, 6.0, 4.0, 5.0], [2.0, 6.0, 4.0, 1.0, 3.0, 5.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]];
        let groups: Vec<Group> = merits.iter().map(|m| ranked(&format!("{m:?}"), &m.map(|merit| -merit))).collect();
        let score = |(n, merit): (usize, f64)| (0.2 * merit + slope * ((n + 1) as f64).ln_1p()) as f32;
        let scores: Vec<Vec<f32>> = merits.iter().map(|m| m.iter().copied().enumerate().map(score).collect()).collect();
        section(&Material::new(scored(&groups, &scores), EvalOptions::default()))
    }

    #[test]
    fn pairs_are_split_by_which_side_is_longer() {
        let found = section_of(0.0);
        assert_eq!(found.longer_right_pairs + found.longer_wrong_pairs, 45);
        assert_eq!((found.longer_right.accuracy, found.longer_wrong.accuracy), (Some(1.0), Some(1.0)));
        let biased = section_of(9.0);
        assert_eq!((biased.longer_right.accuracy, biased.longer_wrong.accuracy), (Some(1.0), Some(0.0)));
        assert_eq!((found.points.len(), found.points[0].log_length), (18, 2_f64.ln()));
    }

    #[test]
    fn the_correction_takes_a_bias_of_length_out() {
        let correction = section_of(9.0).correction.unwrap();
        let (before, after) = (correction.before.accuracy.unwrap(), correction.after.accuracy.unwrap());
        assert!(after > before + 0.2, "{before} {after}");
        assert_eq!(correction.changed, correction.mended + correction.broken);
        assert!((after - before - (correction.mended as f64 - correction.broken as f64) / 45.0).abs() < 1e-12);
    }

    #[test]
    fn points_are_thinned_evenly() {
        let many: Vec<LengthPoint> = (0..2500).map(|n| point(n as f64, 0.0)).collect();
        let found = spaced(&many);
        assert_eq!((found.len(), found[999].log_length), (1000, 2497.0));
        assert!(spaced(&[]).is_empty());
    }
}
