//! Improvement by the real binary, of a tiny decoder and by the judge in the box: what comes out, resuming, and what is
//! refused.

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A model directory: a golden Llama with a tokenizer of 120 words; and 24 prompts.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/decoders/llama_tied_bias");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), model.join(file)).unwrap();
    }
    let words: serde_json::Map<String, Value> = (0..120).map(|i| (format!("w{i}"), i.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    });
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(model.join("tokenizer_config.json"), r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#).unwrap();
    let prompts: Vec<String> = (5..29).map(|i| format!("w{i} w{} w{}", i + 1, 3 * i)).collect();
    std::fs::write(dir.path().join("prompts.txt"), prompts.join("\n")).unwrap();
    dir
}

/// A short run in f32, the same on every processor.
const RUN: [&str; 14] = [
    "improve",
    "--model",
    "model",
    "--prompts",
    "prompts.txt",
    "-n",
    "4",
    "--max-new-tokens",
    "8",
    "--learning-rate",
    "1e-3",
    "--precision",
    "f32",
    "--quiet",
];

fn command(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("kudos"));
    command.current_dir(dir).args(RUN).args(more);
    command
}

fn ok(dir: &Path, more: &[&str]) -> String {
    let output = command(dir, more).output().unwrap();
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn error(dir: &Path, more: &[&str], status: i32) -> String {
    let Output { status: found, stderr, .. } = command(dir, more).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(found.code(), Some(status), "{more:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn lines(dir: &Path, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(run).join("run/metrics.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a run leaves, but for the time that it took.
fn outcome(dir: &Path, run: &str) -> (Vec<u8>, Value) {
    let read = |name: &str| std::fs::read(dir.join(run).join(name)).unwrap();
    let mut report: Value = serde_json::from_slice(&read("report.json")).unwrap();
    report["seconds"] = Value::Null;
    for setting in ["memory", "save_every"] {
        report["settings"][setting] = Value::Null;
    }
    (read("model.safetensors"), report)
}

#[test]
fn a_run_gives_a_model_and_says_what_it_is_worth() {
    let dir = workplace();
    let dir = dir.path();
    let start = std::fs::read(dir.join("model/model.safetensors")).unwrap();
    let report: Value =
        serde_json::from_str(&ok(dir, &["-o", "out", "--steps", "6", "--check-judge", "kudos-judge", "--json"]))
            .unwrap();
    assert_eq!(std::fs::read(dir.join("model/model.safetensors")).unwrap(), start, "the start model is untouched");
    let steps = lines(dir, "out");
    assert_eq!(steps.len(), 6);
    assert!(steps[0]["kl"].as_f64().unwrap().abs() < 1e-9, "the first step has not moved: {}", steps[0]);
    assert!(steps[5]["kl"].as_f64().unwrap() > 1e-6 && steps[5]["tokens"].as_u64().unwrap() > 4, "{}", steps[5]);
    // The same judge twice: the second agrees with the first to the last bit.
    assert_eq!(report["reward"], report["check"]);
    assert_eq!((report["reward"]["prompts"].as_u64(), report["trained_prompts"].as_u64()), (Some(4), Some(20)));
    let page = std::fs::read_to_string(dir.join("out/README.md")).unwrap();
    assert_eq!(page.lines().next(), report["verdict"].as_str());
    assert!(page.contains("## The largest losses") && page.contains("## The largest gains"), "{page}");
    // It writes as the policy did.
    let generate = ["generate", "--model", "out", "--prompts", "prompts.txt", "-n", "1", "-o", "a.csv", "--quiet"];
    let output = Command::new(cargo_bin("kudos")).current_dir(dir).args(generate).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(std::fs::read(dir.join("out/model.safetensors")).unwrap(), start);
}

#[test]
fn the_same_command_gives_the_same_model_whatever_threads_memory_and_checkpoints() {
    let dir = workplace();
    let dir = dir.path();
    let run = ["--steps", "4", "--kl", "0.1", "--batch-size", "2", "--algorithm", "best-of-n"];
    ok(dir, &[&run[..], &["-o", "a"]].concat());
    ok(dir, &[&run[..], &["-o", "b", "--threads", "1", "--save-every", "1", "--memory", "1GB"]].concat());
    assert_eq!(outcome(dir, "a"), outcome(dir, "b"));
    ok(dir, &[&run[..], &["-o", "c", "--seed", "7"]].concat());
    assert_ne!(outcome(dir, "a").0, outcome(dir, "c").0);
}

/// Starts a long run, and waits until it has done so many steps.
fn begun(dir: &Path, run: &str, steps: usize) -> Child {
    let mut command = command(dir, &["-o", run, "--steps", "60", "--save-every", "4"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while lines(dir, run).len() < steps && child.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let dir = workplace();
    let dir = dir.path();
    ok(dir, &["-o", "whole", "--steps", "60", "--save-every", "4"]);
    let mut child = begun(dir, "killed", 6);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.join("killed/model.safetensors").exists(), "it was killed before its end");
    let other = error(dir, &["-o", "killed", "--steps", "60", "--resume", "--kl", "1"], 1);
    assert!(other.contains("belongs to another run: kl was 0"), "{other}");
    ok(dir, &["-o", "killed", "--steps", "60", "--save-every", "4", "--resume"]);
    assert_eq!(outcome(dir, "killed"), outcome(dir, "whole"));
    assert_eq!(lines(dir, "killed").len(), 60);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_leaves() {
    let dir = workplace();
    let dir = dir.path();
    let child = begun(dir, "stopped", 2);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--resume continues") && dir.join("stopped/run/checkpoint.safetensors").exists(), "{said}");
}

#[test]
fn a_policy_that_is_lost_is_brought_back() {
    let dir = workplace();
    let dir = dir.path();
    let lost = ["--learning-rate", "1", "--schedule", "constant", "--steps", "20", "--save-every", "0"];
    let output = Command::new(cargo_bin("kudos"))
        .current_dir(dir)
        .args(RUN.iter().filter(|word| !["--learning-rate", "1e-3"].contains(word)))
        .args(lost)
        .args(["-o", "lost"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lost has the model of step 0") && !said.contains("panicked"), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(dir.join("lost/report.json")).unwrap()).unwrap();
    assert!(report["verdict"].as_str().unwrap().starts_with("The run stopped: step "), "{report}");
    assert_eq!(report["reward"]["gain"].as_f64(), Some(0.0), "the start model answers as it did");
}

#[test]
fn what_cannot_be_done_is_refused_in_a_sentence() {
    let dir = workplace();
    let dir = dir.path();
    std::fs::write(dir.join("empty.txt"), "").unwrap();
    std::fs::write(dir.join("two.txt"), "w5\nw6\n").unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/distilbert");
    let encoder = golden.to_str().unwrap();
    let with = |words: &[(&str, &str)], more: &[&str], status: i32, expected: &str| {
        let mut all: Vec<&str> = RUN.to_vec();
        for (flag, value) in words {
            let at = all.iter().position(|word| word == flag).unwrap();
            all[at + 1] = value;
        }
        let output = Command::new(cargo_bin("kudos")).current_dir(dir).args(all).args(more).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() < 4, "{words:?}: {said}");
        assert!(!dir.join("refused").exists(), "{words:?}: nothing was written");
    };
    let out = ["-o", "refused"];
    with(&[("--prompts", "missing.txt")], &out, 1, "missing.txt");
    with(&[("--prompts", "empty.txt")], &out, 1, "found an empty file");
    with(&[("--prompts", "two.txt")], &out, 1, "expected more than 2 prompts, found 2");
    with(&[("-n", "1")], &out, 2, "-n 1: expected 2 responses or more");
    with(&[("--model", "missing")], &out, 1, "missing");
    with(&[("--model", encoder)], &out, 1, "expected a decoder");
    with(&[], &["-o", "refused", "--judge", "model"], 1, "cannot load the judge model");
    with(&[], &["-o", "refused", "--memory", "0.1MB"], 1, "--memory: the limit is 0.1 MB");
    with(&[], &["-o", "refused", "--system", "w5"], 1, "no chat template");
    let itself = error(dir, &["-o", "model"], 1);
    assert!(itself.contains("already holds a model"), "{itself}");
    let itself = error(dir, &["-o", "model", "--overwrite"], 1);
    assert!(itself.contains("it is the start model"), "{itself}");
    assert!(dir.join("model/model.safetensors").exists());
}
