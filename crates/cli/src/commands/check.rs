//! `kudos check`: what is wrong with this data, before training on it.

use super::data::DataArgs;
use anyhow::bail;
use kudos::data::check::{self, Baseline, CheckOptions, EncodedInfo, Finding, Ratings, Report, Severity, Understood};
use kudos::data::{Content, FileInfo, Kind};
use kudos::models::{Config, Input};
use kudos::text::{Encoded, Encoder, TextError};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Say what is wrong with preference data, before training on it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos check rankings.csv
  kudos check train.jsonl --eval test.jsonl
  kudos check pairs.parquet --base distilbert-base-uncased --max-length 512
  kudos check *.jsonl.gz --json > findings.json

It finds unusable rows, contradictions, duplicates, leaks and shortcuts such as
length, and names the file and line of each.
The exit status is 1 if DATA and --eval share a prompt.")]
pub struct Args {
    /// Files in any layout that Kudos reads; `-` is standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// Data for evaluation; a prompt that DATA has too is an error
    #[arg(long, num_args = 1.., value_name = "FILE")]
    eval: Vec<PathBuf>,
    /// Base or judge whose tokenizer counts the tokens of each text
    #[arg(long, value_name = "M")]
    base: Option<String>,
    /// Tokens that a prompt and a response may have together [default: the base's limit]
    #[arg(long, value_name = "N", requires = "base")]
    max_length: Option<usize>,
    #[command(flatten)]
    input: DataArgs,
    /// Exit with status 1 if any row cannot be used
    #[arg(long)]
    strict: bool,
    /// Places to show of each finding; --json has all
    #[arg(long, default_value_t = 5, value_name = "N")]
    show: usize,
}

/// Runs the command.
pub fn run(args: &Args, global: &super::Global) -> anyhow::Result<()> {
    let paths: Vec<&PathBuf> = args.data.iter().chain(&args.eval).collect();
    let loaded = super::data::load_groups(&paths, &args.input.options(false)?)?;
    let encoder = args.base.as_deref().map(|base| encoder_for(base, args.max_length)).transpose()?;
    let failed = RefCell::new(None);
    let encode =
        encoder.as_ref().map(|e| |prompt: Option<&Content>, response: &Content| encode(e, &failed, (prompt, response)));
    let encode: Option<&check::Encode> = encode.as_ref().map(|e| e as &check::Encode);
    let eval_from = (!args.eval.is_empty()).then_some(args.data.len());
    let report = check::run(&loaded, &CheckOptions { encode, eval_from });
    let text = if global.json { serde_json::to_string_pretty(&report)? + "\n" } else { render(&report, args.show) };
    out!("{text}");
    if let Some(error) = failed.take() {
        return Err(error.into());
    }
    verdict(&report, args.strict)
}

/// The tokenizer of `base`, with the token limit training would use.
fn encoder_for(base: &str, max_length: Option<usize>) -> anyhow::Result<Encoder> {
    let base = super::resolve(base)?;
    let config = Config::read(&base)?;
    Ok(Encoder::load(&base, super::encode_settings(&base, &config, max_length, None)?)?)
}

/// Encodes for the report. An error that is not about the text alone ends the command after the run.
fn encode(encoder: &Encoder, failed: &RefCell<Option<TextError>>, input: Input) -> Result<EncodedInfo, String> {
    read(encoder, input).map_err(|error| {
        let reason = error.to_string();
        if !error.is_about_the_text() {
            failed.borrow_mut().get_or_insert(error);
        }
        reason
    })
}

/// What the model reads of a text.
fn read(encoder: &Encoder, (prompt, response): Input) -> Result<EncodedInfo, TextError> {
    let Encoded { ids, tokens_before_truncation, .. } = encoder.encode(prompt, response)?;
    let control_tokens = encoder.control_tokens(prompt, response);
    let rewritten = !encoder.keeps_response(prompt, response)?;
    Ok(EncodedInfo { ids, tokens_before_truncation, control_tokens, rewritten })
}

/// Exit status 1 for errors, and under `--strict` for unusable rows.
fn verdict(report: &Report, strict: bool) -> anyhow::Result<()> {
    let first = |finding: &Finding| match finding.places.first() {
        Some(place) => format!("{}:{}: {}", place.file, place.line, finding.message),
        None => finding.message.to_owned(),
    };
    if let Some(error) = report.findings.iter().find(|finding| finding.severity == Severity::Error) {
        bail!("{} ({} in all)", first(error), counted(error.count, "place"));
    }
    let refused = report.findings.iter().find(|finding| finding.code == "refused").filter(|_| strict);
    if let Some(refused) = refused {
        bail!("{} ({} in all; expected none under --strict)", first(refused), counted(refused.count, "response"));
    }
    if strict && report.unusable > 0 {
        let unusable = report.findings.first().map(first).unwrap_or_default();
        bail!("{unusable} ({} unusable rows in all; expected none under --strict)", report.unusable);
    }
    Ok(())
}

/// The report for people.
fn render(report: &Report, show: usize) -> String {
    let mut text = report.files.iter().map(|file| understood(report, file)).collect::<String>();
    text += &table(report);
    let _ = writeln!(text, "\n{}", headline(report));
    for (name, Ratings { ratings, missing, min, max, mean }) in &report.attributes {
        let rated = counted(*ratings, "rating");
        let _ = writeln!(text, "attribute {name}: {rated} from {min} to {max}, mean {mean:.2}; {missing} missing");
    }
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        for finding in report.findings.iter().filter(|finding| finding.severity == severity) {
            text += &paragraph(finding, show);
        }
    }
    if report.findings.is_empty() {
        text += "\nNothing wrong was found.\n";
    }
    text
}

/// What a file was read as, which way its verdicts run, and its first preferences as they were understood.
fn understood(report: &Report, file: &FileInfo) -> String {
    let mut text = String::new();
    let direction = file.kind.map_or("no usable row", Kind::direction);
    let kind = file.kind.map_or(String::new(), |kind| format!("{kind}: "));
    let read = file.layout.clone().unwrap_or_else(|| format!("{kind}{direction}"));
    let _ = writeln!(text, "{}: read as {read}", file.file);
    file.notes.iter().for_each(|note| text += &format!("  note: {note}\n"));
    for Understood { line, prompt, earlier_turns, better, worse, .. } in
        report.understood.iter().filter(|u| u.file == file.file)
    {
        let earlier = match earlier_turns {
            0 => String::new(),
            turns => format!(" (after {})", counted(*turns, "earlier turn")),
        };
        let prompt = prompt.as_ref().map_or("none: whole transcripts".to_owned(), |prompt| cut(prompt));
        let _ = writeln!(
            text,
            "  line {line}  prompt  {prompt}{earlier}\n          better  {}\n          worse   {}",
            cut(better),
            cut(worse)
        );
    }
    text + "\n"
}

/// A text cut to a line of a terminal.
fn cut(text: &str) -> String {
    const WIDTH: usize = 76;
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", text[..end].trim_end_matches('…')),
        None => text.to_owned(),
    }
}

const HEADER: [&str; 7] = ["file", "rows", "unusable", "groups", "pairs", "ties", "kind"];

fn table(report: &Report) -> String {
    let line = |file: &FileInfo| {
        let kinds: Vec<String> = file.kinds.keys().map(ToString::to_string).collect();
        let numbers = [file.rows, file.unusable, file.groups as u64, file.pairs as u64, file.ties as u64];
        let mut cells = vec![file.file.clone()];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(kinds.join(", "));
        cells
    };
    let mut lines = vec![HEADER.map(str::to_owned).to_vec()];
    lines.extend(report.files.iter().map(line));
    aligned(&lines)
}

/// Columns under each other: the first and the last to the left, numbers to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for cells in lines {
        text += &format!("{:<1$}", cells[0], widths[0]);
        for column in 1..HEADER.len() - 1 {
            text += &format!("  {:>1$}", cells[column], widths[column]);
        }
        text += &format!("  {}\n", cells[HEADER.len() - 1]);
    }
    text
}

fn headline(report: &Report) -> String {
    let mut text = format!("{}, {}", counted(report.prompts, "prompt"), counted(report.pairs, "pair"));
    let rules = [("\"the longer wins\"", report.longer_wins), ("\"the first listed wins\"", report.first_listed_wins)];
    for (rule, baseline) in rules {
        if let Some(Baseline { accuracy, pairs }) = baseline {
            text += &format!("\n{rule} is right in {:.1} % of {}", 100.0 * accuracy, counted(pairs, "pair"));
        }
    }
    text
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn paragraph(finding: &Finding, show: usize) -> String {
    let name = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut text = format!("\n{name}: {} ({})\n", finding.message, counted(finding.count, "place"));
    for place in finding.places.iter().take(show) {
        let _ = writeln!(text, "  {}:{}  {}", place.file, place.line, place.detail);
    }
    if finding.count > show {
        let _ = writeln!(text, "  and {} more (--show {}, or --json for all)", finding.count - show, finding.count);
    }
    text
}
