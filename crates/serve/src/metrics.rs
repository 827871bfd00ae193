//! What is counted, and how Prometheus reads it.
//!
//! Names that begin with `te_` are those of text-embeddings-inference, for the same thing counted in the same unit, so
//! that its dashboards work. All others begin with `kudos_`.

use crate::ask::{FaultKind, ItemFault, JudgeFacts, Times};
use kudos::models::Rated;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often values fell below each bound.
pub(crate) struct Histogram {
    bounds: Vec<f64>,
    /// One more than bounds: the last for what is above all.
    counts: Vec<AtomicU64>,
    sum: Mutex<f64>,
}

impl Histogram {
    fn new(bounds: Vec<f64>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: Mutex::new(0.0) }
    }

    /// Seconds, from 15 µs in steps of half as much again: the bounds of text-embeddings-inference.
    fn of_durations() -> Self {
        Histogram::new((0..35).map(|step| 15e-6 * 1.5f64.powi(step)).collect())
    }

    /// Powers of two from 1 to 65536.
    fn of_sizes() -> Self {
        Histogram::new((0..=16).map(|power| f64::from(1u32 << power)).collect())
    }

    /// Scores: from −10 to 10, finer around 0.
    fn of_scores() -> Self {
        let positive = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0];
        let negative = positive.iter().rev().map(|bound| -bound);
        Histogram::new(negative.chain([0.0]).chain(positive).collect())
    }

    pub(crate) fn observe(&self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        *self.sum.lock().unwrap_or_else(PoisonError::into_inner) += value;
    }

    fn time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(self.bounds.iter().copied().chain([f64::INFINITY])) {
            total += count.load(Ordering::Relaxed);
            let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = *self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
    }
}

/// Scores that the figures of drift are over.
const WINDOW: usize = 4096;

/// The latest scores of a judge.
#[derive(Default)]
struct Recent {
    scores: Vec<f32>,
    next: usize,
}

impl Recent {
    fn add(&mut self, score: f32) {
        match self.scores.len() < WINDOW {
            true => self.scores.push(score),
            false => self.scores[self.next] = score,
        }
        self.next = (self.next + 1) % WINDOW;
    }

    /// Mean and standard deviation (of the population).
    fn moments(&self) -> Option<(f64, f64)> {
        let count = self.scores.len() as f64;
        let mean = self.scores.iter().map(|score| f64::from(*score)).sum::<f64>() / count;
        let variance = self.scores.iter().map(|score| (f64::from(*score) - mean).powi(2)).sum::<f64>() / count;
        (!self.scores.is_empty()).then(|| (mean, variance.sqrt()))
    }
}

/// What is counted for one judge name, over reloads.
pub(crate) struct JudgeMetrics {
    stages: [Histogram; 4],
    items: Counter,
    tokens: Counter,
    truncated: Counter,
    faults: [Counter; FaultKind::ALL.len()],
    pub(crate) dropped: Counter,
    reloads: [Counter; 2],
    scores: Histogram,
    recent: Mutex<Recent>,
    /// Those of the whole server, in which it takes part.
    all: Arc<Shared>,
}

const STAGES: [&str; 4] = ["tokenise", "queue", "inference", "total"];

impl JudgeMetrics {
    /// A batch was computed.
    pub(crate) fn batch(&self, items: usize, tokens: usize) {
        self.all.batch_items.observe(items as f64);
        self.all.batch_tokens.observe(tokens as f64);
    }

    /// A text was scored, or was not.
    pub(crate) fn result(&self, result: &Result<Rated, ItemFault>) {
        match result {
            Err(fault) => self.fault(fault.kind),
            Ok(rated) => {
                self.items.add(1);
                self.tokens.add(rated.scored.tokens as u64);
                self.truncated.add(u64::from(rated.scored.truncated));
                self.scores.observe(f64::from(rated.scored.score));
                self.recent.lock().unwrap_or_else(PoisonError::into_inner).add(rated.scored.score);
            }
        }
    }

    /// An item has no score.
    pub(crate) fn fault(&self, kind: FaultKind) {
        let own = FaultKind::ALL.iter().zip(&self.faults).filter(|(other, _)| **other == kind);
        own.for_each(|(_, count)| count.add(1));
    }

    /// A request was answered.
    pub(crate) fn answered(&self, times: &Times) {
        let parts = [times.tokenise, times.queue, times.inference, times.total];
        self.stages.iter().zip(parts).for_each(|(stage, time)| stage.time(time));
        let parts = [&self.all.tokenisation, &self.all.queue, &self.all.inference, &self.all.duration];
        parts.into_iter().zip([times.tokenise, times.queue, times.inference, times.total]).for_each(|(h, t)| h.time(t));
    }

    /// Another version of the judge was loaded, or could not be. Figures of drift begin anew with another version.
    pub(crate) fn reloaded(&self, is_loaded: bool) {
        self.reloads[usize::from(!is_loaded)].add(1);
        if is_loaded {
            *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        }
    }
}

/// Those of text-embeddings-inference, over all judges.
struct Shared {
    duration: Histogram,
    tokenisation: Histogram,
    queue: Histogram,
    inference: Histogram,
    input_length: Histogram,
    batch_items: Histogram,
    batch_tokens: Histogram,
}

/// All that the server counts.
pub struct Metrics {
    started: Instant,
    judges: Mutex<BTreeMap<String, Arc<JudgeMetrics>>>,
    /// By route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// By reason.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    /// Requests of one item, and of several: asked, and answered with 200.
    asked: [Counter; 2],
    succeeded: [Counter; 2],
    pub(crate) lost_log_lines: Counter,
    pub(crate) stuck_tokenisers: Counter,
    all: Arc<Shared>,
}

/// A judge as it is at this moment.
pub(crate) struct Gauges {
    pub(crate) facts: Arc<JudgeFacts>,
    pub(crate) queue_items: usize,
    pub(crate) queue_tokens: usize,
    pub(crate) tokens_per_second: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        let all = Shared {
            duration: Histogram::of_durations(),
            tokenisation: Histogram::of_durations(),
            queue: Histogram::of_durations(),
            inference: Histogram::of_durations(),
            input_length: Histogram::of_sizes(),
            batch_items: Histogram::of_sizes(),
            batch_tokens: Histogram::of_sizes(),
        };
        Metrics {
            started: Instant::now(),
            judges: Mutex::default(),
            requests: Mutex::default(),
            refusals: Mutex::default(),
            asked: Default::default(),
            succeeded: Default::default(),
            lost_log_lines: Counter::default(),
            stuck_tokenisers: Counter::default(),
            all: Arc::new(all),
        }
    }
}

/// The kind of request in the names of text-embeddings-inference.
const METHODS: [&str; 2] = ["single", "batch"];

impl Metrics {
    /// Those of a judge; the same after a reload.
    pub(crate) fn judge(&self, name: &str) -> Arc<JudgeMetrics> {
        let new = || JudgeMetrics {
            stages: [(); 4].map(|()| Histogram::of_durations()),
            items: Counter::default(),
            tokens: Counter::default(),
            truncated: Counter::default(),
            faults: Default::default(),
            dropped: Counter::default(),
            reloads: Default::default(),
            scores: Histogram::of_scores(),
            recent: Mutex::default(),
            all: self.all.clone(),
        };
        let mut judges = self.judges.lock().unwrap_or_else(PoisonError::into_inner);
        judges.entry(name.to_owned()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// A request for scores came.
    pub(crate) fn asked(&self, items: usize) {
        self.asked[usize::from(items != 1)].add(1);
    }

    /// A request for scores was answered.
    pub(crate) fn succeeded(&self, items: usize) {
        self.succeeded[usize::from(items != 1)].add(1);
    }

    /// A text was tokenised.
    pub(crate) fn input(&self, tokens: usize) {
        self.all.input_length.observe(tokens as f64);
    }

    /// A request was refused as a whole.
    pub(crate) fn refused(&self, reason: &'static str) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// A response left.
    pub(crate) fn responded(&self, route: &'static str, status: u16) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((route, status)).or_default() += 1;
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self, judges: &[Gauges]) -> String {
        let mut page = Page::default();
        self.of_text_embeddings_inference(&mut page, judges);
        self.of_the_server(&mut page);
        self.of_the_judges(&mut page, judges);
        page.text
    }

    fn of_text_embeddings_inference(&self, page: &mut Page, judges: &[Gauges]) {
        page.head("te_request_count", "counter", "Requests for scores.");
        METHODS.iter().zip(&self.asked).for_each(|(m, n)| page.line("te_request_count", &label("method", m), n.get()));
        page.head("te_request_success", "counter", "Requests for scores that were answered.");
        let lines = METHODS.iter().zip(&self.succeeded);
        lines.for_each(|(method, count)| page.line("te_request_success", &label("method", method), count.get()));
        page.head("te_request_failure", "counter", "Requests for scores that were refused.");
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
        refusals.iter().for_each(|(reason, count)| *failures.entry(failure(reason)).or_default() += count);
        failures.iter().for_each(|(reason, n)| page.line("te_request_failure", &label("err", reason), *n));
        let all = &self.all;
        for (name, what, histogram) in [
            ("te_request_duration", "Seconds of a request.", &all.duration),
            ("te_request_tokenization_duration", "Seconds until a request was tokenised.", &all.tokenisation),
            ("te_request_queue_duration", "Seconds that a request waited.", &all.queue),
            ("te_request_inference_duration", "Seconds that a request was computed.", &all.inference),
            ("te_request_input_length", "Tokens of a text.", &all.input_length),
            ("te_batch_next_size", "Texts of a batch.", &all.batch_items),
            ("te_batch_next_tokens", "Tokens of a batch.", &all.batch_tokens),
        ] {
            page.head(name, "histogram", what);
            histogram.write(&mut page.text, name, "");
        }
        page.head("te_queue_size", "gauge", "Texts that wait.");
        page.line("te_queue_size", "", judges.iter().map(|judge| judge.queue_items).sum::<usize>());
    }

    fn of_the_server(&self, page: &mut Page) {
        page.head("kudos_build_info", "gauge", "The version of this program.");
        page.line("kudos_build_info", &label("version", env!("CARGO_PKG_VERSION")), 1);
        page.head("kudos_uptime_seconds", "gauge", "Seconds since the start.");
        page.line("kudos_uptime_seconds", "", self.started.elapsed().as_secs_f64());
        page.head("kudos_responses_total", "counter", "Responses by route and status.");
        for ((route, status), count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            page.line("kudos_responses_total", &format!("{},status=\"{status}\"", label("route", route)), *count);
        }
        page.head("kudos_rejections_total", "counter", "Requests that were refused as a whole, by reason.");
        for (reason, count) in self.refusals.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            page.line("kudos_rejections_total", &label("reason", reason), *count);
        }
        page.head("kudos_stuck_tokenisers_total", "counter", "Texts whose tokenising was given up.");
        page.line("kudos_stuck_tokenisers_total", "", self.stuck_tokenisers.get());
        page.head("kudos_lost_log_lines_total", "counter", "Log lines that could not be written.");
        page.line("kudos_lost_log_lines_total", "", self.lost_log_lines.get());
    }

    fn of_the_judges(&self, page: &mut Page, gauges: &[Gauges]) {
        let judges = self.judges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        counters(page, &judges);
        histograms(page, &judges);
        present(page, gauges);
        drift(page, gauges, &judges);
    }
}

fn counters(page: &mut Page, judges: &BTreeMap<String, Arc<JudgeMetrics>>) {
    type Get = fn(&JudgeMetrics) -> &Counter;
    let counters: [(&str, &str, Get); 4] = [
        ("kudos_items_total", "Texts that were scored.", |judge| &judge.items),
        ("kudos_tokens_total", "Tokens of texts that were scored.", |judge| &judge.tokens),
        ("kudos_truncated_items_total", "Texts that were cut to the token limit.", |judge| &judge.truncated),
        ("kudos_dropped_requests_total", "Requests whose client left.", |judge| &judge.dropped),
    ];
    for (name, what, get) in counters {
        page.head(name, "counter", what);
        judges.iter().for_each(|(judge, metrics)| page.line(name, &label("judge", judge), get(metrics).get()));
    }
    page.head("kudos_item_errors_total", "counter", "Items without a score, by kind of error.");
    for (judge, metrics) in judges {
        for (kind, count) in FaultKind::ALL.iter().zip(&metrics.faults) {
            let labels = format!("{},{}", label("judge", judge), label("kind", kind.name()));
            page.line("kudos_item_errors_total", &labels, count.get());
        }
    }
    page.head("kudos_reloads_total", "counter", "Reloads, by result.");
    for (judge, metrics) in judges {
        for (result, count) in ["loaded", "failed"].iter().zip(&metrics.reloads) {
            let labels = format!("{},{}", label("judge", judge), label("result", result));
            page.line("kudos_reloads_total", &labels, count.get());
        }
    }
}

fn histograms(page: &mut Page, judges: &BTreeMap<String, Arc<JudgeMetrics>>) {
    page.head("kudos_stage_seconds", "histogram", "Seconds of a request by stage.");
    for (judge, metrics) in judges {
        for (stage, histogram) in STAGES.iter().zip(&metrics.stages) {
            let labels = format!("{},{}", label("judge", judge), label("stage", stage));
            histogram.write(&mut page.text, "kudos_stage_seconds", &labels);
        }
    }
    page.head("kudos_score", "histogram", "Scores.");
    for (judge, metrics) in judges {
        metrics.scores.write(&mut page.text, "kudos_score", &label("judge", judge));
    }
}

fn present(page: &mut Page, gauges: &[Gauges]) {
    page.head("kudos_judge_info", "gauge", "The judge that is loaded.");
    for Gauges { facts, .. } in gauges {
        let precision = facts.precision.to_string();
        let own = [("judge", facts.name.as_str()), ("sha256", &facts.sha256), ("precision", &precision)];
        let labels: Vec<String> = own.iter().map(|(name, value)| label(name, value)).collect();
        page.line("kudos_judge_info", &labels.join(","), 1);
    }
    type Get = fn(&Gauges) -> f64;
    let values: [(&str, &str, Get); 3] = [
        ("kudos_queue_items", "Texts that wait.", |judge| judge.queue_items as f64),
        ("kudos_queue_tokens", "Tokens of texts that wait.", |judge| judge.queue_tokens as f64),
        ("kudos_tokens_per_second", "Measured speed.", |judge| judge.tokens_per_second),
    ];
    for (name, what, get) in values {
        page.head(name, "gauge", what);
        gauges.iter().for_each(|judge| page.line(name, &label("judge", &judge.facts.name), get(judge)));
    }
}

/// The latest scores beside those of training.
fn drift(page: &mut Page, gauges: &[Gauges], judges: &BTreeMap<String, Arc<JudgeMetrics>>) {
    let mut lines: [Vec<(String, f64)>; 5] = Default::default();
    for Gauges { facts, .. } in gauges {
        let Some(metrics) = judges.get(&facts.name) else { continue };
        let recent = metrics.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = label("judge", &facts.name);
        lines[0].push((labels.clone(), recent.scores.len() as f64));
        let Some((mean, std)) = recent.moments() else { continue };
        lines[1].push((labels.clone(), mean));
        lines[2].push((labels.clone(), std));
        let Some(trained) = facts.calibration.filter(|calibration| calibration.std > 0.0) else { continue };
        lines[3].push((labels.clone(), (mean - f64::from(trained.mean)) / f64::from(trained.std)));
        lines[4].push((labels, std / f64::from(trained.std)));
    }
    let heads = [
        ("kudos_score_window", "Latest scores that the next figures are over."),
        ("kudos_score_mean", "Their mean."),
        ("kudos_score_std", "Their standard deviation."),
        ("kudos_score_drift", "Distance of their mean from that of training, in standard deviations of training."),
        ("kudos_score_spread", "Their standard deviation over that of training."),
    ];
    for ((name, what), lines) in heads.iter().zip(lines) {
        page.head(name, "gauge", what);
        lines.iter().for_each(|(labels, value)| page.line(name, labels, value));
    }
}

/// What text-embeddings-inference calls a reason.
fn failure(reason: &str) -> &str {
    match reason {
        "too_many_items" => "batch_size",
        "overloaded" => "overloaded",
        "no_such_judge" => "model_type",
        _ => "validation",
    }
}

/// `name="value"`.
fn label(name: &str, value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{escaped}\"")
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, what: &str) {
        let _ = writeln!(self.text, "# HELP {name} {what}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.text, "{name}{braces} {value}");
    }
}
