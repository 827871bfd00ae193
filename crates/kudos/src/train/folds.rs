//! Folds: every labelled response is scored by a judge that has not seen its prompt.
//!
//! The prompts are dealt into K folds. For each fold a judge of the same recipe is trained on the others, and, for
//! the learning curve, two more on a half and a quarter of their prompts (the quarter is part of the half). That is
//! K × 1.75 trainings. What the recipe holds out to choose its checkpoint is held out of the training prompts, never
//! of the fold, so the fold's scores are honest. The judges themselves are thrown away: of each only scores are kept.
//! Everything is a function of the data and the settings. A run of folds that is interrupted leaves nothing and
//! starts again: it is not resumed.

use super::examples::encode_groups;
use super::{
    Asked, Event, Example, Extent, Features, HeldOut, HeldOutData, Settings, SettingsError, Start, TrainError, Trainer,
};
use crate::data::{Comparison, Group, Loaded, Location, held_out_by_prompt, prompt_folds};
use crate::eval::{Analysis, EvalOptions, JudgedPair, LearningPoint, Rate, evaluate, excerpt, fit_temperature, subset};
use crate::models::{JudgeError, Model};
use crate::text::{Encoded, Encoder};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Labelled groups with the row of every comparison.
pub struct Labelled {
    /// The groups that hold a comparison.
    pub groups: Vec<Group>,
    /// The row of each comparison of each group.
    pub rows: Vec<Vec<Location>>,
}

impl Labelled {
    /// The labelled groups of what was loaded.
    pub fn of(loaded: &Loaded) -> Self {
        let labelled = (0..loaded.groups.len()).filter(|g| loaded.groups[*g].counted().next().is_some());
        let rows = |g: usize| {
            let comparisons = 0..loaded.groups[g].comparisons.len();
            (loaded.groups[g].clone(), comparisons.map(|c| loaded.groups[g].comparison_location(c).clone()).collect())
        };
        let (groups, rows) = labelled.map(rows).unzip();
        Self { groups, rows }
    }

    /// Groups that each come from one row, as [`each_pair_alone`](super::each_pair_alone) makes them.
    pub fn of_rows(groups: &[Group]) -> Self {
        let rows = groups.iter().map(|group| vec![group.location.clone(); group.comparisons.len()]).collect();
        Self { groups: groups.to_vec(), rows }
    }
}

/// What the judges of all folds share.
pub struct FoldOptions<'a> {
    /// The data.
    pub labelled: &'a Labelled,
    /// What was given to evaluate on, instead of holding prompts out.
    pub eval: Option<&'a [Group]>,
    /// From text to ids.
    pub encoder: &'a Encoder,
    /// The recipe.
    pub asked: &'a Asked,
    /// What each judge starts from: the base as it was loaded, with its adapters where such are trained.
    pub model: &'a Model,
    /// What it is: its width, and whether it gets a new head.
    pub start: Start,
    /// Number of folds.
    pub folds: usize,
    /// The judge's directory; `run/folds` in it is used and removed.
    pub dir: &'a Path,
}

/// What a run of folds leaves in `run/`: the summary, the scores, the pairs whose label looks wrong.
pub const FOLD_FILES: [&str; 3] = ["folds.json", "out_of_fold.jsonl", "suspects.jsonl"];
/// The parts of the training prompts that judges are trained on, as shares of four.
const QUARTERS: [usize; 3] = [1, 2, 4];
/// A label is doubted when the judges of the folds give it less than this probability.
const DOUBTFUL: f64 = 0.1;
/// Sets the draw of the parts apart from the draws of folds and held-out prompts.
const PART_SEED: u64 = 0x706172745f6f6621;

/// All trainings of the folds, ready to run.
pub struct Folds<'a> {
    options: FoldOptions<'a>,
    keys: Vec<String>,
    fold_of: Vec<usize>,
    sequences: Vec<Vec<Encoded>>,
    eval: Option<Vec<Vec<Encoded>>>,
    jobs: Vec<Job>,
}

/// One training: groups by their index.
struct Job {
    fold: usize,
    quarters: usize,
    train: Vec<usize>,
    held_out: Vec<usize>,
    settings: Settings,
}

/// How far the trainings are.
#[derive(Clone, Copy, Debug)]
pub struct FoldProgress {
    /// Steps done or passed over by an early stop, of [`Folds::steps`].
    pub steps: u64,
    /// The training that runs, from 1.
    pub training: usize,
}

/// A pair whose label looks wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    /// Index of the group among the labelled ones.
    pub group: usize,
    /// Index of the comparison in the group.
    pub comparison: usize,
    /// Its fold.
    pub fold: usize,
    /// Probability of the label by the scores out of fold, with a temperature that was fitted on the other folds.
    pub probability: f64,
}

/// What folds bring.
#[derive(Clone, Debug)]
pub struct FoldResult {
    /// Scores of each response of each labelled group by the judge that did not see its prompt.
    pub scores: Vec<Vec<f32>>,
    /// Fold of each labelled group.
    pub fold_of: Vec<usize>,
    /// Accuracy of those scores.
    pub accuracy: Rate,
    /// For each fold, the temperature that fits the other folds.
    pub temperatures: Vec<f32>,
    /// Accuracy by number of prompts trained on, fewest first.
    pub learning_curve: Vec<LearningPoint>,
    /// The same, fold by fold.
    pub curve_by_fold: Vec<Vec<Option<f64>>>,
    /// Pairs whose labels look wrong, most suspicious first.
    pub suspects: Vec<Suspect>,
}

impl<'a> Folds<'a> {
    /// Deals the prompts and decides on every training.
    ///
    /// # Errors
    /// Fewer than two prompts a fold, settings that make no sense, texts that cannot be encoded.
    pub fn plan(options: FoldOptions<'a>) -> Result<Self, FoldError> {
        let groups = &options.labelled.groups;
        let keys: Vec<String> = groups.iter().map(Group::prompt_key).collect();
        let prompts = keys.iter().collect::<std::collections::HashSet<_>>().len();
        if prompts < 2 * options.folds {
            return Err(FoldError::TooFew { folds: options.folds, found: prompts });
        }
        let fold_of = prompt_folds(&keys, options.folds, seed(options.asked));
        let encode = |groups: &[Group]| encode_groups(groups, options.encoder).map_err(JudgeError::from);
        let sequences = encode(groups)?;
        let eval = options.eval.map(encode).transpose()?;
        let mut folds = Self { options, keys, fold_of, sequences, eval, jobs: Vec::new() };
        for quarters in QUARTERS {
            for fold in 0..folds.options.folds {
                folds.jobs.push(folds.job(fold, quarters)?);
            }
        }
        Ok(folds)
    }

    /// The training on a part of the prompts that are not in a fold.
    fn job(&self, fold: usize, quarters: usize) -> Result<Job, FoldError> {
        let others: Vec<usize> = (0..self.keys.len()).filter(|g| self.fold_of[*g] != fold).collect();
        let seed = seed(self.options.asked);
        let (_, part) = self.split(others, quarters as f64 / 4.0, seed ^ PART_SEED);
        let fraction = match self.options.eval {
            Some(_) => 0.0,
            None => self.options.asked.eval_fraction_or_default(),
        };
        let (train, held_out) = self.split(part, fraction, seed);
        let examples = self.examples(&train);
        let measured = match self.options.eval {
            Some(_) => HeldOutData::Given,
            None if held_out.is_empty() => HeldOutData::None,
            None => HeldOutData::Drawn,
        };
        let extent = Extent::of(&examples, self.options.asked.group_size_or_default(), measured, self.options.start);
        let mut asked = self.options.asked.clone();
        if measured == HeldOutData::None {
            asked.early_stop = None; // A part can be too small to hold a prompt out.
        }
        let mut settings = asked.decide(extent)?;
        settings.save_every = 0;
        Ok(Job { fold, quarters, train, held_out, settings })
    }

    /// Splits groups by prompt into (kept, held out).
    fn split(&self, groups: Vec<usize>, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let keys: Vec<&str> = groups.iter().map(|g| self.keys[*g].as_str()).collect();
        let held = held_out_by_prompt(&keys, fraction, seed);
        let (held, kept): (Vec<_>, Vec<_>) = groups.into_iter().zip(held).partition(|(_, held)| *held);
        let groups = |part: Vec<(usize, bool)>| part.into_iter().map(|(group, _)| group).collect();
        (groups(kept), groups(held))
    }

    fn examples(&self, groups: &[usize]) -> Vec<Example> {
        let whole = |g: &usize| Example::of(&self.options.labelled.groups[*g], self.sequences[*g].clone());
        groups.iter().filter_map(whole).collect()
    }

    /// Trainings to do.
    pub fn trainings(&self) -> usize {
        self.jobs.len()
    }

    /// Optimizer steps of all of them.
    pub fn steps(&self) -> u64 {
        self.jobs.iter().map(|job| job.settings.max_steps).sum()
    }

    /// Trains all judges and puts together what they say. Deterministic; `watch` may break. The base is the same for all, and
    /// what its frozen encoder says of a text is read once, into `features`.
    ///
    /// # Errors
    /// [`FoldError::Interrupted`] when `watch` breaks, else what made a training fail. `run/folds` is removed in any case.
    pub fn run(
        &self,
        features: &mut Features,
        watch: &mut dyn FnMut(FoldProgress) -> ControlFlow<()>,
    ) -> Result<FoldResult, FoldError> {
        let scored = self.train_all(features, watch);
        let dir = self.work_dir();
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(TrainError::io(&dir))?;
        }
        self.conclude(&scored?)
    }

    /// Scores of each part: `[quarters][group]`.
    fn train_all(
        &self,
        features: &mut Features,
        watch: &mut dyn FnMut(FoldProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<Vec<f32>>>, FoldError> {
        let mut scores = vec![vec![Vec::new(); self.keys.len()]; QUARTERS.len()];
        let mut before = 0;
        for (number, job) in self.jobs.iter().enumerate() {
            let mut at = |steps| watch(FoldProgress { steps: before + steps, training: number + 1 });
            let fold = self.train(job, features, &mut at)?;
            let part = QUARTERS.iter().position(|q| *q == job.quarters).expect("a job trains on one of the parts");
            fold.into_iter().for_each(|(group, own)| scores[part][group] = own);
            before += job.settings.max_steps;
            let _ = watch(FoldProgress { steps: before, training: number + 1 });
        }
        Ok(scores)
    }

    fn work_dir(&self) -> PathBuf {
        self.options.dir.join("run").join("folds")
    }

    /// One judge's scores of its fold.
    fn train(
        &self,
        job: &Job,
        features: &mut Features,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<(usize, Vec<f32>)>, FoldError> {
        let model = self.options.model.clone();
        let dir = self.work_dir().join(format!("{}-{}of4", job.fold + 1, job.quarters));
        let (settings, examples) = (job.settings.clone(), self.examples(&job.train));
        let mut trainer = Trainer::new(model, settings, examples, self.held_out(job), dir.clone(), String::new())?;
        trainer.lend_features(std::mem::take(features));
        let finished = trainer.run(&mut |event| match event {
            Event::Step(metrics) => watch(metrics.step),
            Event::Head(..) | Event::Evaluated(_) => ControlFlow::Continue(()),
        });
        match finished {
            Err(TrainError::Interrupted { .. }) => return Err(FoldError::Interrupted),
            finished => finished?,
        };
        let fold: Vec<usize> = (0..self.keys.len()).filter(|g| self.fold_of[*g] == job.fold).collect();
        let sequences: Vec<Encoded> = fold.iter().flat_map(|g| self.sequences[*g].iter().cloned()).collect();
        let mut scores = trainer.score(&sequences)?.into_iter();
        *features = trainer.take_features();
        std::fs::remove_dir_all(&dir).map_err(TrainError::io(&dir))?;
        Ok(fold.into_iter().map(|g| (g, scores.by_ref().take(self.sequences[g].len()).collect())).collect())
    }

    fn held_out(&self, job: &Job) -> Option<HeldOut> {
        let name = "held out within the folds".to_owned();
        let (groups, sequences): (Vec<_>, Vec<_>) = match (self.options.eval, &self.eval) {
            (Some(groups), Some(sequences)) => (groups.to_vec(), sequences.clone()),
            _ => {
                let one = |g: &usize| (self.options.labelled.groups[*g].clone(), self.sequences[*g].clone());
                job.held_out.iter().map(one).unzip()
            }
        };
        (!groups.is_empty()).then(|| HeldOut { name, groups, sequences: sequences.into_iter().flatten().collect() })
    }

    fn conclude(&self, scores: &[Vec<Vec<f32>>]) -> Result<FoldResult, FoldError> {
        let whole = scores.last().expect("there are parts");
        let temperatures = self.temperatures(whole)?;
        let mut learning_curve = Vec::new();
        for (part, quarters) in scores.iter().zip(QUARTERS) {
            learning_curve.push(LearningPoint { prompts: self.prompts(quarters), rate: self.rate(part, |_| true)? });
        }
        let by_fold = |part: &Vec<Vec<f32>>| {
            (0..self.options.folds).map(|f| Ok(self.rate(part, |fold| fold == f)?.accuracy)).collect()
        };
        let curve_by_fold = scores.iter().map(by_fold).collect::<Result<_, FoldError>>()?;
        Ok(FoldResult {
            accuracy: self.rate(whole, |_| true)?,
            suspects: self.suspects(whole, &temperatures),
            scores: whole.clone(),
            fold_of: self.fold_of.clone(),
            temperatures,
            learning_curve,
            curve_by_fold,
        })
    }

    /// Groups and scores of some folds.
    fn of_folds(&self, scores: &[Vec<f32>], wanted: impl Fn(usize) -> bool) -> (Vec<Group>, Vec<Vec<f32>>) {
        let chosen = (0..self.keys.len()).filter(|g| wanted(self.fold_of[*g]));
        chosen.map(|g| (self.options.labelled.groups[g].clone(), scores[g].clone())).unzip()
    }

    fn rate(&self, scores: &[Vec<f32>], wanted: impl Fn(usize) -> bool) -> Result<Rate, FoldError> {
        let (groups, scores) = self.of_folds(scores, wanted);
        let options = EvalOptions { seed: seed(self.options.asked), ..EvalOptions::default() };
        let metrics = evaluate("folds", &groups, &scores, &options).map_err(TrainError::from)?.metrics;
        Ok(Rate { accuracy: metrics.accuracy, accuracy_ci95: metrics.accuracy_ci95 })
    }

    fn temperatures(&self, scores: &[Vec<f32>]) -> Result<Vec<f32>, FoldError> {
        let fit = |fold: usize| {
            let (groups, scores) = self.of_folds(scores, |other| other != fold);
            Ok(fit_temperature(&groups, &scores).map_err(TrainError::from)?.unwrap_or(1.0))
        };
        (0..self.options.folds).map(fit).collect()
    }

    /// Mean number of prompts that the judges of a part had, those held out to choose the checkpoint among them.
    fn prompts(&self, quarters: usize) -> usize {
        let count = |job: &Job| {
            let groups = job.train.iter().chain(&job.held_out);
            groups.map(|g| &self.keys[*g]).collect::<std::collections::HashSet<_>>().len()
        };
        let counts: usize = self.jobs.iter().filter(|job| job.quarters == quarters).map(count).sum();
        (counts as f64 / self.options.folds as f64).round() as usize
    }

    fn suspects(&self, scores: &[Vec<f32>], temperatures: &[f32]) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        for (group, (labelled, scores)) in self.options.labelled.groups.iter().zip(scores).enumerate() {
            let fold = self.fold_of[group];
            for (index, comparison) in labelled.comparisons.iter().enumerate() {
                let Some(probability) = label_probability(comparison, scores, temperatures[fold]) else { continue };
                if probability < DOUBTFUL {
                    suspects.push(Suspect { group, comparison: index, fold, probability });
                }
            }
        }
        suspects.sort_by(|a, b| a.probability.total_cmp(&b.probability));
        suspects
    }
}

/// σ(margin of the side that people prefer / temperature); `None` for a tie and for a comparison of weight 0.
fn label_probability(comparison: &Comparison, scores: &[f32], temperature: f32) -> Option<f64> {
    let (better, worse) = comparison.better_worse().filter(|_| comparison.counts())?;
    let margin = (f64::from(scores[better]) - f64::from(scores[worse])) / f64::from(temperature);
    Some(1.0 / (1.0 + (-margin).exp()))
}

fn seed(asked: &Asked) -> u64 {
    asked.seed.unwrap_or(42)
}

/// Why folds were not run to their end.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Too little to deal.
    #[error("--folds {folds}: expected at least {} labelled prompts, found {found}; collect more or use fewer folds", 2 * folds)]
    TooFew {
        /// Folds asked for.
        folds: usize,
        /// Prompts with a label.
        found: usize,
    },
    /// Whoever watched asked to stop.
    #[error(
        "interrupted in the folds: nothing of them was kept, and they are not resumed; the same command starts them again"
    )]
    Interrupted,
    /// A setting.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A training, or its data.
    #[error("in the folds: {0}")]
    Train(#[from] TrainError),
    /// Encoding or scoring.
    #[error("in the folds: {0}")]
    Judge(#[from] JudgeError),
}

impl FoldResult {
    /// `run/folds.json`.
    pub fn summary(&self, labelled: &Labelled) -> Value {
        let pairs: usize = labelled.groups.iter().map(|g| g.pairs().count()).sum();
        let curve = self.learning_curve.iter().zip(&self.curve_by_fold).map(|(point, folds)| {
            let mut point = serde_json::to_value(point).expect("plain data");
            point["by_fold"] = json!(folds);
            point
        });
        json!({
            "folds": self.temperatures.len(),
            "groups": labelled.groups.len(),
            "pairs": pairs,
            "accuracy": self.accuracy.accuracy,
            "accuracy_ci95": self.accuracy.accuracy_ci95,
            "learning_curve": curve.collect::<Vec<_>>(),
            "temperatures": self.temperatures,
            "suspects": self.suspects.len(),
        })
    }

    /// Adds the learning curve and the doubted labels to what the report says. Of the doubted pairs, `group` counts the
    /// labelled groups.
    pub fn add_to(&self, analysis: &mut Analysis, labelled: &Labelled) {
        analysis.learning_curve = Some(self.learning_curve.clone());
        analysis.suspects = Some(self.suspects.iter().filter_map(|s| self.judged_pair(s, labelled)).collect());
    }

    fn judged_pair(&self, suspect: &Suspect, labelled: &Labelled) -> Option<JudgedPair> {
        let group = &labelled.groups[suspect.group];
        let (better, worse) = group.comparisons[suspect.comparison].better_worse()?;
        let (text, scores) = (|r: usize| excerpt(&group.responses[r].content), &self.scores[suspect.group]);
        Some(JudgedPair {
            group: suspect.group,
            better_response: better,
            worse_response: worse,
            location: labelled.rows[suspect.group][suspect.comparison].to_string(),
            subset: subset(group, suspect.comparison),
            prompt: group.prompt.as_ref().map(excerpt),
            better: text(better),
            worse: text(worse),
            margin: f64::from(scores[better]) - f64::from(scores[worse]),
            probability: suspect.probability,
        })
    }

    /// The rows of `run/out_of_fold.jsonl`, a group each.
    pub fn score_rows(&self, labelled: &Labelled) -> Vec<Map<String, Value>> {
        let row = |(g, group): (usize, &Group)| {
            object([
                ("file", json!(group.location.file.as_ref())),
                ("line", json!(group.location.line)),
                ("fold", json!(self.fold_of[g] + 1)),
                ("response_lines", group.responses.iter().map(|r| r.location.line).collect()),
                ("scores", json!(self.scores[g])),
            ])
        };
        labelled.groups.iter().enumerate().map(row).collect()
    }

    /// The rows of `run/suspects.jsonl`: the doubted pairs as data that Kudos reads, `chosen` as it is labelled, with
    /// `file`, `line`, the label's `probability` and the two scores.
    pub fn suspect_rows(&self, labelled: &Labelled) -> Vec<Map<String, Value>> {
        self.suspects.iter().filter_map(|suspect| self.suspect_row(suspect, labelled)).collect()
    }

    fn suspect_row(&self, suspect: &Suspect, labelled: &Labelled) -> Option<Map<String, Value>> {
        let Suspect { group: g, comparison, fold, probability } = *suspect;
        let group = &labelled.groups[g];
        let (better, worse) = group.comparisons[comparison].better_worse()?;
        let location = &labelled.rows[g][comparison];
        let row = object([
            ("chosen", group.responses[better].content.to_value()),
            ("rejected", group.responses[worse].content.to_value()),
            ("file", json!(location.file.as_ref())),
            ("line", json!(location.line)),
            ("probability", json!(probability)),
            ("score_chosen", json!(self.scores[g][better])),
            ("score_rejected", json!(self.scores[g][worse])),
            ("fold", json!(fold + 1)),
        ]);
        let prompt = group.prompt.as_ref().map(|prompt| ("prompt".to_owned(), prompt.to_value()));
        Some(prompt.into_iter().chain(row).collect())
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Options, Reader};
    use crate::eval::{AnalysisOptions, analyse};

    #[test]
    fn labels_have_the_probability_of_their_margin() {
        let comparison = Comparison { first: 0, second: 1, target: 1.0, margin: 0.0, weight: 1.0 };
        let probability = |target, scores: [f32; 2], temperature| {
            label_probability(&Comparison { target, ..comparison }, &scores, temperature)
        };
        let cases = [
            (1.0, [0.0, 0.0], 1.0, 0.5),
            (1.0, [2.0, 0.0], 2.0, 0.731_058_578_630_004_9),
            (0.0, [2.0, 0.0], 2.0, 0.268_941_421_369_995_1),
            (0.8, [0.0, 4.0], 1.0, 0.017_986_209_962_091_56),
            (1.0, [-1e30, 1e30], 1.0, 0.0),
        ];
        for (target, scores, temperature, expected) in cases {
            let found = probability(target, scores, temperature).unwrap();
            assert!((found - expected).abs() < 1e-12, "{target} {scores:?}: {found}");
        }
        assert_eq!(probability(0.5, [1.0, 0.0], 1.0), None);
    }

    /// Two prompts, the second with its label doubted.
    fn doubted() -> (Labelled, FoldResult) {
        let text = r#"{"prompt":"p","chosen":"a","rejected":"b"}
{"prompt":"q","chosen":"c","rejected":"d","subset":"s"}"#;
        let mut loaded = Loaded::default();
        let reader = Reader::from_bytes("t", text.into(), &Options::default()).unwrap();
        loaded.read(reader, &Options::default()).unwrap();
        let suspect = Suspect { group: 1, comparison: 0, fold: 1, probability: 0.01 };
        let result = FoldResult {
            scores: vec![vec![1.0, 0.0], vec![-1.0, 2.0]],
            fold_of: vec![0, 1],
            accuracy: Rate { accuracy: Some(0.5), accuracy_ci95: Some([0.0, 1.0]) },
            temperatures: vec![1.0, 0.5],
            learning_curve: vec![LearningPoint { prompts: 1, rate: Rate::default() }],
            curve_by_fold: vec![vec![Some(1.0), Some(0.0)]],
            suspects: vec![suspect],
        };
        (Labelled::of(&loaded), result)
    }

    #[test]
    fn doubted_pairs_are_data_with_their_place() {
        let (labelled, result) = doubted();
        let row = &result.suspect_rows(&labelled)[0];
        let expected = json!({"prompt": "q", "chosen": "c", "rejected": "d", "file": "t", "line": 2, "probability": 0.01,
            "score_chosen": -1.0, "score_rejected": 2.0, "fold": 2});
        assert_eq!(Value::Object(row.clone()), expected);
        let scores = result.score_rows(&labelled);
        assert_eq!(Value::Object(scores[1].clone())["scores"], json!([-1.0, 2.0]));
        let summary = result.summary(&labelled);
        assert_eq!((&summary["pairs"], &summary["suspects"]), (&json!(2), &json!(1)));
        assert_eq!(summary["learning_curve"][0]["by_fold"], json!([1.0, 0.0]));
    }

    #[test]
    fn the_report_gets_the_curve_and_the_doubted_pairs() {
        let (labelled, result) = doubted();
        let mut analysis = analyse("t", &labelled.groups, &result.scores, &AnalysisOptions::default()).unwrap();
        result.add_to(&mut analysis, &labelled);
        assert_eq!(analysis.learning_curve.unwrap()[0].prompts, 1);
        let pair = &analysis.suspects.unwrap()[0];
        assert_eq!((pair.location.as_str(), pair.better.as_str(), pair.margin), ("t:2", "c", -3.0));
        assert_eq!((pair.subset.as_deref(), pair.probability), (Some("s"), 0.01));
    }
}
