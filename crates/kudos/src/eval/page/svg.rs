//! Charts as inline SVG that fits any width without a script.
//!
//! A chart is as wide as its column. What marks a point stands at percentages of the plot, so that text and dots keep
//! their size; lines are drawn in a nested viewport of [`GRAIN`] × [`GRAIN`] units that stretches, with strokes that do
//! not. Tick labels and axis names stand outside of the plot, in the margin that the style sheet leaves around it.
//! Colours are classes: the style sheet has them for light and dark.

use super::html::{decimal, escape};
use std::fmt::Write;

/// Units of the stretched viewport.
const GRAIN: f64 = 1000.0;

/// One axis: what is measured, from where to where, and the marks on it.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    label: String,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Round numbers from `low` to `high`, four to seven of them.
    pub fn new(label: &str, low: f64, high: f64) -> Self {
        Self::scaled(label, low, high, 1.0)
    }

    /// Shares, marked in percent.
    pub fn percent(label: &str, low: f64, high: f64) -> Self {
        Self::scaled(label, low, high, 100.0)
    }

    fn scaled(label: &str, low: f64, high: f64, unit: f64) -> Self {
        let (low, high) = proper(low, high);
        let step = round_step((high - low) * unit / 7.0);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let first = (low * unit / step - 1e-9).ceil() as i64;
        let last = (high * unit / step + 1e-9).floor() as i64;
        let tick = |n: i64| (n as f64 * step / unit, decimal(n as f64 * step, digits));
        Self { label: label.into(), low, high, ticks: (first..=last).map(tick).collect() }
    }

    /// Marks as given.
    pub fn with_ticks(label: &str, low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        let (low, high) = proper(low, high);
        let inside = |tick: &(f64, String)| tick.0 >= low && tick.0 <= high;
        Self { label: label.into(), low, high, ticks: ticks.into_iter().filter(inside).collect() }
    }

    /// Place in percent of the length; values outside stand at the ends.
    fn place(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        if share.is_nan() { 0.0 } else { 100.0 * share.clamp(0.0, 1.0) }
    }
}

/// Finite ends that differ.
fn proper(low: f64, high: f64) -> (f64, f64) {
    match (low.is_finite() && high.is_finite(), high - low > 1e-12 * low.abs().max(1e-6)) {
        (true, true) => (low, high),
        (true, false) => (low - 0.5, low + 0.5),
        (false, _) => (0.0, 1.0),
    }
}

/// The least of 1, 2, 5, 10, … × 10ⁿ that is at least `width`.
fn round_step(width: f64) -> f64 {
    let power = 10f64.powf(width.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|s| s * power >= width * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// Least and greatest of the values with a little room beside them.
pub(super) fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let ends = values
        .into_iter()
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let room = 0.04 * (ends.1 - ends.0);
    (ends.0 - room, ends.1 + room)
}

/// Where a label stands beside its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Before it.
    Left,
    /// After it.
    Right,
    /// After it and a little higher, where another label is near.
    RightAbove,
    /// After it and a little lower.
    RightBelow,
}

/// A chart that is being drawn.
pub(super) struct Chart {
    x: Axis,
    y: Axis,
    height: u32,
    body: String,
}

impl Chart {
    /// An empty plot, `height` pixels high, with gridlines at the ticks.
    pub fn new(x: Axis, y: Axis, height: u32) -> Self {
        let mut body = String::new();
        for (value, text) in &y.ticks {
            let at = y_place(&y, *value);
            let _ = write!(body, "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{at}%\" y2=\"{at}%\"/>");
            let _ = write!(body, "<text class=\"tick end\" x=\"-8\" y=\"{at}%\" dy=\".32em\">{text}</text>");
        }
        for (value, text) in &x.ticks {
            let at = short(x.place(*value));
            let _ = write!(body, "<line class=\"mark\" x1=\"{at}%\" x2=\"{at}%\" y1=\"100%\" y2=\"101.5%\"/>");
            let _ = write!(body, "<text class=\"tick mid\" x=\"{at}%\" y=\"100%\" dy=\"1.6em\">{text}</text>");
        }
        body.push_str("<line class=\"axis\" x1=\"0\" x2=\"100%\" y1=\"100%\" y2=\"100%\"/>");
        let _ = write!(body, "<text class=\"name\" x=\"-46\" y=\"0\" dy=\"-12\">{}</text>", escape(&y.label));
        let _ = write!(body, "<text class=\"name mid\" x=\"50%\" y=\"100%\" dy=\"3.1em\">{}</text>", escape(&x.label));
        Self { x, y, height, body }
    }

    fn at(&self, x: f64, y: f64) -> (String, String) {
        (short(self.x.place(x)), y_place(&self.y, y))
    }

    /// Pixels by which one value stands above another.
    pub fn rise(&self, upper: f64, lower: f64) -> f64 {
        (self.y.place(upper) - self.y.place(lower)) / 100.0 * f64::from(self.height)
    }

    /// A line through the points.
    pub fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.len() > 1 {
            let path = self.path(points.iter().copied());
            self.stretched(&format!("<path class=\"line {class}\" d=\"{path}\"/>"));
        }
    }

    /// The area between two lines over the same x: `(x, low, high)`.
    pub fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        if points.len() > 1 {
            let above = points.iter().map(|p| (p.0, p.2));
            let below = points.iter().rev().map(|p| (p.0, p.1));
            let path = self.path(above.chain(below));
            self.stretched(&format!("<path class=\"band {class}\" d=\"{path}Z\"/>"));
        }
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (index, (x, y)) in points.enumerate() {
            let (x, y) = (self.x.place(x) * GRAIN / 100.0, (100.0 - self.y.place(y)) * GRAIN / 100.0);
            let _ = write!(path, "{}{} {}", if index == 0 { 'M' } else { 'L' }, x.round(), y.round());
        }
        path
    }

    fn stretched(&mut self, marks: &str) {
        let _ = write!(
            self.body,
            "<svg viewBox=\"0 0 {GRAIN} {GRAIN}\" preserveAspectRatio=\"none\" width=\"100%\" height=\"100%\">{marks}</svg>"
        );
    }

    /// A dot; its words are shown where a pointer rests on it.
    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, words: &str) {
        let (x, y) = self.at(x, y);
        let _ = match words.is_empty() {
            true => write!(self.body, "<circle class=\"{class}\" cx=\"{x}%\" cy=\"{y}%\" r=\"{radius}\"/>"),
            false => write!(
                self.body,
                "<circle class=\"{class}\" cx=\"{x}%\" cy=\"{y}%\" r=\"{radius}\"><title>{}</title></circle>",
                escape(words)
            ),
        };
    }

    /// A bar from the foot of the plot, from `left` to `right` on the x axis.
    pub fn bar(&mut self, class: &str, (left, right): (f64, f64), y: f64, words: &str) {
        let ends = (self.x.place(left), self.x.place(right));
        let top = 100.0 - self.y.place(y);
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{}%\" width=\"{}%\" y=\"{}%\" height=\"{}%\"><title>{}</title></rect>",
            short(ends.0),
            short(ends.1 - ends.0),
            short(top),
            short(100.0 - top),
            escape(words)
        );
    }

    /// An upright interval from `low` to `high`.
    pub fn whisker(&mut self, class: &str, x: f64, [low, high]: [f64; 2]) {
        let ((x, low), (_, high)) = (self.at(x, low), self.at(x, high));
        let _ =
            write!(self.body, "<line class=\"whisker {class}\" x1=\"{x}%\" x2=\"{x}%\" y1=\"{low}%\" y2=\"{high}%\"/>");
    }

    /// A line across the plot at a height.
    pub fn level(&mut self, class: &str, y: f64) {
        let (_, y) = self.at(0.0, y);
        let _ = write!(self.body, "<line class=\"{class}\" x1=\"0\" x2=\"100%\" y1=\"{y}%\" y2=\"{y}%\"/>");
    }

    /// An upright line through the plot.
    pub fn upright(&mut self, class: &str, x: f64) {
        let (x, _) = self.at(x, 0.0);
        let _ = write!(self.body, "<line class=\"{class}\" x1=\"{x}%\" x2=\"{x}%\" y1=\"0\" y2=\"100%\"/>");
    }

    /// Words beside a point.
    pub fn label(&mut self, class: &str, (x, y): (f64, f64), side: Side, words: &str) {
        let (x, y) = self.at(x, y);
        let (anchor, dx, dy) = match side {
            Side::Left => ("end", -9, ".32em"),
            Side::Right => ("", 9, ".32em"),
            Side::RightAbove => ("", 9, "-.25em"),
            Side::RightBelow => ("", 9, ".95em"),
        };
        let words = escape(words);
        let _ = write!(
            self.body,
            "<text class=\"label {anchor} {class}\" x=\"{x}%\" y=\"{y}%\" dx=\"{dx}\" dy=\"{dy}\">{words}</text>"
        );
    }

    /// The chart; `words` say what it shows to those who do not see it.
    pub fn finish(self, words: &str) -> String {
        format!(
            "<div class=\"plot\"><svg role=\"img\" width=\"100%\" height=\"{}\" aria-label=\"{}\">{}</svg></div>",
            self.height,
            escape(words),
            self.body
        )
    }
}

fn y_place(axis: &Axis, value: f64) -> String {
    short(100.0 - axis.place(value))
}

/// At most two decimals, without trailing zeros.
fn short(percent: f64) -> String {
    let text = format!("{percent:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One row of an interval chart: a strip that lines up with those above and below it.
pub(super) struct Strip<'a> {
    axis: &'a Axis,
    body: String,
}

impl<'a> Strip<'a> {
    /// An empty strip with the gridlines of the axis.
    pub fn new(axis: &'a Axis) -> Self {
        let mut body = String::new();
        for (value, _) in &axis.ticks {
            let at = short(axis.place(*value));
            let _ = write!(body, "<line class=\"grid\" x1=\"{at}%\" x2=\"{at}%\" y1=\"0\" y2=\"100%\"/>");
        }
        Self { axis, body }
    }

    /// The marks of the axis and its name: the foot of the chart.
    pub fn foot(axis: &Axis) -> String {
        let mut body = String::from("<svg class=\"strip foot\" width=\"100%\" height=\"40\" aria-hidden=\"true\">");
        for (value, text) in &axis.ticks {
            let at = short(axis.place(*value));
            let _ = write!(body, "<text class=\"tick mid\" x=\"{at}%\" y=\"14\">{text}</text>");
        }
        let _ = write!(body, "<text class=\"name mid\" x=\"50%\" y=\"33\">{}</text></svg>", escape(&axis.label));
        body
    }

    /// An upright line through the strip.
    pub fn upright(&mut self, class: &str, value: f64) {
        let at = short(self.axis.place(value));
        let _ = write!(self.body, "<line class=\"{class}\" x1=\"{at}%\" x2=\"{at}%\" y1=\"0\" y2=\"100%\"/>");
    }

    /// An interval, as a thick line.
    pub fn interval(&mut self, class: &str, [low, high]: [f64; 2]) {
        let (low, high) = (short(self.axis.place(low)), short(self.axis.place(high)));
        let _ =
            write!(self.body, "<line class=\"interval {class}\" x1=\"{low}%\" x2=\"{high}%\" y1=\"50%\" y2=\"50%\"/>");
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, value: f64, radius: f64) {
        let at = short(self.axis.place(value));
        let _ = write!(self.body, "<circle class=\"{class}\" cx=\"{at}%\" cy=\"50%\" r=\"{radius}\"/>");
    }

    /// A bar between two values.
    pub fn bar(&mut self, class: &str, from: f64, to: f64) {
        let (from, to) = (self.axis.place(from), self.axis.place(to));
        let (left, width) = (from.min(to), (from - to).abs());
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{}%\" width=\"{}%\" y=\"20%\" height=\"60%\" rx=\"1.5\"/>",
            short(left),
            short(width)
        );
    }

    /// The strip; `words` say what it shows.
    pub fn finish(self, words: &str) -> String {
        format!(
            "<svg class=\"strip\" role=\"img\" width=\"100%\" height=\"100%\" aria-label=\"{}\">{}</svg>",
            escape(words),
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.1.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(&Axis::new("", 0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&Axis::percent("", 0.47, 0.83)), ["50", "60", "70", "80"]);
        assert_eq!(texts(&Axis::new("", -2.5, 3.0)), ["\u{2212}2", "\u{2212}1", "0", "1", "2", "3"]);
        assert_eq!(texts(&Axis::new("", 0.0, 12_000.0)), ["0", "2000", "4000", "6000", "8000", "10000", "12000"]);
        assert_eq!(texts(&Axis::new("", 0.0, 5e-5)).len(), 6);
    }

    #[test]
    fn degenerate_ranges_still_have_a_scale() {
        for (low, high) in [(1.0, 1.0), (f64::INFINITY, f64::NEG_INFINITY), (f64::NAN, 2.0), (2.0, 1.0), (1e9, 1e9)] {
            let axis = Axis::new("", low, high);
            assert!(axis.high > axis.low && !axis.ticks.is_empty() && axis.ticks.len() < 20, "{axis:?}");
        }
        let (low, high) = extent([]);
        assert_eq!(Axis::new("", low, high).low, 0.0);
    }

    #[test]
    fn places_are_percentages_within_the_plot() {
        let axis = Axis::new("", 2.0, 4.0);
        assert_eq!([2.0, 3.0, 4.0, 9.0, -1.0, f64::NAN].map(|v| axis.place(v)), [0.0, 50.0, 100.0, 100.0, 0.0, 0.0]);
    }

    #[test]
    fn marks_stand_where_they_should() {
        let mut chart = Chart::new(Axis::new("steps", 0.0, 10.0), Axis::percent("accuracy, %", 0.0, 1.0), 200);
        chart.line("judge", &[(0.0, 0.0), (5.0, 0.5), (10.0, 1.0)]);
        chart.band("judge", &[(0.0, 0.0, 0.5), (10.0, 0.5, 1.0)]);
        chart.dot("judge", (5.0, 0.25), 3.0, "a < b");
        chart.bar("bin", (0.0, 5.0), 0.5, "half");
        let svg = chart.finish("what \"it\" is");
        for part in [
            "d=\"M0 1000L500 500L1000 0\"",
            "d=\"M0 500L1000 0L1000 500L0 1000Z\"",
            "cx=\"50%\" cy=\"75%\" r=\"3\"><title>a &lt; b</title>",
            "x=\"0%\" width=\"50%\" y=\"50%\" height=\"50%\"",
            "aria-label=\"what &quot;it&quot; is\"",
            ">accuracy, %</text>",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
    }

    #[test]
    fn strips_line_up() {
        let axis = Axis::percent("accuracy, %", 0.4, 0.8);
        let mut strip = Strip::new(&axis);
        strip.interval("judge", [0.5, 0.7]);
        strip.dot("judge", 0.6, 4.0);
        strip.bar("above", 0.6, 0.4);
        let svg = strip.finish("judge");
        for part in ["x1=\"25%\" x2=\"75%\" y1=\"50%\"", "cx=\"50%\"", "x=\"0%\" width=\"50%\""] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(Strip::foot(&axis).contains(">40</text>"));
    }
}
