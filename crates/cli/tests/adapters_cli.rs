//! LoRA by the real binary: train an adapter, use it as a judge, merge it.

mod binary;

use binary::{error, golden, ok, run, usage};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A decoder judge with a chat template.
fn decoder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/judges/chat")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Trains `dir/judge` over a copy of a base in `dir/base`.
fn train(dir: &Path, base: &Path, more: &[&str]) {
    copy(base, &dir.join("base"));
    let data = golden().join("pairs.jsonl").display().to_string();
    let essential = ["train", &data, "--base", "base", "-o", "judge", "--max-steps", "6", "--eval-fraction", "0"];
    let lora = ["--lora", "4", "--learning-rate", "1e-2", "--precision", "f32"];
    ok(dir, &[&essential[..], &lora, more].concat());
}

fn scores(dir: &Path, judge: &str) -> Vec<f64> {
    let data = golden().join("pairs.jsonl").display().to_string();
    let rows = ok(dir, &["score", &data, "--judge", judge, "--precision", "f32"]);
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let found: Vec<f64> = rows.flat_map(|row| numbers(&row)).collect();
    assert!(found.len() > 4, "{found:?}");
    found
}

/// All numbers under keys that speak of scores.
fn numbers(row: &Value) -> Vec<f64> {
    let of = |(key, value): (&String, &Value)| match value {
        Value::Number(number) if key.contains("score") => vec![number.as_f64().unwrap()],
        Value::Array(all) if key.contains("score") => all.iter().filter_map(Value::as_f64).collect(),
        _ => Vec::new(),
    };
    row.as_object().unwrap().iter().flat_map(of).collect()
}

fn close(found: &[f64], expected: &[f64]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn an_adapter_is_a_judge_and_merging_it_changes_no_score() {
    for base in [golden(), decoder()] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        train(dir, &base, &[]);
        let written = ["adapter_config.json", "adapter_model.safetensors", "reward.json", "tokenizer.json"];
        assert!(written.iter().all(|name| dir.join("judge").join(name).exists()));
        assert!(!dir.join("judge/model.safetensors").exists(), "the base is not stored again");
        let config = json(&dir.join("judge/adapter_config.json"));
        assert_eq!(config["base_model_name_or_path"], dir.join("base").canonicalize().unwrap().to_str().unwrap());
        let adapted = scores(dir, "judge");
        ok(dir, &["merge", "judge", "-o", "whole"]);
        assert!(close(&scores(dir, "whole"), &adapted), "{base:?}");
        assert!(!dir.join("whole/adapter_config.json").exists());
        ok(dir, &["verify", "--judge", "judge"]);
        let held = error(dir, &["merge", "judge", "-o", "whole"]);
        assert!(held.contains("--overwrite"), "{held}");
        ok(dir, &["merge", "judge", "-o", "whole", "--overwrite"]);
        ok(dir, &["quantize", "--judge", "whole", "-o", "eighth"]);
        let data = golden().join("pairs.jsonl").display().to_string();
        let rounded = error(dir, &["train", &data, "--base", "eighth", "-o", "next", "--lora"]);
        assert!(rounded.contains("stored in 8 bits"), "{rounded}");
        let twice = error(dir, &["train", &data, "--base", "judge", "-o", "next", "--lora"]);
        assert!(twice.contains("it is an adapter"), "{twice}");
        let quantized = error(dir, &["quantize", "--judge", "judge", "-o", "small"]);
        assert!(quantized.contains("kudos merge"), "{quantized}");
    }
}

/// The adapter would change a model that it never saw.
#[test]
fn another_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    train(dir, &decoder(), &["--rslora", "--lora-targets", "q_proj,v_proj", "--lora-dropout", "0.1"]);
    ok(
        dir,
        &[
            "train",
            &golden().join("pairs.jsonl").display().to_string(),
            "--base",
            "base",
            "-o",
            "other",
            "--max-steps",
            "2",
            "--eval-fraction",
            "0",
            "--head-first",
            "false",
        ],
    );
    fs::copy(dir.join("other/model.safetensors"), dir.join("base/model.safetensors")).unwrap();
    let data = golden().join("pairs.jsonl").display().to_string();
    let message = error(dir, &["score", &data, "--judge", "judge"]);
    assert!(message.contains("not those that it was trained over"), "{message}");
    fs::remove_dir_all(dir.join("base")).unwrap();
    let message = error(dir, &["score", &data, "--judge", "judge"]);
    assert!(message.contains("--base DIR"), "{message}");
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let data = golden().join("pairs.jsonl").display().to_string();
    let base = golden().display().to_string();
    let usage = |more: &[&str]| usage(dir.path(), &[&["train", &data, "--base", &base][..], more].concat());
    assert!(usage(&["--lora-alpha", "3"]).contains("--lora"));
    assert!(usage(&["--lora", "--folds", "3"]).contains("--folds"));
    assert!(usage(&["--lora", "0"]).contains("rank"));
    assert!(usage(&["--lora", "--lora-dropout", "1"]).contains("lora-dropout"));
    assert!(usage(&["--lora", "--keep-layers", "1"]).contains("keep-layers"));
    let output = run(dir.path(), &["train", &data, "--base", &base, "--lora", "--lora-targets", "attention"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("q_lin, k_lin, v_lin, out_lin"), "{message}");
}
