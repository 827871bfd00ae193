//! Section 3: how much the score follows length, and what taking length out would change.

use super::html::{counted, datum, decimal, figure, percent, rate, table};
use super::svg::{Axis, Chart, Side, extent};
use super::{ReportInput, per_data_set};
use crate::eval::{Analysis, LengthCorrection, LengthSection};

/// The section; empty when nothing was evaluated.
pub(super) fn section(input: &ReportInput) -> String {
    per_data_set(input, |index, analysis| {
        let length = &analysis.length;
        [correlation(index, analysis), scatter(length), by_length(length), correction(length)].concat()
    })
}

fn correlation(index: usize, analysis: &Analysis) -> String {
    let Some(r) = analysis.data.metrics.length_partial_correlation else { return String::new() };
    let words = match r {
        r if r > 0.2 => "it likes longer responses more than people did",
        r if r < -0.2 => "it likes shorter responses more than people did",
        _ => "it likes length about as much as people did",
    };
    format!(
        "<p>Beyond what people’s order explains, score and length have a correlation of {}: {words}. (Partial correlation of score \
         and log length within prompts; 0 is none, ±1 is all.)</p>",
        datum(&format!("/data/{index}/length_partial_correlation"), r, &decimal(r, 2))
    )
}

fn scatter(length: &LengthSection) -> String {
    let characters = length.points.iter().map(|p| p.log_length);
    let (left, right) = extent(characters);
    let (low, high) = extent(length.points.iter().map(|p| p.score));
    if length.points.is_empty() {
        return String::new();
    }
    let x = Axis::with_ticks("characters of the response (log scale)", left, right, log_ticks(left, right));
    let mut chart = Chart::new(x, Axis::new("score", low, high), 300);
    for point in &length.points {
        chart.dot("point", (point.log_length, point.score), 2.2, "");
    }
    let curve: Vec<_> = length.curve.iter().map(|p| (p.log_length, p.score)).collect();
    chart.line("judge", &curve);
    if let Some(end) = curve.last() {
        chart.label("judge", *end, Side::RightAbove, "regression");
    }
    let words = format!("Score by length of {} responses with a local-regression curve", length.points.len());
    let caption = format!(
        "Score by length, {}, with the local regression (LOWESS) of all. A flat curve: length alone moves no score. A rising one may be \
         right, where longer responses are better; the table tells.",
        counted(length.points.len(), "response")
    );
    figure("ends", &chart.finish(&words), &caption)
}

/// 1, 2, 5, 10, … characters on the scale ln(1 + characters); only powers of ten where the range is wide.
fn log_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let steps: &[f64] = if high - low > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = (0..8).map(|power| 10f64.powi(power));
    let values = powers.flat_map(|power| steps.iter().map(move |step| step * power));
    values.map(|value| (value.ln_1p(), super::html::count(value as usize))).collect()
}

fn by_length(length: &LengthSection) -> String {
    let rows: Vec<Vec<String>> = [
        ("the longer one", length.longer_right_pairs, &length.longer_right),
        ("the shorter one", length.longer_wrong_pairs, &length.longer_wrong),
    ]
    .into_iter()
    .filter(|(_, pairs, _)| *pairs > 0)
    .map(|(which, pairs, judged)| vec![which.to_owned(), counted(pairs, "pair"), rate(judged)])
    .collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(
            "The judge where length points the right way, and where it misleads. A judge that counted characters would have 100 % and 0 %.",
            &["people prefer", "", "judge is right"],
            &rows,
        ),
    }
}

fn correction(length: &LengthSection) -> String {
    let Some(LengthCorrection { before, after, changed, mended, broken }) = &length.correction else {
        return String::new();
    };
    let verdict = match (before.accuracy, after.accuracy) {
        (Some(before), Some(after)) if after > before + 0.005 => "It would help on these data.",
        (Some(before), Some(after)) if after < before - 0.005 => {
            "It would cost accuracy here: people’s taste for length is part of the signal."
        }
        _ => "It would change little.",
    };
    let share = |rate: &crate::eval::Rate| rate.accuracy.map_or("–".into(), percent);
    format!(
        "<p><b>If length were taken out</b> (score less the curve), {} would be decided the other way: {} made right, {} made wrong; \
         accuracy {} instead of {}. {verdict}</p>",
        counted(*changed, "pair"),
        mended,
        broken,
        share(after),
        share(before),
    )
}
