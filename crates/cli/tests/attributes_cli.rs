//! Judges with one output an attribute, by the real binary on a tiny model: training, scoring, evaluation, choosing.

mod binary;

use binary::{error, kudos, ok, run, usage};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

fn base() -> String {
    binary::golden().display().to_string()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Green things are warm (5, else 1), eggs are large (80, else 20); a third of the ratings is missing.
fn data(dir: &Path) {
    let mut text = String::new();
    for p in 0..12 {
        let response = |r: usize| {
            let (green, egg) = (r.is_multiple_of(2), r < 2);
            let words = [if green { "green" } else { "red" }, if egg { "egg" } else { "hens" }].join(" ");
            let (warm, size) = (if green { 5 } else { 1 }, if egg { 80 } else { 20 });
            let mut attributes = json!({"warm": warm, "size": size});
            match (p + r) % 6 {
                0 => attributes["warm"] = Value::Null,
                1 => drop(attributes.as_object_mut().unwrap().remove("size")),
                _ => {}
            }
            json!({"text": words, "score": f64::from(warm) + f64::from(size) / 20.0, "attributes": attributes})
        };
        let responses: Vec<Value> = (0..4).map(response).collect();
        text += &format!("{}\n", json!({"prompt": format!("which {p}"), "responses": responses}));
    }
    std::fs::write(dir.join("rated.jsonl"), text).unwrap();
}

fn train_args<'a>(output: &'a str, base: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["train", "rated.jsonl", "--base", base, "-o", output, "--attributes", "warm,size", "--quiet"];
    [&fixed, more].concat()
}

const LEARNT: [&str; 6] = ["--max-steps", "150", "--learning-rate", "1e-2", "--precision", "f32"];

/// A judge of both attributes in `dir/judge`.
fn judge(dir: &Path) {
    data(dir);
    let base = base();
    let weights = ["--attribute-weights", "warm=2,size=-0.1"];
    ok(dir, &train_args("judge", &base, &[&LEARNT[..], &weights].concat()));
}

fn close(found: &Value, expected: f64, within: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{found} instead of {expected}"));
    assert!((found - expected).abs() < within, "{found} instead of {expected}");
}

#[test]
fn ratings_are_learnt_on_their_own_scales_and_weighed() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let config = read(&dir.path().join("judge/config.json"));
    assert_eq!(config["id2label"], json!({"0": "warm", "1": "size"}));
    assert_eq!(config["label2id"], json!({"warm": 0, "size": 1}));
    assert_eq!(config["problem_type"], "regression");
    let reward = read(&dir.path().join("judge/reward.json"));
    assert_eq!(reward["attributes"]["names"], json!(["warm", "size"]));
    assert_eq!(reward["attributes"]["weights"], json!([2.0, -0.1]));
    assert_eq!(reward["attributes"]["weighting"], "declared");
    let card = std::fs::read_to_string(dir.path().join("judge/README.md")).unwrap();
    assert!(card.contains("| 1 | size | -0.1000 |"), "{card}");

    let scored = lines(&ok(dir.path(), &["score", "rated.jsonl", "--judge", "judge", "--quiet"]));
    for row in &scored {
        for r in 0..4 {
            let (warm, size) = (&row["scores_warm"][r], &row["scores_size"][r]);
            close(warm, if [0, 2].contains(&r) { 5.0 } else { 1.0 }, 1.0);
            close(size, if r < 2 { 80.0 } else { 20.0 }, 15.0);
            close(&row["scores"][r], 2.0 * warm.as_f64().unwrap() - 0.1 * size.as_f64().unwrap(), 1e-5);
        }
        assert!(row["responses"][0].get("attributes").is_some(), "the ratings of the data pass through");
    }
    let text = ["--prompt", "which 0", "--response", "green egg"];
    let score = |more: &[&str]| ok(dir.path(), &[&["score", "--judge", "judge"], &text[..], more].concat());
    let alone: f32 = score(&[]).trim().parse().unwrap();
    assert_eq!(alone.to_bits(), (scored[0]["scores"][0].as_f64().unwrap() as f32).to_bits());
    let all: Value = serde_json::from_str(&score(&["--json"])).unwrap();
    assert_eq!(all["attributes"], json!({"warm": scored[0]["scores_warm"][0], "size": scored[0]["scores_size"][0]}));
}

#[test]
fn every_kind_of_row_gets_a_column_an_attribute() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let csv = "prompt,answer,rank,attribute:warm,attribute:size\nwhich 0,green egg,1,5,80\nwhich 0,red egg,2,,80\n";
    std::fs::write(dir.path().join("rows.csv"), csv).unwrap();
    let pair = r#"{"prompt": "which 0", "chosen": "green egg", "rejected": "red egg"}"#;
    std::fs::write(dir.path().join("pair.jsonl"), pair).unwrap();
    let scored = |file: &str| lines(&ok(dir.path(), &["score", file, "--judge", "judge", "--quiet"]));
    let (rows, pair) = (scored("rows.csv"), scored("pair.jsonl"));
    assert_eq!(rows[0]["attribute:warm"], 5);
    for name in ["warm", "size"] {
        assert_eq!(rows[0][format!("score_{name}")], pair[0][format!("score_chosen_{name}")]);
        assert_eq!(rows[1][format!("score_{name}")], pair[0][format!("score_rejected_{name}")]);
    }
    for out in ["out.csv", "out.parquet"] {
        ok(dir.path(), &["score", "rows.csv", "--judge", "judge", "-o", out, "--quiet"]);
        let again = scored(out);
        assert_eq!(again.len(), 2);
        assert_eq!(again[1]["kudos_score_size"], rows[1]["score_size"], "{out}");
        let report = ok(dir.path(), &["check", out, "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(
            report["attributes"]["warm"],
            json!({"ratings": 1, "missing": 1, "min": 5.0, "max": 5.0, "mean": 5.0})
        );
    }
    std::fs::write(dir.path().join("bad.csv"), "prompt,answer,rank,attribute:warm\np,a,1,high\np,b,2,3\n").unwrap();
    let output = run(dir.path(), &["check", "bad.csv"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("bad.csv:2") && text.contains("`attribute:warm`"), "{text}");
}

#[test]
fn eval_has_a_section_an_attribute_and_best_chooses_by_one() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let report = ok(dir.path(), &["eval", "rated.jsonl", "--judge", "judge", "--json", "--quiet"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let warm = &report["data"][0]["attributes"]["warm"];
    assert_eq!((&warm["n"], &warm["missing"]), (&json!(40), &json!(8)));
    close(&warm["accuracy"], 1.0, 1e-9);
    close(&warm["mae"], 0.0, 0.5);
    assert!(warm["pearson"].as_f64().unwrap() > 0.95 && warm["spearman"].as_f64().unwrap() > 0.8, "{warm}");
    let table = ok(dir.path(), &["eval", "rated.jsonl", "--judge", "judge", "--quiet"]);
    assert!(table.contains("mae of mean") && table.contains("  size "), "{table}");

    let best = |more: &[&str]| {
        let args = [&["best", "rated.jsonl", "--judge", "judge", "--quiet"], more].concat();
        lines(&ok(dir.path(), &args))
    };
    // 2·warm − 0.1·size: green hens (10 − 2); warm alone: either green; the largest of the small ones never.
    assert!(best(&[]).iter().all(|row| row["response"] == "green hens"));
    assert!(best(&["--by", "size"]).iter().all(|row| row["response"].as_str().unwrap().contains("egg")));
    let kept = best(&["--by", "warm", "--min-score", "3"]);
    assert_eq!(kept.len(), 24);
    assert!(kept.iter().all(|row| row["response"].as_str().unwrap().contains("green")));
    assert!(kept[0]["score_size"].is_number() && kept[0]["attribute:size"].is_number(), "{}", kept[0]);
    let message = error(dir.path(), &["best", "rated.jsonl", "--judge", "judge", "--by", "tone"]);
    assert!(message.contains("expected an attribute of the judge judge: warm, size"), "{message}");
}

#[test]
fn weights_are_fitted_to_the_overall_score() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let base = base();
    ok(dir.path(), &train_args("fitted", &base, &["--max-steps", "3"]));
    let fitted = &read(&dir.path().join("fitted/reward.json"))["attributes"];
    assert_eq!(fitted["weighting"], "fitted");
    close(&fitted["weights"][0], 1.0, 0.02);
    close(&fitted["weights"][1], 0.05, 0.001);
    ok(dir.path(), &train_args("equal", &base, &["--max-steps", "3", "--attribute-weights", "equal"]));
    let equal = &read(&dir.path().join("equal/reward.json"))["attributes"];
    assert_eq!((&equal["weights"], &equal["intercept"]), (&json!([0.5, 0.5]), &json!(0.0)));
}

#[test]
fn training_goes_on_from_a_judge_and_is_quantized() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    // One step at a vanishing rate: the head is kept, so the outputs are.
    let more = ["--max-steps", "1", "--learning-rate", "1e-12", "--precision", "f32"];
    ok(dir.path(), &train_args("again", "judge", &more));
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small", "--quiet"]);
    let score = |judge: &str| lines(&ok(dir.path(), &["score", "rated.jsonl", "--judge", judge, "--quiet"]));
    let (first, again, small) = (score("judge"), score("again"), score("small"));
    for (row, (again, small)) in first.iter().zip(again.iter().zip(&small)) {
        for r in 0..4 {
            close(&again["scores_size"][r], row["scores_size"][r].as_f64().unwrap(), 1e-2);
            close(&small["scores_size"][r], row["scores_size"][r].as_f64().unwrap(), 5.0);
        }
    }
    let plain = ["train", "rated.jsonl", "--base", "judge", "-o", "plain", "--quiet", "--max-steps", "2"];
    assert!(error(dir.path(), &plain).contains("2 outputs, a judge has 1"));
    // A new head on a judge of width 32 is further from f32 in bf16 than the self-test allows, so f32 alone is on offer.
    let f32_alone = kudos(dir.path()).env("KUDOS_ISA", "baseline").args(plain).arg("--new-head").output().unwrap();
    assert!(f32_alone.status.success(), "{}", String::from_utf8_lossy(&f32_alone.stderr));
    let reward = dir.path().join("judge/reward.json");
    let mut without = read(&reward);
    without.as_object_mut().unwrap().remove("attributes");
    std::fs::write(&reward, without.to_string()).unwrap();
    let message = error(dir.path(), &["score", "rated.jsonl", "--judge", "judge"]);
    assert!(message.contains("2 outputs") && message.contains("reward.json"), "{message}");
}

#[test]
fn what_cannot_be_learnt_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let base = base();
    let args = |attributes: &str, more: &[&str]| {
        let fixed = ["train", "rated.jsonl", "--base", &base, "-o", "judge", "--quiet", "--attributes", attributes];
        [&fixed[..], more].concat().join("\n")
    };
    let train =
        |attributes: &str, more: &[&str]| usage(dir.path(), &args(attributes, more).split('\n').collect::<Vec<_>>());
    let message = error(dir.path(), &args("warm,tone", &[]).split('\n').collect::<Vec<_>>());
    assert!(message.contains("--attributes tone: no response") && message.contains("found size, warm"), "{message}");
    assert!(train("warm,warm", &[]).contains("warm twice"));
    assert!(train("warm", &["--recipe", "trl"]).contains("--recipe trl"));
    assert!(train("warm,size", &["--attribute-weights", "warm=1"]).contains("none for size"));
}

/// The files that make a judge.
fn judge_bytes(judge: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(judge).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_file());
    let mut bytes: Vec<_> =
        files.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    bytes.sort();
    bytes
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let base = base();
    for (name, held_out) in [("best", "0.3"), ("last", "0")] {
        let more = ["--max-steps", "200", "--save-every", "7", "--eval-every", "9", "--eval-fraction", held_out];
        ok(dir.path(), &train_args(name, &base, &more));
        let expected = judge_bytes(&dir.path().join(name));
        let killed = format!("{name}-killed");
        let resumed = train_args(&killed, &base, &[&more[..], &["--resume"]].concat()).join("\n");
        let resumed: Vec<&str> = resumed.split('\n').collect();
        let mut child = kudos(dir.path()).args(&resumed).stderr(Stdio::null()).spawn().unwrap();
        let metrics = dir.path().join(&killed).join("run/metrics.jsonl");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 60 {
            assert!(std::time::Instant::now() < deadline, "the run does not start");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let _ = child.kill();
        child.wait().unwrap();
        for round in ["killed", "whole"] {
            ok(dir.path(), &resumed);
            for ((name, found), (_, expected)) in judge_bytes(&dir.path().join(&killed)).iter().zip(&expected) {
                assert!(found == expected, "{round}: {name} differs");
            }
        }
    }
}
