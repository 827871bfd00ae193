//! `kudos eval`: how good a judge is on data it was not trained on.
//!
//! | file | asked for by |
//! |---|---|
//! | `eval.rs` | one `--judge`: the table and the JSON |
//! | `eval/compare.rs` | two of them: which is better |
//! | `eval/calibrate.rs` | `--calibrate`: the temperature that goes to `reward.json` |
//! | `eval/suite.rs` | `--suite`: published test suites with their own scores |

mod calibrate;
mod compare;
mod suite;

use super::data::DataArgs;
use super::refused::without_refused;
use super::{Global, announce_precision, choice, load_judge_for, report, resolve, train::report_problems, wrong_usage};
use crate::display::Progress;
use crate::interrupt;
use anyhow::{Context, bail};
use kudos::data::{Group, Loaded};
use kudos::eval::{
    Analysis, AnalysisOptions, AttributeMetrics, DataReport, EvalOptions, Suite, analyse, attribute_metrics, evaluate,
    render_table,
};
use kudos::models::{Input, Rated, RewardModel, Scorer};
use kudos::nn::Precision;
use kudos::train::is_rated;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Measure a judge on labelled data.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos eval test.jsonl --judge judge
  kudos eval test.csv --judge judge --report report.html
  kudos eval llmbar.jsonl pandalm.jsonl --judge judge --json report.json
  kudos eval test.csv --judge judge --json | jq '.data[0].accuracy'
  kudos eval test.jsonl --judge old --judge new           which is better
  kudos eval held-out.jsonl --judge judge --calibrate     store a temperature
  kudos eval LLMBar/Dataset --suite llmbar --judge judge

It prints accuracy with a 95 % interval, rank correlations, calibration and the
influence of length, beside the accuracy of trivial rules.")]
pub struct Args {
    /// Labelled data: rankings, pairs, comparisons or groups; `-` is standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// The judge: a directory, or a name that `kudos pull` knows; give two to compare them
    #[arg(long, value_name = "JUDGE", default_value = crate::boxed::NAME)]
    judge: Vec<String>,
    /// Fit the judge's temperature on DATA and store it in its reward.json
    #[arg(long, conflicts_with = "suite")]
    calibrate: bool,
    /// Calibrate even on data that the judge was trained on; its probabilities become too sure
    #[arg(long, requires = "calibrate")]
    allow_training_data: bool,
    /// Read DATA as a published suite and print its own score: llmbar, pandalm, judgebench, rewardbench,
    /// rewardbench-2, rm-bench or xstest
    #[arg(long, value_parser = choice::<Suite>, value_name = "NAME")]
    suite: Option<Suite>,
    /// Arithmetic: f32, bf16 or int8 [default: int8 if the judge is stored so, else the fastest here]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Write the figures as JSON to FILE; without FILE, print them instead of the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Add to the JSON the figures behind the report: trivial rules, reliability, length, mistakes
    #[arg(long, requires = "json")]
    analysis: bool,
    /// Write a report as one HTML file: what the judge can do, figures, mistakes, settings
    #[arg(long, value_name = "FILE", conflicts_with = "calibrate")]
    report: Option<PathBuf>,
    /// Bootstrap resamples behind each interval
    #[arg(long, value_name = "N", default_value_t = 2000)]
    bootstrap: usize,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    input: DataArgs,
    /// Stop at the first row that cannot be used
    #[arg(long)]
    strict: bool,
    /// Read control tokens inside texts (`<|im_end|>`, `[SEP]`, …) as plain text [default: as the judge was trained]
    #[arg(long, conflicts_with = "calibrate")]
    literal: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    match (&args.judge[..], args.suite) {
        ([judge], Some(suite)) => suite::run(args, judge, suite, global),
        ([judge], None) if args.calibrate => calibrate::run(args, judge, global),
        ([judge], None) => one(args, judge, global),
        ([_, _], None) if args.report.is_some() => {
            wrong_usage!("--report is about one judge: expected one --judge, found 2")
        }
        ([first, second], None) if !args.calibrate => compare::run(args, [first, second], global),
        (judges, _) => {
            wrong_usage!(
                "expected one --judge, or two to compare (without --suite and --calibrate), found {}",
                judges.len()
            )
        }
    }
}

fn one(args: &Args, name: &str, global: &Global) -> anyhow::Result<()> {
    let mut judge = args.judge(name)?;
    announce_precision(&judge, global);
    let options = args.options(&judge);
    let mut reports = Vec::new();
    let mut values = Vec::new();
    let (mut analyses, mut files) = (Vec::new(), Vec::new());
    for path in &args.data {
        let loaded = args.load(path, global)?;
        let scored =
            ScoredFile::new(&mut judge, &loaded, args.strict, global).with_context(|| path.display().to_string())?;
        let report = scored.report(&options)?;
        values.push(match args.analysis {
            true => with_analysis(&report, &scored.analysis(&options)?)?,
            false => serde_json::to_value(&report)?,
        });
        reports.push(report);
        if args.report.is_some() {
            analyses.push(scored.analysis(&options)?);
            files.push(loaded);
        }
    }
    args.write_report(name, &judge, &analyses, files)?;
    args.print(&json!({"judge": name, "data": values}), &render_table(&reports))
}

/// The report's keys, and beside them the sections of the analysis.
fn with_analysis(report: &DataReport, analysis: &Analysis) -> anyhow::Result<Value> {
    let (mut value, mut sections) = (serde_json::to_value(report)?, serde_json::to_value(analysis)?);
    sections.as_object_mut().context("an analysis is an object")?.remove("data"); // the report itself
    value["analysis"] = sections;
    Ok(value)
}

impl Args {
    /// Options of the metrics, with the judge's own temperature.
    fn options(&self, judge: &RewardModel) -> EvalOptions {
        EvalOptions { bootstrap: self.bootstrap, seed: self.seed, temperature: judge.reward.temperature() }
    }

    fn judge(&self, name: &str) -> anyhow::Result<Scorer> {
        load_judge_for(name, self.precision, self.literal)
    }

    fn load(&self, path: &Path, global: &Global) -> anyhow::Result<Loaded> {
        let loaded = super::data::load_groups(&[path], &self.input.options(self.strict)?)?;
        report_problems(&loaded, global);
        Ok(loaded)
    }

    /// Writes the HTML report, if it was asked for.
    fn write_report(
        &self,
        name: &str,
        judge: &RewardModel,
        analyses: &[Analysis],
        files: Vec<Loaded>,
    ) -> anyhow::Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let about = report::About {
            dir: &resolve(name)?,
            name: name.to_owned(),
            precision: judge.precision().to_string(),
            command: self.command(name),
            options: self.options(judge),
            kept: None,
            caution: None,
        };
        report::of_evaluation(path, about, analyses, files)
    }

    /// The command with all that its figures depend on.
    fn command(&self, name: &str) -> String {
        let data: Vec<_> = self.data.iter().map(|path| path.display().to_string()).collect();
        let suite = self.suite.and_then(|suite| serde_json::to_value(suite).ok());
        let suite = suite.and_then(|suite| Some(format!(" --suite {}", suite.as_str()?))).unwrap_or_default();
        let precision = self.precision.map_or(String::new(), |precision| format!(" --precision {precision}"));
        let literal = if self.literal { " --literal" } else { "" };
        let (bootstrap, seed) = (self.bootstrap, self.seed);
        format!(
            "kudos eval {}{suite} --judge {name}{precision}{literal} --bootstrap {bootstrap} --seed {seed} --report report.html",
            data.join(" ")
        )
    }

    /// Prints the table, or the JSON, or writes the JSON and prints the table, as `--json` says.
    fn print(&self, value: &Value, table: &str) -> anyhow::Result<()> {
        match &self.json {
            Some(path) if path.as_os_str() == "-" => outln!("{value:#}"),
            Some(path) => {
                let text = format!("{value:#}\n");
                kudos::files::write(path, text.as_bytes()).with_context(|| path.display().to_string())?;
                out!("{table}");
            }
            None => out!("{table}"),
        }
        Ok(())
    }
}

/// The judged groups of a file with the judge's scores.
struct ScoredFile {
    file: String,
    groups: Vec<Group>,
    scores: Vec<Vec<f32>>,
    attributes: BTreeMap<String, AttributeMetrics>,
    truncated: usize,
}

impl ScoredFile {
    fn new(judge: &mut Scorer, loaded: &Loaded, strict: bool, global: &Global) -> anyhow::Result<Self> {
        let names = judge.attributes().to_vec();
        let groups = without_refused(judged_groups(&loaded.groups, &names)?, &[&judge.encoder], strict, global)?;
        let groups = judged_groups(&groups, &names)?;
        let (rated, truncated) = rate_groups(judge, &groups, global)?;
        let scores = overall(&rated);
        let outputs = |group: Vec<Rated>| group.into_iter().map(|r| r.attributes).collect();
        let outputs: Vec<Vec<Vec<f32>>> = rated.into_iter().map(outputs).collect();
        let attributes = attribute_metrics(&names, &groups, &outputs);
        let file = loaded.files.first().context("no file was read")?.file.clone();
        Ok(Self { file, groups, scores, attributes, truncated })
    }

    fn report(&self, options: &EvalOptions) -> anyhow::Result<DataReport> {
        let mut report = evaluate(&self.file, &self.groups, &self.scores, options)?;
        report.truncated = Some(self.truncated);
        report.attributes = self.attributes.clone();
        Ok(report)
    }

    fn analysis(&self, options: &EvalOptions) -> anyhow::Result<Analysis> {
        let options = AnalysisOptions { eval: *options, ..AnalysisOptions::default() };
        let mut analysis = analyse(&self.file, &self.groups, &self.scores, &options)?;
        analysis.data.truncated = Some(self.truncated);
        analysis.data.attributes = self.attributes.clone();
        Ok(analysis)
    }
}

/// The groups that say which response is better, or rate one of these attributes; an error if there are none.
fn judged_groups(groups: &[Group], attributes: &[String]) -> anyhow::Result<Vec<Group>> {
    let labelled = |g: &&Group| !g.comparisons.is_empty() || is_rated(g, attributes);
    let groups: Vec<Group> = groups.iter().filter(labelled).cloned().collect();
    match groups.is_empty() {
        true => bail!(
            "nothing to evaluate on: no row says which response is better (expected ranks, pairs, labels or scores, or ratings of the judge's attributes)"
        ),
        false => Ok(groups),
    }
}

/// The overall score of each response.
pub fn overall(rated: &[Vec<Rated>]) -> Vec<Vec<f32>> {
    rated.iter().map(|group| group.iter().map(|r| r.scored.score).collect()).collect()
}

/// Overall scores of all responses of all groups, and how many were cut.
pub fn score_groups(judge: &mut Scorer, groups: &[Group], global: &Global) -> anyhow::Result<(Vec<Vec<f32>>, usize)> {
    let (rated, truncated) = rate_groups(judge, groups, global)?;
    Ok((overall(&rated), truncated))
}

/// Scores and outputs of all responses of all groups, and how many were cut.
pub fn rate_groups(judge: &mut Scorer, groups: &[Group], global: &Global) -> anyhow::Result<(Vec<Vec<Rated>>, usize)> {
    let mut progress = Progress::new(Some(groups.len() as u64), "groups", global.quiet);
    let (mut rated, mut truncated) = (Vec::with_capacity(groups.len()), 0);
    for chunk in groups.chunks(128) {
        let inputs: Vec<Input> =
            chunk.iter().flat_map(|g| g.responses.iter().map(|r| (g.prompt.as_ref(), &r.content))).collect();
        let mut found = judge.rate(&inputs)?.into_iter();
        for group in chunk {
            let own: Vec<_> = found.by_ref().take(group.responses.len()).collect();
            truncated += own.iter().filter(|r| r.scored.truncated).count();
            rated.push(own);
        }
        interrupt::check()?;
        progress.set(rated.len() as u64, "");
    }
    progress.finish();
    Ok((rated, truncated))
}
