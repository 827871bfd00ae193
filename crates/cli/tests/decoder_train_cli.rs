//! A decoder as a base, by the real binary: from a checkpoint and from a GGUF file to a judge that every command takes.

mod binary;

use binary::{error, run};
use kudos::nn::weights::Checkpoint;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(name);
    path.canonicalize().unwrap().display().to_string()
}

/// Forty pairs whose better response is a sentence.
fn pairs(dir: &Path) {
    let good = ["A good day.", "Yes, it is the river.", "The answer is four.", "It is in the north."];
    let bad = ["no", "it depends", "I do not know", "what"];
    let row = |i: usize| json!({"prompt": format!("Question {i}: what is it?"), "chosen": good[i % 4], "rejected": bad[i / 4 % 4]});
    let text: String = (0..40).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(dir.join("pairs.jsonl"), text).unwrap();
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap() + &said
}

/// Trains from a toy so narrow that its scores in fewer bits may differ by more than the self-test allows.
fn train_toy(dir: &Path, args: &[&str]) {
    let said = String::from_utf8(run(dir, args).stderr).unwrap();
    assert!(said.contains("self-test: ") || said.contains("the judge is written"), "{said}");
    let failed = said.lines().filter(|line| line.starts_with("FAIL") && !line.contains("precision"));
    assert_eq!(failed.count(), 0, "{said}");
}

/// A tensor of a checkpoint.
fn read(file: &Checkpoint, name: &str) -> Vec<f32> {
    let mut values = vec![0.0; file.tensors[name].shape.iter().product()];
    file.read(name, &mut values).unwrap();
    values
}

fn scores(dir: &Path, judge: &str, precision: &str) -> Vec<f64> {
    let printed = run(dir, &["score", "pairs.jsonl", "--judge", judge, "--precision", precision, "--quiet"]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let rows = String::from_utf8(printed.stdout).unwrap();
    let row = |line: &str| -> [f64; 2] {
        let row: Value = serde_json::from_str(line).unwrap();
        ["score_chosen", "score_rejected"].map(|key| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}")))
    };
    rows.lines().flat_map(row).collect()
}

#[test]
fn a_decoder_is_trained_resumed_quantized_and_scores_everywhere() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    pairs(dir);
    let base = golden("judges/chat");
    let train = |more: &[&str]| {
        let plain = [
            "train",
            "pairs.jsonl",
            "--base",
            &base,
            "--new-head",
            "--max-steps",
            "60",
            "--save-every",
            "20",
            "--learning-rate",
            "1e-3",
            "--head-first",
            "false",
        ];
        ok(dir, &[&plain[..], more].concat())
    };
    let said = train(&["-o", "judge"]);
    assert!(said.contains("self-test"), "{said}");
    let scored = scores(dir, "judge", "f32");
    let right = scored.chunks(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(right >= 32, "{right} of 40 pairs");
    train(&["-o", "again"]);
    let weights = |judge: &str| std::fs::read(dir.join(judge).join("model.safetensors")).unwrap();
    assert!(weights("judge") == weights("again"), "one seed, one judge");
    // A finished run that is continued ends as it did.
    train(&["-o", "again", "--resume"]);
    assert!(weights("judge") == weights("again"), "resumed from its last checkpoint");

    ok(dir, &["quantize", "--judge", "judge", "-o", "small"]);
    let small = scores(dir, "small", "f32");
    let apart = scored.iter().zip(&small).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let spread = scored.iter().fold(0.0f64, |most, score| most.max(score.abs()));
    assert!(apart < 0.05 * (1.0 + spread), "8 bits move a score by {apart}");
    let eval = ok(dir, &["eval", "pairs.jsonl", "--judge", "judge"]);
    assert!(eval.contains("accuracy"), "{eval}");
    ok(dir, &["verify", "--judge", "small"]);
    // Its own judge is a base too.
    ok(dir, &["train", "pairs.jsonl", "--base", "judge", "-o", "more", "--max-steps", "5"]);
}

#[test]
fn a_gguf_file_is_a_base() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    pairs(dir);
    let base = golden("convert/gguf/model.gguf");
    train_toy(dir, &["train", "pairs.jsonl", "--base", &base, "-o", "judge", "--max-steps", "10"]);
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("judge/config.json")).unwrap()).unwrap();
    let class = config["architectures"][0].as_str().unwrap();
    assert!(class.ends_with("ForSequenceClassification"), "{class}");
    assert!(dir.join("judge/tokenizer.json").exists() && dir.join("judge/tokenizer_config.json").exists());
    assert_eq!(scores(dir, "judge", "f32").len(), 80);
    train_toy(dir, &["train", "pairs.jsonl", "--base", &base, "-o", "folded", "--max-steps", "4", "--folds", "2"]);
    assert!(dir.join("folded/model.safetensors").exists());
}

#[test]
fn the_top_layers_alone_are_trained() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    pairs(dir);
    let base = golden("judges/chat");
    let train = ["train", "pairs.jsonl", "--base", &base, "--head-first", "false", "--max-steps", "6"];
    ok(dir, &[&train[..], &["--freeze", "1", "-o", "judge"]].concat());
    let open = |dir: &Path| Checkpoint::open(dir).unwrap();
    let (trained, before) = (open(&dir.join("judge")), open(Path::new(&base)));
    let is_other = |name: &&String| read(&trained, name) != read(&before, name);
    let moved: Vec<&String> = trained.tensors.keys().filter(is_other).collect();
    let layers: Vec<&&String> = moved.iter().filter(|name| name.contains(".layers.")).collect();
    assert!(!layers.is_empty(), "the top layer learns");
    let top = layers.iter().map(|name| name.split('.').nth(2).unwrap()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(top.len(), 1, "one layer moved: {moved:?}");
    assert!(moved.iter().all(|name| !name.contains("embed")), "{moved:?}");
    let message = error(dir, &[&train[..], &["--freeze", "99", "-o", "other"]].concat());
    assert!(message.contains("--freeze 99"), "{message}");
}

/// A decoder's head has no biases: it learns ratings as they are, from the mean rating on, and stores outputs that
/// transformers gives, too.
#[test]
fn a_decoder_learns_ratings() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let rows: String = (0..20)
        .map(|i| {
            format!(
                "{}\n",
                json!({"prompt": "What?", "response": format!("answer {i}"), "attributes": {"helpfulness": i % 5}})
            )
        })
        .collect();
    std::fs::write(dir.join("rated.jsonl"), rows).unwrap();
    let base = golden("judges/chat");
    let train = ["train", "rated.jsonl", "--attributes", "helpfulness", "--base", &base, "--precision", "f32"];
    let outputs = |judge: &str| -> Vec<f64> {
        let printed = ok(dir, &["score", "rated.jsonl", "--judge", judge, "--precision", "f32"]);
        let rows = printed.lines().filter(|line| line.starts_with('{'));
        let rows = rows.map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["score_helpfulness"].as_f64().unwrap()).collect()
    };
    let still = ["--max-steps", "1", "--learning-rate", "1e-9", "--eval-fraction", "0", "-o", "still"];
    ok(dir, &[&train[..], &still].concat());
    let begun = outputs("still");
    assert!((begun.iter().sum::<f64>() / 20.0 - 2.0).abs() < 0.5, "the mean rating is 2: {begun:?}");
    ok(dir, &[&train[..], &["--max-steps", "60", "--learning-rate", "3e-3", "-o", "judge"]].concat());
    let reward: Value = serde_json::from_slice(&std::fs::read(dir.join("judge/reward.json")).unwrap()).unwrap();
    assert_eq!(reward["attributes"]["centred"], false, "{reward:#}");
    let apart = |outputs: &[f64]| (0..20).map(|i| (outputs[i] - (i % 5) as f64).abs()).sum::<f64>() / 20.0;
    assert!(apart(&outputs("judge")) < apart(&begun), "{:?}", outputs("judge"));
    // A judge of these ratings is a base that keeps its head.
    let on = ["train", "rated.jsonl", "--attributes", "helpfulness", "--base", "judge", "--precision", "f32"];
    ok(dir, &[&on[..], &still[..6], &["-o", "next"]].concat());
    for (found, expected) in outputs("next").iter().zip(outputs("judge")) {
        assert!((found - expected).abs() < 1e-3, "{found} instead of {expected}");
    }
}

/// Without a label: the student ranks as its teacher does.
#[test]
fn a_judge_teaches_another() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let words = ["Yes.", "no", "A good day.", "It depends.", "The river is in the north.", "four", "what", "I see."];
    let row = |i: usize| json!({"prompt": format!("Question {}?", i / 2), "response": words[(i * 5 + i / 8) % 8]});
    let rows: String = (0..80).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(dir.join("rows.jsonl"), rows).unwrap();
    let teacher = golden("judges/chat");
    let train = ["train", "rows.jsonl", "--base", &teacher, "--new-head", "--max-steps", "40", "-o", "judge"];
    let message = error(dir, &train);
    assert!(message.contains("no response is ranked"), "{message}");
    let said = ok(dir, &[&train[..], &["--teacher", &teacher]].concat());
    assert!(said.contains("the teacher labels 32 pairs of 32 prompts"), "{said}");
    let scores = |judge: &str| -> Vec<f64> {
        let printed = run(dir, &["score", "rows.jsonl", "--judge", judge, "--quiet"]);
        let rows = String::from_utf8(printed.stdout).unwrap();
        rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()["score"].as_f64().unwrap()).collect()
    };
    let (taught, own) = (scores("judge"), scores(&teacher));
    let alike = taught.chunks(2).zip(own.chunks(2)).filter(|(a, b)| (a[0] > a[1]) == (b[0] > b[1])).count();
    assert!(alike >= 32, "{alike} of 40 pairs in the teacher's order");
    for refused in [["--recipe", "trl"], ["--loss", "plackett-luce"]] {
        let message = error(dir, &[&train[..], &["--overwrite", "--teacher", &teacher], &refused].concat());
        assert!(message.contains("--teacher with"), "{message}");
    }
}

/// A judge over the lower layers has the base's own values in them, and nothing of those above.
#[test]
fn the_lower_layers_are_kept_under_a_new_head() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    pairs(dir);
    let base = golden("judges/chat");
    let train = ["train", "pairs.jsonl", "--base", &base, "--new-head", "--max-steps", "1", "--learning-rate", "1e-9"];
    let said = run(dir, &[&train[..], &["--keep-layers", "1", "-o", "lower"]].concat()).stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("above the first 1 of the base's 2 layers"), "{said}");
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("lower/config.json")).unwrap()).unwrap();
    assert_eq!(config["num_hidden_layers"], 1);
    let (lower, whole) = (Checkpoint::open(&dir.join("lower")).unwrap(), Checkpoint::open(Path::new(&base)).unwrap());
    assert!(lower.tensors.keys().all(|name| !name.contains(".layers.1.")), "{:?}", lower.tensors.keys());
    for name in lower.tensors.keys().filter(|name| *name != "score.weight") {
        let apart = read(&lower, name).iter().zip(read(&whole, name)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-6, "{name} moved by {apart} in a step of nothing");
    }
    let scored = scores(dir, "lower", "f32");
    assert!(scored.iter().all(|score| score.is_finite()) && scored[0] != scored[1], "{scored:?}");

    for (keep, expected) in [("0", "from 1 to 2"), ("3", "from 1 to 2")] {
        let message = error(dir, &[&train[..], &["--keep-layers", keep, "-o", "other"]].concat());
        assert!(message.contains(expected), "{message}");
    }
}
