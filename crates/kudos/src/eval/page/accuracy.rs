//! Section 1: the verdict in words, then the judge beside the trivial judges, for each data set and subset.

use super::html::{counted, datum, datum_or_dash, figure, interval, name, percent, pointer_key, points, table};
use super::svg::{Axis, Chart, Side, Strip};
use super::verdict::{Claim, best_rival, claims, rivals, short_name};
use super::{ReportInput, per_data_set};
use crate::eval::{AccuracyRow, Analysis, LearningPoint, Metrics, Rate};

/// The section; empty when there is nothing that was evaluated.
pub(super) fn section(input: &ReportInput) -> String {
    if input.analyses.is_empty() {
        return String::new();
    }
    let axis = axis(input.analyses);
    let block = |index: usize, analysis: &Analysis| {
        [
            claims_block(&claims(analysis)),
            rows(index, analysis, &axis),
            power(analysis),
            subsets(index, analysis, &axis),
            learning(analysis),
        ]
        .concat()
    };
    overview(input.analyses, &axis) + &per_data_set(input, block)
}

/// One row a data set, where there are several.
fn overview(analyses: &[Analysis], axis: &Axis) -> String {
    if analyses.len() < 2 {
        return String::new();
    }
    let mut html = String::new();
    for analysis in analyses {
        let metrics = &analysis.data.metrics;
        let judge = Rate { accuracy: metrics.accuracy, accuracy_ci95: metrics.accuracy_ci95 };
        let rival = best_rival(&analysis.accuracy.all).and_then(|(_, rate)| rate.accuracy);
        let heading = format!(
            "{} <span class=\"n\">{}</span>",
            name(&short_name(&analysis.data.file)),
            counted(metrics.pairs, "pair")
        );
        html += &row("judge", &heading, &strip(axis, "judge", &judge, rival), &super::html::rate(&judge));
    }
    html += &row("foot", "", &Strip::foot(axis), "");
    let caption = "Each data set. Dots: share of the pairs that are right; lines: 95 % intervals over prompts; upright line: a coin; \
                   short dashes: the best rule that needs no judgement.";
    figure("intervals first", &format!("<div class=\"strips\" role=\"table\">{html}</div>"), caption)
}

fn claims_block(claims: &[Claim]) -> String {
    let list = |can: bool| {
        let items: String = claims.iter().filter(|c| c.can == can).map(|c| format!("<li>{}</li>", c.words)).collect();
        if items.is_empty() { "<li>Nothing that these data can show.</li>".to_owned() } else { items }
    };
    if claims.is_empty() {
        return String::new();
    }
    format!(
        "<div class=\"claims\"><div><h3>It can</h3><ul class=\"can\">{}</ul></div><div><h3>It cannot</h3><ul class=\"cannot\">{}</ul></div></div>",
        list(true),
        list(false)
    )
}

/// One axis for all data sets, so that they can be compared: from the least end to the greatest, with 50 % in it.
fn axis(analyses: &[Analysis]) -> Axis {
    let tables = analyses.iter().map(|a| &a.accuracy);
    let rows = tables.flat_map(|table| std::iter::once(&table.all).chain(table.subsets.values()));
    let rates = rows.flat_map(|row| rivals(row).into_iter().map(|r| r.1).chain([row.judge]));
    let ends = rates.filter_map(|rate| rate.accuracy_ci95.or(rate.accuracy.map(|a| [a, a])));
    let (low, high) = ends.fold((0.45f64, 0.55f64), |(l, h), [low, high]| (l.min(low), h.max(high)));
    Axis::percent(
        "pairs with the preferred response ahead, %",
        (low * 20.0).floor() / 20.0,
        (high * 20.0).ceil() / 20.0,
    )
}

/// A row of the interval chart: heading, strip, figures.
fn row(class: &str, heading: &str, strip: &str, figures: &str) -> String {
    format!(
        "<div class=\"row {class}\" role=\"row\"><div class=\"what\" role=\"rowheader\">{heading}</div>\
         <div class=\"where\" role=\"cell\">{strip}</div><div class=\"value\" role=\"cell\">{figures}</div></div>"
    )
}

fn strip(axis: &Axis, class: &str, rate: &Rate, reference: Option<f64>) -> String {
    let mut strip = Strip::new(axis);
    strip.upright("coin", 0.5);
    if let Some(reference) = reference {
        strip.upright("reference", reference);
    }
    if let Some(ci) = rate.accuracy_ci95 {
        strip.interval(class, ci);
    }
    if let Some(accuracy) = rate.accuracy {
        strip.dot(class, accuracy, if class == "judge" { 5.5 } else { 4.0 });
    }
    strip.finish(&plain(rate))
}

/// A rate for those who cannot see the strip.
fn plain(rate: &Rate) -> String {
    match (rate.accuracy, rate.accuracy_ci95) {
        (Some(accuracy), Some(ci)) => format!("{}, 95 % interval {}", percent(accuracy), interval(ci)),
        (Some(accuracy), None) => percent(accuracy),
        (None, _) => "unknown".into(),
    }
}

/// Accuracy with its interval, marked as in `eval --json`.
fn marked(pointer: &str, metrics: &Metrics) -> String {
    let ci = metrics.accuracy_ci95.map_or(String::new(), |[low, high]| {
        let end = |place: usize, value: f64| {
            datum(&format!("{pointer}/accuracy_ci95/{place}"), value, &super::html::decimal(100.0 * value, 1))
        };
        format!(" <span class=\"ci\">[{}, {}]</span>", end(0, low), end(1, high))
    });
    datum_or_dash(&format!("{pointer}/accuracy"), metrics.accuracy, percent) + &ci
}

fn rows(index: usize, analysis: &Analysis, axis: &Axis) -> String {
    let (metrics, pointer) = (&analysis.data.metrics, format!("/data/{index}"));
    if metrics.accuracy.is_none() {
        return String::new();
    }
    let all = &analysis.accuracy.all;
    let judge = Rate { accuracy: metrics.accuracy, accuracy_ci95: metrics.accuracy_ci95 };
    let mut html = row("judge", "This judge", &strip(axis, "judge", &judge, None), &marked(&pointer, metrics));
    for (rule, rate) in rivals(all) {
        let figures = rival_figures(&pointer, rule, metrics, &rate);
        html += &row("rival", &capital(rule), &strip(axis, "rival", &rate, None), &figures);
    }
    html += &row("foot", "", &Strip::foot(axis), "");
    let caption = format!(
        "The judge beside rules that need no judgement, on the same {}{} of {}. Dots: share of the pairs that are right; lines: 95 % \
         intervals; upright line: a coin.{}",
        datum(&format!("{pointer}/pairs"), metrics.pairs as f64, &counted(metrics.pairs, "pair")),
        ties_left_out(&pointer, metrics),
        datum(&format!("{pointer}/prompts"), metrics.prompts as f64, &counted(metrics.prompts, "prompt")),
        if all.response_only.is_some() { WORD_COUNT } else { "" },
    );
    figure("intervals", &format!("<div class=\"strips\" role=\"table\">{html}</div>"), &caption)
}

/// What the caption says of the model that sees no prompt.
const WORD_COUNT: &str = " The word count is a bag-of-words model of the response alone, fitted on other prompts of this file: what \
                          it reaches can be had without reading the prompt.";

fn ties_left_out(pointer: &str, metrics: &Metrics) -> String {
    match metrics.ties {
        0 => String::new(),
        ties => format!(" (and {} left out)", datum(&format!("{pointer}/ties"), ties as f64, &counted(ties, "tie"))),
    }
}

/// A trivial judge's figures; those that `eval --json` has are marked so.
fn rival_figures(pointer: &str, rule: &str, metrics: &Metrics, rate: &Rate) -> String {
    let keyed = [
        ("the longer one wins", "longer_response_accuracy", metrics.longer_response_accuracy),
        ("the one listed first wins", "first_listed_accuracy", metrics.first_listed_accuracy),
    ];
    let known = keyed.into_iter().find(|(of, _, value)| *of == rule && value.is_some());
    match known {
        Some((_, key, value)) => {
            let ci =
                rate.accuracy_ci95.map_or(String::new(), |ci| format!(" <span class=\"ci\">{}</span>", interval(ci)));
            datum_or_dash(&format!("{pointer}/{key}"), value, percent) + &ci
        }
        None => super::html::rate(rate),
    }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// How little this amount of data can show.
fn power(analysis: &Analysis) -> String {
    let all: &AccuracyRow = &analysis.accuracy.all;
    let Some(least) = all.smallest_difference else { return String::new() };
    format!(
        "<p class=\"power\"><b>How little these data can show.</b> With {} the accuracy has a standard error of {}. A difference from a \
         known figure (a coin, a published accuracy) must be at least {} to be found in four of five such samples; one between two \
         judges whose errors are unrelated, {}. Two judges that err on the same pairs can be told apart by less: \
         <code>kudos eval DATA --judge A --judge B</code>.</p>",
        counted(all.prompts, "prompt"),
        points(least.standard_error),
        points(least.from_a_figure),
        points(least.between_judges),
    )
}

fn subsets(index: usize, analysis: &Analysis, axis: &Axis) -> String {
    let subsets = &analysis.data.subsets;
    if subsets.is_empty() {
        return String::new();
    }
    let mut html = String::new();
    for (subset, metrics) in subsets {
        let pointer = format!("/data/{index}/subsets/{}", pointer_key(subset));
        let rate = Rate { accuracy: metrics.accuracy, accuracy_ci95: metrics.accuracy_ci95 };
        let strip = strip(axis, "judge", &rate, metrics.longer_response_accuracy);
        let heading = format!(
            "{} <span class=\"n\">{}</span>",
            name(subset),
            datum(&format!("{pointer}/pairs"), metrics.pairs as f64, &counted(metrics.pairs, "pair"))
        );
        html += &row("judge", &heading, &strip, &marked(&pointer, metrics));
    }
    html += &row("foot", "", &Strip::foot(axis), "");
    let caption = "The judge on each subset. Short dashes: what “the longer one wins” reaches there. A good mean can hide a \
                   subset below a coin; with many subsets, one in twenty lies outside of its interval by chance.";
    let strips = format!("<div class=\"strips\" role=\"table\">{html}</div>");
    figure("intervals", &strips, caption) + &subset_table(analysis)
}

/// The trivial judges of every subset, as figures.
fn subset_table(analysis: &Analysis) -> String {
    if analysis.accuracy.subsets.is_empty() {
        return String::new();
    }
    let optional = |rate: &Option<Rate>| rate.as_ref().map_or("–".into(), super::html::rate);
    let line = |(subset, row): (&String, &AccuracyRow)| {
        let least = row.smallest_difference.map_or("–".into(), |d| points(d.from_a_figure));
        let rates = [&row.judge, &row.longer_wins, &row.shorter_wins].map(super::html::rate);
        let mut cells = vec![name(subset)];
        cells.extend(rates);
        cells.extend([optional(&row.first_listed), optional(&row.response_only), least]);
        cells
    };
    let rows: Vec<_> = analysis.accuracy.subsets.iter().map(line).collect();
    let head = ["subset", "judge", "longer", "shorter", "first listed", "word count", "smallest difference"];
    let caption = "The same for the trivial judges; last, the smallest difference from a known figure that the subset could show.";
    format!("<details><summary>The subsets as a table</summary>{}</details>", table(caption, &head, &rows))
}

fn learning(analysis: &Analysis) -> String {
    match &analysis.learning_curve {
        None => "<p class=\"hint\"><b>Would more data help?</b> <code>kudos train DATA --folds 5</code> measures a learning curve: the \
                 held-out accuracy by number of prompts trained on.</p>"
            .to_owned(),
        Some(points) => learning_curve(points),
    }
}

fn learning_curve(curve: &[LearningPoint]) -> String {
    let known: Vec<_> =
        curve.iter().filter_map(|p| Some((p.prompts as f64, p.rate.accuracy?, p.rate.accuracy_ci95))).collect();
    let Some(last) = known.last().copied() else { return String::new() };
    let ends = known.iter().flat_map(|p| p.2.unwrap_or([p.1, p.1]));
    let (low, high) = ends.fold((0.5f64, 0.6f64), |(l, h), v| (l.min(v), h.max(v)));
    let y = Axis::percent("held-out accuracy, %", (low * 20.0).floor() / 20.0, (high * 20.0).ceil() / 20.0);
    let mut chart = Chart::new(Axis::new("prompts trained on", 0.0, last.0 * 1.05), y, 240);
    chart.level("coin", 0.5);
    chart.band("judge", &known.iter().filter_map(|p| Some((p.0, p.2?[0], p.2?[1]))).collect::<Vec<_>>());
    chart.line("judge", &known.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>());
    for (prompts, accuracy, _) in &known {
        chart.dot("judge", (*prompts, *accuracy), 4.5, &format!("{prompts} prompts: {}", percent(*accuracy)));
    }
    chart.label("judge", (last.0, last.1), Side::Right, &percent(last.1));
    let words =
        format!("Held-out accuracy by number of training prompts, up to {} with {} prompts", percent(last.1), last.0);
    figure(
        "ends",
        &chart.finish(&words),
        "Would more data help? Held-out accuracy by number of prompts trained on, from grouped folds; band: 95 % intervals. If it \
         still rises at the right end, more rankings of the same kind will help; if it is flat, they will not.",
    )
}
