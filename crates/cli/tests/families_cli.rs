//! Each encoder family from the tokenizer files that its published checkpoints carry to a judge: trained, tested,
//! evaluated and scored by the real binary.
//!
//! `golden/make_encoder_golden.py` made the checkpoints.

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(folder)
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin("kudos")).current_dir(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn copy(family: &str, dir: &Path) -> PathBuf {
    let base = dir.join(format!("{family}_base"));
    std::fs::create_dir(&base).unwrap();
    for file in std::fs::read_dir(golden("encoders").join(family)).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, base.join(path.file_name().unwrap())).unwrap();
    }
    base
}

/// Trains a few steps from a base and uses the judge in each way; every command must end well.
fn train_and_use(family: &str, segments: &str) {
    let dir = tempfile::tempdir().unwrap();
    let base = copy(family, dir.path()).display().to_string();
    let data = golden("models/trl_text/pairs.jsonl").display().to_string();
    let succeeds = |args: &[&str]| {
        let output = run(dir.path(), args);
        assert!(output.status.success(), "{family} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    succeeds(&["train", &data, "--base", &base, "-o", "judge", "--max-steps", "4", "--quiet"]);
    let checks = succeeds(&["verify", "--judge", "judge"]);
    let line = checks.lines().find(|line| line.contains("rendering")).expect("a check of the rendering");
    assert!(line.starts_with("ok") && line.contains(segments), "{family}: {line}");
    let report: Value = serde_json::from_str(&succeeds(&["eval", &data, "--judge", "judge", "--json"])).unwrap();
    assert_eq!(report["data"][0]["pairs"], 40, "{family}");
    let score = succeeds(&["score", "--judge", "judge", "--prompt", "Why?", "--response", "Because.", "--quiet"]);
    assert!(score.trim().parse::<f32>().unwrap().is_finite(), "{family}: {score}");
}

/// DistilBERT has no segments, and its published tokenizer gives the response segment 1: each training from it ended
/// with a failed self-test.
#[test]
fn distilbert_is_trained_and_used_with_its_published_tokenizer() {
    train_and_use("distilbert", " 0 of segment 1");
}

#[test]
fn bert_is_trained_and_used_with_its_published_tokenizer() {
    train_and_use("bert", "pair: ");
}

#[test]
fn roberta_is_trained_and_used_with_its_published_tokenizer() {
    train_and_use("roberta", " 0 of segment 1");
}

#[test]
fn xlm_roberta_is_trained_and_used_with_its_published_tokenizer() {
    train_and_use("xlm_roberta", " 0 of segment 1");
}

/// It was a panic in each of them.
#[test]
fn f8_one_segment_for_two_is_one_line_in_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy("bert_one_segment", dir.path()).display().to_string();
    let data = golden("models/trl_text/pairs.jsonl").display().to_string();
    for args in [
        &["score", "--judge", &model, "--prompt", "a", "--response", "b"][..],
        &["eval", &data, "--judge", &model],
        &["train", &data, "--base", &model, "-o", "out", "--new-head"],
    ] {
        let output = run(dir.path(), args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
        assert!(message.contains("`type_vocab_size` is 1") && !message.contains("panicked"), "{args:?}: {message}");
    }
    let output = run(dir.path(), &["verify", "--judge", &model]);
    let lines = text(&output.stdout);
    assert!(output.status.code() == Some(1) && lines.contains("`type_vocab_size` is 1"), "{lines}");
}
