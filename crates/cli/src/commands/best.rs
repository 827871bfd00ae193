//! `kudos best`: keep the good responses: best of n, the k best, those above a score, the top percent.

use super::columns::Added;
use super::data::DataArgs;
use super::eval::{overall, rate_groups};
use super::score::nothing_scored;
use super::{Global, announce_precision, attributes, choice, load_judge_for, refused, train::report_problems};
use anyhow::bail;
use kudos::data::{Group, Loaded, Options, OutputFormat, Writer};
use kudos::models::{Rated, RewardModel};
use kudos::nn::Precision;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::PathBuf;

/// Keep the responses that a judge scores highest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos best answers.csv --judge judge      the best of each prompt
  kudos best answers.csv --judge judge -k 2 -o best.jsonl
  kudos best answers.jsonl --judge judge --min-score 1.5
  kudos best answers.jsonl --judge judge --top-percent 10 -o sft.parquet
  kudos best answers.jsonl --judge judge --by helpfulness

Only a judge that was trained with --attributes can choose --by one of them.")]
pub struct Args {
    /// Prompts with responses, in any layout that Kudos reads; `-` is standard input
    #[arg(value_name = "DATA", required = true)]
    data: Vec<PathBuf>,
    /// The judge: a directory, or a name that `kudos pull` knows
    #[arg(long, value_name = "JUDGE", default_value = crate::boxed::NAME)]
    judge: String,
    /// Arithmetic: f32, bf16 or int8 [default: int8 if the judge is stored so, else the fastest here]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Keep the K best responses of each prompt [default: 1]
    #[arg(short, value_name = "K", group = "rule", value_parser = clap::value_parser!(u64).range(1..))]
    k: Option<u64>,
    /// Keep every response with a score of at least X
    #[arg(long, value_name = "X", group = "rule", allow_negative_numbers = true)]
    min_score: Option<f32>,
    /// Keep the best P percent of all responses, whatever their prompts
    #[arg(long, value_name = "P", group = "rule", value_parser = percent)]
    top_percent: Option<f64>,
    /// File to write: .jsonl, .json, .csv or .parquet, also .gz and .zst [default: JSONL on standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put TEXT before the name of every column that is added [default: none; `kudos_` where the input has the name]
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    #[command(flatten)]
    input: DataArgs,
    /// Stop at the first row that cannot be used
    #[arg(long)]
    strict: bool,
    /// Read control tokens inside texts (`<|im_end|>`, `[SEP]`, …) as plain text [default: as the judge was trained]
    #[arg(long)]
    literal: bool,
    /// Choose by this attribute of the judge [default: by its overall score]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value),
        _ => Err("expected a number above 0, up to 100".into()),
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let mut judge = load_judge_for(&args.judge, args.precision, args.literal)?;
    let by = attribute_of(&judge, args)?;
    announce_precision(&judge, global);
    let loaded =
        super::data::load_groups(&args.data, &Options { labelled: false, ..args.input.options(args.strict)? })?;
    report_problems(&loaded, global);
    if loaded.groups.is_empty() {
        let data: Vec<_> = args.data.iter().map(|path| path.to_string_lossy()).collect();
        let unusable = loaded.files.iter().map(|file| file.unusable).sum();
        bail!("{}", nothing_scored(&data.join(", "), unusable, loaded.problems.first()));
    }
    let groups = refused::without_refused(loaded.groups.clone(), &[&judge.encoder], args.strict, global)?;
    let (rated, truncated) = rate_groups(&mut judge, &groups, global)?;
    let scores = match by {
        None => overall(&rated),
        Some(by) => rated.iter().map(|group| group.iter().map(|r| r.attributes[by]).collect()).collect(),
    };
    let kept = choose(&scores, args);
    let output = args.output.clone().unwrap_or_else(|| "-".into());
    let mut writer = Writer::create(&output, OutputFormat::of_name(&output))?;
    let mut added = Added::beside(columns_of(&loaded), args.prefix.as_deref());
    let mut count = 0;
    for (group, (rated, kept)) in groups.iter().zip(rated.iter().zip(&kept)) {
        for &index in kept {
            writer.write(&row(group, index, &rated[index], judge.attributes(), &mut added))?;
            count += 1;
        }
    }
    writer.finish()?;
    if !global.quiet {
        added.notes().iter().for_each(|note| say!("{note}"));
        let all: usize = scores.iter().map(Vec::len).sum();
        say!("kept {count} of {all} responses to {} prompts", scores.len());
        if truncated > 0 {
            say!("{truncated} responses were cut to the token limit before they were scored");
        }
    }
    Ok(())
}

/// The output that `--by` names.
fn attribute_of(judge: &RewardModel, args: &Args) -> anyhow::Result<Option<usize>> {
    let Some(by) = &args.by else { return Ok(None) };
    let names = judge.attributes();
    match names.iter().position(|name| name == by) {
        Some(place) => Ok(Some(place)),
        None if names.is_empty() => {
            bail!("--by {by}: the judge {} has one score and no attributes; train one with --attributes", args.judge)
        }
        None => bail!("--by {by}: expected an attribute of the judge {}: {}", args.judge, names.join(", ")),
    }
}

/// Indices of the kept responses of each group, best first.
fn choose(scores: &[Vec<f32>], args: &Args) -> Vec<Vec<usize>> {
    let threshold = match (args.min_score, args.top_percent) {
        (Some(score), _) => Some(score),
        (None, Some(percent)) => Some(top_threshold(scores, percent)),
        (None, None) => None,
    };
    let count = if threshold.is_some() { u64::MAX } else { args.k.unwrap_or(1) };
    let keep = |scores: &Vec<f32>| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.retain(|i| threshold.is_none_or(|t| scores[*i] >= t));
        order.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        order
    };
    scores.iter().map(keep).collect()
}

/// The score of the last response within the top percent (rounded up to whole responses; equal scores all stay).
fn top_threshold(scores: &[Vec<f32>], percent: f64) -> f32 {
    let mut all: Vec<f32> = scores.concat();
    all.sort_by(|a, b| b.total_cmp(a));
    let count = (all.len() as f64 * percent / 100.0).ceil() as usize;
    all.get(count.max(1) - 1).copied().unwrap_or(f32::INFINITY)
}

/// The columns of a kept response that are the data's own, but for its ratings.
const OWN: [&str; 2] = ["prompt", "response"];

/// All columns that rows of the output get from the data.
fn columns_of(loaded: &Loaded) -> HashSet<String> {
    let responses = || loaded.groups.iter().flat_map(|group| &group.responses);
    let extra = responses().flat_map(|response| response.extra.keys().cloned());
    let ratings = responses().flat_map(|response| response.attributes.keys().map(|name| rating(name)));
    extra.chain(ratings).chain(OWN.map(str::to_owned)).collect()
}

fn rating(name: &str) -> String {
    format!("attribute:{name}")
}

/// The kept response with its score, the judge's output for each attribute (`score_NAME`), and the ratings and extra columns
/// of its own row. An extra column that is named as one of [`OWN`] gets another name.
fn row(group: &Group, index: usize, rated: &Rated, names: &[String], added: &mut Added) -> Map<String, Value> {
    let (mut row, response) = (Map::new(), &group.responses[index]);
    if let Some(prompt) = &group.prompt {
        row.insert("prompt".into(), prompt.to_value());
    }
    row.insert("response".into(), response.content.to_value());
    let scores = attributes::score_columns(names, "score", std::slice::from_ref(rated), |values| json!(values[0]));
    row.extend(scores.into_iter().map(|(column, value)| (added.name(&column), value)));
    row.extend(response.attributes.iter().map(|(name, value)| (rating(name), json!(value))));
    for (column, value) in response.extra.iter() {
        let name = if OWN.contains(&column.as_str()) { added.input_name(column) } else { column.clone() };
        row.insert(name, value.clone());
    }
    row
}
