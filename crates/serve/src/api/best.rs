//! `POST /v1/best`: which of several responses is the best, and how sure that is; `POST /v1/compare`: which of two.

use super::{TEXT, asked, cut, fault, framed, known, of_item, responses, rounded};
use crate::ask::{Answer, Item, JudgeFacts, Refusal};
use crate::dialects::form::{Asked, Incoming, Reply, content, number, worded};
use crate::dialects::json::{self, Fields};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// `POST /v1/best`
pub(super) fn best(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| best_fields(incoming, &body)), fault)
}

fn best_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    known(body, &["judge", "prompt", "responses", "truncate", "abstain_below"])?;
    let items = responses(body, cut(body)?)?;
    if items.is_empty() {
        return Err(Refusal::malformed("`responses` is empty; expected one or more"));
    }
    let floor = Floor::read(body)?;
    let judge = body.text("judge")?.map(str::to_owned).or_else(|| incoming.parameter("judge"));
    if floor.probability.is_some() && incoming.facts(judge.as_deref())?.calibration.is_none() {
        return Err(Refusal::unsupported(
            "`abstain_below`: the judge has no calibration, so there is no probability; give a `score`",
        ));
    }
    let answer = move |answer: &Answer| Ok(Reply::ok(framed(answer, verdict(answer, floor))));
    asked(incoming, body, items, Box::new(answer))
}

/// Below what the server names no best response.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    probability: Option<f64>,
    score: Option<f64>,
}

impl Floor {
    /// `abstain_below`: an object of `probability`, `score` or both.
    fn read(body: &Map<String, Value>) -> Result<Floor, Refusal> {
        let Some(value) = body.field("abstain_below") else { return Ok(Floor::default()) };
        let Some(fields) = value.as_object() else {
            return Err(json::wrong("abstain_below", "{probability} or {score}", value));
        };
        known(fields, &["probability", "score"])?;
        let read = |name: &str| {
            let wrong = |value| json::wrong(&format!("abstain_below.{name}"), "a number", value);
            fields.field(name).map(|value| value.as_f64().ok_or_else(|| wrong(value))).transpose()
        };
        let floor = Floor { probability: read("probability")?, score: read("score")? };
        match floor.probability {
            Some(share) if !(0.0..=1.0).contains(&share) => {
                Err(Refusal::malformed("`abstain_below.probability`: expected a number from 0 to 1"))
            }
            _ => Ok(floor),
        }
    }

    /// Why there is no best response: the limit that is missed.
    fn missed(self, probability: Option<f64>, score: f32) -> Option<&'static str> {
        let is_below =
            |limit: Option<f64>, found: Option<f64>| limit.zip(found).is_some_and(|(limit, found)| found < limit);
        if is_below(self.probability, probability) {
            return Some("probability");
        }
        is_below(self.score, Some(f64::from(score))).then_some("score")
    }
}

/// Order, margins, ties and the probability of the first. All numbers are of the responses that have a score.
fn verdict(answer: &Answer, floor: Floor) -> Map<String, Value> {
    let mut scored: Vec<(usize, f32)> = answer
        .items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| item.as_ref().ok().map(|item| (place, item.rated.scored.score)))
        .collect();
    scored.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal));
    let best = scored.first().copied();
    let probability = best.and_then(|(_, best)| first_is_best(&answer.judge, best, &scored));
    let missed = best.and_then(|(_, score)| floor.missed(probability, score));
    let named = best.filter(|_| missed.is_none()).map(|(place, _)| place);
    let tied: Vec<usize> =
        scored.iter().filter(|(_, score)| Some(*score) == best.map(|best| best.1)).map(|one| one.0).collect();
    let rows: [(&str, Value); 8] = [
        ("best", json!(named)),
        ("order", scored.iter().map(|(place, _)| json!(place)).collect()),
        ("ranks", ranks(answer.items.len(), &scored)),
        ("margin", margin(best, scored.get(1).copied())),
        ("margins", scored.iter().map(|one| margin(best, Some(*one))).collect()),
        ("ties", if tied.len() > 1 { json!(tied) } else { json!([]) }),
        ("probability", json!(probability.map(rounded))),
        ("abstained", json!(missed)),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// By how much the best leads one of the others; the difference of the two printed numbers, in `f32`.
fn margin(best: Option<(usize, f32)>, other: Option<(usize, f32)>) -> Value {
    best.zip(other).map_or(Value::Null, |((_, best), (_, other))| number(best - other))
}

/// The rank of each response, 1 for the best; equal scores share one, and a response without a score has none.
fn ranks(count: usize, scored: &[(usize, f32)]) -> Value {
    let mut ranks = vec![Value::Null; count];
    for (place, score) in scored {
        ranks[*place] = json!(1 + scored.iter().take_while(|(_, other)| other > score).count());
    }
    Value::Array(ranks)
}

/// The probability that the first is the best of all, by the Bradley-Terry model (Luce's choice, for more than two) at
/// the judge's temperature; `None` without a calibration.
fn first_is_best(judge: &JudgeFacts, best: f32, scored: &[(usize, f32)]) -> Option<f64> {
    let temperature = f64::from(judge.calibration?.temperature);
    let odds = |(_, score): &(usize, f32)| ((f64::from(*score) - f64::from(best)) / temperature).exp();
    Some(1.0 / scored.iter().map(odds).sum::<f64>())
}

/// `POST /v1/compare`
pub(super) fn compare(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| compare_fields(incoming, &body)), fault)
}

fn compare_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    known(body, &["judge", "prompt", "response_a", "response_b", "truncate"])?;
    let cut = cut(body)?;
    let prompt = body.field("prompt").map(|prompt| content(prompt, || "prompt".into())).transpose()?.map(Arc::new);
    let [a, b] = ["response_a", "response_b"].map(|name| body.needed(name, TEXT).map(|value| (name, value)));
    let side = |(name, value): (&str, &Value)| {
        let response = content(value, || name.to_owned());
        of_item(response.map(|response| Item { prompt: prompt.clone(), response, cut }))
    };
    let items = vec![side(a?), side(b?)];
    asked(incoming, body, items, Box::new(|answer| Ok(Reply::ok(framed(answer, preference(answer))))))
}

/// Which of the two is better, by how much, and how likely.
fn preference(answer: &Answer) -> Map<String, Value> {
    let score =
        |place: usize| answer.items.get(place).and_then(|item| item.as_ref().ok()).map(|item| item.rated.scored.score);
    let both = score(0).zip(score(1));
    let margin = both.map(|(a, b)| a - b);
    let preferred = margin.map(|margin| match margin {
        margin if margin > 0.0 => "a",
        margin if margin < 0.0 => "b",
        _ => "tie",
    });
    let chance = |(a, b): (f32, f32)| {
        let temperature = f64::from(answer.judge.calibration?.temperature);
        Some(1.0 / (1.0 + ((f64::from(b) - f64::from(a)) / temperature).exp()))
    };
    let rows: [(&str, Value); 3] = [
        ("preferred", json!(preferred)),
        ("margin", margin.map_or(Value::Null, number)),
        ("probability", json!(both.and_then(chance).map(rounded))),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
