//! `kudos train --folds` and `--ensemble` by the real binary on a tiny model.

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/trl_text")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("kudos"));
    command.current_dir(dir).args(args);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn ok(dir: &Path, args: &[&str]) -> Output {
    let output = run(dir, args);
    assert!(output.status.success(), "kudos {}: {}", args.join(" "), said(&output));
    output
}

/// As [`ok`], on a processor with f32 alone. A judge of width 32 with a head learnt at a high rate is further from f32 in
/// bf16 than its self-test allows.
fn ok_in_f32(dir: &Path, args: &[&str]) {
    let output = command(dir, args).env("KUDOS_ISA", "baseline").output().unwrap();
    assert!(output.status.success(), "kudos {}: {}", args.join(" "), said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn train<'a>(data: &'a str, base: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", data, "--base", base, "-o", output, "--learning-rate", "3e-3"], more].concat()
}

fn base() -> String {
    golden().display().to_string()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Pairs in which the response about the good is better, but for those of the prompts in `wrong`.
fn easy_pairs(wrong: &[usize]) -> String {
    let pair = |n: usize| {
        let prompt = format!("which one of the {n} is it");
        let (good, bad) = ("the good one, yes", "no, not that");
        let (chosen, rejected) = if wrong.contains(&n) { (bad, good) } else { (good, bad) };
        serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string() + "\n"
    };
    (0..40).map(pair).collect()
}

/// Names and bytes of the files right in a directory.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
    let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = files.map(|p| (name(&p), std::fs::read(&p).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn folds_score_every_response_and_find_the_wrong_labels() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = [3, 17];
    std::fs::write(dir.path().join("pairs.jsonl"), easy_pairs(&wrong)).unwrap();
    let base = base();
    let more = ["--folds", "4", "--max-steps", "30", "--json"];
    let output = ok(dir.path(), &train("pairs.jsonl", &base, "judge", &more));
    let message = said(&output);
    assert!(message.contains("12 trainings") && message.contains("360 steps, as many as of 12.0 judges"), "{message}");

    let run_dir = dir.path().join("judge/run");
    let folds = json(&run_dir.join("folds.json"));
    let accuracy = folds["accuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.9, "{folds:#}");
    let ci = &folds["accuracy_ci95"];
    assert!(ci[0].as_f64().unwrap() <= accuracy && ci[1].as_f64().unwrap() >= accuracy, "{folds:#}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["folds"], folds);
    let curve = folds["learning_curve"].as_array().unwrap();
    let prompts: Vec<_> = curve.iter().map(|point| point["prompts"].as_u64().unwrap()).collect();
    assert_eq!(prompts, [8, 15, 30]);
    assert_eq!(curve[2]["accuracy"], folds["accuracy"]);
    assert!(curve.iter().all(|point| point["by_fold"].as_array().unwrap().len() == 4), "{folds:#}");

    let scores = lines(&run_dir.join("out_of_fold.jsonl"));
    assert_eq!(scores.len(), 40);
    assert!(
        scores.iter().all(|row| row["scores"].as_array().unwrap().len() == 2 && row["fold"].as_u64().unwrap() <= 4)
    );
    let right = |row: &&Value| row["scores"][0].as_f64() > row["scores"][1].as_f64();
    assert_eq!(scores.iter().filter(right).count() as f64 / 40.0, accuracy);

    let suspects = lines(&run_dir.join("suspects.jsonl"));
    let mut found: Vec<_> = suspects.iter().map(|row| row["line"].as_u64().unwrap() as usize - 1).collect();
    found.sort_unstable();
    assert_eq!(found, wrong);
    assert!(suspects.windows(2).all(|w| w[0]["probability"].as_f64() <= w[1]["probability"].as_f64()));
    assert!(suspects.iter().all(|row| row["file"] == "pairs.jsonl" && row["probability"].as_f64().unwrap() < 0.1));
    // It is data: whatever reads pairs can open it.
    ok(dir.path(), &["check", "judge/run/suspects.jsonl"]);
    let report = ok(dir.path(), &["eval", "judge/run/suspects.jsonl", "--judge", "judge", "--json", "--quiet"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["data"][0]["pairs"], &report["data"][0]["accuracy"]), (&2.into(), &0.0.into()));

    assert!(!run_dir.join("folds").exists(), "the judges of the folds are thrown away");
    let card = std::fs::read_to_string(dir.path().join("judge/README.md")).unwrap();
    assert!(card.contains("4 judges of the same recipe") && card.contains("2 labels look wrong"), "{card}");
}

#[test]
fn folds_are_deterministic_and_do_not_change_the_judge() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    std::fs::write(dir.path().join("pairs.jsonl"), easy_pairs(&[5])).unwrap();
    for (output, more) in [
        ("one", &["--max-steps", "8", "--folds", "2", "--threads", "1"][..]),
        ("two", &["--max-steps", "8", "--folds", "2", "--threads", "2"]),
        ("plain", &["--max-steps", "8"]),
    ] {
        ok(dir.path(), &train("pairs.jsonl", &base, output, more));
    }
    for file in ["folds.json", "out_of_fold.jsonl", "suspects.jsonl"] {
        let read = |judge: &str| std::fs::read(dir.path().join(judge).join("run").join(file)).unwrap();
        assert!(read("one") == read("two"), "{file}");
    }
    let weights = |judge: &str| std::fs::read(dir.path().join(judge).join("model.safetensors")).unwrap();
    assert!(weights("one") == weights("plain"));
    // With --overwrite and no folds, the old folds do not stay beside the new judge.
    ok(dir.path(), &train("pairs.jsonl", &base, "one", &["--max-steps", "2", "--overwrite"]));
    assert!(!dir.path().join("one/run/folds.json").exists());
}

#[test]
fn folds_with_rankings_an_eval_file_and_trls_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    let ranked: String =
        (0..12).map(|n| format!("prompt {n},the good one,1\nprompt {n},that one,2\nprompt {n},no,2\n")).collect();
    std::fs::write(dir.path().join("ranked.csv"), format!("prompt,answer,rank\n{ranked}")).unwrap();
    std::fs::write(dir.path().join("eval.jsonl"), easy_pairs(&[])).unwrap();
    let more = ["--max-steps", "6", "--folds", "3", "--eval", "eval.jsonl"];
    ok_in_f32(dir.path(), &train("ranked.csv", &base, "eval", &more));
    assert_eq!(json(&dir.path().join("eval/run/folds.json"))["pairs"], 24);
    assert_eq!(json(&dir.path().join("eval/run/folds.json"))["learning_curve"][2]["prompts"], 8);
    let more = ["--max-steps", "6", "--folds", "3", "--recipe", "trl"];
    ok_in_f32(dir.path(), &train("ranked.csv", &base, "trl", &more));
    assert_eq!(lines(&dir.path().join("trl/run/out_of_fold.jsonl")).len(), 24);
}

#[test]
fn too_few_prompts_for_the_folds() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    let few: String = easy_pairs(&[]).lines().take(9).map(|line| format!("{line}\n")).collect();
    std::fs::write(dir.path().join("few.jsonl"), few).unwrap();
    let output = run(dir.path(), &train("few.jsonl", &base, "judge", &["--folds", "5"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--folds 5: expected at least 10 labelled prompts, found 9"), "{}", said(&output));
    let output = run(dir.path(), &train("few.jsonl", &base, "judge", &["--folds", "1"]));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn interrupted_folds_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    std::fs::write(dir.path().join("pairs.jsonl"), easy_pairs(&[])).unwrap();
    let args = train("pairs.jsonl", &base, "judge", &["--folds", "4", "--max-steps", "100000"]);
    let child = command(dir.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = dir.path().join("judge/run/folds/1-1of4/run/metrics.jsonl");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) < 2000 {
        assert!(std::time::Instant::now() < deadline, "the folds do not start");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("interrupted in the folds"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(dir.path().join("judge/run")).unwrap().count(), 0, "no file and no folder is left");
}

#[test]
fn an_ensemble_is_one_judge_whose_card_says_what_the_average_is_worth() {
    let dir = tempfile::tempdir().unwrap();
    let (base, data) = (base(), golden().join("pairs.jsonl").display().to_string());
    let more = ["--max-steps", "12", "--eval-fraction", "0.5"];
    let output = ok(dir.path(), &train(&data, &base, "soup", &[&more[..], &["--ensemble", "3"]].concat()));
    assert!(said(&output).contains("3 runs, held-out log loss"), "{}", said(&output));
    ok(dir.path(), &train(&data, &base, "one", &more));
    let size = |judge: &str| std::fs::metadata(dir.path().join(judge).join("model.safetensors")).unwrap().len();
    assert_eq!(size("soup"), size("one"), "a judge of the same size");
    let card = std::fs::read_to_string(dir.path().join("soup/README.md")).unwrap();
    for part in ["| 1 | 42 |", "| 2 | 43 |", "| 3 | 44 |", "| mean of the runs |", "| average of their weights |"] {
        assert!(card.contains(part), "{part}: {card}");
    }
    // Member 1 is the single run: same losses, step by step.
    let losses =
        |path: &str| -> Vec<Value> { lines(&dir.path().join(path)).iter().map(|line| line["loss"].clone()).collect() };
    assert_eq!(losses("soup/run/metrics.jsonl"), losses("one/run/metrics.jsonl"));
    assert_ne!(losses("soup/run/ensemble/2/run/metrics.jsonl"), losses("one/run/metrics.jsonl"));
    let left = files(&dir.path().join("soup/run/ensemble/2"));
    assert!(left.is_empty(), "the members' weights are gone");
    ok(dir.path(), &["verify", "--judge", "soup"]);
}

#[test]
fn the_average_is_the_mean_of_the_members_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (base, data) = (base(), golden().join("pairs.jsonl").display().to_string());
    // Nothing held out: the last weights of each run, and the average without a doubt.
    let more = ["--max-steps", "5", "--eval-fraction", "0", "--precision", "f32"];
    ok(dir.path(), &train(&data, &base, "soup", &[&more[..], &["--ensemble", "2"]].concat()));
    ok(dir.path(), &train(&data, &base, "first", &more));
    let weights = |judge: &str| {
        let bytes = std::fs::read(dir.path().join(judge).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        bytes[8 + header..].chunks_exact(4).map(value).collect::<Vec<f32>>()
    };
    let (soup, first) = (weights("soup"), weights("first"));
    let moved = soup.iter().zip(&first).filter(|(a, b)| a != b).count();
    assert!(moved > soup.len() / 4, "the other run took part: {moved} of {}", soup.len());
    let apart = soup.iter().zip(&first).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 0.05, "both started from the same head: {apart}");
}

#[test]
fn a_killed_ensemble_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (base, data) = (base(), golden().join("pairs.jsonl").display().to_string());
    let more = ["--max-steps", "500", "--ensemble", "2", "--save-every", "50", "--eval-every", "100"];
    ok(dir.path(), &train(&data, &base, "whole", &more));
    let args = train(&data, &base, "killed", &more);
    let mut child = command(dir.path(), &args).stderr(Stdio::null()).spawn().unwrap();
    let metrics = dir.path().join("killed/run/ensemble/2/run/metrics.jsonl");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) < 1500 && child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline, "the second run does not start");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert!(!dir.path().join("killed/model.safetensors").exists(), "it was killed before its end");
    let output = run(dir.path(), &args);
    assert!(said(&output).contains("--resume continues it"), "{}", said(&output));
    ok(dir.path(), &[&args[..], &["--resume"]].concat());
    assert!(files(&dir.path().join("killed")) == files(&dir.path().join("whole")));
}
