//! `kudos eval DATA --suite NAME`: a published suite, its own headline score next to ours.

use super::{Args, score_groups};
use crate::commands::{Global, announce_precision};
use kudos::eval::{DataReport, Headline, Suite, evaluate, render_table};
use serde_json::json;
use std::fmt::Write as _;

/// Reads the suite, scores it, prints both.
pub fn run(args: &Args, name: &str, suite: Suite, global: &Global) -> anyhow::Result<()> {
    let groups = suite.read(&args.data)?;
    let mut judge = args.judge(name)?;
    announce_precision(&judge, global);
    let (scores, truncated) = score_groups(&mut judge, &groups, global)?;
    let headline = suite.headline(&groups, &scores);
    let title = serde_json::to_value(suite)?.as_str().unwrap_or_default().to_owned();
    let mut report = evaluate(&title, &groups, &scores, &args.options(&judge))?;
    report.truncated = Some(truncated);
    if args.report.is_some() {
        let attributes = Default::default(); // suites have none
        let scored = super::ScoredFile { file: title, groups, scores, attributes, truncated };
        args.write_report(name, &judge, &[scored.analysis(&args.options(&judge))?], Vec::new())?;
    }
    let text = render(&headline, &report);
    args.print(&json!({"judge": name, "suite": suite, "headline": headline, "data": [report]}), &text)
}

fn render(headline: &Headline, report: &DataReport) -> String {
    let mut text = render_table(std::slice::from_ref(report));
    let score = headline.score.map_or("– (a part of the suite is missing)".into(), |score| format!("{score:.3}"));
    let _ = writeln!(text, "\n{}: {score}", headline.definition);
    for (name, value) in &headline.parts {
        let _ = writeln!(text, "  {name}  {value:.3}");
    }
    let metrics = &report.metrics;
    if let (Some(accuracy), Some([low, high])) = (metrics.accuracy, metrics.accuracy_ci95) {
        let pairs = metrics.pairs;
        let _ = writeln!(text, "ours, all {pairs} pairs alike: {accuracy:.3}, 95 % interval {low:.3}–{high:.3}");
    }
    text
}
