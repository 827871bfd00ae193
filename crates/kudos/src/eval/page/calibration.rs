//! Section 2: whether the judge's probabilities hold, and what a score means in plain words.

use super::html::{count, counted, datum_or_dash, decimal, figure, figure_of, percent, points, table, words};
use super::svg::{Axis, Chart, Side, extent};
use super::{ReportInput, per_data_set};
use crate::eval::{Analysis, Calibrated, CalibrationSection, ScoreSection};

/// The section; empty when nothing was evaluated.
pub(super) fn section(input: &ReportInput) -> String {
    per_data_set(input, |index, analysis| {
        let spread = input.judge.trained_spread;
        [reliability(index, analysis), distribution(&analysis.scores, spread), meaning(&analysis.scores)].concat()
    })
}

fn reliability(index: usize, analysis: &Analysis) -> String {
    let section = &analysis.calibration;
    if section.stored.bins.iter().all(|bin| bin.count == 0) {
        return String::new();
    }
    let mut diagrams = diagram(&section.before, "As it scores (T = 1)", "plainly");
    if section.stored_temperature != 1.0 {
        let title = format!("With its stored temperature, {}", decimal(section.stored_temperature.into(), 2));
        diagrams += &diagram(&section.stored, &title, "judge");
    }
    if let Some(after) = &section.after {
        diagrams += &diagram(after, "With a temperature fitted here, cross-fitted", "judge");
    }
    let caption = "How often the judge’s preferred side was preferred by people (up), by how sure the judge was (right). On the \
                   diagonal, “80 % sure” is right in 80 % of cases; under it, the judge is too sure of itself; over it, too timid. \
                   Dots grow with the number of comparisons they hold; lines lead to the diagonal.";
    let intro = "<p>A margin between two scores is read as a probability: P(first is better) = σ(margin / T). The temperature T \
                 only stretches that scale and changes no order.</p>";
    format!("{intro}<figure><div class=\"row-of-charts\">{diagrams}</div><figcaption>{caption}</figcaption></figure>")
        + &figures(index, analysis)
}

fn diagram(calibrated: &Calibrated, title: &str, class: &str) -> String {
    let least = calibrated.bins.iter().filter(|bin| bin.count > 0).map(|bin| bin.agreement).fold(0.5, f64::min);
    let y = Axis::percent("people agreed, %", (least * 10.0).floor() / 10.0, 1.0);
    let mut chart = Chart::new(Axis::percent("judge was sure, %", 0.5, 1.0), y, 250);
    chart.line("ideal", &[(0.5, 0.5), (1.0, 1.0)]);
    let most = calibrated.bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1) as f64;
    for bin in calibrated.bins.iter().filter(|bin| bin.count > 0) {
        let words = format!(
            "{}: {} sure, {} agreed",
            counted(bin.count, "comparison"),
            percent(bin.confidence),
            percent(bin.agreement)
        );
        chart.whisker("gap", bin.confidence, [bin.confidence.min(bin.agreement), bin.confidence.max(bin.agreement)]);
        chart.dot(class, (bin.confidence, bin.agreement), 3.0 + 6.0 * (bin.count as f64 / most).sqrt(), &words);
    }
    let ece = calibrated.ece.map_or("–".into(), points);
    chart.label("", (1.0, (least * 10.0).floor() / 10.0 + 0.02), Side::Left, &format!("off by {ece}"));
    let words = format!("Reliability diagram: {title}; expected calibration error {ece}");
    format!("<div><h4>{title}</h4>{}</div>", chart.finish(&words))
}

/// ECE, Brier and log loss before, as stored, and after.
fn figures(index: usize, analysis: &Analysis) -> String {
    let section = &analysis.calibration;
    let share = |ece: Option<f64>| ece.map_or("–".into(), percent);
    let plain = |c: &Calibrated| [share(c.ece), share(c.ece_by_chance), three(c.brier), three(c.log_loss)];
    let line = |name: &str, temperature: String, cells: [String; 4]| {
        let mut line = vec![name.to_owned(), temperature];
        line.extend(cells);
        line
    };
    let metrics = &analysis.data.metrics;
    let pointer = |key: &str| format!("/data/{index}/{key}");
    let stored = [
        datum_or_dash(&pointer("ece"), metrics.ece, percent),
        share(section.stored.ece_by_chance),
        datum_or_dash(&pointer("brier"), metrics.brier, |v| decimal(v, 3)),
        datum_or_dash(&pointer("log_loss"), metrics.log_loss, |v| decimal(v, 3)),
    ];
    let temperature = f64::from(section.stored_temperature);
    let mut rows = Vec::new();
    if temperature != 1.0 {
        rows.push(line("as it scores", "1".into(), plain(&section.before)));
        rows.push(line("as stored in reward.json", figure_of(temperature), stored));
    } else {
        rows.push(line("as it scores", "1".into(), stored));
    }
    if let Some(after) = &section.after {
        rows.push(line("fitted here, cross-fitted", fitted(section), plain(after)));
    }
    rows.push(line("always undecided", "".into(), ["0\u{a0}%", "", "0.250", "0.693"].map(Into::into)));
    let caption = "Calibration error, Brier score and log loss: less is better for all three. “Chance” is the error that exact \
                   probabilities would show on so few comparisons, were these unrelated; an error of that size says nothing. The last line is a judge that always \
                   says “50 %”: its error of 0 is no merit, which is why the log loss stands beside it.";
    table(caption, &["", "T", "off by (ECE)", "chance", "Brier", "log loss"], &rows) + &advice(section)
}

fn three(value: Option<f64>) -> String {
    value.map_or("–".into(), |value| decimal(value, 3))
}

/// The fitted temperature with the range of the folds'.
fn fitted(section: &CalibrationSection) -> String {
    let folds = section.fold_temperatures.iter().map(|t| f64::from(*t));
    let (low, high) = folds.fold((f64::INFINITY, 0.0f64), |(l, h), t| (l.min(t), h.max(t)));
    match section.fitted_temperature {
        Some(fitted) if low < high => {
            format!("{} <span class=\"ci\">({}–{})</span>", figure_of(fitted.into()), figure_of(low), figure_of(high))
        }
        Some(fitted) => figure_of(fitted.into()),
        None => "–".into(),
    }
}

fn advice(section: &CalibrationSection) -> String {
    let (Some(now), Some(after)) = (section.stored.log_loss, section.after.as_ref().and_then(|a| a.log_loss)) else {
        return String::new();
    };
    match now - after > 0.002 {
        true => {
            "<p class=\"hint\"><code>kudos eval DATA --judge JUDGE --calibrate</code> stores the fitted temperature in \
                 <code>reward.json</code>. Fit it on one held-out file and measure it on another.</p>"
                .into()
        }
        false => String::new(),
    }
}

fn distribution(scores: &ScoreSection, trained: Option<[f64; 2]>) -> String {
    let histogram = &scores.histogram;
    let (Some(mean), Some(std)) = (scores.mean, scores.std) else { return String::new() };
    let most = histogram.counts.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let trained = trained.filter(|[mean, std]| mean.is_finite() && std.is_finite());
    let reach = trained.map_or([mean, mean], |[m, s]| [m - s, m + s]);
    let (low, high) = extent([histogram.low, histogram.high, reach[0], reach[1]]);
    let width = (histogram.high - histogram.low) / histogram.counts.len() as f64;
    let mut chart = Chart::new(Axis::new("score", low, high), Axis::new("responses", 0.0, most as f64 * 1.22), 220);
    for (bin, number) in histogram.counts.iter().enumerate().filter(|(_, number)| **number > 0) {
        let left = histogram.low + width * bin as f64;
        let words = format!("{} to {}: {}", figure_of(left), figure_of(left + width), counted(*number, "response"));
        chart.bar("bin", (left, left + width), *number as f64, &words);
    }
    spread_marks(&mut chart, "judge", mean, std, most as f64 * 1.08, "here");
    if let Some([mean, std]) = trained {
        spread_marks(&mut chart, "neutral", mean, std, most as f64 * 1.18, "in training");
    }
    let words = format!(
        "Histogram of {} scores, mean {}, standard deviation {}",
        scores.count,
        figure_of(mean),
        figure_of(std)
    );
    figure("", &chart.finish(&words), &spread_words(scores.count, [mean, std], trained))
}

/// A dot at the mean with a line of one standard deviation to both sides.
fn spread_marks(chart: &mut Chart, class: &str, mean: f64, std: f64, height: f64, words: &str) {
    chart.line(class, &[(mean - std, height), (mean + std, height)]);
    chart.dot(class, (mean, height), 4.0, "");
    chart.label(class, (mean + std, height), Side::Right, words);
}

fn spread_words(number: usize, [mean, std]: [f64; 2], trained: Option<[f64; 2]>) -> String {
    let here = format!(
        "The scores of all {}: mean {}, standard deviation {}.",
        counted(number, "response"),
        figure_of(mean),
        figure_of(std)
    );
    let before = match trained {
        Some([m, s]) => format!(
            " The judge’s training ended with a mean of {} and a spread of {}; far from that, these texts are unlike those it was \
             trained for.",
            figure_of(m),
            figure_of(s)
        ),
        None => " The judge states no mean and spread of its training (<code>calibration</code> in <code>reward.json</code>).".into(),
    };
    format!("{here}{before} Dots: means; lines: one standard deviation to each side.")
}

/// The percentiles that the table of meanings shows.
const SHOWN: [usize; 7] = [1, 10, 25, 50, 75, 90, 99];

fn meaning(scores: &ScoreSection) -> String {
    if scores.percentiles.len() < 99 || scores.beats_typical.len() < 99 {
        return String::new();
    }
    // Three digits of the spread: scores under each other have the same number of decimals.
    let digits =
        scores.std.filter(|std| *std > 0.0).map_or(2, |std| (2.0 - std.log10().floor()).clamp(0.0, 6.0) as usize);
    let line = |p: &usize| {
        let (score, chance) = (scores.percentiles[p - 1], scores.beats_typical[p - 1]);
        vec![decimal(score, digits), format!("{p}\u{a0}%"), percent(chance), words(in_words(*p))]
    };
    let rows: Vec<_> = SHOWN.iter().map(line).collect();
    let caption = format!(
        "What a score means, among the {} responses of this file. “Beats a typical response”: the judge’s own probability, averaged \
         over all of them. A score has no unit and no zero; only differences within a prompt were trained.",
        count(scores.count)
    );
    table(&caption, &["score", "is above", "beats a typical response in", &words("in words")], &rows)
}

fn in_words(percentile: usize) -> &'static str {
    match percentile {
        0..=5 => "among the worst",
        6..=15 => "poor",
        16..=35 => "below the middle",
        36..=65 => "typical",
        66..=85 => "above the middle",
        86..=95 => "good",
        _ => "among the best",
    }
}
