//! `kudos eval`: how good a judge is on data it was not trained on.

use super::{Global, announce_precision, choice, load_judge, train::report_problems};
use crate::display::Progress;
use crate::interrupt;
use anyhow::{Context, bail};
use kudos::data::{Group, Loaded, Options, load_groups};
use kudos::eval::{DataReport, EvalOptions, attribute_metrics, evaluate, render_table};
use kudos::models::{Input, Rated, RewardModel};
use kudos::nn::Precision;
use kudos::train::is_rated;
use serde_json::json;
use std::path::PathBuf;

/// Measure a judge: accuracy with its interval, rank correlations, calibration, length.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos eval test.jsonl --judge judge
  kudos eval llmbar.jsonl pandalm.jsonl --judge judge --json report.json
  kudos eval test.csv --judge judge --json | jq '.data[0].accuracy'")]
pub struct Args {
    /// Labelled data: rankings, pairs, comparisons or groups; `-` is standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// Judge directory
    #[arg(long, value_name = "JUDGE")]
    judge: String,
    /// Arithmetic: f32, bf16 or int8 [default: int8 if the judge is stored so, else bf16 where the processor has it]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Write the report as JSON to FILE; without FILE, print it instead of the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Resamples of the bootstrap behind the interval
    #[arg(long, value_name = "N", default_value_t = 2000)]
    bootstrap: usize,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Make the first unusable row an error
    #[arg(long)]
    strict: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let mut judge = load_judge(&args.judge, args.precision)?;
    announce_precision(&judge, global);
    let temperature = judge.reward.calibration.map_or(1.0, |c| c.temperature);
    let options = EvalOptions { bootstrap: args.bootstrap, seed: args.seed, temperature };
    let mut reports = Vec::new();
    for path in &args.data {
        let loaded = load_groups(&[path], &Options { strict: args.strict, ..Options::default() })?;
        report_problems(&loaded, global);
        reports.push(report(&mut judge, &loaded, &options, global).with_context(|| path.display().to_string())?);
    }
    let value = json!({"judge": args.judge, "data": reports});
    match &args.json {
        Some(path) if path.as_os_str() == "-" => outln!("{value:#}"),
        Some(path) => {
            kudos::files::write(path, format!("{value:#}\n").as_bytes()).with_context(|| path.display().to_string())?;
            out!("{}", render_table(&reports));
        }
        None => out!("{}", render_table(&reports)),
    }
    Ok(())
}

fn report(
    judge: &mut RewardModel,
    loaded: &Loaded,
    options: &EvalOptions,
    global: &Global,
) -> anyhow::Result<DataReport> {
    let names = judge.attributes().to_vec();
    let labelled = |g: &&Group| !g.comparisons.is_empty() || is_rated(g, &names);
    let groups: Vec<Group> = loaded.groups.iter().filter(labelled).cloned().collect();
    if groups.is_empty() {
        bail!(
            "nothing to evaluate on: no row says which response is better (expected ranks, pairs, labels or scores, or ratings of the judge's attributes)"
        );
    }
    let (rated, truncated) = rate_groups(judge, &groups, global)?;
    let scores = overall(&rated);
    let name = &loaded.files.first().context("no file was read")?.file;
    let mut report = evaluate(name, &groups, &scores, options)?;
    report.truncated = Some(truncated);
    if !names.is_empty() {
        let outputs: Vec<Vec<Vec<f32>>> =
            rated.into_iter().map(|group| group.into_iter().map(|r| r.attributes).collect()).collect();
        report.attributes = attribute_metrics(&names, &groups, &outputs);
    }
    Ok(report)
}

/// The overall score of each response.
pub fn overall(rated: &[Vec<Rated>]) -> Vec<Vec<f32>> {
    rated.iter().map(|group| group.iter().map(|r| r.scored.score).collect()).collect()
}

/// Overall scores of all responses of all groups, and how many were cut.
pub fn score_groups(
    judge: &mut RewardModel,
    groups: &[Group],
    global: &Global,
) -> anyhow::Result<(Vec<Vec<f32>>, usize)> {
    let (rated, truncated) = rate_groups(judge, groups, global)?;
    Ok((overall(&rated), truncated))
}

/// Scores and outputs of all responses of all groups, and how many were cut.
pub fn rate_groups(
    judge: &mut RewardModel,
    groups: &[Group],
    global: &Global,
) -> anyhow::Result<(Vec<Vec<Rated>>, usize)> {
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
