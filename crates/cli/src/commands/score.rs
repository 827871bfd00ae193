//! `kudos score`: the judge's number for every response, rows in order, at constant memory.

use super::columns::Added;
use super::data::{self, DataArgs};
use super::shard::{self, Shard};
use super::{Global, announce_precision, attributes, choice, load_judge_for, refused::refusal, wrong_usage};
use crate::display::Progress;
use crate::interrupt;
use anyhow::{Context, bail};
use kudos::data::{
    Content, DataError, Encoding, FIRST_ROWS, Location, Options, OutputFormat, Reader, Record, Row, RowProblem, Writer,
};
use kudos::models::{Calibration, Input, Rated, Scorer};
use kudos::nn::Precision;
use kudos::text::{Encoded, Encoder};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// Score the responses of a file, or one response.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos score answers.csv --judge judge -o scored.csv
  kudos score pairs.jsonl.gz --judge judge > scored.jsonl
  kudos score --prompt 'Why is the sky blue?' --response 'It mirrors the sea.'
  kudos score *.parquet --judge judge -o scores --shard 1/4

A score has no unit and no zero: compare it with that of another response to the
same prompt.
A judge that was trained with --attributes adds a column for each: score_NAME
beside score, score_chosen_NAME beside score_chosen, scores_NAME beside scores.

--shard 2/4 does the second of four shares of a job, for machines that see one
file system. -o is then the job's directory. The same command does what is
missing, whatever died; `kudos collect` joins the parts. See docs/cluster.md.")]
pub struct Args {
    /// Rows to score, in any layout that Kudos reads; `-` is standard input. Several files with --shard
    #[arg(value_name = "DATA", required_unless_present = "response", conflicts_with = "response")]
    pub(super) data: Vec<PathBuf>,
    /// The judge: a directory, or a name that `kudos pull` knows
    #[arg(long, value_name = "JUDGE", default_value = crate::boxed::NAME)]
    pub(super) judge: String,
    /// Arithmetic: f32, bf16 or int8 [default: int8 if the judge is stored so, else the fastest here]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    pub(super) precision: Option<Precision>,
    /// The prompt of --response
    #[arg(long, value_name = "TEXT", requires = "response")]
    prompt: Option<String>,
    /// A response to score; its number is printed alone. Without --prompt it is a whole transcript
    #[arg(long, value_name = "TEXT")]
    response: Option<String>,
    /// File to write: .jsonl, .json, .csv or .parquet, also .gz and .zst; with --shard a directory [default: JSONL on standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Do share I of N of the job that -o holds, and what is missing of it alone
    #[arg(long, value_name = "I/N", requires_all = ["data", "output"])]
    pub(super) shard: Option<Shard>,
    /// Responses of a unit of the job, which is what the death of a process may cost [default: 1024]
    #[arg(long, value_name = "N", requires = "shard", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(super) unit_size: Option<u64>,
    /// Put TEXT before the name of every column that is added [default: none; `kudos_` where the input has the name]
    #[arg(long, value_name = "TEXT", requires = "data")]
    pub(super) prefix: Option<String>,
    #[command(flatten)]
    pub(super) input: DataArgs,
    /// Stop at the first row that cannot be used
    #[arg(long)]
    pub(super) strict: bool,
    /// Read control tokens inside texts (`<|im_end|>`, `[SEP]`, …) as plain text [default: as the judge was trained]
    #[arg(long)]
    pub(super) literal: bool,
    /// Print the number of --response as JSON, with its tokens and attributes
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it is a job in shares.
    pub fn is_sharded(&self) -> bool {
        self.shard.is_some()
    }
}

/// Rows read, scored and written at a time.
pub(super) const WINDOW: usize = 512;

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    if let Some(shard) = args.shard {
        return shard::run(args, shard, global);
    }
    if args.data.len() > 1 {
        wrong_usage!("expected one file, found {}; --shard 1/1 -o DIR scores several", args.data.len());
    }
    let mut judge = load_judge_for(&args.judge, args.precision, args.literal)?;
    match (&args.response, args.data.first()) {
        (Some(response), _) => one(args, &mut judge, response, global),
        (None, Some(data)) => file(args, &mut judge, data, global),
        (None, None) => bail!("expected DATA, or --response"),
    }
}

fn one(args: &Args, judge: &mut Scorer, response: &str, global: &Global) -> anyhow::Result<()> {
    let prompt = args.prompt.clone().map(Content::Text);
    let response = Content::Text(response.to_owned());
    let rated = judge.rate(&[(prompt.as_ref(), &response)])?.remove(0);
    let scored = rated.scored;
    let control_tokens = judge.encoder.control_tokens(prompt.as_ref(), &response);
    match args.json {
        true => {
            let mut found = json!({"score": scored.score, "tokens": scored.tokens, "truncated": scored.truncated});
            if control_tokens > 0 {
                found["control_tokens"] = control_tokens.into();
            }
            if !judge.attributes().is_empty() {
                found["attributes"] = attributes::object(judge.attributes(), &rated);
            }
            outln!("{found}");
        }
        false => outln!("{}", scored.score),
    }
    if scored.truncated {
        say!("kudos: the text was cut to {} tokens", scored.tokens);
    }
    if control_tokens > 0 {
        say!("kudos: the texts hold {}; --literal reads them as plain text", of_control(control_tokens));
    }
    if !global.quiet {
        say!("{}", meaning(judge.reward.calibration.as_ref(), scored.score));
    }
    Ok(())
}

/// So many control tokens, in words.
pub(super) fn of_control(count: usize) -> String {
    format!(
        "{count} control token{}, which the judge takes for the end of a turn or a text",
        if count == 1 { "" } else { "s" }
    )
}

/// What a single score says, which is little.
fn meaning(calibration: Option<&Calibration>, score: f32) -> String {
    let rule = "A score has no unit and no zero: compare it with that of another response to the same prompt.";
    match calibration {
        Some(calibration) => {
            let Calibration { mean, std, .. } = calibration;
            let chance = 100.0 * calibration.beats_typical(score);
            // Two digits of the spread, which is tiny where little was learnt.
            let digits = if *std > 0.0 { (1.0 - std.log10().floor()).clamp(2.0, 7.0) as usize } else { 2 };
            format!(
                "{chance:.0} % likely, by this judge, to be better than a typical response of its training (scores there: \
                 {mean:.digits$} ± {std:.digits$}). {rule}"
            )
        }
        None => rule.to_owned(),
    }
}

/// What was met on the way.
#[derive(Default)]
struct Tally {
    rows: u64,
    responses: usize,
    tokens: usize,
    truncated: u64,
    unusable: u64,
    first_problem: Option<RowProblem>,
    control: Control,
    /// Whether the output is a table, whose columns its first rows decide.
    table: bool,
}

/// Rows whose texts hold control tokens.
#[derive(Default)]
struct Control {
    rows: u64,
    tokens: usize,
    first: Vec<Location>,
    /// Whether one of them stands among the rows that decide the columns of a table.
    early: bool,
}

/// Rows that were read together, with their texts as ids.
#[derive(Default)]
struct Window {
    rows: Vec<Row>,
    /// Texts of all rows, in the order of their score columns.
    encoded: Vec<Encoded>,
    /// Control tokens in the texts of each row.
    control: Vec<usize>,
    problems: Vec<RowProblem>,
    /// What is to be said of the file, in the last window.
    said: Option<(Option<String>, Vec<String>)>,
}

/// Reads and encodes one window ahead on its own thread while the model computes; memory is two windows.
fn file(args: &Args, judge: &mut Scorer, data: &Path, global: &Global) -> anyhow::Result<()> {
    let options = Options { labelled: false, ..args.input.options(args.strict)? };
    // A column that only a late row has must not meet one of ours, so a file is looked through first.
    let mut added = Added::beside(data::column_names(data, &options)?.unwrap_or_default(), args.prefix.as_deref());
    let reader = data::open(data, &options)?;
    let output = args.output.clone().unwrap_or_else(|| "-".into());
    let mut writer = Writer::create(&output, OutputFormat::of_name(&output))?;
    let mut progress = Progress::new(None, "rows", global.quiet || args.output.is_none());
    announce_precision(judge, global);
    let table = matches!(OutputFormat::of_name(&output).encoding, Encoding::Csv | Encoding::Parquet);
    let mut tally = Tally { table, ..Tally::default() };
    let encoder = judge.encoder.clone();
    let name = data.to_string_lossy().into_owned();
    let (sender, windows) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || read_windows(reader, &encoder, args.strict, &sender));
        for window in windows {
            let mut window = window?;
            if let Some((layout, notes)) = window.said.take().filter(|_| !global.quiet) {
                data::say(&name, layout.as_deref(), &notes);
            }
            score_window(judge, window, &mut writer, &mut tally, &mut added)?;
            if !global.quiet {
                added.notes().iter().for_each(|note| say!("{note}"));
            }
            interrupt::check()?;
            progress.set(tally.rows, &format!("{} tokens", tally.tokens));
        }
        if tally.responses == 0 {
            bail!("{}", nothing_scored(&data.to_string_lossy(), tally.unusable, tally.first_problem.as_ref()));
        }
        writer.finish()?;
        progress.finish();
        summarise(&tally, global);
        Ok(())
    })
}

/// Sends the file window by window, until its end, an error, or nobody listens.
fn read_windows(mut reader: Reader, encoder: &Encoder, strict: bool, sender: &SyncSender<anyhow::Result<Window>>) {
    let mut window = Window::default();
    for row in reader.by_ref() {
        match add_row(&mut window, row, encoder, strict) {
            Ok(()) if window.rows.len() < WINDOW => {}
            Ok(()) => {
                if sender.send(Ok(std::mem::take(&mut window))).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        }
    }
    window.said = Some((reader.layout().map(str::to_owned), reader.notes()));
    let _ = sender.send(Ok(window));
}

fn add_row(window: &mut Window, row: Result<Row, DataError>, encoder: &Encoder, strict: bool) -> anyhow::Result<()> {
    match row {
        Ok(row) => {
            let texts = inputs(&row.record);
            match texts
                .iter()
                .map(|(prompt, response)| encoder.encode(*prompt, response))
                .collect::<Result<Vec<_>, _>>()
            {
                Ok(encoded) => window.encoded.extend(encoded),
                Err(error) => {
                    let problem = RowProblem { location: row.location.clone(), kind: refusal(error)? };
                    return refuse(&mut window.problems, problem, strict);
                }
            }
            let control = texts.iter().map(|(prompt, response)| encoder.control_tokens(*prompt, response)).sum();
            window.control.push(control);
            window.rows.push(row);
        }
        Err(DataError::Row(problem)) => refuse(&mut window.problems, problem, strict)?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A row that is not scored, or with `strict` an error.
pub(super) fn refuse(problems: &mut Vec<RowProblem>, problem: RowProblem, strict: bool) -> anyhow::Result<()> {
    if strict {
        return Err(DataError::Row(problem).into());
    }
    say!("not scored: {problem}");
    problems.push(problem);
    Ok(())
}

impl Control {
    /// First rows that are named at the end.
    const SHOWN: usize = 3;

    /// Counts a row of the output, `number` from 1.
    fn add(&mut self, row: &Row, number: u64, tokens: usize) {
        if tokens > 0 {
            self.early |= number <= FIRST_ROWS as u64;
            self.rows += 1;
            self.tokens += tokens;
            self.first.extend((self.first.len() < Self::SHOWN).then(|| row.location.clone()));
        }
    }

    /// Whether the row that was counted last gets a column. A table has the columns of its first rows, so a later row
    /// is marked there only if one of them is.
    fn marks(&self, tokens: usize, table: bool) -> bool {
        tokens > 0 && (!table || self.early)
    }

    fn report(&self) {
        if self.rows > 0 {
            let first: Vec<String> = self.first.iter().map(ToString::to_string).collect();
            let more = if self.rows as usize > first.len() { ", …" } else { "" };
            say!(
                "{} rows hold {} (column `control_tokens`): {}{more}; --literal reads them as plain text",
                self.rows,
                of_control(self.tokens),
                first.join(", ")
            );
        }
    }
}

fn summarise(tally: &Tally, global: &Global) {
    if global.quiet {
        return;
    }
    let Tally { rows, responses, tokens, truncated, unusable, .. } = tally;
    say!("scored {responses} responses in {rows} rows ({tokens} tokens)");
    if *truncated > 0 {
        say!("{truncated} rows hold a text that was cut to the token limit (column `truncated`)");
    }
    tally.control.report();
    if *unusable > 0 {
        say!("{unusable} rows could not be used and are not in the output");
    }
}

/// What to say instead of a result without rows.
pub fn nothing_scored(data: &str, unusable: u64, first: Option<&RowProblem>) -> String {
    let why = first.map_or_else(|| "no row has a response".to_owned(), |first| format!("the first: {first}"));
    format!("{data}: expected a response to score, found none ({unusable} unusable rows, {why}); run `kudos check`")
}

fn score_window(
    judge: &mut Scorer,
    window: Window,
    writer: &mut Writer,
    tally: &mut Tally,
    added: &mut Added,
) -> anyhow::Result<()> {
    window.rows.iter().try_for_each(|row| added.meet(&row.original).with_context(|| row.location.to_string()))?;
    let rated = judge.rate_encoded(&window.encoded)?;
    let mut rest = rated.as_slice();
    for (row, control) in window.rows.iter().zip(&window.control) {
        let (own, after) = rest.split_at(inputs(&row.record).len());
        rest = after;
        tally.rows += 1;
        tally.responses += own.len();
        tally.tokens += own.iter().map(|r| r.scored.tokens).sum::<usize>();
        tally.truncated += u64::from(own.iter().any(|r| r.scored.truncated));
        tally.control.add(row, tally.rows, *control);
        let mut output = with_scores(row, own, judge.attributes(), added);
        if tally.control.marks(*control, tally.table) {
            output.insert(added.name("control_tokens"), json!(control));
        }
        writer.write(&output)?;
    }
    tally.unusable += window.problems.len() as u64;
    tally.first_problem = tally.first_problem.take().or_else(|| window.problems.into_iter().next());
    Ok(())
}

/// The texts of a row, in the order of its score columns.
pub fn inputs(record: &Record) -> Vec<Input<'_>> {
    match record {
        Record::Ranked { prompt, response, .. } | Record::Unlabelled { prompt, response, .. } => {
            vec![(Some(prompt), response)]
        }
        Record::Pair { prompt, chosen, rejected, .. } => {
            vec![(prompt.as_ref(), chosen), (prompt.as_ref(), rejected)]
        }
        Record::Comparison { prompt, a, b, .. } => vec![(prompt.as_ref(), a), (prompt.as_ref(), b)],
        Record::Group { prompt, responses, .. } => responses.iter().map(|r| (Some(prompt), &r.content)).collect(),
    }
}

/// The row with its score columns, `tokens` and `truncated` added, under names that it does not have.
pub(super) fn with_scores(row: &Row, rated: &[Rated], names: &[String], added: &mut Added) -> Map<String, Value> {
    let mut output = row.original.clone();
    let new = score_columns(&row.record, rated, names);
    output.extend(new.into_iter().map(|(column, value)| (added.name(&column), value)));
    output
}

/// What is added to a row: its score columns, `tokens` and `truncated`. Beside each score column stands one for each attribute
/// of the judge: `score` and `score_NAME`, `scores` and `scores_NAME`, ….
pub fn score_columns(record: &Record, rated: &[Rated], names: &[String]) -> Vec<(String, Value)> {
    let number = |values: Vec<f32>| json!(values[0]);
    let columns = |column: &str, rated: &[Rated]| attributes::score_columns(names, column, rated, number);
    let mut new = match record {
        Record::Ranked { .. } | Record::Unlabelled { .. } => columns("score", rated),
        Record::Pair { .. } => [columns("score_chosen", &rated[..1]), columns("score_rejected", &rated[1..])].concat(),
        Record::Comparison { .. } => [columns("score_a", &rated[..1]), columns("score_b", &rated[1..])].concat(),
        Record::Group { .. } => attributes::score_columns(names, "scores", rated, |values| json!(values)),
    };
    new.push(("tokens".to_owned(), json!(rated.iter().map(|r| r.scored.tokens).sum::<usize>())));
    new.push(("truncated".to_owned(), json!(rated.iter().any(|r| r.scored.truncated))));
    new
}
