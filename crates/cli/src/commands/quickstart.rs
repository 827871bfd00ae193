//! `kudos quickstart`: the whole loop on the bundled example, each stage with the command that does it on
//! the user's own data.

use super::{Global, eval, generate, load_judge, pull, train};
use crate::display::{meter, one_line};
use anyhow::Context;
use kudos::data::{Content, Group, Options, OutputFormat, Reader, Writer, load_groups};
use kudos::eval::{EvalOptions, evaluate, render_table};
use kudos::models::Scorer;
use std::path::{Path, PathBuf};

/// Show the whole loop on a bundled example: check, train, evaluate, score.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos quickstart
  kudos quickstart --dir /tmp/first-judge --base distilbert-base-uncased")]
pub struct Args {
    /// Directory for the example's files and the judge
    #[arg(long, value_name = "DIR", default_value = "kudos-quickstart")]
    dir: PathBuf,
    /// What training starts from: a directory or a name, which is fetched if it is not here
    #[arg(long, value_name = "M", default_value = crate::boxed::QUICK_BASE)]
    base: String,
    /// Training steps
    #[arg(long, value_name = "N", default_value_t = 100)]
    steps: u64,
}

const ANSWERS: &str = include_str!("../../../../examples/answers.csv");
const NEW_ANSWERS: &str = include_str!("../../../../examples/new_answers.jsonl");

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let files = Files::write(&args.dir)?;
    fetch_base(args, global)?;
    look_at_data(&files, global)?;
    heading(global, "Train a judge", &format!("kudos train rankings.csv --base {} -o judge", args.base));
    let (data, held_out) = (files.train.clone(), files.held_out.clone());
    train::run(&train::Args::plain(data, held_out, args.base.clone(), files.judge.clone(), args.steps), global)?;
    let judge = files.judge.display().to_string();
    measure(&files, &judge, global)?;
    score(&files, &judge, global)?;
    generate_and_score(&judge, global)?;
    if !global.quiet {
        outln!("\nThe judge is in {judge}; transformers loads it too. The example's files are beside it.");
        outln!(
            "Your own answers: `kudos rank answers.csv` opens a page to rank them (columns prompt, answer). It prints"
        );
        outln!("the database of the rankings, which stands in the place of rankings.csv in the commands above.");
    }
    Ok(())
}

fn heading(global: &Global, what: &str, command: &str) {
    if !global.quiet {
        outln!("\n== {what}\n   {command}\n");
    }
}

/// The example's files, written out so that the commands can be tried on them.
struct Files {
    train: PathBuf,
    held_out: PathBuf,
    new: PathBuf,
    judge: PathBuf,
}

impl Files {
    fn write(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let files = Self {
            train: dir.join("train.csv"),
            held_out: dir.join("held-out.csv"),
            new: dir.join("new_answers.jsonl"),
            judge: dir.join("judge"),
        };
        write_part("train", &files.train)?;
        write_part("held-out", &files.held_out)?;
        kudos::files::write(&files.new, NEW_ANSWERS.as_bytes())?;
        Ok(files)
    }
}

/// Writes the rows of the bundled rankings whose column `split` says `name`.
fn write_part(name: &str, path: &Path) -> anyhow::Result<()> {
    let reader = Reader::from_bytes("examples/answers.csv", ANSWERS.as_bytes().to_vec(), &Options::default())?;
    let mut writer = Writer::create(path, OutputFormat::of_name(path))?;
    for row in reader {
        let mut row = row?.original;
        if row.shift_remove("split").is_some_and(|split| split == name) {
            writer.write(&row)?;
        }
    }
    let rows = writer.finish()?;
    anyhow::ensure!(rows > 0, "the bundled rankings have no rows for {name}");
    Ok(())
}

fn fetch_base(args: &Args, global: &Global) -> anyhow::Result<()> {
    match args.base == crate::boxed::NAME {
        true => heading(global, "The base: the small judge that is built in", "nothing to fetch"),
        false => heading(global, "Get a small pretrained base", &format!("kudos pull {}", args.base)),
    }
    match super::resolve(&args.base) {
        Ok(path) => {
            if !global.quiet {
                outln!("{} is there: {}", args.base, path.display());
            }
            Ok(())
        }
        Err(_) => pull::run(&pull::Args::named(&args.base), global),
    }
}

fn look_at_data(files: &Files, global: &Global) -> anyhow::Result<()> {
    heading(global, "Look at the rankings", "kudos check rankings.csv");
    let loaded = load_groups(&[&files.train, &files.held_out], &Options::default())?;
    for file in loaded.files.iter().filter(|_| !global.quiet) {
        outln!("{}: {} rows, {} prompts, {} pairs", file.file, file.rows, file.groups, file.pairs);
    }
    Ok(())
}

/// The groups of a file with the judge's scores of their responses.
fn scored(file: &Path, judge: &mut Scorer, global: &Global) -> anyhow::Result<(Vec<Group>, Vec<Vec<f32>>)> {
    let groups = load_groups(&[file], &Options::default())?.groups;
    let (scores, _) = eval::score_groups(judge, &groups, &Global { quiet: true, ..*global })?;
    Ok((groups, scores))
}

fn measure(files: &Files, judge: &str, global: &Global) -> anyhow::Result<()> {
    heading(global, "Evaluate it on prompts it has not seen", "kudos eval held-out.csv --judge judge");
    let mut judge = load_judge(judge, None)?;
    let (groups, scores) = scored(&files.held_out, &mut judge, global)?;
    let name = files.held_out.display().to_string();
    let options = EvalOptions { temperature: judge.reward.temperature(), ..EvalOptions::default() };
    out!("{}", render_table(&[evaluate(&name, &groups, &scores, &options)?]));
    Ok(())
}

fn score(files: &Files, judge: &str, global: &Global) -> anyhow::Result<()> {
    heading(global, "Score new answers", "kudos score answers.jsonl --judge judge -o scored.jsonl");
    let (groups, scores) = scored(&files.new, &mut load_judge(judge, None)?, global)?;
    let all = scores.concat();
    let low = all.iter().copied().fold(f32::INFINITY, f32::min);
    let high = all.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (group, scores) in groups.iter().zip(&scores) {
        print_group(group, scores, low, high);
    }
    Ok(())
}

/// The model that the quickstart generates with, if it is there.
const GENERATOR: &str = "smollm2-135m-instruct";
/// What it is asked.
const QUESTION: &str = "Why do leaves change colour in autumn?";

/// Responses from a language model, scored by the judge: only where the model was pulled before.
fn generate_and_score(judge: &str, global: &Global) -> anyhow::Result<()> {
    let command = format!("kudos generate --model {GENERATOR} --prompts prompts.txt -o answers.csv");
    if kudos::hub::resolve(GENERATOR).is_err() {
        if !global.quiet {
            outln!("Answers to rank can be generated too: kudos pull {GENERATOR}, then {command}");
        }
        return Ok(());
    }
    heading(global, "Generate answers, and score them", &command);
    let prompt = Content::Text(QUESTION.into());
    let texts = generate::responses(GENERATOR, &prompt, 3)?;
    let responses: Vec<Content> = texts.into_iter().map(Content::Text).collect();
    let inputs: Vec<_> = responses.iter().map(|response| (Some(&prompt), response)).collect();
    let mut scored: Vec<_> = load_judge(judge, None)?.score(&inputs)?.into_iter().zip(&responses).collect();
    scored.sort_by(|a, b| b.0.score.total_cmp(&a.0.score));
    outln!("{QUESTION}");
    for (scored, response) in scored {
        outln!("  {:>7.3} {}", scored.score, one_line(&text_of(response), 100));
    }
    outln!();
    Ok(())
}

/// One prompt with its responses, best first, each with its score and a bar.
fn print_group(group: &Group, scores: &[f32], low: f32, high: f32) {
    outln!("{}", one_line(&group.prompt.as_ref().map(text_of).unwrap_or_default(), 100));
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    for index in order {
        let share = f64::from((scores[index] - low) / (high - low).max(1e-6));
        let text = one_line(&text_of(&group.responses[index].content), 64);
        outln!("  {:>7.3} {} {text}", scores[index], meter(share, 16));
    }
    outln!();
}

fn text_of(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Messages(messages) => messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join(" "),
    }
}
