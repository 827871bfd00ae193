//! `kudos eval` beyond one table: two judges, calibration, analysis, suites, by the real binary on a tiny model.

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/trl_text")
}

fn pairs() -> String {
    golden().join("pairs.jsonl").display().to_string()
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin("kudos")).current_dir(dir).args(args).arg("--quiet").output().unwrap()
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "kudos {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(dir, args)).unwrap()
}

fn error(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "kudos {}: {message}", args.join(" "));
    message
}

/// A directory with a judge of so many steps.
fn judge(dir: &Path, name: &str, steps: &str) {
    let base = golden().display().to_string();
    ok(dir, &["train", &pairs(), "--base", &base, "-o", name, "--max-steps", steps, "--learning-rate", "1e-3"]);
}

/// The pairs of the golden in other words' order: another file, so not what the judge was trained on.
fn held_out(dir: &Path) {
    let text = std::fs::read_to_string(pairs()).unwrap();
    let lines: Vec<&str> = text.lines().rev().collect();
    std::fs::write(dir.join("held.jsonl"), lines.join("\n")).unwrap();
}

#[test]
fn two_judges_are_compared_on_the_same_pairs() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path(), "a", "1");
    judge(dir.path(), "b", "30");
    let both = ["eval", &pairs(), "--judge", "a", "--judge", "b"];
    let found = json(dir.path(), &[&both[..], &["--json"]].concat());
    let alone = json(dir.path(), &["eval", &pairs(), "--judge", "b", "--json"]);
    let data = &found["data"][0];
    assert_eq!(data["second"]["accuracy"], alone["data"][0]["accuracy"]);
    assert_eq!(data["second"]["accuracy_ci95"], alone["data"][0]["accuracy_ci95"]);
    let accuracy = |judge: &str| data[judge]["accuracy"].as_f64().unwrap();
    assert!((data["difference"].as_f64().unwrap() - accuracy("first") + accuracy("second")).abs() < 1e-12);
    let sentence = data["sentence"].as_str().unwrap();
    assert!(ok(dir.path(), &both).contains(sentence) && sentence.starts_with("The difference is"), "{sentence}");
    let same = json(dir.path(), &["eval", &pairs(), "--judge", "a", "--judge", "a", "--json"]);
    assert_eq!(
        (&same["data"][0]["verdict"], &same["data"][0]["mcnemar"]["p_value"]),
        (&"not_shown".into(), &1.0.into())
    );
    let three = run(dir.path(), &[&both[..], &["--judge", "a"]].concat());
    let message = String::from_utf8(three.stderr).unwrap();
    assert!(message.contains("expected one --judge, or two to compare"), "{message}");
    assert_eq!(three.status.code(), Some(2), "wrong usage");
}

#[test]
fn calibration_is_stored_and_refuses_training_data() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path(), "judge", "30");
    held_out(dir.path());
    let before = std::fs::read_to_string(dir.path().join("judge/reward.json")).unwrap();
    let refused = error(dir.path(), &["eval", &pairs(), "--judge", "judge", "--calibrate"]);
    assert!(refused.contains("trained on") && refused.contains("--allow-training-data"), "{refused}");
    assert_eq!(std::fs::read_to_string(dir.path().join("judge/reward.json")).unwrap(), before);
    let missing = error(dir.path(), &["eval", "held.jsonl", "--judge", "nowhere", "--calibrate"]);
    assert!(missing.contains("expected a judge directory"), "{missing}");

    let printed = ok(dir.path(), &["eval", "held.jsonl", "--judge", "judge", "--calibrate"]);
    assert!(
        printed.contains("before") && printed.contains("after") && printed.contains("judge/reward.json"),
        "{printed}"
    );
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let mut after = read(&std::fs::read_to_string(dir.path().join("judge/reward.json")).unwrap());
    let temperature = after["calibration"]["temperature"].as_f64().unwrap();
    assert!(temperature > 0.0 && after["calibration"]["std"].as_f64().unwrap() > 0.0);
    let report = json(dir.path(), &["eval", "held.jsonl", "--judge", "judge", "--json", "--analysis"]);
    let stored = report["data"][0]["analysis"]["calibration"]["stored_temperature"].as_f64().unwrap();
    assert!((stored - temperature).abs() < 1e-6);
    // Nothing else has changed.
    let mut before = read(&before);
    before["calibration"].take();
    after["calibration"].take();
    assert_eq!(before, after);
    ok(dir.path(), &["eval", &pairs(), "--judge", "judge", "--calibrate", "--allow-training-data"]);
}

#[test]
fn the_analysis_repeats_the_figures_of_the_report() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path(), "judge", "10");
    let plain = json(dir.path(), &["eval", &pairs(), "--judge", "judge", "--json"]);
    let mut found = json(dir.path(), &["eval", &pairs(), "--judge", "judge", "--json", "--analysis"]);
    let analysis = found["data"][0].as_object_mut().unwrap().remove("analysis").unwrap();
    assert_eq!(plain, found);
    let (data, all) = (&plain["data"][0], &analysis["accuracy"]["all"]);
    assert_eq!(
        (&all["judge"]["accuracy"], &all["judge"]["accuracy_ci95"]),
        (&data["accuracy"], &data["accuracy_ci95"])
    );
    assert_eq!(all["longer_wins"]["accuracy"], data["longer_response_accuracy"]);
    for key in ["ece", "brier", "log_loss"] {
        assert_eq!(analysis["calibration"]["stored"][key], data[key]);
    }
    for section in ["scores", "length", "ties", "order", "bars", "mistakes", "suspects", "learning_curve"] {
        assert!(analysis.get(section).is_some(), "{section}");
    }
}

#[test]
fn a_suite_prints_its_own_score_next_to_ours() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path(), "judge", "1");
    let row =
        |n: usize| format!(r#"{{"input": "ask {n}", "output_1": "yes", "output_2": "no no", "label": {}}}"#, 1 + n % 2);
    for set in ["Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut", "Adversarial/Manual"] {
        let path = dir.path().join("Dataset/LLMBar").join(set);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("dataset.json"), format!("[{}, {}]", row(0), row(1))).unwrap();
    }
    let args = ["eval", ".", "--suite", "llmbar", "--judge", "judge"];
    let found = json(dir.path(), &[&args[..], &["--json"]].concat());
    assert!(found["headline"]["score"].is_number() && found["data"][0]["subsets"]["Natural"]["pairs"] == 2);
    let table = ok(dir.path(), &args);
    assert!(table.contains("LLMBar: mean of the accuracies of the five sets") && table.contains("ours, all 10 pairs"));
    let wrong = error(dir.path(), &["eval", ".", "--suite", "judgebench", "--judge", "judge"]);
    assert!(wrong.contains("expected a JSONL file of JudgeBench"), "{wrong}");
}

#[test]
fn rewardbench_2_scores_best_of_four_and_ties() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path(), "judge", "1");
    let row = |id: &str, subset: &str, correct: usize| {
        let (chosen, rejected) = (vec!["yes"; correct], vec!["no no"; 4 - correct]);
        let counts = format!(r#""num_correct": {correct}, "num_incorrect": {}, "total_completions": 4"#, 4 - correct);
        format!(
            r#"{{"id": "{id}", "prompt": "ask", "chosen": {chosen:?}, "rejected": {rejected:?}, {counts}, "subset": "{subset}"}}"#
        )
    };
    let subsets = ["Factuality", "Precise IF", "Math", "Safety", "Focus"];
    let ties = [row("ref:1", "Ties", 1), row("tied:1", "Ties", 2)];
    let rows: Vec<String> = subsets.iter().map(|subset| row("1", subset, 1)).chain(ties).collect();
    std::fs::write(dir.path().join("test.jsonl"), rows.join("\n")).unwrap();
    let found = json(dir.path(), &["eval", "test.jsonl", "--suite", "rewardbench-2", "--judge", "judge", "--json"]);
    assert!(found["suite"] == "rewardbench-2" && found["headline"]["score"].is_number(), "{found}");
    assert_eq!(found["headline"]["parts"].as_array().unwrap().len(), 6 + 5);
    assert_eq!((&found["data"][0]["pairs"], &found["data"][0]["subsets"]["Ties"]["pairs"]), (&22.into(), &7.into()));
}
