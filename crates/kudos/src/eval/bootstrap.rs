//! The interval of the accuracy: a percentile bootstrap over prompts.
//!
//! The pairs of one prompt are not independent: four ranked answers make six pairs, and a judge
//! that is at home in a subject gets all six. Resampling pairs would report an interval that is far
//! too narrow, so whole prompts are resampled, each with all its pairs (the cluster bootstrap:
//! Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, §3.8). The random numbers
//! are counter-based: resample `r`, draw `d` is always the same number.

use super::pairs::{Halves, Pair};
use rayon::prelude::*;
use std::array::from_fn;

/// What one prompt brings to the accuracies of N rules on the same pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tally<const N: usize> {
    /// For each rule, two for each right pair, one for each undecided one.
    pub halves: [Halves; N],
    pub pairs: u64,
}

/// 95 % interval of the accuracy over prompts, `[low, high]`.
///
/// `None` with fewer than two prompts (one prompt says nothing about others) or without resamples.
/// When everything is right, or everything wrong, every resample would agree and the bootstrap
/// would claim certainty; then it is the exact interval of Clopper & Pearson (1934) with the
/// prompts as trials, so that 4 prompts out of 4 give `[.40, 1]`.
pub(super) fn accuracy_interval(pairs: &[Pair], resamples: usize, seed: u64) -> Option<[f64; 2]> {
    let judged = tallies(pairs.iter().map(|pair| (pair.scored.prompt, [pair.judged()])));
    intervals(&judged, resamples, seed)[0]
}

/// The intervals of N rules, all from the same resamples.
pub(super) fn intervals<const N: usize>(prompts: &[Tally<N>], resamples: usize, seed: u64) -> [Option<[f64; 2]>; N] {
    if prompts.len() < 2 || resamples == 0 {
        return [None; N];
    }
    let samples = accuracies_of_resamples(prompts, resamples, seed);
    let bound = 0.025_f64.powf(1.0 / prompts.len() as f64);
    let found = accuracies(prompts.iter());
    from_fn(|rule| match found[rule] {
        1.0 => Some([bound, 1.0]),
        0.0 => Some([0.0, 1.0 - bound]),
        _ => Some(percentile_interval(samples.iter().map(|sample| sample[rule]).collect())),
    })
}

/// Sums (prompt, halves) of pairs by prompt, in the order in which the prompts first come.
pub(super) fn tallies<const N: usize>(pairs: impl Iterator<Item = (usize, [Halves; N])>) -> Vec<Tally<N>> {
    let mut place = std::collections::HashMap::new();
    let mut prompts: Vec<Tally<N>> = Vec::new();
    for (prompt, halves) in pairs {
        let at = *place.entry(prompt).or_insert(prompts.len());
        if at == prompts.len() {
            prompts.push(Tally { halves: [0; N], pairs: 0 });
        }
        prompts[at].add(&Tally { halves, pairs: 1 });
    }
    prompts
}

impl<const N: usize> Tally<N> {
    fn add(&mut self, other: &Self) {
        for (sum, halves) in self.halves.iter_mut().zip(other.halves) {
            *sum += halves;
        }
        self.pairs += other.pairs;
    }
}

/// The accuracies of the N rules; NaN without prompts.
pub(super) fn accuracies<'a, const N: usize>(prompts: impl Iterator<Item = &'a Tally<N>>) -> [f64; N] {
    let mut sum = Tally { halves: [0; N], pairs: 0 };
    prompts.for_each(|tally| sum.add(tally));
    sum.halves.map(|halves| halves as f64 / (2 * sum.pairs) as f64)
}

/// The accuracies in each resample: as many prompts, drawn with replacement.
pub(super) fn accuracies_of_resamples<const N: usize>(
    prompts: &[Tally<N>],
    resamples: usize,
    seed: u64,
) -> Vec<[f64; N]> {
    let count = prompts.len() as u64;
    let drawn = |counter: u64| {
        // The upper word of the product is uniform below the count, to 2⁻⁶⁴ × count.
        let random = u128::from(random(seed, counter));
        &prompts[((random * u128::from(count)) >> 64) as usize]
    };
    let resample = |r: u64| accuracies((0..count).map(|draw| drawn(r * count + draw)));
    (0..resamples as u64).into_par_iter().map(resample).collect()
}

/// The middle 95 % of the values.
pub(super) fn percentile_interval(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [quantile(&values, 0.025), quantile(&values, 0.975)]
}

/// The `counter`-th number of the SplitMix64 sequence of `seed` (Steele, Lea & Flood 2014).
fn random(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Quantile of sorted values with linear interpolation (NumPy's default, type 7 of Hyndman & Fan 1996).
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
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
