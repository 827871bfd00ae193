//! `kudos eval DATA --judge A --judge B`: two judges on the same pairs, and whether the difference is real.

use super::{Args, judged_groups, score_groups};
use crate::commands::refused::without_refused;
use crate::commands::{Global, announce_precision};
use anyhow::Context;
use kudos::eval::{JudgeComparison, Rate, compare};
use serde_json::json;
use std::fmt::Write as _;

/// Scores each file with both judges and compares.
pub fn run(args: &Args, names: [&String; 2], global: &Global) -> anyhow::Result<()> {
    let names = names.map(String::as_str);
    let mut first = args.judge(names[0])?;
    let mut second = args.judge(names[1])?;
    announce_precision(&first, global);
    let options = args.options(&first);
    let mut found = Vec::new();
    for path in &args.data {
        let loaded = args.load(path, global)?;
        let groups = judged_groups(&loaded.groups, &[]).with_context(|| path.display().to_string())?;
        let groups = without_refused(groups, &[&first.encoder, &second.encoder], args.strict, global)?;
        let groups = judged_groups(&groups, &[]).with_context(|| path.display().to_string())?;
        let (a, _) = score_groups(&mut first, &groups, global)?;
        let (b, _) = score_groups(&mut second, &groups, global)?;
        found.push(compare(&path.display().to_string(), &groups, [&a, &b], &options)?);
    }
    let mut entries = Vec::new();
    for comparison in &found {
        let mut entry = serde_json::to_value(comparison)?;
        entry["sentence"] = comparison.sentence(names).into();
        entries.push(entry);
    }
    let text: String = found.iter().map(|comparison| render(comparison, names)).collect();
    args.print(&json!({"judges": names, "data": entries}), &text)
}

fn render(comparison: &JudgeComparison, names: [&str; 2]) -> String {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}: {} pairs of {} prompts\n", comparison.file, comparison.pairs, comparison.prompts);
    for (name, rate) in names.iter().zip([comparison.first, comparison.second]) {
        let _ = writeln!(text, "  {name:<width$}  {}", accuracy(&rate));
    }
    let mcnemar = &comparison.mcnemar;
    let [first, second] = [mcnemar.first_alone, mcnemar.second_alone];
    let _ = writeln!(text, "  {first} pairs better judged by {}, {second} by {}", names[0], names[1]);
    let _ = writeln!(text, "{}", comparison.sentence(names));
    text
}

fn accuracy(rate: &Rate) -> String {
    match (rate.accuracy, rate.accuracy_ci95) {
        (Some(accuracy), Some([low, high])) => format!("{accuracy:.3}  ({low:.3}–{high:.3})"),
        (Some(accuracy), None) => format!("{accuracy:.3}"),
        (None, _) => "–".into(),
    }
}
