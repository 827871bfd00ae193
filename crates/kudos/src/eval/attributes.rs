//! One attribute at a time: how well the judge's output for it follows people's ratings.
//!
//! Within a prompt by order (Spearman, Kendall, pairs), over everything by value (Pearson, mean absolute error).
//! Responses without a rating for the attribute take no part.

use super::ranking::{Ranking, kendall_tau_b, mean_over, spearman};
use super::{length, mean};
use crate::data::Group;
use std::collections::BTreeMap;

/// What a judge reaches on one attribute. Each figure is `None` (`null` in the JSON) where the data cannot say.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AttributeMetrics {
    /// Rated responses.
    pub n: usize,
    /// Responses without a rating for it.
    pub missing: usize,
    /// Prompts with three or more rated responses that are not all rated alike: what the correlations are means over.
    pub rankings: usize,
    /// Mean over those of Spearman's rho, as `scipy.stats.spearmanr`; 0 where the outputs are all equal.
    pub spearman: Option<f64>,
    /// Mean over those of Kendall's tau-b, as `scipy.stats.kendalltau`.
    pub kendall_tau_b: Option<f64>,
    /// Pearson's r of output and rating over all rated responses.
    pub pearson: Option<f64>,
    /// Pairs of one prompt whose ratings differ.
    pub pairs: usize,
    /// Share of those pairs in the right order; equal outputs count one half.
    pub accuracy: Option<f64>,
    /// Mean absolute error, in the units of the rating.
    pub mae: Option<f64>,
    /// Mean absolute error of always saying the mean rating of these data: what `mae` must stay below.
    pub mae_of_mean: Option<f64>,
}

/// Measures outputs against ratings: `outputs[g][r][a]` is the output for attribute `names[a]` of response `r` of
/// group `g`.
pub fn attribute_metrics(
    names: &[String],
    groups: &[Group],
    outputs: &[Vec<Vec<f32>>],
) -> BTreeMap<String, AttributeMetrics> {
    let of = |(a, name): (usize, &String)| (name.clone(), measure(&rated(a, name, groups, outputs), responses(groups)));
    names.iter().enumerate().map(of).collect()
}

fn responses(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.responses.len()).sum()
}

/// (ratings, outputs) of each group, of its rated responses alone.
fn rated(a: usize, name: &str, groups: &[Group], outputs: &[Vec<Vec<f32>>]) -> Vec<Ranking> {
    let of = |(group, outputs): (&Group, &Vec<Vec<f32>>)| {
        let known = group.responses.iter().zip(outputs);
        let known = known.filter_map(|(r, outputs)| Some((*r.attributes.get(name)?, f64::from(outputs[a]))));
        let (quality, scores) = known.unzip();
        Ranking { quality, scores }
    };
    groups.iter().zip(outputs).map(of).collect()
}

fn measure(groups: &[Ranking], responses: usize) -> AttributeMetrics {
    let all = |side: fn(&Ranking) -> &Vec<f64>| groups.iter().flat_map(side).copied().collect::<Vec<f64>>();
    let (ratings, outputs) = (all(|g| &g.quality), all(|g| &g.scores));
    let (right, pairs) = groups.iter().map(pairs).fold((0.0, 0), |(r, n), (right, pairs)| (r + right, n + pairs));
    let rankings: Vec<Ranking> = groups.iter().filter(|g| g.is_usable()).cloned().collect();
    let error = |to: &[f64]| mean(ratings.iter().zip(to).map(|(rating, said)| (rating - said).abs()));
    let centre = mean(ratings.iter().copied());
    AttributeMetrics {
        n: ratings.len(),
        missing: responses - ratings.len(),
        rankings: rankings.len(),
        spearman: mean_over(&rankings, spearman),
        kendall_tau_b: mean_over(&rankings, kendall_tau_b),
        pearson: pearson(&ratings, &outputs),
        pairs,
        accuracy: (pairs > 0).then(|| right / pairs as f64),
        mae: error(&outputs),
        mae_of_mean: centre.and_then(|centre| error(&vec![centre; ratings.len()])),
    }
}

/// (pairs in the right order, pairs) of one group.
fn pairs(group: &Ranking) -> (f64, usize) {
    let (mut right, mut pairs) = (0.0, 0);
    for i in 0..group.quality.len() {
        for j in i + 1..group.quality.len() {
            let (rating, output) = (group.quality[i] - group.quality[j], group.scores[i] - group.scores[j]);
            if rating != 0.0 {
                pairs += 1;
                right += if output == 0.0 { 0.5 } else { f64::from(u8::from((output > 0.0) == (rating > 0.0))) };
            }
        }
    }
    (right, pairs)
}

/// Pearson's r; `None` when one of them does not vary.
fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    length::correlation(&length::centred(x.iter().copied()), &length::centred(y.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::unranked;
    use super::*;

    fn group(prompt: &str, ratings: &[Option<f64>]) -> Group {
        let mut group = unranked(prompt, &vec!["x"; ratings.len()]);
        for (response, rating) in group.responses.iter_mut().zip(ratings) {
            response.attributes = rating.map(|rating| ("kind".to_owned(), rating)).into_iter().collect();
        }
        group
    }

    /// Values from SciPy: spearmanr, kendalltau of each prompt; pearsonr over all.
    #[test]
    fn figures_of_known_ratings() {
        let groups = [
            group("p", &[Some(1.0), Some(3.0), None, Some(2.0), Some(3.0)]),
            group("q", &[Some(5.0), Some(1.0), Some(2.0)]),
            group("r", &[Some(2.0), Some(1.0)]),
            group("s", &[None]),
        ];
        let outputs = [vec![0.5, 2.5, 9.0, 2.0, 1.0], vec![4.0, 2.0, 2.0], vec![1.0, 1.0], vec![0.0]];
        let outputs: Vec<Vec<Vec<f32>>> =
            outputs.map(|group| group.into_iter().map(|x| vec![7.0, x]).collect()).to_vec();
        let names = ["other".to_owned(), "kind".to_owned()];
        let found = attribute_metrics(&names, &groups, &outputs);
        let kind = &found["kind"];
        assert_eq!((kind.n, kind.missing, kind.rankings, kind.pairs), (9, 2, 2, 9));
        let close = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
        };
        close(kind.spearman, (0.632_455_532_033_675_9 + 0.866_025_403_784_438_7) / 2.0);
        close(kind.kendall_tau_b, (0.547_722_557_505_166_1 + 0.816_496_580_927_726) / 2.0);
        close(kind.pearson, 0.762_175_303_853_835_5);
        close(kind.accuracy, 7.0 / 9.0);
        close(kind.mae, 6.0 / 9.0);
        assert_eq!(found["other"], AttributeMetrics { missing: 11, ..AttributeMetrics::default() });
    }
}
