//! The judge beside judges that need no judgement, and the smallest difference the data could show.

use super::super::bootstrap::{Tally, accuracies, tallies};
use super::super::pairs::{self, Halves, Pair, halves};
use super::super::report::subset;
use super::material::Material;
use super::response_only;
use std::collections::BTreeMap;

/// An accuracy with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Rate {
    /// Share of the pairs that are right; what is undecided counts one half. `None` without pairs.
    pub accuracy: Option<f64>,
    /// 95 % bootstrap interval over prompts; `None` with fewer than two prompts.
    pub accuracy_ci95: Option<[f64; 2]>,
}

/// The judge and the trivial judges on the same pairs, all with intervals from the same resamples.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AccuracyRow {
    /// Pairs with a preferred side.
    pub pairs: usize,
    /// Prompts they belong to.
    pub prompts: usize,
    /// The judge: the figures of [`Metrics`](crate::eval::Metrics).
    pub judge: Rate,
    /// "The longer response wins" (characters).
    pub longer_wins: Rate,
    /// "The shorter response wins".
    pub shorter_wins: Rate,
    /// "The response listed first wins"; `None` where the format lists the better one first.
    pub first_listed: Option<Rate>,
    /// A bag-of-words model of the response that never sees a prompt, fitted on other prompts of
    /// this file; `None` when there are fewer than ten prompts to fit it on.
    pub response_only: Option<Rate>,
    /// What this number of prompts could show at all; `None` with fewer than two prompts.
    pub smallest_difference: Option<SmallestDifference>,
}

/// The minimal detectable difference in accuracy: found in 80 % of such samples by a two-sided test
/// at 5 %.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct SmallestDifference {
    /// Standard error of the judge's accuracy, clustered by prompt.
    pub standard_error: f64,
    /// From a known figure (a coin's .5, a published accuracy): (z.975 + z.80) × standard error.
    pub from_a_figure: f64,
    /// Between two judges on the same pairs whose errors are unrelated, √2 times as much. Judges
    /// that err on the same pairs can be told apart by less: see `kudos eval --judge A --judge B`.
    pub between_judges: f64,
}

/// One row for the file and one for each subset.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AccuracyTable {
    /// The whole file.
    pub all: AccuracyRow,
    /// By the column `subset`.
    pub subsets: BTreeMap<String, AccuracyRow>,
}

/// What the judge and the four trivial judges make of one pair.
type Verdicts = [Halves; 5];

/// Of a two-sided test at 5 %, and for a power of 80 %: z.975 + z.80.
const DETECTABLE: f64 = 1.959_963_984_540_054 + 0.841_621_233_572_914_3;

pub(super) fn table(material: &Material) -> AccuracyTable {
    let verdicts = Verdict::all(material);
    let mut subsets: BTreeMap<String, Vec<&(&Pair, Verdicts)>> = BTreeMap::new();
    for verdict in &verdicts.of_pairs {
        let pair = verdict.0;
        if let Some(name) = subset(pair.scored.group, pair.comparison) {
            subsets.entry(name).or_default().push(verdict);
        }
    }
    AccuracyTable {
        all: verdicts.row(material, &verdicts.of_pairs.iter().collect::<Vec<_>>()),
        subsets: subsets.into_iter().map(|(name, pairs)| (name, verdicts.row(material, &pairs))).collect(),
    }
}

/// All pairs with what the judges make of them.
struct Verdict<'m, 'a> {
    of_pairs: Vec<(&'m Pair<'a>, Verdicts)>,
    /// Whether the order of the list says anything.
    has_order: bool,
    has_response_only: bool,
}

impl<'m, 'a> Verdict<'m, 'a> {
    fn all(material: &'m Material<'a>) -> Self {
        let response_only = response_only::verdicts(material);
        let of_pair = |(place, pair): (usize, &'m Pair<'a>)| {
            let (better, worse) = material.lengths(pair);
            let longer = halves(better.partial_cmp(&worse));
            let by_words = response_only.as_ref().map_or(1, |verdicts| verdicts[place]);
            (pair, [pair.judged(), longer, 2 - longer, pair.by_place(), by_words])
        };
        Verdict {
            of_pairs: material.pairs.iter().enumerate().map(of_pair).collect(),
            has_order: !pairs::chosen_first(&material.data),
            has_response_only: response_only.is_some(),
        }
    }

    fn row(&self, material: &Material<'a>, pairs: &[&(&'m Pair<'a>, Verdicts)]) -> AccuracyRow {
        let [judge, longer_wins, shorter_wins, first_listed, response_only] =
            material.rates(pairs.iter().map(|(pair, verdicts)| (*pair, *verdicts)));
        let prompts = tallies(pairs.iter().map(|(pair, verdicts)| (pair.scored.prompt, [verdicts[0]])));
        AccuracyRow {
            pairs: pairs.len(),
            prompts: prompts.len(),
            judge,
            longer_wins,
            shorter_wins,
            first_listed: self.has_order.then_some(first_listed),
            response_only: self.has_response_only.then_some(response_only),
            smallest_difference: smallest_difference(&prompts),
        }
    }
}

/// The standard error is that of a ratio of sums over prompts (Cochran 1977, *Sampling Techniques*,
/// §2.11): √(n/(n−1) Σ (rᵢ − a·mᵢ)²) / Σ mᵢ, where prompt i has mᵢ pairs, rᵢ of them right, and a is
/// the accuracy. A judge that is right (or wrong) on everything would have none; then it is the one
/// of a coin whose pairs of one prompt all agree, ½ √(Σ mᵢ²) / Σ mᵢ.
fn smallest_difference(prompts: &[Tally<1>]) -> Option<SmallestDifference> {
    let count = prompts.len() as f64;
    if prompts.len() < 2 {
        return None;
    }
    let [accuracy] = accuracies(prompts.iter());
    let pairs: f64 = prompts.iter().map(|p| p.pairs as f64).sum();
    let residual = |p: &Tally<1>| p.halves[0] as f64 / 2.0 - accuracy * p.pairs as f64;
    let squares: f64 = prompts.iter().map(|p| residual(p).powi(2)).sum();
    let standard_error = match squares {
        0.0 => 0.5 * prompts.iter().map(|p| (p.pairs as f64).powi(2)).sum::<f64>().sqrt() / pairs,
        _ => (count / (count - 1.0) * squares).sqrt() / pairs,
    };
    let from_a_figure = DETECTABLE * standard_error;
    Some(SmallestDifference { standard_error, from_a_figure, between_judges: std::f64::consts::SQRT_2 * from_a_figure })
}

#[cfg(test)]
mod tests {
    use super::super::super::EvalOptions;
    use super::super::super::testing::{comparison, name_subset, ranked, scored, unranked};
    use super::*;
    use crate::data::Group;

    fn tally(right: u64, pairs: u64) -> Tally<1> {
        Tally { halves: [2 * right], pairs }
    }

    #[test]
    fn the_standard_error_is_that_of_a_proportion() {
        let prompts: Vec<_> = (0..100).map(|n| tally(u64::from(n < 70), 1)).collect();
        let found = smallest_difference(&prompts).unwrap();
        let expected = (0.7_f64 * 0.3 / 99.0).sqrt();
        assert!((found.standard_error - expected).abs() < 1e-12);
        assert!((found.from_a_figure - 2.801_585 * expected).abs() < 1e-6);
        assert!((found.between_judges / found.from_a_figure - 2_f64.sqrt()).abs() < 1e-12);
        // Seven equal pairs a prompt add nothing.
        let copies: Vec<_> = prompts.iter().map(|p| tally(7 * p.halves[0] / 2, 7)).collect();
        assert!((smallest_difference(&copies).unwrap().standard_error - expected).abs() < 1e-12);
    }

    #[test]
    fn no_error_and_one_prompt() {
        let perfect = smallest_difference(&[tally(3, 3), tally(1, 1)]).unwrap();
        assert!((perfect.standard_error - 0.5 * 10_f64.sqrt() / 4.0).abs() < 1e-12);
        assert_eq!(smallest_difference(&[tally(1, 2)]), None);
    }

    #[test]
    fn rows_are_of_subsets_and_trivial_judges_stand_beside() {
        let mut groups = vec![ranked("p", &[2.0, 1.0, 3.0]), ranked("q", &[1.0, 2.0])];
        name_subset(&mut groups[0], "s".into());
        let scores = [vec![1.0, 2.0, 0.0], vec![0.0, 1.0]];
        let table = table(&Material::new(scored(&groups, &scores), EvalOptions::default()));
        assert_eq!((table.all.pairs, table.all.prompts), (4, 2));
        assert_eq!(table.all.judge.accuracy, Some(0.75));
        assert_eq!(table.all.longer_wins.accuracy, Some(0.25));
        assert_eq!(table.all.shorter_wins.accuracy, Some(0.75));
        assert_eq!(table.all.first_listed.unwrap().accuracy, Some(0.75));
        assert_eq!(table.all.response_only, None);
        assert_eq!(table.subsets.keys().collect::<Vec<_>>(), ["s"]);
        assert_eq!(table.subsets["s"].judge.accuracy, Some(1.0));
    }

    #[test]
    fn twelve_prompts_have_a_response_only_model_and_chosen_files_no_order() {
        let group = |n: usize| -> Group {
            let mut group = unranked(&format!("p{n}"), &["yes indeed", "no"]);
            group.comparisons = vec![comparison(0, 1, 1.0)];
            group
        };
        let groups: Vec<Group> = (0..12).map(group).collect();
        let scores = vec![vec![0.0, 0.0]; 12];
        let row = table(&Material::new(scored(&groups, &scores), EvalOptions::default())).all;
        assert_eq!(row.response_only.unwrap().accuracy, Some(1.0));
        assert_eq!((row.first_listed, row.judge.accuracy), (None, Some(0.5)));
    }
}
