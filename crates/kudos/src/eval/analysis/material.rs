//! What the sections share: the groups with their scores, the pairs, and rates with intervals.

use super::super::bootstrap::{accuracies, intervals, tallies};
use super::super::pairs::{self, Halves, Pair};
use super::super::{EvalOptions, ScoredGroup, length};
use super::{Rate, folds};

/// One file, ready to be analysed.
pub(super) struct Material<'a> {
    pub data: Vec<ScoredGroup<'a>>,
    /// Comparisons with a preferred side.
    pub pairs: Vec<Pair<'a>>,
    /// Characters of each response of each group.
    pub characters: Vec<Vec<usize>>,
    /// The fold of each group, where there are prompts enough.
    pub folds: Option<Vec<usize>>,
    pub options: EvalOptions,
}

impl<'a> Material<'a> {
    pub fn new(data: Vec<ScoredGroup<'a>>, options: EvalOptions) -> Self {
        let characters = |scored: &ScoredGroup| -> Vec<usize> {
            scored.group.responses.iter().map(|r| length::characters(&r.content)).collect()
        };
        Material {
            pairs: pairs::of(&data),
            characters: data.iter().map(characters).collect(),
            folds: folds::of(data.iter().map(|scored| scored.group)),
            data,
            options,
        }
    }

    /// Characters of the (better, worse) response of a pair.
    pub fn lengths(&self, pair: &Pair) -> (usize, usize) {
        let own = &self.characters[pair.scored.index];
        (own[pair.better], own[pair.worse])
    }

    /// Margin of the better side, over the judge's stored temperature.
    pub fn logit(&self, pair: &Pair) -> f64 {
        pair.margin() / f64::from(self.options.temperature)
    }

    /// The accuracies of N rules on the same pairs, with intervals.
    pub fn rates<'p, const N: usize>(&self, judged: impl Iterator<Item = (&'p Pair<'a>, [Halves; N])>) -> [Rate; N]
    where
        'a: 'p,
    {
        let prompts = tallies(judged.map(|(pair, halves)| (pair.scored.prompt, halves)));
        let found = accuracies(prompts.iter());
        let ends = intervals(&prompts, self.options.bootstrap, self.options.seed);
        std::array::from_fn(|rule| Rate {
            accuracy: (!prompts.is_empty()).then_some(found[rule]),
            accuracy_ci95: ends[rule],
        })
    }

    /// The judge on those pairs that `wanted` picks, and how many they are.
    pub fn judge_where(&self, wanted: impl Fn(&Pair) -> bool) -> (usize, Rate) {
        let chosen: Vec<&Pair> = self.pairs.iter().filter(|pair| wanted(pair)).collect();
        let [rate] = self.rates(chosen.iter().map(|pair| (*pair, [pair.judged()])));
        (chosen.len(), rate)
    }
}
