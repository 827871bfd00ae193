//! The self-test by the real binary: a sound judge passes, each kind of broken one fails by the right line.

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(name)
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin("kudos")).current_dir(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A small judge in `dir/judge`, and what its training said.
fn judge(dir: &Path) -> String {
    let (base, data) = (golden("trl_text"), golden("trl_text").join("pairs.jsonl"));
    let (base, data) = (base.display().to_string(), data.display().to_string());
    let rest = ["--base", &base, "-o", "judge", "--max-steps", "10", "--learning-rate", "1e-3"];
    let output = run(dir, &[&["train", &data], &rest[..]].concat());
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    message
}

/// The lines of a failing self-test that say FAIL.
fn failures(dir: &Path, judge: &str) -> Vec<String> {
    let output = run(dir, &["verify", "--judge", judge]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}{}", text(&output.stdout));
    assert!(message.contains("checks fail") && !message.contains("panicked"), "{message}");
    text(&output.stdout).lines().filter(|l| l.starts_with("FAIL")).map(str::to_owned).collect()
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// Sets every value of a tensor of `dir/judge`.
fn set_tensor(dir: &Path, tensor: &str, value: f32) {
    let path = dir.join("judge/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offsets = &json[tensor]["data_offsets"];
    let range = [0, 1].map(|i| 8 + header + offsets[i].as_u64().unwrap() as usize);
    bytes[range[0]..range[1]].chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_judge_passes_and_training_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let said = judge(dir.path());
    assert!(said.contains("self-test: ") && said.contains("checks ok"), "{said}");
    let output = run(dir.path(), &["verify", "--judge", "judge"]);
    let (lines, message) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{lines}{message}");
    for name in [
        "loads",
        "tokenizer and vocabulary",
        "rendering",
        "truncation",
        "edge: empty response",
        "edge: NUL and controls",
        "edge: 100,000 characters",
        "same score alone",
        "same score in any batch",
        "same score on 3 threads",
        "after save and load",
        "precision f32",
        "kudos score, one text",
        "kudos score, rows, --threads 2",
        "kudos score, groups",
        "kudos eval",
        "kudos best",
    ] {
        assert!(lines.lines().any(|l| l.starts_with("ok") && l.contains(name)), "{name}: {lines}");
    }
    let json = run(dir.path(), &["verify", "--judge", "judge", "--json", "--quiet"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["failed"], 0);
    assert_eq!(json["checks"].as_array().unwrap().len(), lines.lines().count());
    let named = |name: &str| json["checks"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
    for (name, runs) in
        [("precision bf16", kernels::has_bf16_products()), ("precision int8", kernels::has_int8_products())]
    {
        assert_eq!(named(name)["verdict"], if runs { "ok" } else { "skipped" }, "{name}");
    }
}

/// bf16 and int8 on any processor.
fn emulated(dir: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin("kudos")).current_dir(dir).env("KUDOS_ISA", "emulated").args(args).output().unwrap()
}

#[test]
fn t1_emulated_products_pass_the_self_test_in_every_precision() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    assert!(run(dir.path(), &["quantize", "--judge", "judge", "-o", "small"]).status.success());
    for judge in ["judge", "small"] {
        let output = emulated(dir.path(), &["verify", "--judge", judge]);
        let lines = text(&output.stdout);
        assert!(output.status.success(), "{judge}: {lines}{}", text(&output.stderr));
        assert!(!lines.contains("skipped"), "{judge}: {lines}");
    }
}

#[test]
fn a_quantized_judge_passes() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    assert!(run(dir.path(), &["quantize", "--judge", "judge", "-o", "small"]).status.success());
    let output = run(dir.path(), &["verify", "--judge", "small"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A judge of a golden's layers with a word table as long as the tokenizer's vocabulary.
fn with_tokenizer(dir: &Path, family: &str, tokenizer: &str, rows: usize) {
    let judge = dir.join(family);
    std::fs::create_dir(&judge).unwrap();
    let files = golden(family);
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let source = files.join("../../text").join(tokenizer).join(file);
        let _ = std::fs::copy(source, judge.join(file));
    }
    std::fs::copy(files.join("config.json"), judge.join("config.json")).unwrap();
    edit(&judge.join("config.json"), |json| json["vocab_size"] = rows.into());
    let bytes = std::fs::read(files.join("model.safetensors")).unwrap();
    std::fs::write(judge.join("model.safetensors"), lengthened(&bytes, rows)).unwrap();
}

/// The safetensors file with the rows of its word table repeated until there are `rows`.
fn lengthened(bytes: &[u8], rows: usize) -> Vec<u8> {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let mut data = Vec::new();
    for (name, tensor) in json.as_object_mut().unwrap().iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let range = [0, 1].map(|i| 8 + header + tensor["data_offsets"][i].as_u64().unwrap() as usize);
        let (start, mut values) = (data.len(), bytes[range[0]..range[1]].to_vec());
        if name.ends_with("word_embeddings.weight") {
            let width = 4 * tensor["shape"][1].as_u64().unwrap() as usize;
            values = values.iter().copied().cycle().take(rows * width).collect();
            tensor["shape"][0] = rows.into();
        }
        data.extend(values);
        tensor["data_offsets"] = vec![start, data.len()].into();
    }
    let header = json.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

#[test]
fn every_family_passes() {
    let dir = tempfile::tempdir().unwrap();
    for (family, tokenizer, rows, segments) in
        [("bert", "wordpiece", 709, "of segment 1"), ("roberta", "byte_level", 800, "0 of segment 1")]
    {
        with_tokenizer(dir.path(), family, tokenizer, rows);
        let output = run(dir.path(), &["verify", "--judge", family]);
        let lines = text(&output.stdout);
        assert!(output.status.success(), "{family}: {lines}{}", text(&output.stderr));
        let line = lines.lines().find(|l| l.contains("rendering")).unwrap();
        assert!(line.contains(segments) && line.contains(" 0 of segment 1") == (family == "roberta"), "{line}");
    }
}

#[test]
fn broken_weights_fail() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    set_tensor(dir.path(), "classifier.weight", f32::NAN);
    let lines = failures(dir.path(), "judge");
    assert!(lines.len() == 1 && lines[0].contains("loads") && lines[0].contains("classifier.weight"), "{lines:?}");
    // Finite, but the scores overflow: every edge says so.
    set_tensor(dir.path(), "classifier.weight", 3e38);
    let lines = failures(dir.path(), "judge");
    assert!(lines.iter().any(|l| l.contains("edge: empty response") && l.contains("broken")), "{lines:?}");
}

#[test]
fn a_tampered_reward_json_fails() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    edit(&dir.path().join("judge/reward.json"), |json| json["max_length"] = 81.into());
    let lines = failures(dir.path(), "judge");
    assert!(lines.len() == 1 && lines[0].contains("max_length 81 exceeds the model's 80 positions"), "{lines:?}");
    edit(&dir.path().join("judge/reward.json"), |json| json["render"] = "rot13".into());
    assert!(failures(dir.path(), "judge")[0].contains("reward.json"));
}

#[test]
fn a_tokenizer_of_another_model_fails() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let path = dir.path().join("judge/tokenizer.json");
    let sound = std::fs::read(&path).unwrap();
    // A word more than the model has embeddings.
    edit(&path, |json| {
        json["model"]["vocab"].as_object_mut().unwrap().insert("zebra".into(), 243.into());
    });
    let lines = failures(dir.path(), "judge");
    assert!(lines.iter().any(|l| l.contains("tokenizer and vocabulary") && l.contains("another model")), "{lines:?}");
    std::fs::write(&path, sound).unwrap();
    edit(&dir.path().join("judge/config.json"), |json| json["pad_token_id"] = 3.into());
    let lines = failures(dir.path(), "judge");
    assert!(lines.iter().any(|l| l.contains("padding token") && l.contains("config.json says 3")), "{lines:?}");
}

#[test]
fn no_judge_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["verify", "--judge", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nowhere"), "{}", text(&output.stderr));
}
