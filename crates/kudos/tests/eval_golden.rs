//! The metrics against SciPy, scikit-learn and NumPy (`golden/make_eval_golden.py`), and properties
//! that hold for all data.

use kudos::data::{Comparison, Content, Group, Location, Response};
use kudos::eval::{DataReport, EvalOptions, Metrics, evaluate, fit_temperature};
use proptest::prelude::*;
use serde_json::Value;

// ---------------------------------------------------------------- goldens

struct Golden {
    groups: Vec<Group>,
    scores: Vec<Vec<f32>>,
    temperature: f32,
    expected: Value,
    fitted_temperature: f64,
}

fn golden(name: &str) -> Golden {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/eval");
    let text = std::fs::read_to_string(format!("{directory}/{name}.json")).expect("golden file");
    let mut json: Value = serde_json::from_str(&text).expect("golden JSON");
    let groups = json["groups"].as_array().expect("groups");
    let floats = |v: &Value| -> Vec<f32> { list(v).map(|s| float(s) as f32).collect() };
    Golden {
        groups: groups.iter().map(group).collect(),
        scores: groups.iter().map(|g| floats(&g["scores"])).collect(),
        temperature: float(&json["temperature"]) as f32,
        fitted_temperature: float(&json["fitted_temperature"]),
        expected: json["expected"].take(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn float(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn group(json: &Value) -> Group {
    let responses =
        list(&json["lengths"]).zip(list(&json["ranks"])).map(|(n, rank)| response(float(n) as usize, rank.as_f64()));
    let comparisons = list(&json["comparisons"]).map(|c| {
        let [first, second, target] = [0, 1, 2].map(|i| float(&c[i]));
        comparison(first as usize, second as usize, target as f32)
    });
    let prompt = format!("prompt {}", json["prompt"]);
    new_group(&prompt, responses.collect(), comparisons.collect())
}

fn location() -> Location {
    Location { file: "golden".into(), line: 1 }
}

fn new_group(prompt: &str, responses: Vec<Response>, comparisons: Vec<Comparison>) -> Group {
    Group {
        prompt: Some(Content::Text(prompt.into())),
        responses,
        comparisons,
        judged: Vec::new(),
        location: location(),
    }
}

/// A response of so many characters, of two bytes each.
fn response(characters: usize, rank: Option<f64>) -> Response {
    let (content, attributes) = (Content::Text("ü".repeat(characters)), Default::default());
    Response { content, rank, score: None, attributes, location: location(), extra: Default::default() }
}

fn comparison(first: usize, second: usize, target: f32) -> Comparison {
    Comparison { first, second, target, margin: 0.0, weight: 1.0 }
}

/// Compares two JSON values, numbers to `tolerance`; `key` says where in the message.
fn assert_close(key: &str, found: &Value, expected: &Value, tolerance: f64) {
    match (found, expected) {
        (Value::Number(_), Value::Number(_)) => {
            let distance = (float(found) - float(expected)).abs();
            assert!(distance <= tolerance, "{key}: {found}, expected {expected}");
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| assert_close(key, a, b, tolerance));
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            for (name, value) in b {
                assert_close(&format!("{key}.{name}"), &a[name], value, tolerance);
            }
        }
        _ => assert_eq!(found, expected, "{key}"),
    }
}

fn check(name: &str, interval_tolerance: f64) {
    let golden = golden(name);
    let options = EvalOptions { temperature: golden.temperature, ..EvalOptions::default() };
    let report = evaluate(name, &golden.groups, &golden.scores, &options).expect(name);
    let found = serde_json::to_value(&report).expect("JSON");
    for (key, expected) in golden.expected.as_object().expect("expected values") {
        let tolerance = match key.as_str() {
            "accuracy_ci95" => interval_tolerance,
            // The targets of the file pass through f32 (0.2 is not exact in it).
            "brier" | "log_loss" | "ece" | "length_partial_correlation" => 1e-7,
            _ => 1e-11,
        };
        assert_close(&format!("{name}: {key}"), &found[key], expected, tolerance);
    }
    let fitted = fit_temperature(&golden.groups, &golden.scores).expect(name);
    let distance = f64::from(fitted.expect("margins")) - golden.fitted_temperature;
    assert!(distance.abs() < 1e-4, "{name}: temperature {fitted:?}");
}

#[test]
fn rankings_of_four() {
    check("rankings_of_four", 0.01);
}

#[test]
fn rankings_with_ties() {
    check("rankings_with_ties", 0.01);
}

#[test]
fn long_rankings() {
    check("long_rankings", 0.015); // 12 prompts: the resamples are coarse
}

#[test]
fn chosen_and_rejected() {
    check("chosen_rejected", 0.01);
}

#[test]
fn votes() {
    check("votes", 0.01);
}

// ---------------------------------------------------------------- the example file

/// Length and place must not give the answers of `examples/answers.csv` away.
#[test]
fn the_example_has_no_shortcuts() {
    for split in ["train", "held-out"] {
        let groups = example(split);
        let scores = from_ranks(&groups, 1.0);
        let found = evaluate(split, &groups, &scores, &EvalOptions::default()).expect(split);
        let metrics = found.metrics;
        assert_eq!(metrics.pairs, 6 * groups.len());
        assert_eq!(metrics.longer_response_accuracy, Some(0.5));
        assert_eq!(metrics.first_listed_accuracy, Some(0.5));
    }
}

fn example(split: &str) -> Vec<Group> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/answers.csv");
    let mut reader = csv::Reader::from_path(file).expect("examples/answers.csv");
    let mut groups: Vec<Group> = Vec::new();
    for row in reader.records().map(|row| row.expect("a row")) {
        if &row[4] != split {
            continue;
        }
        let prompt = Content::Text(row[0].into());
        if groups.last().and_then(|g| g.prompt.as_ref()) != Some(&prompt) {
            groups.push(new_group(&row[0], Vec::new(), Vec::new()));
        }
        let mut answer = response(0, row[2].parse().ok());
        answer.content = Content::Text(row[1].into());
        let group = groups.last_mut().expect("pushed above");
        group.responses.push(answer);
    }
    groups.iter_mut().for_each(compare_by_rank);
    groups
}

/// Adds the comparisons that follow from the ranks.
fn compare_by_rank(group: &mut Group) {
    let ranks: Vec<f64> = group.responses.iter().filter_map(|r| r.rank).collect();
    for (first, a) in ranks.iter().enumerate() {
        for (second, b) in ranks.iter().enumerate().skip(first + 1) {
            let target = 0.5 + f32::from(i8::from(a < b) - i8::from(a > b)) / 2.0;
            group.comparisons.push(comparison(first, second, target));
        }
    }
}

// ---------------------------------------------------------------- properties

/// Ranked groups of 2 to 6 with their scores; small integers, so that ties come up and shifts are exact.
fn data() -> impl Strategy<Value = (Vec<Group>, Vec<Vec<f32>>)> {
    let one = (1u8..5, -8i8..8, 0usize..12);
    let group = prop::collection::vec(one, 2..7);
    prop::collection::vec(group, 1..8).prop_map(|groups| groups.into_iter().map(ranked).unzip())
}

fn ranked(rows: Vec<(u8, i8, usize)>) -> (Group, Vec<f32>) {
    let response = |(rank, _, length): &(u8, i8, usize)| response(*length, Some(f64::from(*rank)));
    let mut group = new_group("", rows.iter().map(response).collect(), Vec::new());
    compare_by_rank(&mut group);
    (group, rows.iter().map(|row| f32::from(row.1)).collect())
}

fn report(groups: &[Group], scores: &[Vec<f32>]) -> DataReport {
    let options = EvalOptions { bootstrap: 20, ..EvalOptions::default() };
    evaluate("property", groups, scores, &options).expect("finite scores")
}

fn map(scores: &[Vec<f32>], f: impl Fn(f32) -> f32) -> Vec<Vec<f32>> {
    let group = |s: &Vec<f32>| s.iter().map(|v| f(*v)).collect();
    scores.iter().map(group).collect()
}

/// Scores that repeat people's order, times `sign`.
fn from_ranks(groups: &[Group], sign: f32) -> Vec<Vec<f32>> {
    let score = |r: &Response| -sign * r.rank.expect("all are ranked") as f32;
    let group = |g: &Group| g.responses.iter().map(score).collect();
    groups.iter().map(group).collect()
}

fn order_figures(m: &Metrics) -> [Option<f64>; 4] {
    [m.accuracy, m.kendall_tau_b, m.spearman, m.ndcg]
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        (a, b) => a.is_none() && b.is_none(),
    }
}

proptest! {
    #[test]
    fn a_shift_changes_nothing_and_a_stretch_no_order((groups, scores) in data()) {
        let plain = report(&groups, &scores).metrics;
        let shifted = report(&groups, &map(&scores, |s| s + 16.0)).metrics;
        prop_assert_eq!(order_figures(&plain), order_figures(&shifted));
        prop_assert_eq!(plain.log_loss, shifted.log_loss);
        prop_assert_eq!(plain.ece, shifted.ece);
        let stretched = report(&groups, &map(&scores, |s| s * 8.0)).metrics;
        prop_assert_eq!(order_figures(&plain), order_figures(&stretched));
        prop_assert_eq!(plain.best_of_n, stretched.best_of_n);
        let lengths = (plain.length_partial_correlation, stretched.length_partial_correlation);
        prop_assert!(close(lengths.0, lengths.1), "{:?}", lengths);
    }

    #[test]
    fn listing_a_group_backwards_changes_the_place_alone((groups, scores) in data()) {
        let plain = report(&groups, &scores).metrics;
        let mut backwards = groups.clone();
        for group in &mut backwards {
            let last = group.responses.len() - 1;
            group.responses.reverse();
            for c in &mut group.comparisons {
                (c.first, c.second) = (last - c.first, last - c.second);
            }
        }
        let reversed = |s: &Vec<f32>| s.iter().rev().copied().collect();
        let scores: Vec<Vec<f32>> = scores.iter().map(reversed).collect();
        let turned = report(&backwards, &scores).metrics;
        for (a, b) in order_figures(&plain).into_iter().zip(order_figures(&turned)) {
            prop_assert!(close(a, b), "{:?} {:?}", a, b);
        }
        let places = plain.first_listed_accuracy.zip(turned.first_listed_accuracy);
        prop_assert!(places.is_none_or(|(a, b)| (a + b - 1.0).abs() < 1e-12));
        prop_assert_eq!(plain.accuracy_ci95, turned.accuracy_ci95);
    }

    #[test]
    fn swapping_the_sides_of_a_comparison_changes_nothing((groups, scores) in data()) {
        let plain = report(&groups, &scores).metrics;
        let mut swapped = groups.clone();
        for c in swapped.iter_mut().flat_map(|g| &mut g.comparisons) {
            *c = comparison(c.second, c.first, 1.0 - c.target);
        }
        let swapped = report(&swapped, &scores).metrics;
        prop_assert_eq!(order_figures(&plain), order_figures(&swapped));
        prop_assert_eq!(plain.first_listed_accuracy, swapped.first_listed_accuracy);
        let sure = |m: &Metrics| [m.ece, m.brier, m.log_loss, m.length_partial_correlation];
        for (a, b) in sure(&plain).into_iter().zip(sure(&swapped)) {
            prop_assert!(close(a, b), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn perfect_reversed_and_constant_judges((groups, _) in data()) {
        let perfect = report(&groups, &from_ranks(&groups, 1.0)).metrics;
        let reversed = report(&groups, &from_ranks(&groups, -1.0)).metrics;
        let constant = report(&groups, &map(&from_ranks(&groups, 1.0), |_| 3.0)).metrics;
        for (found, accuracy) in [(&perfect, 1.0), (&constant, 0.5), (&reversed, 0.0)] {
            prop_assert_eq!(found.accuracy, perfect.accuracy.map(|_| accuracy));
        }
        let where_ranked = |value| perfect.kendall_tau_b.map(|_| value);
        for (found, order) in [(&perfect, 1.0), (&constant, 0.0), (&reversed, -1.0)] {
            prop_assert!(close(found.kendall_tau_b, where_ranked(order)));
            prop_assert!(close(found.spearman, where_ranked(order)));
        }
        prop_assert!(close(perfect.ndcg, where_ranked(1.0)));
        for (n, best) in &perfect.best_of_n {
            prop_assert!((best.judge - best.oracle).abs() < 1e-9, "best of {}", n);
            let blind = constant.best_of_n[n].judge;
            prop_assert!((blind - best.random).abs() < 1e-9, "best of {}", n);
        }
    }

    #[test]
    fn figures_stay_in_their_ranges((groups, scores) in data()) {
        let m = report(&groups, &scores).metrics;
        let from = |low: f64| move |v: Option<f64>| v.is_none_or(|v| v >= low - 1e-12 && v <= 1.0 + 1e-12);
        let errors = [m.ece, m.brier];
        let shares = [m.accuracy, m.ndcg, m.longer_response_accuracy, m.first_listed_accuracy];
        prop_assert!(errors.into_iter().chain(shares).all(from(0.0)), "{:?}", m);
        let correlations = [m.kendall_tau_b, m.spearman, m.length_partial_correlation];
        prop_assert!(correlations.into_iter().all(from(-1.0)), "{:?}", m);
        if let Some([low, high]) = m.accuracy_ci95 {
            prop_assert!(0.0 <= low && low <= high && high <= 1.0);
        }
    }
}
