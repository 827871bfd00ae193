//! What a score means: where it lies among the scores of the file.

use super::super::bootstrap::quantile;
use super::super::report::moments;
use super::material::Material;

/// Bins of the histogram.
const BINS: usize = 30;
/// Scores that a typical response is drawn from: more would not move the mean.
const TYPICAL: usize = 4000;

/// Counts of equal-width bins.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub low: f64,
    /// Upper edge of the last bin, which holds its edge.
    pub high: f64,
    /// Scores in each bin; empty without scores.
    pub counts: Vec<usize>,
}

/// The scores of all responses of the file.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ScoreSection {
    /// Scores.
    pub count: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation (of the population).
    pub std: Option<f64>,
    /// Thirty bins from the least to the greatest score.
    pub histogram: Histogram,
    /// Percentiles 1 to 99 (NumPy's default, linear interpolation): a score at `percentiles[79]` is
    /// above 80 % of the responses. Empty without scores.
    pub percentiles: Vec<f64>,
    /// For each of those percentiles, the probability of beating a typical response: the mean over
    /// all scores s of σ((x − s) / T) at x = the percentile, with the stored temperature T.
    pub beats_typical: Vec<f64>,
}

pub(super) fn section(material: &Material) -> ScoreSection {
    let mut scores: Vec<f64> = material.data.iter().flat_map(|d| d.scores).map(|&s| f64::from(s)).collect();
    scores.sort_by(f64::total_cmp);
    let (mean, std) = moments(&material.data);
    let percentiles = match scores.is_empty() {
        true => Vec::new(),
        false => (1..100).map(|percent| quantile(&scores, f64::from(percent) / 100.0)).collect(),
    };
    let typical = thinned(&scores);
    let beats = |x: &f64| beats_typical(*x, &typical, f64::from(material.options.temperature));
    ScoreSection {
        count: scores.len(),
        mean,
        std,
        histogram: histogram(&scores),
        beats_typical: percentiles.iter().map(beats).collect(),
        percentiles,
    }
}

/// Evenly spaced quantiles of many sorted scores; few as they are.
fn thinned(sorted: &[f64]) -> Vec<f64> {
    match sorted.len() > TYPICAL {
        true => (0..TYPICAL).map(|i| quantile(sorted, (i as f64 + 0.5) / TYPICAL as f64)).collect(),
        false => sorted.to_vec(),
    }
}

fn beats_typical(x: f64, scores: &[f64], temperature: f64) -> f64 {
    let wins = |s: &f64| 1.0 / (1.0 + ((s - x) / temperature).exp());
    scores.iter().map(wins).sum::<f64>() / scores.len() as f64
}

fn histogram(sorted: &[f64]) -> Histogram {
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else {
        return Histogram::default();
    };
    let mut counts = vec![0; BINS];
    for score in sorted {
        let place = (score - low) / (high - low) * BINS as f64; // NaN, so 0, where all are equal
        counts[(place as usize).min(BINS - 1)] += 1;
    }
    Histogram { low, high, counts }
}

#[cfg(test)]
mod tests {
    use super::super::super::EvalOptions;
    use super::super::super::testing::{scored, unranked};
    use super::*;

    fn of(scores: &[f32]) -> ScoreSection {
        let texts = vec!["x"; scores.len()];
        let (groups, scores) = ([unranked("p", &texts)], [scores.to_vec()]);
        section(&Material::new(scored(&groups, &scores), EvalOptions::default()))
    }

    #[test]
    fn percentiles_and_chances() {
        let scores: Vec<f32> = (0..=100).map(|n| n as f32).collect();
        let found = of(&scores);
        assert_eq!((found.count, found.mean), (101, Some(50.0)));
        assert!((found.percentiles[79] - 80.0).abs() < 1e-9 && found.percentiles.len() == 99);
        assert!((found.beats_typical[49] - 0.5).abs() < 1e-9);
        assert!(found.beats_typical.is_sorted());
        assert_eq!(found.histogram.counts.iter().sum::<usize>(), 101);
    }

    #[test]
    fn many_scores_are_thinned_without_moving_the_chances() {
        let sorted: Vec<f64> = (0..50_000).map(|n| (n as f64 / 50_000.0 - 0.3).powi(3) * 40.0).collect();
        for x in [-1.0, 0.0, 5.0] {
            let exact = beats_typical(x, &sorted, 1.0);
            assert!((beats_typical(x, &thinned(&sorted), 1.0) - exact).abs() < 2e-5);
        }
    }

    #[test]
    fn equal_scores_and_none() {
        assert_eq!(of(&[2.0, 2.0]).histogram.counts[0], 2);
        assert_eq!(of(&[]), ScoreSection::default());
    }
}
