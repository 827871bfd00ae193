//! The interval of the accuracy: a percentile bootstrap over prompts.
//!
//! The pairs of one prompt are not independent: four ranked answers make six pairs, and a judge
//! that is at home in a subject gets all six. Resampling pairs would report an interval that is far
//! too narrow, so whole prompts are resampled, each with all its pairs (the cluster bootstrap:
//! Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, §3.8). The random numbers
//! are counter-based: resample `r`, draw `d` is always the same number.

use super::pairs::Pair;

/// What one prompt brings to the accuracy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    /// Two for each right pair, one for each undecided one.
    halves: u64,
    pairs: u64,
}

/// 95 % interval of the accuracy over prompts, `[low, high]`.
///
/// `None` with fewer than two prompts (one prompt says nothing about others) or without resamples.
/// When everything is right, or everything wrong, every resample would agree and the bootstrap
/// would claim certainty; then it is the exact interval of Clopper & Pearson (1934) with the
/// prompts as trials, so that 4 prompts out of 4 give `[.40, 1]`.
pub(super) fn accuracy_interval(pairs: &[Pair], resamples: usize, seed: u64) -> Option<[f64; 2]> {
    let prompts = tallies(pairs);
    if prompts.len() < 2 || resamples == 0 {
        return None;
    }
    let bound = 0.025_f64.powf(1.0 / prompts.len() as f64);
    match accuracy(&prompts) {
        1.0 => Some([bound, 1.0]),
        0.0 => Some([0.0, 1.0 - bound]),
        _ => Some(percentile_interval(&prompts, resamples, seed)),
    }
}

/// Sums the pairs by prompt, in the order in which the prompts first come.
fn tallies(pairs: &[Pair]) -> Vec<Tally> {
    let mut place = std::collections::HashMap::new();
    let mut prompts: Vec<Tally> = Vec::new();
    for pair in pairs {
        let at = *place.entry(pair.scored.prompt).or_insert(prompts.len());
        if at == prompts.len() {
            prompts.push(Tally::default());
        }
        prompts[at].halves += pair.judged();
        prompts[at].pairs += 1;
    }
    prompts
}

fn accuracy(prompts: &[Tally]) -> f64 {
    let add = |sum: Tally, t: &Tally| Tally { halves: sum.halves + t.halves, pairs: sum.pairs + t.pairs };
    let sum = prompts.iter().fold(Tally::default(), add);
    sum.halves as f64 / (2 * sum.pairs) as f64
}

fn percentile_interval(prompts: &[Tally], resamples: usize, seed: u64) -> [f64; 2] {
    let mut accuracies: Vec<f64> =
        (0..resamples as u64).map(|r| resampled_accuracy(prompts, seed, r * prompts.len() as u64)).collect();
    accuracies.sort_by(f64::total_cmp);
    [quantile(&accuracies, 0.025), quantile(&accuracies, 0.975)]
}

/// Accuracy of as many prompts, drawn with replacement by the random numbers from `counter` on.
fn resampled_accuracy(prompts: &[Tally], seed: u64, counter: u64) -> f64 {
    let (mut halves, mut pairs) = (0, 0);
    for draw in 0..prompts.len() as u64 {
        let random = u128::from(random(seed, counter + draw));
        // The upper word of the product is uniform below the count, to 2⁻⁶⁴ × count.
        let tally = prompts[((random * prompts.len() as u128) >> 64) as usize];
        halves += tally.halves;
        pairs += tally.pairs;
    }
    halves as f64 / (2 * pairs) as f64
}

/// The `counter`-th number of the SplitMix64 sequence of `seed` (Steele, Lea & Flood 2014).
fn random(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Quantile of sorted values with linear interpolation (NumPy's default, type 7 of Hyndman & Fan 1996).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::super::{pairs, testing};
    use super::*;

    /// Interval over `prompts` prompts of which the first `right` are judged right, with `copies`
    /// equal pairs each.
    fn interval(prompts: usize, right: usize, copies: usize, seed: u64) -> Option<[f64; 2]> {
        let mut group = testing::ranked("p", &[1.0, 2.0]);
        group.comparisons = vec![group.comparisons[0]; copies];
        let groups = vec![group; prompts];
        let score = |i: usize| vec![if i < right { 1.0 } else { -1.0 }, 0.0];
        let scores: Vec<Vec<f32>> = (0..prompts).map(score).collect();
        accuracy_interval(&pairs::of(&testing::scored(&groups, &scores)), 2000, seed)
    }

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        let expected = [0xE220_A839_7B1D_CDAF_u64, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];
        assert_eq!([0, 1, 2].map(|counter| random(0, counter)), expected);
    }

    #[test]
    fn the_interval_is_that_of_a_proportion() {
        let [low, high] = interval(400, 280, 1, 1).unwrap();
        let expected = 1.96 * (0.7_f64 * 0.3 / 400.0).sqrt();
        assert!((0.7 - low - expected).abs() < 0.006, "{low}");
        assert!((high - 0.7 - expected).abs() < 0.006, "{high}");
    }

    #[test]
    fn more_pairs_of_the_same_prompts_do_not_narrow_it() {
        assert_eq!(interval(50, 30, 1, 3), interval(50, 30, 28, 3));
    }

    #[test]
    fn the_seed_decides_it() {
        assert_eq!(interval(90, 40, 1, 5), interval(90, 40, 1, 5));
        assert_ne!(interval(90, 40, 1, 5), interval(90, 40, 1, 6));
    }

    #[test]
    fn no_variation_is_no_certainty() {
        let [low, high] = interval(4, 4, 6, 0).unwrap();
        assert!((low - 0.397_635).abs() < 1e-6 && high == 1.0, "{low}");
        let [low, high] = interval(4, 0, 6, 0).unwrap();
        assert!(low == 0.0 && (high - 0.602_365).abs() < 1e-6, "{high}");
        assert_eq!(interval(1, 1, 6, 0), None);
        assert_eq!(interval(0, 0, 1, 0), None);
    }

    #[test]
    fn quantiles_are_numpys() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (q, expected) in [(0.0, 1.0), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            assert!((quantile(&sorted, q) - expected).abs() < 1e-12, "{q}");
        }
    }
}
