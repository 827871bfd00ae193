//! The HTML report, by the real binary: its figures are those of `eval --json`, and training leaves one.

mod binary;

use binary::{golden, ok, run};
use serde_json::Value;
use std::path::Path;

fn train(dir: &Path, more: &[&str]) {
    let (data, base) = (golden().join("pairs.jsonl").display().to_string(), golden().display().to_string());
    let args =
        ["train", &data, "--base", &base, "-o", "judge", "--quiet", "--max-steps", "12", "--learning-rate", "1e-3"];
    ok(dir, &[&args, more].concat());
}

/// Every figure of the page that names its place in the JSON: `(pointer, value)`.
fn figures(html: &str) -> Vec<(String, f64)> {
    let marked = html.split("<data data-key=\"").skip(1);
    let read = |rest: &str| {
        let (pointer, rest) = rest.split_once("\" value=\"").expect("a value");
        let (value, _) = rest.split_once('"').expect("a closing quote");
        (pointer.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"), value.parse().expect("a number"))
    };
    marked.map(read).collect()
}

/// Rankings with ties, subsets and a hostile text; the judge knows none of these words.
const RANKINGS: &str = r#"{"prompt":"one <b>","subset":"a/b","responses":[{"text":"good","rank":1},{"text":"bad words","rank":2},{"text":"worse","rank":3}]}
{"prompt":"two","subset":"<x> & y","responses":[{"text":"<script>alert(1)</script>","rank":1},{"text":"fine","rank":1},{"text":"no","rank":2},{"text":"a longer text","rank":3}]}
{"prompt":"three","subset":"a/b","responses":[{"text":"yes","rank":2},{"text":"perhaps so","rank":1}]}
"#;

#[test]
fn the_figures_are_those_of_the_json() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), &[]);
    std::fs::write(dir.path().join("rankings.jsonl"), RANKINGS).unwrap();
    let pairs = golden().join("pairs.jsonl").display().to_string();
    let args = ["eval", "rankings.jsonl", &pairs, "--judge", "judge", "--quiet", "--bootstrap", "200"];
    ok(dir.path(), &[&args[..], &["--json", "figures.json", "--report", "report.html"]].concat());
    let json: Value = serde_json::from_slice(&std::fs::read(dir.path().join("figures.json")).unwrap()).unwrap();
    let html = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    let found = figures(&html);
    for (pointer, value) in &found {
        let expected = json.pointer(pointer).and_then(Value::as_f64);
        assert_eq!(expected, Some(*value), "{pointer}");
    }
    for key in
        ["accuracy", "accuracy_ci95/0", "pairs", "prompts", "ece", "brier", "log_loss", "longer_response_accuracy"]
    {
        for file in 0..2 {
            let pointer = format!("/data/{file}/{key}");
            assert!(found.iter().any(|(p, _)| *p == pointer), "{pointer} is not in the report");
        }
    }
    let subsets = ["/data/0/subsets/a~1b/accuracy", "/data/0/subsets/<x> & y/pairs", "/data/0/best_of_n/2/judge"];
    for pointer in subsets.into_iter().chain(["/data/0/kendall_tau_b", "/data/0/ties"]) {
        assert!(found.iter().any(|(p, _)| p == pointer), "{pointer} is not in the report");
    }
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn a_training_leaves_a_report_that_says_how_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), &[]);
    let html = std::fs::read_to_string(dir.path().join("judge/report.html")).unwrap();
    let settings: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("judge/reward.json")).unwrap()).unwrap();
    let hash = settings["data"][0]["sha256"].as_str().unwrap();
    for part in
        ["This judge", "Training", "12\u{a0}steps", "slightly optimistic", hash, "model.safetensors", "learning_rate"]
    {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn without_held_out_data_the_report_says_so() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), &["--eval-fraction", "0"]);
    let html = std::fs::read_to_string(dir.path().join("judge/report.html")).unwrap();
    assert!(html.contains("Nothing was held out") && html.contains("12\u{a0}steps"));
    assert!(!html.contains("id=\"verdict\""));
}

#[test]
fn a_report_is_about_one_judge() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["eval", "x.jsonl", "--judge", "a", "--judge", "b", "--report", "r.html"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--report is about one judge"));
}
