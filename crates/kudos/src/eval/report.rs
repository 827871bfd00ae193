//! All the metrics of a file, together and by subset: the content of `eval --json`.

use super::pairs::Pair;
use super::{
    AttributeMetrics, BestOfN, Bin, ScoredGroup, best_of_n, bootstrap, calibration, length, mean, pairs, ranking,
};
use crate::data::{Group, Location, integer};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalOptions {
    /// Resamples of the bootstrap; 0 leaves the interval out.
    pub bootstrap: usize,
    /// Seed of the bootstrap: the same seed gives the same interval.
    pub seed: u64,
    /// Divides margins before they are read as probabilities (the judge's `calibration.temperature`).
    pub temperature: f32,
}

impl Default for EvalOptions {
    fn default() -> Self {
        EvalOptions { bootstrap: 2000, seed: 42, temperature: 1.0 }
    }
}

/// Why scores cannot be evaluated.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// Not one list of scores a group.
    #[error("expected scores of {expected} groups, found {found}")]
    GroupCount {
        /// Groups of the file.
        expected: usize,
        /// Lists of scores.
        found: usize,
    },
    /// Not one score a response.
    #[error("{location}: expected {expected} scores, one a response, found {found}")]
    ScoreCount {
        /// The group.
        location: Location,
        /// Responses of the group.
        expected: usize,
        /// Scores of the group.
        found: usize,
    },
    /// A score is NaN or infinite.
    #[error(
        "{location}: the score of response {response} is {score}, expected a finite number; \
         the judge's weights are broken or its training diverged"
    )]
    NotFinite {
        /// The row of the response.
        location: Location,
        /// Its place in the group, from 1.
        response: usize,
        /// The score.
        score: f32,
    },
    /// The temperature cannot divide margins.
    #[error("the temperature is {0}, expected a finite number above 0")]
    Temperature(f32),
}

/// What a judge reaches on one file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct DataReport {
    /// The file, as the user named it.
    pub file: String,
    /// The figures of the whole file; their keys stand beside `file` in the JSON.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The same by the column `subset`: a comparison counts in that of its own row, one of a ranking in that of both its rows.
    pub subsets: BTreeMap<String, Metrics>,
    /// Responses that did not fit the token limit. [`evaluate`] sees no tokens and leaves it
    /// `None`: whoever encoded knows.
    pub truncated: Option<usize>,
    /// Figures of each attribute, for a judge with an output for it. [`evaluate`] sees no outputs but the overall score
    /// and leaves it empty: whoever scored fills it with [`super::attribute_metrics`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, AttributeMetrics>,
}

/// The figures. Each is `None` (`null` in the JSON) where the data cannot say.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Metrics {
    /// Groups.
    pub groups: usize,
    /// Different prompts ([`Group::prompt_key`]): several groups can share one.
    pub prompts: usize,
    /// Comparisons with a preferred side.
    pub pairs: usize,
    /// Comparisons without one. They count in `ece`, `brier` and `log_loss` alone.
    pub ties: usize,
    /// Pairs whose scores are exactly equal.
    pub score_ties: usize,
    /// Share of the pairs whose better side has the higher score; equal scores count one half.
    /// Unweighted.
    pub accuracy: Option<f64>,
    /// 95 % percentile bootstrap interval of the accuracy over prompts (Davison & Hinkley 1997, §3.8).
    pub accuracy_ci95: Option<[f64; 2]>,
    /// Accuracy of "the longer response wins", in characters, on the same pairs.
    pub longer_response_accuracy: Option<f64>,
    /// Accuracy of "the response listed first wins"; `None` for files of chosen and rejected, which
    /// list the chosen first.
    pub first_listed_accuracy: Option<f64>,
    /// Mean over rankings of three or more of Kendall's tau-b (Kendall 1945), as
    /// `scipy.stats.kendalltau`.
    pub kendall_tau_b: Option<f64>,
    /// Mean over the same rankings of Spearman's rho, as `scipy.stats.spearmanr`.
    pub spearman: Option<f64>,
    /// Mean over the same rankings of NDCG, as `sklearn.metrics.ndcg_score`; gain = responses
    /// strictly worse.
    pub ndcg: Option<f64>,
    /// Expected calibration error (Guo et al. 2017), 10 bins of equal width over the confidence in
    /// [.5, 1].
    pub ece: Option<f64>,
    /// Mean squared error of P(first beats second) (Brier 1950).
    pub brier: Option<f64>,
    /// Mean negative log-likelihood of the votes under P(first beats second) = σ(margin / temperature).
    pub log_loss: Option<f64>,
    /// Correlation of score and log length within groups, given people's order (see
    /// `docs/evaluation.md`).
    pub length_partial_correlation: Option<f64>,
    /// Quality of the pick among n responses, by n; empty without rankings.
    pub best_of_n: BTreeMap<usize, BestOfN>,
    /// Mean of all scores.
    pub score_mean: Option<f64>,
    /// Standard deviation of all scores (of the population). Near 0, the judge says the same of
    /// everything.
    pub score_std: Option<f64>,
}

/// Measures the scores of one file: `scores[g][r]` is the score of response `r` of group `g`.
///
/// # Errors
/// When the scores do not fit the groups or are not finite, or the temperature is not positive.
pub fn evaluate(
    file: &str,
    groups: &[Group],
    scores: &[Vec<f32>],
    options: &EvalOptions,
) -> Result<DataReport, EvalError> {
    let data = matched(groups, scores)?;
    check_temperature(options.temperature)?;
    let chosen_first = pairs::chosen_first(&data);
    let report = |data: &[ScoredGroup]| {
        let mut metrics = measure(data, options);
        if chosen_first {
            metrics.first_listed_accuracy = None;
        }
        metrics
    };
    let of_parts = |parts: &[Part]| report(&parts.iter().map(Part::scored).collect::<Vec<_>>());
    Ok(DataReport {
        file: file.to_string(),
        metrics: report(&data),
        subsets: subsets(&data).into_iter().map(|(name, parts)| (name, of_parts(&parts))).collect(),
        truncated: None,
        attributes: BTreeMap::new(),
    })
}

/// The reliability diagram behind `ece`: ten bins of the confidence from .5 to 1.
///
/// # Errors
/// As [`evaluate`].
pub fn reliability(groups: &[Group], scores: &[Vec<f32>], temperature: f32) -> Result<Vec<Bin>, EvalError> {
    let data = matched(groups, scores)?;
    check_temperature(temperature)?;
    Ok(calibration::bins(&calibration::forecasts(&data, temperature)))
}

/// The temperature that makes σ(margin / temperature) fit the comparisons best: the one for
/// `reward.json`, fitted on held-out data.
///
/// Between .01 (the judge is right everywhere) and 100 (no better than chance); `None` when there
/// are no comparisons, or only equal scores.
///
/// # Errors
/// When the scores do not fit the groups or are not finite.
pub fn fit_temperature(groups: &[Group], scores: &[Vec<f32>]) -> Result<Option<f32>, EvalError> {
    let forecasts = calibration::forecasts(&matched(groups, scores)?, 1.0);
    Ok(calibration::best_temperature(&forecasts, 0.0))
}

/// How many prompts' worth of comparisons the expectation that a new judge's temperature is 1 weighs.
const DOUBT_PROMPTS: f64 = 4.0;

/// The same for a new judge, which may have few held-out prompts: 1/T − 1 + ln T, as often as four prompts have comparisons, is added to
/// their log loss, so that it stays near 1 until they say otherwise. The comparisons of a prompt are much alike, so it is the prompts that
/// count (docs/recipe.md). 1 when [`fit_temperature`] has none.
///
/// # Errors
/// As [`fit_temperature`].
pub fn first_temperature(groups: &[Group], scores: &[Vec<f32>]) -> Result<f32, EvalError> {
    let matched = matched(groups, scores)?;
    let forecasts = calibration::forecasts(&matched, 1.0);
    let compared = matched.iter().filter(|scored| scored.group.counted().next().is_some());
    let prompts = compared.map(|scored| scored.prompt).collect::<HashSet<_>>().len();
    let doubt = DOUBT_PROMPTS * forecasts.len() as f64 / prompts.max(1) as f64;
    Ok(calibration::best_temperature(&forecasts, doubt).unwrap_or(1.0))
}

fn check_temperature(temperature: f32) -> Result<(), EvalError> {
    match temperature.is_finite() && temperature > 0.0 {
        true => Ok(()),
        false => Err(EvalError::Temperature(temperature)),
    }
}

/// Groups with their scores and the numbers of their prompts.
pub(super) fn matched<'a>(groups: &'a [Group], scores: &'a [Vec<f32>]) -> Result<Vec<ScoredGroup<'a>>, EvalError> {
    if groups.len() != scores.len() {
        return Err(EvalError::GroupCount { expected: groups.len(), found: scores.len() });
    }
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let pairs = groups.iter().zip(scores).enumerate();
    pairs
        .map(|(own, (group, scores))| {
            check_scores(group, scores)?;
            let prompt = *numbers.entry(group.prompt_key()).or_insert(own);
            Ok(ScoredGroup { group, index: own, scores, prompt })
        })
        .collect()
}

fn check_scores(group: &Group, scores: &[f32]) -> Result<(), EvalError> {
    if scores.len() != group.responses.len() {
        return Err(EvalError::ScoreCount {
            location: group.location.clone(),
            expected: group.responses.len(),
            found: scores.len(),
        });
    }
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(()),
        Some(index) => Err(EvalError::NotFinite {
            location: group.responses[index].location.clone(),
            response: index + 1,
            score: scores[index],
        }),
    }
}

/// What a group has in one subset: some of its responses with their scores.
struct Part<'a> {
    whole: ScoredGroup<'a>,
    group: Cow<'a, Group>,
    scores: Cow<'a, [f32]>,
}

impl<'a> Part<'a> {
    fn of(whole: ScoredGroup<'a>, responses: &BTreeSet<usize>, name: &str) -> Self {
        let wanted = |c: usize| subset(whole.group, c).as_deref() == Some(name);
        if responses.len() == whole.scores.len() && (0..whole.group.comparisons.len()).all(wanted) {
            return Part { whole, group: Cow::Borrowed(whole.group), scores: Cow::Borrowed(whole.scores) };
        }
        let responses: Vec<usize> = responses.iter().copied().collect();
        let scores: Vec<f32> = responses.iter().map(|r| whole.scores[*r]).collect();
        Part { whole, group: Cow::Owned(whole.group.part(&responses, wanted)), scores: Cow::Owned(scores) }
    }

    fn scored(&self) -> ScoredGroup<'_> {
        ScoredGroup { group: &self.group, scores: &self.scores, ..self.whole }
    }
}

/// The parts of the groups by `subset`: each comparison with its responses is in the subset of its own row, and what has
/// no subset in none.
fn subsets<'a>(data: &[ScoredGroup<'a>]) -> BTreeMap<String, Vec<Part<'a>>> {
    let mut subsets: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    for scored in data {
        for (name, responses) in responses_by_subset(scored.group) {
            let part = Part::of(*scored, &responses, &name);
            subsets.entry(name).or_default().push(part);
        }
    }
    subsets
}

/// The responses of each subset: those of judgements by the rows of their comparisons, others by their own.
fn responses_by_subset(group: &Group) -> BTreeMap<String, BTreeSet<usize>> {
    let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    if group.judged.is_empty() {
        for (r, response) in group.responses.iter().enumerate() {
            if let Some(name) = response.extra.get(SUBSET).and_then(name) {
                found.entry(name).or_default().insert(r);
            }
        }
    }
    for (c, judged) in group.comparisons.iter().enumerate().take(group.judged.len()) {
        if let Some(name) = subset(group, c) {
            found.entry(name).or_default().extend([judged.first, judged.second]);
        }
    }
    found
}

/// The column whose values part the figures.
const SUBSET: &str = "subset";

/// The subset that comparison `c` of a group counts in.
pub(crate) fn subset(group: &Group, c: usize) -> Option<String> {
    group.comparison_fact(c, SUBSET).and_then(name)
}

/// Numbers and booleans are names too; empty names are none.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(name) if name.is_empty() => None,
        Value::String(name) => Some(name.clone()),
        other => Some(integer::to_json(other)),
    }
}

fn measure(data: &[ScoredGroup], options: &EvalOptions) -> Metrics {
    let pairs = pairs::of(data);
    let rankings = ranking::rankings(data);
    let forecasts = calibration::forecasts(data, options.temperature);
    let (score_mean, score_std) = moments(data);
    Metrics {
        groups: data.len(),
        prompts: prompts(data),
        pairs: pairs.len(),
        ties: forecasts.len() - pairs.len(),
        score_ties: pairs.iter().filter(|pair| pair.judged() == 1).count(),
        accuracy: pairs::accuracy(&pairs, Pair::judged),
        accuracy_ci95: bootstrap::accuracy_interval(&pairs, options.bootstrap, options.seed),
        longer_response_accuracy: pairs::accuracy(&pairs, Pair::by_length),
        first_listed_accuracy: pairs::accuracy(&pairs, Pair::by_place),
        kendall_tau_b: ranking::mean_over(&rankings, ranking::kendall_tau_b),
        spearman: ranking::mean_over(&rankings, ranking::spearman),
        ndcg: ranking::mean_over(&rankings, ranking::ndcg),
        ece: calibration::expected_calibration_error(&forecasts),
        brier: calibration::brier(&forecasts),
        log_loss: calibration::log_loss(&forecasts),
        length_partial_correlation: length::partial_correlation(data),
        best_of_n: best_of_n::curve(&rankings),
        score_mean,
        score_std,
    }
}

pub(super) fn prompts(data: &[ScoredGroup]) -> usize {
    let mut numbers: Vec<usize> = data.iter().map(|scored| scored.prompt).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len()
}

/// Mean and standard deviation of all scores.
pub(super) fn moments(data: &[ScoredGroup]) -> (Option<f64>, Option<f64>) {
    let scores = || data.iter().flat_map(|d| d.scores).map(|&s| f64::from(s));
    let centre = mean(scores());
    let variance = centre.and_then(|m| mean(scores().map(|s| (s - m).powi(2))));
    (centre, variance.map(f64::sqrt))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{comparison, name_subset, ranked, unranked};
    use super::*;

    fn options() -> EvalOptions {
        EvalOptions { bootstrap: 50, ..EvalOptions::default() }
    }

    fn named(subset: serde_json::Value, ranks: &[f64]) -> Group {
        let mut group = ranked(&subset.to_string(), ranks);
        name_subset(&mut group, subset);
        group
    }

    #[test]
    fn the_json_has_the_keys_of_the_contract() {
        let groups = [ranked("p", &[1.0, 2.0, 3.0]), ranked("q", &[2.0, 1.0])];
        let scores = [vec![3.0, 2.0, 1.0], vec![0.0, 1.0]];
        let report = evaluate("a.csv", &groups, &scores, &options()).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let contract = "file groups pairs ties accuracy accuracy_ci95 kendall_tau_b spearman ndcg \
            ece brier log_loss longer_response_accuracy length_partial_correlation best_of_n \
            subsets score_ties first_listed_accuracy prompts truncated";
        for key in contract.split_whitespace() {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["accuracy"], 1.0);
        assert_eq!(json["best_of_n"]["2"]["judge"], json["best_of_n"]["2"]["oracle"]);
    }

    #[test]
    fn unlabelled_data_gives_nulls_and_no_panic() {
        let groups = [unranked("p", &["a", "b"])];
        for groups in [&groups[..], &[]] {
            let scores = vec![vec![1.0, 2.0]; groups.len()];
            let metrics = evaluate("u", groups, &scores, &options()).unwrap().metrics;
            assert_eq!((metrics.pairs, metrics.accuracy), (0, None));
            assert_eq!((metrics.ece, metrics.ndcg, metrics.accuracy_ci95), (None, None, None));
        }
    }

    #[test]
    fn scores_that_do_not_fit_are_errors_that_say_where() {
        let groups = [ranked("p", &[1.0, 2.0])];
        let cases: [(&[Vec<f32>], &str); 4] = [
            (&[], "expected scores of 1 groups, found 0"),
            (&[vec![1.0]], "cases.jsonl:1: expected 2 scores"),
            (&[vec![1.0, f32::NAN]], "cases.jsonl:1: the score of response 2 is NaN"),
            (&[vec![f32::INFINITY, 0.0]], "the score of response 1 is inf"),
        ];
        for (scores, expected) in cases {
            let error = evaluate("a", &groups, scores, &options()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn prompts_and_not_comparisons_move_a_new_temperature() {
        // 45 comparisons, all of them wrong by a lot: of one prompt, and of 45.
        let ranks: Vec<f64> = (1..=10).map(f64::from).collect();
        let scores: Vec<f32> = (1..=10).map(|score| score as f32).collect();
        let one = first_temperature(&[ranked("p", &ranks)], &[scores]).unwrap();
        let prompts: Vec<Group> = (0..45).map(|i| ranked(&format!("p{i}"), &[1.0, 2.0])).collect();
        let many = first_temperature(&prompts, &vec![vec![0.0, 4.0]; 45]).unwrap();
        assert!(one > 1.0 && one < 2.5 && many > 5.0, "{one} {many}");
        assert_eq!(first_temperature(&[], &[]).unwrap(), 1.0);
    }

    #[test]
    fn temperatures_must_be_positive() {
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let options = EvalOptions { temperature, ..options() };
            let error = evaluate("a", &[], &[], &options).unwrap_err();
            assert!(matches!(error, EvalError::Temperature(_)), "{error}");
        }
    }

    #[test]
    fn subsets_are_measured_on_their_own() {
        let groups = [
            named("hard".into(), &[1.0, 2.0]),
            named("easy".into(), &[1.0, 2.0]),
            named(7.into(), &[1.0, 2.0]),
            named(serde_json::Value::Null, &[1.0, 2.0]),
            ranked("none", &[1.0, 2.0]),
        ];
        let scores = [0.0, 2.0, 0.0, 2.0, 2.0].map(|s| vec![s, 1.0]);
        let report = evaluate("a", &groups, &scores, &options()).unwrap();
        let found: Vec<_> = report.subsets.iter().map(|(n, m)| (n.as_str(), m.accuracy)).collect();
        assert_eq!(found, [("7", Some(0.0)), ("easy", Some(1.0)), ("hard", Some(0.0))]);
        assert_eq!(report.metrics.accuracy, Some(0.6));
    }

    #[test]
    fn f3_intervals_are_over_prompts_whatever_form_they_have() {
        let turn = |content: &str| crate::data::Message { role: "user".into(), content: content.into() };
        let mut groups = ["p", "q", "P ", "p", "r", "s"].map(|p| ranked(p, &[1.0, 2.0]));
        groups[3].prompt = Some(crate::data::Content::Messages(vec![turn("p")]));
        for (group, transcript) in groups[4..].iter_mut().zip(["Human: r", "Human: s"]) {
            group.prompt = None;
            group.responses[0].content = crate::data::Content::Text(format!("{transcript}\n\nAssistant: x"));
        }
        let metrics = evaluate("a", &groups, &vec![vec![1.0, 0.0]; 6], &options()).unwrap().metrics;
        assert_eq!((metrics.groups, metrics.prompts), (6, 4));
    }

    #[test]
    fn f2_a_pair_counts_in_the_subset_of_its_own_row() {
        let load = |text: &str| {
            let options = crate::data::Options::default();
            let mut loaded = crate::data::Loaded::default();
            loaded.read(crate::data::Reader::from_bytes("t", text.into(), &options).unwrap(), &options).unwrap();
            loaded.groups
        };
        let pairs = "subset,prompt,chosen,rejected\neasy,p,a,b\nhard,p,c,d\nhard,q,c,d\n,p,a,d\n";
        let ranks = "prompt,answer,rank,subset\np,a,1,x\np,b,2,y\np,c,3,x\n";
        type Subsets = &'static [(&'static str, usize, usize)];
        let cases: [(&str, Subsets); 2] =
            [(pairs, &[("easy", 1, 1), ("hard", 2, 2)]), (ranks, &[("x", 1, 1), ("y", 0, 1)])];
        for (text, expected) in cases {
            let groups = load(text);
            let scores: Vec<Vec<f32>> =
                groups.iter().map(|g| (0..g.responses.len()).map(|r| r as f32).collect()).collect();
            let report = evaluate("a", &groups, &scores, &options()).unwrap();
            let found: Vec<_> = report.subsets.iter().map(|(n, m)| (n.as_str(), m.pairs, m.groups)).collect();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(subset(&load(pairs)[0], 2), None);
    }

    #[test]
    fn files_of_chosen_and_rejected_have_no_first_listed() {
        let mut group = unranked("p", &["a", "b"]);
        group.comparisons = vec![comparison(0, 1, 1.0)];
        let mut groups = vec![group.clone(), group];
        let scores = vec![vec![1.0, 0.0]; 2];
        let first = |groups: &[Group]| {
            let report = evaluate("a", groups, &scores, &options()).unwrap();
            report.metrics.first_listed_accuracy
        };
        assert_eq!(first(&groups), None);
        groups[1].comparisons[0].target = 0.0;
        assert_eq!(first(&groups), Some(0.5));
    }

    #[test]
    fn moments_are_of_all_scores() {
        let groups = [ranked("p", &[1.0, 2.0]), unranked("q", &["a", "b"])];
        let scores = [vec![1.0, 3.0], vec![1.0, 3.0]];
        let metrics = evaluate("a", &groups, &scores, &options()).unwrap().metrics;
        assert_eq!((metrics.score_mean, metrics.score_std), (Some(2.0), Some(1.0)));
    }
}
