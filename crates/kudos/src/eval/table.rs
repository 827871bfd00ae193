//! Reports as an aligned text table for the terminal.
//!
//! The accuracy never stands alone: its interval, and what length and place would reach, are the
//! next columns.

use super::{DataReport, Metrics};

const COLUMNS: [&str; 11] = [
    "data",
    "pairs",
    "ties",
    "accuracy",
    "95 % interval",
    "longer wins",
    "first listed",
    "tau-b",
    "NDCG",
    "ECE",
    "log loss",
];

type Row = [String; COLUMNS.len()];

/// One line a file, its subsets indented below it, and notes on what the figures hide. Ends with a
/// newline.
pub fn render_table(reports: &[DataReport]) -> String {
    let mut rows: Vec<Row> = vec![COLUMNS.map(String::from)];
    for report in reports {
        rows.push(row(&report.file, &report.metrics));
        let subsets = report.subsets.iter();
        rows.extend(subsets.map(|(name, metrics)| row(&format!("  {name}"), metrics)));
    }
    let widths = widths(&rows);
    let lines = rows.iter().map(|row| aligned(row, &widths));
    let notes = reports.iter().flat_map(notes);
    let attributes = reports.iter().flat_map(attributes);
    lines.chain(notes).chain(attributes).map(|line| line + "\n").collect()
}

/// One line an attribute, under a header; nothing for a judge without attributes.
fn attributes(report: &DataReport) -> Vec<String> {
    if report.attributes.is_empty() {
        return Vec::new();
    }
    let width = report.attributes.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(9);
    let header = ["ratings", "missing", "spearman", "tau-b", "pearson", "accuracy", "mae", "mae of mean"];
    let line = |name: &str, cells: [String; 8]| {
        let cells = cells.iter().zip(header).map(|(cell, head)| format!("  {cell:>0$}", head.len()));
        format!("  {name:<width$}{}", cells.collect::<String>())
    };
    let mut lines = vec![format!("{}: attributes", report.file), line("attribute", header.map(str::to_owned))];
    for (name, m) in &report.attributes {
        let figures = [m.spearman, m.kendall_tau_b, m.pearson, m.accuracy, m.mae, m.mae_of_mean].map(number);
        let [rho, tau, r, accuracy, mae, of_mean] = figures;
        lines.push(line(name, [m.n.to_string(), m.missing.to_string(), rho, tau, r, accuracy, mae, of_mean]));
    }
    lines
}

fn row(name: &str, m: &Metrics) -> Row {
    let interval = m.accuracy_ci95.map(|[low, high]| format!("{low:.3}–{high:.3}"));
    [
        name.to_string(),
        m.pairs.to_string(),
        m.ties.to_string(),
        number(m.accuracy),
        interval.unwrap_or_else(|| number(None)),
        number(m.longer_response_accuracy),
        number(m.first_listed_accuracy),
        number(m.kendall_tau_b),
        number(m.ndcg),
        number(m.ece),
        number(m.log_loss),
    ]
}

/// Three digits; a dash for what the data cannot say.
fn number(value: Option<f64>) -> String {
    value.map_or("–".into(), |v| format!("{v:.3}"))
}

fn widths(rows: &[Row]) -> [usize; COLUMNS.len()] {
    std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    })
}

/// Names to the left, numbers to the right.
fn aligned(row: &Row, widths: &[usize; COLUMNS.len()]) -> String {
    let mut line = format!("{:<width$}", row[0], width = widths[0]);
    for (cell, width) in row.iter().zip(widths).skip(1) {
        line += &format!("  {cell:>width$}");
    }
    line
}

fn notes(report: &DataReport) -> Vec<String> {
    let m = &report.metrics;
    let mut notes = Vec::new();
    if m.pairs == 0 {
        notes.push("no pair has a preferred side, so there is no accuracy".to_string());
    }
    if m.score_ties > 0 {
        notes.push(format!("{} of {} pairs have exactly equal scores; each counts one half", m.score_ties, m.pairs));
    }
    if let Some(truncated) = report.truncated.filter(|n| *n > 0) {
        notes.push(format!("{truncated} responses did not fit the token limit"));
    }
    let beaten = |by: Option<f64>| matches!((m.accuracy, by), (Some(a), Some(b)) if a <= b);
    if beaten(m.longer_response_accuracy) {
        notes.push("picking the longer response does as well as this judge".to_string());
    }
    if beaten(m.first_listed_accuracy) {
        notes.push("picking the response listed first does as well as this judge".to_string());
    }
    let located = |note| format!("{}: {note}", report.file);
    notes.into_iter().map(located).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{name_subset, ranked};
    use super::super::{EvalOptions, evaluate};
    use super::*;

    fn report() -> DataReport {
        let mut groups = vec![ranked("p", &[1.0, 2.0, 3.0]), ranked("q", &[2.0, 1.0, 1.0])];
        name_subset(&mut groups[1], "größer".into());
        let scores = [vec![3.0, 2.0, 2.0], vec![0.0, 1.0, 1.0]];
        let mut report = evaluate("answers.csv", &groups, &scores, &EvalOptions::default()).unwrap();
        report.truncated = Some(3);
        report
    }

    #[test]
    fn the_table_is_aligned() {
        let expected = "\
data         pairs  ties  accuracy  95 % interval  longer wins  first listed  tau-b   NDCG    ECE  log loss
answers.csv      5     1     0.900    0.833–1.000        0.400         0.600  0.908  0.988  0.179     0.440
  größer         2     1     1.000              –        1.000         0.000  1.000  1.000  0.179     0.440
answers.csv: 1 of 5 pairs have exactly equal scores; each counts one half
answers.csv: 3 responses did not fit the token limit
";
        assert_eq!(render_table(&[report()]), expected);
    }

    #[test]
    fn a_judge_that_length_beats_is_told_so() {
        let mut report = report();
        report.metrics.longer_response_accuracy = Some(0.95);
        report.metrics.first_listed_accuracy = Some(0.9);
        let table = render_table(&[report]);
        assert!(table.contains("picking the longer response does as well"));
        assert!(table.contains("picking the response listed first does as well"));
    }

    #[test]
    fn attributes_have_a_table_of_their_own() {
        let metrics = super::super::AttributeMetrics { n: 12, missing: 3, spearman: Some(0.5), ..Default::default() };
        let report = DataReport { attributes: [("tone".to_owned(), metrics)].into(), ..report() };
        let expected = "\
answers.csv: attributes
  attribute  ratings  missing  spearman  tau-b  pearson  accuracy  mae  mae of mean
  tone            12        3     0.500      –        –         –    –            –
";
        let table = render_table(&[report]);
        assert!(table.ends_with(expected), "{table}");
    }

    #[test]
    fn no_reports_give_the_header() {
        assert_eq!(render_table(&[]).lines().count(), 1);
    }
}
