//! Counts and quantiles of a run.

use crate::client::Answer;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is printed of a run.
pub struct Report {
    json: Value,
    /// Scores that are not the expected ones.
    pub differing: usize,
    /// Requests without an answer.
    pub broken: usize,
}

impl Report {
    pub fn new(answers: &[Answer], took: Duration, process: Option<Value>) -> Report {
        let mut by_status: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
        for answer in answers {
            by_status.entry(answer.status).or_default().push(answer.took.as_secs_f64() * 1e3);
        }
        let scored = by_status.get(&200).map_or(0, Vec::len);
        let broken = by_status.get(&0).map_or(0, Vec::len);
        let statuses: Map<_, _> = by_status.iter_mut().map(|(code, ms)| (code.to_string(), quantiles(ms))).collect();
        let differing = answers.iter().filter(|answer| answer.differs).count();
        let unannounced = answers.iter().filter(|answer| answer.status == 429 && !answer.retry_after).count();
        let json = json!({
            "seconds": took.as_secs_f64(),
            "requests": answers.len(),
            "scored_per_second": scored as f64 / took.as_secs_f64(),
            "by_status": statuses,
            "differing": differing,
            "429_without_retry_after": unannounced,
            "process": process,
        });
        Report { json, differing, broken }
    }

    pub fn json(&self) -> &Value {
        &self.json
    }
}

fn quantiles(ms: &mut [f64]) -> Value {
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
    json!({"count": ms.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "most": at(1.0)})
}
