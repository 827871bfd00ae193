//! Whether the judge's probabilities mean what they say.
//!
//! Bradley–Terry reads a margin as a probability: P(first beats second) = σ(margin / T). The
//! temperature T only stretches the scale; it changes none of the other metrics. Ties count here,
//! with target ½: a judge should be undecided about them. All three figures stay the same when a
//! comparison lists its sides the other way round. `f64` throughout, so the log-sigmoid is written
//! out here and not taken from the `f32` numerics of training.

use super::{ScoredGroup, mean};

const BINS: usize = 10;

/// A comparison as the judge sees it.
pub(super) struct Forecast {
    /// Margin of the first over the second, divided by the temperature.
    logit: f64,
    /// Share of the votes for the first.
    target: f64,
}

/// One bin of the reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bin {
    /// Comparisons in it.
    pub count: usize,
    /// Mean probability that the judge gives to its preferred side, in [.5, 1].
    pub confidence: f64,
    /// Mean share of the votes that this side got.
    pub agreement: f64,
}

/// All comparisons, ties included.
pub(super) fn forecasts(data: &[ScoredGroup], temperature: f32) -> Vec<Forecast> {
    let of_group = |scored: &ScoredGroup| -> Vec<Forecast> {
        let score = |index: usize| f64::from(scored.scores[index]);
        let comparisons = scored.group.counted();
        comparisons
            .map(|c| Forecast {
                logit: (score(c.first) - score(c.second)) / f64::from(temperature),
                target: f64::from(c.target),
            })
            .collect()
    };
    data.iter().flat_map(of_group).collect()
}

/// ln σ(x), exact for large |x|.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// The temperature with the least log loss (Guo et al. 2017), between 1/100 and 100.
///
/// The ends stand for "no finite one is best": 1/100 when the judge is right everywhere, 100 when it
/// is no better than chance. `None` without comparisons or when all margins are 0.
///
/// `doubt` weighs 1/T − 1 + ln T, about ½·(ln T)² near 1, against the log loss of one comparison: how strongly T is expected
/// there. 0 lets the comparisons alone decide; with 1 a few of them move T little, and no number of right ones drives it to its end.
pub(super) fn best_temperature(forecasts: &[Forecast], doubt: f64) -> Option<f32> {
    forecasts.iter().find(|f| f.logit != 0.0)?;
    let loss = |temperature: f64| -> f64 {
        let scaled = forecasts.iter().map(|f| Forecast { logit: f.logit / temperature, target: f.target });
        let doubt = doubt * (1.0 / temperature - 1.0 + temperature.ln());
        scaled.map(|f| negative_log_likelihood(&f)).sum::<f64>() + doubt
    };
    // Both are convex in 1/T, so there is one valley in ln T, which thirds close in on.
    let (mut low, mut high) = (0.01_f64.ln(), 100_f64.ln());
    while high - low > 1e-7 {
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        match loss(left.exp()) < loss(right.exp()) {
            true => high = right,
            false => low = left,
        }
    }
    Some(((low + high) / 2.0).exp() as f32)
}

fn negative_log_likelihood(f: &Forecast) -> f64 {
    -f.target * log_sigmoid(f.logit) - (1.0 - f.target) * log_sigmoid(-f.logit)
}

/// Mean of −t·ln p − (1−t)·ln(1−p): what Bradley–Terry training minimises. ln 2 = .693 says nothing.
pub(super) fn log_loss(forecasts: &[Forecast]) -> Option<f64> {
    mean(forecasts.iter().map(negative_log_likelihood))
}

/// Mean of (p − t)² (Brier 1950). .25 on decided comparisons says nothing.
pub(super) fn brier(forecasts: &[Forecast]) -> Option<f64> {
    let square = |f: &Forecast| (log_sigmoid(f.logit).exp() - f.target).powi(2);
    mean(forecasts.iter().map(square))
}

/// Ten bins of equal width over the confidence max(p, 1−p), from .5 to 1; empty bins have count 0.
pub(super) fn bins(forecasts: &[Forecast]) -> Vec<Bin> {
    let mut sums = [(0usize, 0.0, 0.0); BINS];
    for forecast in forecasts {
        let confidence = confidence(forecast);
        let (count, sure, agreed) = &mut sums[bin_of(confidence)];
        *count += 1;
        *sure += confidence;
        *agreed += agreement(forecast);
    }
    let average = |(count, sure, agreed): (usize, f64, f64)| Bin {
        count,
        confidence: sure / count.max(1) as f64,
        agreement: agreed / count.max(1) as f64,
    };
    sums.map(average).to_vec()
}

/// Probability of the side that the judge prefers.
fn confidence(forecast: &Forecast) -> f64 {
    log_sigmoid(forecast.logit.abs()).exp()
}

fn bin_of(confidence: f64) -> usize {
    (((confidence - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1)
}

/// Share of the votes for the side that the judge prefers; one half when it prefers neither.
fn agreement(forecast: &Forecast) -> f64 {
    match forecast.logit {
        x if x > 0.0 => forecast.target,
        x if x < 0.0 => 1.0 - forecast.target,
        _ => 0.5,
    }
}

/// Expected calibration error (Guo et al. 2017): |confidence − agreement| of the bins, weighted by
/// their counts.
pub(super) fn expected_calibration_error(forecasts: &[Forecast]) -> Option<f64> {
    let weighted = |b: &Bin| b.count as f64 * (b.confidence - b.agreement).abs();
    let sum: f64 = bins(forecasts).iter().map(weighted).sum();
    (!forecasts.is_empty()).then(|| sum / forecasts.len() as f64)
}

/// The [`expected_calibration_error`] that chance alone gives forecasts that are exactly right, on as many decided comparisons, were these
/// unrelated. It is never 0, and the fewer the comparisons the larger (Bröcker and Smith 2007); those of one prompt are related,
/// which adds to it. A bin's confidences, .05 apart at most, count as equal.
pub(super) fn calibration_error_by_chance(forecasts: &[Forecast]) -> Option<f64> {
    let mut sums = [(0usize, 0.0); BINS];
    let decided = forecasts.iter().filter(|f| f.target == 0.0 || f.target == 1.0);
    for confidence in decided.map(confidence) {
        let (count, sure) = &mut sums[bin_of(confidence)];
        *count += 1;
        *sure += confidence;
    }
    let off: f64 = sums.iter().map(|(count, sure)| binomial_deviation(*count, sure / (*count).max(1) as f64)).sum();
    (!forecasts.is_empty()).then(|| off / forecasts.len() as f64)
}

/// Mean distance of a binomial count from its mean: 2 m C(n, m) pᵐ (1 − p)ⁿ⁻ᵐ⁺¹ with m = ⌊np⌋ + 1 (de Moivre 1730).
fn binomial_deviation(count: usize, p: f64) -> f64 {
    let m = (count as f64 * p).floor() as usize + 1;
    if m > count {
        return 0.0; // Nothing was drawn, or p is 1.
    }
    let choices: f64 = (1..=m).map(|i| ((count - m + i) as f64 / i as f64).ln()).sum();
    let powers = m as f64 * p.ln() + (count - m + 1) as f64 * (1.0 - p).ln();
    2.0 * m as f64 * (choices + powers).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(logit: f64, target: f64) -> [Forecast; 1] {
        [Forecast { logit, target }]
    }

    #[test]
    fn single_forecasts() {
        // (logit, target, log loss, Brier, ECE)
        let p = 1.0 / (1.0 + (-2.0_f64).exp());
        let cases = [
            (0.0, 1.0, 2.0_f64.ln(), 0.25, 0.0),
            (0.0, 0.5, 2.0_f64.ln(), 0.0, 0.0),
            (2.0, 1.0, -p.ln(), (1.0 - p) * (1.0 - p), 1.0 - p),
            (-2.0, 1.0, -(1.0 - p).ln(), p * p, p),
            (-2.0, 0.0, -p.ln(), (1.0 - p) * (1.0 - p), 1.0 - p),
            (1e4, 1.0, 0.0, 0.0, 0.0),
            (-1e4, 1.0, 1e4, 1.0, 1.0),
        ];
        for (logit, target, loss, squared, error) in cases {
            let forecast = one(logit, target);
            let found = [
                log_loss(&forecast).unwrap() - loss,
                brier(&forecast).unwrap() - squared,
                expected_calibration_error(&forecast).unwrap() - error,
            ];
            assert!(found.iter().all(|d| d.abs() < 1e-12), "{logit}: {found:?}");
        }
    }

    #[test]
    fn the_ends_of_the_temperature() {
        let at = |logit: f64, target: f64| best_temperature(&one(logit, target), 0.0);
        assert_eq!(at(0.0, 1.0), None);
        assert_eq!(best_temperature(&[], 0.0), None);
        assert!((at(2.0, 1.0).unwrap() - 0.01).abs() < 1e-4);
        assert!((at(2.0, 0.0).unwrap() - 100.0).abs() < 1e-2);
        // σ(x) = .8 at x = ln 4.
        assert!((at(3.0 * 4.0_f64.ln(), 0.8).unwrap() - 3.0).abs() < 1e-4);
    }

    /// One comparison moves a doubtful temperature a little, a thousand as far as they should; being right has no end.
    #[test]
    fn doubt_keeps_the_temperature_near_one() {
        let at = |count: usize, logit: f64, target: f64| {
            let forecasts: Vec<Forecast> = (0..count).map(|_| Forecast { logit, target }).collect();
            best_temperature(&forecasts, 1.0).unwrap()
        };
        let truth = 3.0 * 4.0_f64.ln(); // σ(truth / 3) = .8
        let few = at(1, truth, 0.8);
        assert!(1.0 < few && few < 2.0, "{few}");
        assert!((at(1000, truth, 0.8) - 3.0).abs() < 0.05);
        let [right, wrong] = [at(100, 2.0, 1.0), at(100, 2.0, 0.0)];
        assert!(0.1 < right && right < 1.0, "{right}");
        assert!(wrong > 10.0, "{wrong}");
        // There the slope of the sum in 1/T vanishes.
        let inverse = 1.0 / f64::from(right);
        let slope = -100.0 * 2.0 / (1.0 + (2.0 * inverse).exp()) + 1.0 - 1.0 / inverse;
        assert!(slope.abs() < 1e-3, "{slope}");
    }

    /// By hand, and by the half-normal that it becomes.
    #[test]
    fn counts_are_off_by_chance() {
        let cases = [(0, 0.7, 0.0), (1, 0.7, 0.42), (2, 0.5, 0.5), (3, 0.5, 0.75), (5, 1.0, 0.0)];
        for (count, p, expected) in cases {
            assert!((binomial_deviation(count, p) - expected).abs() < 1e-12, "{count} {p}");
        }
        let normal = (std::f64::consts::FRAC_2_PI * 1e5 * 0.6 * 0.4).sqrt();
        assert!((binomial_deviation(100_000, 0.6) / normal - 1.0).abs() < 1e-4);
    }

    #[test]
    fn bins_cover_one_half_to_one() {
        let logit = |p: f64| (p / (1.0 - p)).ln();
        for (p, expected) in [(0.5, 0), (0.54, 0), (0.56, 1), (0.97, 9), (0.44, 1)] {
            let found = bins(&one(logit(p), 1.0));
            let place = found.iter().position(|bin| bin.count == 1);
            assert_eq!(place, Some(expected), "{p}");
        }
        assert_eq!(bins(&one(f64::MAX, 1.0))[9].count, 1);
    }

    #[test]
    fn nothing_to_forecast_gives_nothing() {
        assert_eq!(log_loss(&[]), None);
        assert_eq!(brier(&[]), None);
        assert_eq!(expected_calibration_error(&[]), None);
    }
}
