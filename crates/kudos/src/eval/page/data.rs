//! Section 6, second half: what the data are like, and all that is needed to make this again.

use super::ReportInput;
use super::html::{count, counted, escape, name, percent, table};
use crate::data::FileInfo;
use crate::data::check::{Finding, Report, Severity};
use serde_json::Value;

/// Data, settings and hashes.
pub(super) fn section(input: &ReportInput) -> String {
    let checked = input.check.map_or(String::new(), checked);
    let evaluated = match input.files.is_empty() {
        true => String::new(),
        false => format!("<h3>Evaluated on</h3>{}", files(input.files)),
    };
    [evaluated, trained_on(&input.judge.reward), checked, settings(input), hashes(input), again(input)].concat()
}

/// A file's name over its hash.
fn hashed(file: &str, sha256: &str) -> String {
    format!("{}<br/>{}", name(file), hash(sha256))
}

fn hash(sha256: &str) -> String {
    format!("<code class=\"hash\">{}</code>", escape(sha256))
}

fn files(files: &[FileInfo]) -> String {
    let line = |file: &FileInfo| {
        let numbers = [file.rows as usize, file.unusable as usize, file.groups, file.pairs, file.ties];
        let mut cells = vec![hashed(&file.file, &file.sha256)];
        cells.extend(numbers.map(count));
        cells
    };
    let rows: Vec<_> = files.iter().map(line).collect();
    table("", &["file, SHA-256", "rows", "unusable", "groups", "pairs", "ties"], &rows)
}

/// What `reward.json` says that the judge was trained on.
fn trained_on(reward: &Value) -> String {
    let Some(data) = reward.get("data").and_then(Value::as_array).filter(|data| !data.is_empty()) else {
        return String::new();
    };
    let number = |file: &Value, key: &str| count(file.get(key).and_then(Value::as_u64).unwrap_or(0) as usize);
    let text = |file: &Value, key: &str| file.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let line = |file: &Value| {
        vec![hashed(&text(file, "file"), &text(file, "sha256")), number(file, "groups"), number(file, "pairs")]
    };
    let rows: Vec<_> = data.iter().map(line).collect();
    format!(
        "<h3>Trained on</h3>{}",
        table("Before anything was held out of them.", &["file, SHA-256", "groups", "pairs"], &rows)
    )
}

/// What `kudos check` finds.
fn checked(report: &Report) -> String {
    let rules = [("the longer one wins", report.longer_wins), ("the one listed first wins", report.first_listed_wins)];
    let rules = rules.into_iter().filter_map(|(rule, baseline)| Some((rule, baseline?)));
    let shortcuts: String =
        rules.map(|(rule, b)| format!(" “{rule}” is right in {} of them.", percent(b.accuracy))).collect();
    let findings: String = report.findings.iter().map(finding).collect();
    let list = match findings.is_empty() {
        true => "<p>Nothing wrong was found.</p>".to_owned(),
        false => format!("<ul class=\"findings\">{findings}</ul>"),
    };
    format!(
        "<h3>What <code>kudos check</code> finds</h3><p>{}: {}, {}, {}.{shortcuts}</p>{list}",
        names(&report.files),
        counted(report.prompts, "prompt"),
        counted(report.pairs, "pair"),
        counted(report.ties, "tie"),
    )
}

fn names(files: &[FileInfo]) -> String {
    files.iter().map(|file| name(&file.file)).collect::<Vec<_>>().join(", ")
}

/// Places shown of a finding.
const PLACES: usize = 5;

fn finding(finding: &Finding) -> String {
    let (class, word) = match finding.severity {
        Severity::Error => ("error", "Error"),
        Severity::Warning => ("warning", "Warning"),
        Severity::Note => ("note", "Note"),
    };
    let place = |p: &crate::data::check::Place| format!("{}:{}", name(&p.file), p.line);
    let places: Vec<String> = finding.places.iter().take(PLACES).map(place).collect();
    let more = if finding.count > PLACES { ", …" } else { "" };
    format!(
        "<li class=\"{class}\"><b>{word}.</b> {} ({}: {}{more})</li>",
        escape(finding.message),
        counted(finding.count, "place"),
        places.join(", ")
    )
}

/// The recipe and how texts are read.
fn settings(input: &ReportInput) -> String {
    let Some(reward) = input.judge.reward.as_object() else {
        return "<h3>Settings</h3><p>The checkpoint has no <code>reward.json</code>: how it was trained is not known here.</p>"
            .into();
    };
    let own = reward.iter().filter(|(key, _)| !matches!(key.as_str(), "data" | "recipe" | "calibration"));
    let nested = ["calibration", "recipe"].into_iter().filter_map(|key| reward.get(key)?.as_object()).flatten();
    let line = |(key, value): (&String, &Value)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(key), escape(&plain(value)))
    };
    let lines: String = own.chain(nested).map(line).collect();
    format!("<h3>Settings (<code>reward.json</code>)</h3><dl class=\"settings\">{lines}</dl>")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn hashes(input: &ReportInput) -> String {
    let line = |(file, sha256): &(String, String)| format!("<dt>{}</dt><dd>{}</dd>", name(file), hash(sha256));
    let lines: String = input.judge.hashes.iter().map(line).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("<h3>Files of the judge, with their SHA-256</h3><dl class=\"hashes\">{lines}</dl>"),
    }
}

fn again(input: &ReportInput) -> String {
    let (resamples, seed) = input.bootstrap;
    format!(
        "<h3>To make this again</h3><p>Kudos {} with the files of the hashes above{}; the same input gives the same report, byte for byte.</p><pre>{}</pre>",
        env!("CARGO_PKG_VERSION"),
        if input.analyses.is_empty() {
            String::new()
        } else {
            format!("; bootstrap of {} resamples, seed {seed}", count(resamples))
        },
        escape(&input.command)
    )
}
