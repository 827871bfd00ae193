//! Section 6, first half: how the training run went.

use super::html::{counted, figure_of, percent};
use super::svg::{Axis, Chart, Side, extent};
use super::{ReportInput, TrainingInfo};
use serde::Deserialize;

/// One line of `run/metrics.jsonl`, as far as it is drawn.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[allow(missing_docs)] // As `train::StepMetrics` and `train::Evaluation`, which write them.
pub struct TrainingStep {
    pub step: u64,
    pub epoch: f64,
    pub loss: f64,
    pub accuracy: Option<f64>,
    pub margin: Option<f64>,
    pub learning_rate: f64,
    #[serde(default)]
    pub eval_loss: Option<f64>,
    #[serde(default)]
    pub eval_accuracy: Option<f64>,
    #[serde(default)]
    pub eval_margin: Option<f64>,
}

impl TrainingStep {
    /// The lines of a metrics file; a line that was cut ends the list.
    pub fn parse(lines: &str) -> Vec<TrainingStep> {
        lines.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The curves; empty without a run.
pub(super) fn section(input: &ReportInput) -> String {
    let Some(training) = input.training.as_ref().filter(|t| !t.steps.is_empty()) else { return String::new() };
    let window = (training.steps.len() / 20).max(1);
    let charts =
        [loss(training, window), accuracy(training, window), margin(training, window), learning_rate(training)]
            .concat();
    let smoothing = match window {
        1 => "Lines: every step.".to_owned(),
        n => format!("Lines: running mean over {n} steps, as single steps jump too much to read."),
    };
    let kept =
        training.kept.map_or(String::new(), |step| format!(" Upright line: step {step}, whose weights were kept."));
    let caption = format!(
        "The training run, {}. {smoothing} Dots: on held-out prompts.{kept}",
        counted(training.steps.len(), "step")
    );
    format!(
        "<h3>Training</h3><figure><div class=\"row-of-charts four\">{charts}</div><figcaption>{caption}</figcaption></figure>"
    )
}

/// One measure by step: `(step, value)`.
type Curve = Vec<(f64, f64)>;

fn curve(training: &TrainingInfo, of: impl Fn(&TrainingStep) -> Option<f64>) -> Curve {
    let known = training.steps.iter().filter_map(|s| Some((s.step as f64, of(s).filter(|v| v.is_finite())?)));
    known.collect()
}

/// Points that a line needs at most.
const POINTS: usize = 240;

/// Mean over a window of steps that ends at each point, thinned.
fn smooth(curve: &Curve, window: usize) -> Curve {
    let mean_to = |end: usize| {
        let part = &curve[end.saturating_sub(window - 1)..=end];
        (curve[end].0, part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64)
    };
    let stride = curve.len().div_ceil(POINTS).max(1);
    let last = curve.len().saturating_sub(1);
    (0..curve.len()).filter(|i| i % stride == 0 || *i == last).map(mean_to).collect()
}

/// Where two labels stand so that they do not meet, by how many pixels the first is above the second.
fn sides(rise: f64) -> (Side, Side) {
    match rise {
        r if r.abs() > 15.0 => (Side::Right, Side::Right),
        r if r >= 0.0 => (Side::RightAbove, Side::RightBelow),
        _ => (Side::RightBelow, Side::RightAbove),
    }
}

/// What one small chart shows.
struct Panel<'a> {
    title: &'a str,
    y: Axis,
    trained: Curve,
    held_out: Curve,
    shown: fn(f64) -> String,
}

fn panel(training: &TrainingInfo, panel: Panel) -> String {
    let last = training.steps.last().map_or(1.0, |s| s.step as f64);
    let mut chart = Chart::new(Axis::new("step", 0.0, last), panel.y, 180);
    if let Some(kept) = training.kept {
        chart.upright("reference", kept as f64);
    }
    chart.line("neutral", &panel.trained);
    chart.line("judge", &panel.held_out);
    for point in &panel.held_out {
        chart.dot("judge", *point, 3.0, &format!("step {}: {}", point.0, (panel.shown)(point.1)));
    }
    let ends = [("neutral", "training", panel.trained.last()), ("judge", "held out", panel.held_out.last())];
    let words: Vec<String> = ends
        .iter()
        .filter_map(|(_, what, end)| Some(format!("{what} ends at {}", (panel.shown)(end.as_ref()?.1))))
        .collect();
    if let [(_, _, Some(trained)), (_, _, Some(held_out))] = ends {
        let (upper, lower) = sides(chart.rise(trained.1, held_out.1));
        chart.label("neutral", *trained, upper, "training");
        chart.label("judge", *held_out, lower, "held out");
    }
    let words = format!("{}: {}", panel.title, words.join(", "));
    format!("<div><h4>{}</h4>{}</div>", panel.title, chart.finish(&words))
}

fn loss(training: &TrainingInfo, window: usize) -> String {
    let trained = smooth(&curve(training, |s| Some(s.loss)), window);
    let held_out = curve(training, |s| s.eval_loss);
    let (_, high) = extent(trained.iter().chain(&held_out).map(|p| p.1));
    let y = Axis::new("loss", 0.0, high.max(0.1));
    panel(training, Panel { title: "Loss", y, trained, held_out, shown: figure_of })
}

fn accuracy(training: &TrainingInfo, window: usize) -> String {
    let trained = smooth(&curve(training, |s| s.accuracy), window);
    let held_out = curve(training, |s| s.eval_accuracy);
    let low = trained.iter().chain(&held_out).map(|p| p.1).fold(0.5, f64::min);
    let y = Axis::percent("pairs in the right order, %", (low * 10.0).floor() / 10.0, 1.0);
    panel(training, Panel { title: "Accuracy", y, trained, held_out, shown: percent })
}

fn margin(training: &TrainingInfo, window: usize) -> String {
    let trained = smooth(&curve(training, |s| s.margin), window);
    let held_out = curve(training, |s| s.eval_margin);
    let (low, high) = extent(trained.iter().chain(&held_out).map(|p| p.1).chain([0.0]));
    panel(
        training,
        Panel {
            title: "Margin",
            y: Axis::new("chosen − rejected score", low, high),
            trained,
            held_out,
            shown: figure_of,
        },
    )
}

fn learning_rate(training: &TrainingInfo) -> String {
    let trained = smooth(&curve(training, |s| Some(s.learning_rate)), 1);
    let high = trained.iter().map(|p| p.1).fold(0.0, f64::max);
    let ticks = [0.0, high / 2.0, high].map(|v| (v, if v == 0.0 { "0".into() } else { format!("{v:.1e}") }));
    let y = Axis::with_ticks("learning rate", 0.0, high * 1.05, ticks.to_vec());
    panel(training, Panel { title: "Learning rate", y, trained, held_out: Vec::new(), shown: |v| format!("{v:.1e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_lines_are_read_up_to_a_cut_one() {
        let line = |n: u64| {
            format!(
                "{{\"step\":{n},\"epoch\":0.5,\"loss\":0.7,\"accuracy\":null,\"margin\":0.1,\"learning_rate\":1e-5,\"seconds\":2}}"
            )
        };
        let text = format!("{}\n{}\n{{\"ste", line(1), line(2));
        let steps = TrainingStep::parse(&text);
        assert_eq!(steps.iter().map(|s| s.step).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((steps[0].accuracy, steps[0].eval_loss), (None, None));
    }

    #[test]
    fn smoothing_is_a_running_mean_that_keeps_the_last_point() {
        let curve: Curve = (0..5).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(smooth(&curve, 2), [(0.0, 0.0), (1.0, 0.5), (2.0, 1.5), (3.0, 2.5), (4.0, 3.5)]);
        let long: Curve = (0..10_001).map(|i| (f64::from(i), 1.0)).collect();
        let thin = smooth(&long, 500);
        assert!(thin.len() <= POINTS + 1 && thin.last() == Some(&(10_000.0, 1.0)));
        assert!(smooth(&Curve::new(), 3).is_empty());
    }
}
