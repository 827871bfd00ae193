//! LoRA by the real binary: train an adapter, use it as a judge, merge it.

mod binary;

use binary::{error, golden, kudos, ok, run, usage};
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

fn pairs() -> String {
    golden().join("pairs.jsonl").display().to_string()
}

/// Trains `dir/judge` over a copy of a base in `dir/base`.
fn train(dir: &Path, base: &Path, more: &[&str]) {
    copy(base, &dir.join("base"));
    let data = pairs();
    let essential = ["train", &data, "--base", "base", "-o", "judge", "--max-steps", "6", "--eval-fraction", "0"];
    let lora = ["--lora", "4", "--learning-rate", "1e-2", "--precision", "f32"];
    ok(dir, &[&essential[..], &lora, more].concat());
}

fn scores(dir: &Path, judge: &str) -> Vec<f64> {
    let data = pairs();
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
        let data = pairs();
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
    let data = pairs();
    let whole = ["train", &data, "--base", "base", "-o", "other", "--max-steps", "2", "--eval-fraction", "0"];
    ok(dir, &[&whole[..], &["--head-first", "false"]].concat());
    fs::copy(dir.join("other/model.safetensors"), dir.join("base/model.safetensors")).unwrap();
    let data = pairs();
    let message = error(dir, &["score", &data, "--judge", "judge"]);
    assert!(message.contains("not those that it was trained over"), "{message}");
    fs::remove_dir_all(dir.join("base")).unwrap();
    let message = error(dir, &["score", &data, "--judge", "judge"]);
    assert!(message.contains("no such file or directory") && message.contains("--base DIR"), "{message}");
}

/// Each fold and each run of an ensemble has adapters of its own; the average is an adapter of their ranks together.
#[test]
fn folds_and_ensembles_train_adapters() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pair = |n: usize| {
        format!(
            "{{\"prompt\": \"which of the {n} is it\", \"chosen\": \"the good one, yes\", \"rejected\": \"no, not that\"}}\n"
        )
    };
    fs::write(dir.join("many.jsonl"), (0..16).map(pair).collect::<String>()).unwrap();
    copy(&decoder(), &dir.join("base"));
    let essential =
        ["train", "many.jsonl", "--base", "base", "--lora", "2", "--learning-rate", "1e-2", "--precision", "f32"];
    let several = ["--folds", "2", "--ensemble", "3", "--max-steps", "6", "--head-first", "false", "--new-head"];
    ok(dir, &[&essential[..], &several, &["-o", "judge"]].concat());
    let folds = json(&dir.join("judge/run/folds.json"));
    assert!(folds["accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.5), "{folds:#}");
    let kept = json(&dir.join("judge/training_args.json"));
    assert_eq!((&kept["ensemble"], &kept["lora"]["rank"]), (&3.into(), &2.into()));
    let card = fs::read_to_string(dir.join("judge/README.md")).unwrap();
    let rank = json(&dir.join("judge/adapter_config.json"))["r"].as_u64().unwrap();
    assert!(card.contains(&format!("adapter of rank {rank}")), "{card}");
    let member = dir.join("judge/run/ensemble/2");
    assert!(member.join("run/metrics.jsonl").exists() && !member.join("adapter_model.safetensors").exists());
    ok(dir, &["merge", "judge", "-o", "whole"]);
    let data = pairs();
    let score = |judge: &str| ok(dir, &["score", &data, "--judge", judge, "--precision", "f32"]);
    let all = |printed: String| -> Vec<f64> {
        printed.lines().flat_map(|row| numbers(&serde_json::from_str(row).unwrap())).collect()
    };
    assert!(close(&all(score("whole")), &all(score("judge"))));
    // The same runs again, to the byte.
    ok(dir, &[&essential[..], &several, &["-o", "again"]].concat());
    let bytes = |judge: &str| fs::read(dir.join(judge).join("adapter_model.safetensors")).unwrap();
    assert!(bytes("judge") == bytes("again"));
}

/// Adapters of the top layers, and of a base that has fewer layers.
#[test]
fn adapters_of_some_layers() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    train(dir, &decoder(), &["--freeze", "1"]);
    let layers = json(&dir.join("base/config.json"))["num_hidden_layers"].as_u64().unwrap();
    assert!(layers > 1);
    let config = json(&dir.join("judge/adapter_config.json"));
    assert_eq!(config["layers_to_transform"], serde_json::json!([layers - 1]));
    let data = pairs();
    let more = error(dir, &["train", &data, "--base", "base", "-o", "next", "--lora", "--freeze", "9"]);
    assert!(more.contains("--freeze 9"), "{more}");

    let other = tempfile::tempdir().unwrap();
    let dir = other.path();
    train(dir, &decoder(), &["--keep-layers", "1", "--new-head"]);
    assert_eq!(json(&dir.join("judge/lower-base/config.json"))["num_hidden_layers"], 1);
    let named = json(&dir.join("judge/adapter_config.json"))["base_model_name_or_path"].clone();
    assert_eq!(named, dir.join("judge/lower-base").canonicalize().unwrap().to_str().unwrap());
    ok(dir, &["merge", "judge", "-o", "whole"]);
    let before = scores(dir, "judge");
    assert!(close(&scores(dir, "whole"), &before));
    fs::rename(dir.join("judge"), dir.join("moved")).unwrap();
    assert!(close(&scores(dir, "moved"), &before), "the base beside the adapter is found");
    let data = pairs();
    let train = ["train", &data, "--base", "base", "-o", "next", "--lora", "--new-head", "--keep-layers", "7"];
    let many = error(dir, &train);
    assert!(many.contains("--keep-layers 7") && !dir.join("next/.base").exists(), "{many}");
    let own = error(dir, &[&train[..6], &["--lora", "--keep-layers", "1"]].concat());
    assert!(own.contains("--new-head"), "{own}");
}

/// A base that an adapter names as it is published is found among what was pulled, by every command.
#[test]
fn a_base_is_found_by_its_published_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    train(dir, &decoder(), &[]);
    let expected = scores(dir, "judge");
    let path = dir.join("judge/adapter_config.json");
    let mut config = json(&path);
    config["base_model_name_or_path"] = "some/base".into();
    fs::write(&path, config.to_string()).unwrap();
    let data = pairs();
    let command = |args: &[&str]| {
        let mut command = kudos(dir);
        command.args(args).env("HF_HUB_CACHE", dir.join("hub")).env("KUDOS_HOME", dir.join("home"));
        command.output().unwrap()
    };
    let output = command(&["score", &data, "--judge", "judge"]);
    let message = String::from_utf8(output.stderr).unwrap();
    let said = ["kudos pull some/base", "kudos merge judge --base DIR"];
    assert!(!output.status.success() && said.iter().all(|said| message.contains(said)), "{message}");
    let snapshot = dir.join("hub/models--some--base/snapshots/0123456789012345678901234567890123456789");
    copy(&dir.join("base"), &snapshot);
    fs::create_dir_all(dir.join("hub/models--some--base/refs")).unwrap();
    fs::write(dir.join("hub/models--some--base/refs/main"), "0123456789012345678901234567890123456789").unwrap();
    let output = command(&["score", &data, "--judge", "judge", "--precision", "f32"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout).unwrap();
    let found: Vec<f64> = rows.lines().flat_map(|row| numbers(&serde_json::from_str(row).unwrap())).collect();
    assert!(close(&found, &expected));
    for args in
        [&["eval", &data, "--judge", "judge"][..], &["verify", "--judge", "judge"], &["merge", "judge", "-o", "w"]]
    {
        let output = command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let data = pairs();
    let base = golden().display().to_string();
    let usage = |more: &[&str]| usage(dir.path(), &[&["train", &data, "--base", &base][..], more].concat());
    assert!(usage(&["--lora-alpha", "3"]).contains("--lora"));
    assert!(usage(&["--lora", "0"]).contains("rank"));
    assert!(usage(&["--lora", "--lora-dropout", "1"]).contains("lora-dropout"));
    let output = run(dir.path(), &["train", &data, "--base", &base, "--lora", "--lora-targets", "attention"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("q_lin, k_lin, v_lin, out_lin"), "{message}");
}
