//! Training, evaluation, scoring and choosing, by the real binary on a tiny model.

mod binary;

use binary::{error, golden, kudos, ok, run, usage};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

fn pairs() -> String {
    golden().join("pairs.jsonl").display().to_string()
}

fn train_args<'a>(data: &'a str, base: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", data, "--base", base, "-o", output, "--quiet"], more].concat()
}

/// A small judge in `dir/judge`.
fn judge(dir: &Path) {
    let base = golden().display().to_string();
    ok(dir, &train_args(&pairs(), &base, "judge", &["--max-steps", "20", "--learning-rate", "1e-3"]));
}

fn read_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `dir/base`: a BERT without a pooler, and the tokenizer of the other tiny models as far as its 120 words go.
fn bert_without_pooler(dir: &Path) {
    let (base, models) = (dir.join("base"), golden().join("../bert_masked_lm"));
    std::fs::create_dir(&base).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(models.join(file), base.join(file)).unwrap();
    }
    let text = std::fs::read(golden().join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&text).unwrap();
    tokenizer["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64().unwrap() < 120);
    std::fs::write(base.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// What starts anew is said before the first step: the last layer only where the recipe opens the head and nobody asks for another.
#[test]
fn training_says_what_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    bert_without_pooler(dir.path());
    let said = |base: &str, more: &[&str]| {
        let args = ["train", &pairs(), "--base", base, "-o", "judge", "--overwrite", "--max-steps", "1"];
        let output = run(dir.path(), &[&args, more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let new = "\na new head\n";
    let mean = "a new head, above the first 1 of the base's layers and a layer that averages all tokens\n";
    let distilbert = golden().display().to_string();
    let cases: [(&str, &[&str], &str); 5] = [
        ("base", &[], mean),
        ("base", &["--renew-layers", "1"], new),
        ("base", &["--recipe", "trl"], new),
        (&distilbert, &["--new-head"], new),
        (&distilbert, &[], "\nthe base's head\n"),
    ];
    for (base, more, expected) in cases {
        let said = said(base, more);
        assert!(said.contains(expected), "{base} {more:?}: {said}");
    }
    assert!(said("base", &["--keep-layers", "0"]).contains("above the first 0 of the base's layers"));
    let config: Value = serde_json::from_slice(&std::fs::read(dir.path().join("judge/config.json")).unwrap()).unwrap();
    assert_eq!(config["num_hidden_layers"], 1);
    for (base, keep, expected) in [
        ("base", "2", "--keep-layers 2: the base has 2 layers, expected from 0 to 1 of them"),
        (distilbert.as_str(), "1", "--keep-layers 1: expected a BERT, an MPNet or a decoder under a new head"),
    ] {
        let args = ["train", &pairs(), "--base", base, "-o", "other", "--overwrite", "--keep-layers", keep];
        let output = run(dir.path(), &args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}

/// What the last steps learnt is not said of a judge that does not have it.
#[test]
fn a_head_that_is_kept_is_not_praised_for_the_steps() {
    let dir = tempfile::tempdir().unwrap();
    bert_without_pooler(dir.path());
    let flags = ["--eval-fraction", "0.5", "--max-steps", "3", "--learning-rate", "1e-12"];
    let output = run(dir.path(), &[&["train", &pairs(), "--base", "base", "-o", "judge"], &flags[..]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("kept: the head alone, as fine-tuning was not clearly better"), "{said}");
    assert!(!said.contains("(the best on held-out prompts)"), "{said}");
    assert!(!said.contains("The judge is right on") && !said.contains("training loss"), "{said}");
}

/// The head that is kept learns from the prompts that chose it, after it was measured on them; not from a file that was given to measure with.
#[test]
fn a_head_that_is_kept_is_fitted_to_all_prompts() {
    let dir = tempfile::tempdir().unwrap();
    bert_without_pooler(dir.path());
    let weights = |judge: &str| std::fs::read(dir.path().join(judge).join("model.safetensors")).unwrap();
    let train = |judge: &str, more: &[&str]| {
        let never_better = ["--max-steps", "1", "--learning-rate", "1e-12", "--json"];
        let output =
            run(dir.path(), &[&["train", &pairs(), "--base", "base", "-o", judge], &never_better[..], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (said, serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (said, figures) = train("judge", &["--eval-fraction", "0.5"]);
    assert!(said.contains("it was then fitted again, on all prompts"), "{said}");
    let card = std::fs::read_to_string(dir.path().join("judge/README.md")).unwrap();
    assert!(card.contains("The judge itself was then fitted on all prompts: evaluate it on others"), "{card}");
    let on_all: Value =
        serde_json::from_slice(&run(dir.path(), &["eval", &pairs(), "--judge", "judge", "--json"]).stdout).unwrap();
    let spread = |of: &Value, key: &str| of["data"][0][key].as_f64().unwrap();
    assert!(
        spread(&on_all, "score_mean").abs() < 1e-3 * spread(&on_all, "score_std"),
        "the mean of what it was fitted to is 0: {on_all}"
    );
    assert!(spread(&figures, "score_mean").abs() > 1e-3 * spread(&figures, "score_std"), "measured before: {figures}");
    let before = weights("judge");
    let (_, again) = train("judge", &["--eval-fraction", "0.5", "--resume"]);
    assert_eq!(
        (again["data"].clone(), weights("judge")),
        (figures["data"].clone(), before),
        "a finished run is what it was"
    );
    let (said, _) = train("given", &["--eval", &pairs()]);
    assert!(!said.contains("fitted to these"), "{said}");
}

/// Sets all values of a tensor to 0.
fn erase(file: &Path, tensor: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let [start, end] = [0, 1].map(|i| header + tensors[tensor]["data_offsets"][i].as_u64().unwrap() as usize);
    bytes[start..end].fill(0);
    std::fs::write(file, bytes).unwrap();
}

/// A judge whose upper part says nothing gets a new head over its lower layers; one that judges keeps its own.
#[test]
fn a_judge_as_a_base_starts_from_the_better_head() {
    let dir = tempfile::tempdir().unwrap();
    bert_without_pooler(dir.path());
    let train = |base: &str, judge: &str, more: &[&str]| {
        let args = ["train", &pairs(), "--base", base, "-o", judge, "--max-steps", "2", "--eval-fraction", "0"];
        let output = run(dir.path(), &[&args, more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let weights = |judge: &str| dir.path().join(judge).join("model.safetensors");
    train("base", "judge", &[]);
    let said = train("judge", "own", &[]);
    assert!(said.contains("starting from its own") && said.contains("\nthe base's head\n"), "{said}");
    let said = train("judge", "tuned", &["--head-first", "false"]);
    assert!(!said.contains("cross-validated") && said.contains("\nthe base's head\n"), "{said}");
    let said = train("judge", "anew", &["--new-head", "--keep-layers", "0"]);
    assert!(said.contains("above the first 0 of the base's layers"), "{said}");
    erase(&weights("judge"), "bert.pooler.dense.weight");
    let said = train("judge", "new", &[]);
    assert!(
        said.contains("a new head over its lower 1 layers") && said.contains("starting from the new one"),
        "{said}"
    );
    assert!(said.contains("\na new head, above the first"), "{said}");
    let card = std::fs::read_to_string(dir.path().join("new/README.md")).unwrap();
    assert!(card.contains("`judge` with a new classification head"), "{card}");
    let before = std::fs::read(weights("new")).unwrap();
    train("judge", "new", &["--resume"]);
    assert!(before == std::fs::read(weights("new")).unwrap(), "what was chosen is chosen again");
}

#[test]
fn the_trl_recipe_follows_trl_from_text_to_weights() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    let recipe = "--recipe trl --no-shuffle --precision f32 --max-steps 10 --batch-size 4 --learning-rate 1e-3";
    ok(dir.path(), &train_args(&pairs(), &base, "judge", &recipe.split(' ').collect::<Vec<_>>()));
    let expected: Value = serde_json::from_slice(&std::fs::read(golden().join("expected.json")).unwrap()).unwrap();
    let steps = read_lines(&dir.path().join("judge/run/metrics.jsonl"));
    assert_eq!(steps.len(), 10);
    for (step, golden) in steps.iter().zip(expected["steps"].as_array().unwrap()) {
        for key in ["loss", "grad_norm", "learning_rate", "accuracy", "margin"] {
            let (found, golden) = (step[key].as_f64().unwrap(), golden[key].as_f64().unwrap());
            assert!((found - golden).abs() < 1e-4, "step {}: {key} {found} instead of {golden}", step["step"]);
        }
    }
}

/// The files that make a judge; `run/` holds timings and is left out.
fn judge_bytes(judge: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(judge).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_file());
    let mut bytes: Vec<_> =
        files.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    bytes.sort();
    assert!(bytes.len() >= 6, "{:?}", bytes.iter().map(|(name, _)| name).collect::<Vec<_>>());
    bytes
}

#[test]
fn threads_do_not_change_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    let train = |threads: &str| {
        let more = ["--max-steps", "12", "--learning-rate", "1e-3", "--threads", threads];
        ok(dir.path(), &train_args(&pairs(), &base, threads, &more));
        judge_bytes(&dir.path().join(threads))
    };
    let one = train("1");
    assert!(one == train("2"), "2 threads");
    assert!(one == train("3"), "3 threads");
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (base, data) = (golden().display().to_string(), pairs());
    let more = ["--max-steps", "300", "--learning-rate", "1e-3", "--save-every", "7", "--eval-every", "10"];
    let started = std::time::Instant::now();
    ok(dir.path(), &train_args(&data, &base, "whole", &more));
    let whole = started.elapsed();
    let expected = judge_bytes(&dir.path().join("whole"));
    let mut kills = 0;
    for round in 0..4u32 {
        let output = format!("killed-{round}");
        for attempt in 0.. {
            let mut args = train_args(&data, &base, &output, &more);
            args.push("--resume");
            let mut child = kudos(dir.path()).args(&args).stderr(Stdio::null()).spawn().unwrap();
            // A different moment each time: from before the first step to near the end. The start and the self-test take
            // as long as ever, so later attempts come to the end.
            std::thread::sleep(whole.mul_f64(0.07 + 0.11 * f64::from(round) + 0.04 * f64::from(attempt)));
            if attempt == 60 {
                assert!(child.wait().unwrap().success());
                break;
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        let found = judge_bytes(&dir.path().join(&output));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(found == expected, "round {round}: {name} differs after {kills} kills");
        }
        assert_eq!(read_lines(&dir.path().join(&output).join("run/metrics.jsonl")).len(), 300);
    }
    assert!(kills >= 4, "only {kills} kills: the run is too short to be killed");
}

#[test]
fn an_interrupted_run_saves_its_last_step() {
    let dir = tempfile::tempdir().unwrap();
    let (base, data) = (golden().display().to_string(), pairs());
    let args = train_args(&data, &base, "judge", &["--max-steps", "100000", "--save-every", "100000"]);
    let child = kudos(dir.path()).args(&args).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = dir.path().join("judge/run/metrics.jsonl");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !metrics.exists() || std::fs::metadata(&metrics).unwrap().len() < 2000 {
        assert!(std::time::Instant::now() < deadline, "the run does not start");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    let steps = read_lines(&metrics).len();
    assert!(message.contains(&format!("step {steps} is saved")) && message.contains("--resume"), "{message}");
    assert!(dir.path().join("judge/run/checkpoint.safetensors").exists());
}

#[test]
fn a_failed_write_leaves_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (binary, base) = (assert_cmd::cargo::cargo_bin("kudos"), golden());
    // Files may grow to 64 KiB: metrics fit, a checkpoint does not. As a full disk, at a chosen place.
    let script = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} train {} --base {} -o judge --quiet --max-steps 30 --save-every 5 --eval-fraction 0",
        binary.display(),
        pairs(),
        base.display()
    );
    let output = Command::new("bash").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("checkpoint.safetensors") && message.contains("File too large"), "{message}");
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("judge/run")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["metrics.jsonl"], "no partial file is left");
}

#[test]
fn bad_output_and_bad_bases_are_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let message = error(dir.path(), &train_args(&pairs(), &base, "file/judge", &["--max-steps", "1"]));
    assert!(message.contains("file/judge"), "{message}");
    judge(dir.path());
    let message = error(dir.path(), &train_args(&pairs(), &base, "judge", &["--max-steps", "1"]));
    assert!(message.contains("--resume continues it, --overwrite replaces it"), "{message}");
    let message = error(dir.path(), &train_args(&pairs(), &base, "judge", &["--max-steps", "7", "--resume"]));
    assert!(message.contains("belongs to another run"), "{message}");
    let message = error(dir.path(), &train_args(&pairs(), "no-such-model", "j2", &[]));
    assert!(message.contains("kudos pull no-such-model") || message.contains("no-such-model"), "{message}");
    let message = error(dir.path(), &train_args(&pairs(), &base, "j3", &["--max-length", "4000"]));
    assert!(message.contains("max_length 4000 exceeds the model's 80 positions"), "{message}");
}

#[test]
fn a_diverging_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden().join(file), base.join(file)).unwrap();
    }
    // A finite but enormous classifier: the scores overflow and the loss is no number.
    let mut bytes = std::fs::read(golden().join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offsets = &json["classifier.weight"]["data_offsets"];
    let range = [0, 1].map(|i| 8 + header + offsets[i].as_u64().unwrap() as usize);
    bytes[range[0]..range[1]].chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&3e38f32.to_le_bytes()));
    std::fs::write(base.join("model.safetensors"), bytes).unwrap();
    let more = ["--max-steps", "5", "--eval-fraction", "0"];
    let message = error(dir.path(), &train_args(&pairs(), "base", "judge", &more));
    assert!(message.contains("the head fitted to the features of the base has a weight or loss of"), "{message}");
    for precision in ["f32", "bf16"] {
        let more = ["--max-steps", "5", "--eval-fraction", "0", "--head-first", "false", "--precision", precision];
        let message = error(dir.path(), &[train_args(&pairs(), "base", "judge", &more), vec!["--overwrite"]].concat());
        if message.contains("expected a processor with AVX-512 BF16") {
            assert!(precision == "bf16", "{message}");
            continue; // There is no such precision here to stop in.
        }
        assert!(message.contains("step 1, ") && message.contains("pairs.jsonl:"), "the place: {message}");
        assert!(message.contains("expected a finite number") && message.contains("lower --learning-rate"), "{message}");
    }
}

#[test]
fn every_way_to_score_gives_the_same_number() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    ok(dir.path(), &["score", &pairs(), "--judge", "judge", "-o", "scored.jsonl", "--quiet"]);
    let scored = read_lines(&dir.path().join("scored.jsonl"));
    let rows = read_lines(&golden().join("pairs.jsonl"));
    assert_eq!(scored.len(), rows.len());
    for (scored, row) in scored.iter().zip(&rows).step_by(7) {
        assert_eq!(scored["prompt"], row["prompt"]);
        for side in ["chosen", "rejected"] {
            let (prompt, response) = (row["prompt"].as_str().unwrap(), row[side].as_str().unwrap());
            let alone = ok(
                dir.path(),
                &["score", "--judge", "judge", "--threads", "1", "--prompt", prompt, "--response", response],
            );
            let (alone, in_file) =
                (alone.trim().parse::<f32>().unwrap(), scored[&format!("score_{side}")].as_f64().unwrap());
            assert_eq!(alone.to_bits(), (in_file as f32).to_bits(), "{prompt}");
        }
    }
    ok(dir.path(), &["score", &pairs(), "--judge", "judge", "-o", "scored.csv", "--threads", "3", "--quiet"]);
    ok(dir.path(), &["score", &pairs(), "--judge", "judge", "-o", "scored.parquet", "--quiet"]);
    for file in ["scored.csv", "scored.parquet"] {
        let again = ok(dir.path(), &["score", file, "--judge", "judge", "--quiet"]);
        let again: Vec<Value> = again.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        for (a, b) in again.iter().zip(&scored) {
            assert_eq!(a["kudos_score_chosen"], b["score_chosen"], "{file}");
        }
    }
    std::fs::write(dir.path().join("empty.csv"), "prompt,chosen,rejected\np,,x\np,same,same\n").unwrap();
    let rows = ok(dir.path(), &["score", "empty.csv", "--judge", "judge", "--quiet"]);
    assert_eq!(rows.lines().count(), 2, "empty and identical responses are scored, though nothing is learnt from them");
    let mut child = kudos(dir.path())
        .args(["score", "-", "--judge", "judge", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::copy(&mut std::fs::File::open(golden().join("pairs.jsonl")).unwrap(), child.stdin.as_mut().unwrap())
        .unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        std::fs::read_to_string(dir.path().join("scored.jsonl")).unwrap()
    );
}

#[test]
fn eval_prints_a_table_and_writes_the_contracts_keys() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let table = ok(dir.path(), &["eval", &pairs(), "--judge", "judge", "--json", "report.json", "--quiet"]);
    assert!(table.contains("accuracy"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(dir.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["judge"], "judge");
    let keys = "file groups pairs ties accuracy accuracy_ci95 kendall_tau_b spearman ndcg ece brier log_loss \
                longer_response_accuracy length_partial_correlation best_of_n subsets score_ties truncated";
    for key in keys.split_whitespace() {
        assert!(report["data"][0].get(key).is_some(), "{key} is missing");
    }
    assert_eq!(report["data"][0]["pairs"], 40);
    let base = golden().display().to_string();
    let trained = ok(dir.path(), &train_args(&pairs(), &base, "second", &["--max-steps", "2", "--json"]));
    let trained: Value = serde_json::from_str(&trained).unwrap();
    assert!(trained["data"][0]["accuracy"].is_number() && trained["judge"] == "second", "{trained}");
    let printed = ok(dir.path(), &["eval", &pairs(), "--judge", "judge", "--json", "--quiet"]);
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), report);
}

/// The temperature that training fitted is in `reward.json`, and `eval` on the same pairs says what training said.
#[test]
fn what_training_says_of_the_held_out_pairs_eval_says_again() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--eval", &pairs(), "--max-steps", "4", "--json"];
    let trained = ok(dir.path(), &train_args(&pairs(), &golden().display().to_string(), "judge", &more));
    let printed = ok(dir.path(), &["eval", &pairs(), "--judge", "judge", "--json", "--quiet"]);
    let [trained, printed]: [Value; 2] = [trained, printed].map(|text| serde_json::from_str(&text).unwrap());
    for key in ["pairs", "accuracy", "accuracy_ci95", "log_loss", "brier", "ece", "score_mean", "score_std"] {
        assert_eq!(trained["data"][0][key], printed["data"][0][key], "{key}");
    }
    let reward: Value = serde_json::from_slice(&std::fs::read(dir.path().join("judge/reward.json")).unwrap()).unwrap();
    let temperature = reward["calibration"]["temperature"].as_f64().unwrap();
    assert!(temperature > 0.0 && temperature != 1.0, "{temperature}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let mut child = kudos(dir.path())
        .args(["eval", &pairs(), "--judge", "judge", "--json", "--quiet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn best_keeps_what_each_rule_says() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let data = r#"{"prompt": "p", "responses": ["one", "two words", "three", "four"]}
{"prompt": "q", "responses": ["five", "six"]}
"#;
    std::fs::write(dir.path().join("data.jsonl"), data).unwrap();
    let scores = ok(dir.path(), &["score", "data.jsonl", "--judge", "judge", "--quiet"]);
    let best = |rule: &[&str]| -> Vec<Value> {
        let args = [&["best", "data.jsonl", "--judge", "judge", "--quiet"], rule].concat();
        ok(dir.path(), &args).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let all: Vec<f64> = scores
        .lines()
        .flat_map(|l| serde_json::from_str::<Value>(l).unwrap()["scores"].as_array().unwrap().clone())
        .map(|s| s.as_f64().unwrap())
        .collect();
    let highest = |range: std::ops::Range<usize>| all[range].iter().copied().fold(f64::MIN, f64::max);
    let one = best(&[]);
    assert_eq!(one.iter().map(|r| r["score"].as_f64().unwrap()).collect::<Vec<_>>(), [highest(0..4), highest(4..6)]);
    assert_eq!(best(&["-k", "3"]).len(), 5);
    assert_eq!(best(&["--top-percent", "34"]).len(), 3);
    let threshold = highest(0..6);
    assert_eq!(best(&["--min-score", &threshold.to_string()]).len(), 1);
    let usage = run(dir.path(), &["best", "data.jsonl", "--judge", "judge", "-k", "1", "--min-score", "2"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn settings_come_from_the_file_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    let settings = format!("quiet = true\n[train]\nbase = '{base}'\nmax-steps = 3\nlearning-rate = 1e-3\n");
    std::fs::write(dir.path().join("kudos.toml"), settings).unwrap();
    ok(dir.path(), &["train", &pairs(), "-o", "judge", "--max-steps", "2"]);
    let args: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("judge/training_args.json")).unwrap()).unwrap();
    assert_eq!((&args["max_steps"], &args["learning_rate"]), (&2.into(), &1e-3.into()));
    let printed = ok(dir.path(), &["train", &pairs(), "--print-settings"]);
    assert!(printed.contains("max-steps = 3") && printed.contains("[train]"), "{printed}");
    std::fs::write(dir.path().join("kudos.toml"), "[train]\nlerning-rate = 1").unwrap();
    let message = error(dir.path(), &["train", &pairs()]);
    assert!(message.contains("kudos.toml") && message.contains("`lerning-rate` is not a flag"), "{message}");
}

#[test]
fn hostile_data_is_an_error_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let base = golden().display().to_string();
    let cases: [(&str, &[u8]); 6] = [
        ("empty.jsonl", b""),
        ("latin1.csv", b"prompt,answer,rank\nwhy,caf\xe9,1\n"),
        ("columns.csv", b"question,reply\na,b\n"),
        ("cut.jsonl.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2]),
        ("rank.csv", b"prompt,answer,rank\na,b,first\n"),
        ("same.jsonl", br#"{"prompt": "p", "chosen": "x", "rejected": 5}"#),
    ];
    for (name, bytes) in cases {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        error(dir.path(), &train_args(name, &base, "out", &["--max-steps", "1"]));
        error(dir.path(), &["eval", name, "--judge", "judge"]);
    }
    error(dir.path(), &["score", ".", "--judge", "judge"]);
    std::fs::write(dir.path().join("mixed.csv"), "prompt,answer,rank\na,b,1\na,c,worst\na,d,2\n").unwrap();
    let output = run(dir.path(), &["score", "mixed.csv", "--judge", "judge"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && message.contains("mixed.csv:3") && message.contains("1 rows could not"),
        "{message}"
    );
}

#[test]
fn every_precision_scores_and_the_one_used_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small"]);
    let size = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().len();
    assert!(size("small/model.int8.safetensors") < size("judge/model.safetensors") / 2);
    let message = error(dir.path(), &["quantize", "--judge", "judge", "-o", "small"]);
    assert!(message.contains("--overwrite"), "{message}");
    let message = error(dir.path(), &["quantize", "--judge", "judge", "-o", "judge"]);
    assert!(message.contains("full judge"), "{message}");

    let texts = ["--prompt", "which one", "--response", "the good one"];
    let score = |args: &[&str]| ok(dir.path(), &[&["score"], args, &texts].concat()).trim().parse::<f32>().unwrap();
    let full = score(&["--judge", "judge", "--precision", "f32"]);
    let small = score(&["--judge", "small"]);
    assert!((full - small).abs() < 0.05 * (1.0 + full.abs()), "{full} and {small}");
    let here = kernels::has_bf16_products() && kernels::has_int8_products();
    let own = std::env::var("KUDOS_ISA").unwrap_or_default();
    for isa in [here.then_some(own.as_str()), Some("emulated")].into_iter().flatten() {
        let run = |args: &[&str]| {
            let output = kudos(dir.path()).env("KUDOS_ISA", isa).args(args).output().unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{isa}: {message}");
            (String::from_utf8(output.stdout).unwrap(), message)
        };
        for precision in ["bf16", "int8"] {
            let asked = ["score", "--judge", "judge", "--precision", precision];
            let found: f32 = run(&[&asked[..], &texts].concat()).0.trim().parse().unwrap();
            assert!((full - found).abs() < 0.05 * (1.0 + full.abs()), "{isa}, {precision}: {full} and {found}");
        }
        let out = format!("out-{isa}.jsonl");
        let (_, message) = run(&["score", &pairs(), "--judge", "small", "-o", &out]);
        assert!(message.contains("scoring in int8"), "{isa}: {message}");
    }
    let base = golden().display().to_string();
    let message = usage(dir.path(), &train_args(&pairs(), &base, "other", &["--precision", "int8"]));
    assert!(message.contains("--precision is int8"), "{message}");
    let output = run(dir.path(), &["train", &pairs(), "--base", "small", "-o", "other", "--max-steps", "2"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("stored in 8 bits"), "{message}");
    assert!(dir.path().join("other/model.safetensors").exists(), "a trained judge is stored in full");
}

/// Misspelt, it would test the wrong code in silence.
#[test]
fn c10_an_unknown_instruction_set_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for isa in ["AVX2", "sse"] {
        let output = kudos(dir.path()).env("KUDOS_ISA", isa).args(["check", &pairs()]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(
            message.contains(isa)
                && message.contains("amx, avx512, avx512vnni, avxvnni, avx2, baseline, emulated, emulatedamx"),
            "{message}"
        );
        assert!(!message.contains("panicked"), "{message}");
    }
    assert!(kudos(dir.path()).env("KUDOS_ISA", "").args(["check", &pairs()]).output().unwrap().status.success());
}

/// Standard output and standard error of a run on the code of another processor.
fn on(isa: &str, dir: &Path, args: &[&str]) -> (String, String) {
    let output = kudos(dir).env("KUDOS_ISA", isa).args(args).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{isa}: {message}");
    (String::from_utf8(output.stdout).unwrap(), message)
}

/// The lines of a scored file on the code of another processor.
fn scored_on(isa: &str, dir: &Path, args: &[&str]) -> Vec<serde_json::Value> {
    let out = format!("{isa}.jsonl");
    on(isa, dir, &[&["score", &pairs(), "-o", &out], args].concat());
    let lines = std::fs::read_to_string(dir.join(out)).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// AVX2, AVX-VNNI and AVX-512 VNNI multiply the same integers, and where there is no bf16 all else is f32.
#[test]
fn int8_scores_are_the_same_on_all_processors_without_bf16() {
    if !int8_without_bf16() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small"]);
    for judge in ["judge", "small"] {
        let expected = scored_on("avx2", dir.path(), &["--judge", judge, "--precision", "int8", "--threads", "1"]);
        for (isa, threads) in [("avxvnni", "1"), ("avx512vnni", "2"), ("avx2", "3")] {
            let asked = ["--judge", judge, "--precision", "int8", "--threads", threads];
            assert_eq!(scored_on(isa, dir.path(), &asked), expected, "{judge}, {isa}");
        }
    }
}

/// True on x86-64 with AVX2. Elsewhere int8 has no instructions, and its plain twin is tested with bf16's.
fn int8_without_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The same run on a processor without AVX-512: it trains in f32, scores in f32 or (stored so) in int8, and says so.
#[test]
fn other_processors_train_in_f32_and_score_in_what_they_have() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small"]);
    let int8 = if int8_without_bf16() { "int8" } else { "f32" };
    for (isa, precision) in [("avx512vnni", int8), ("avxvnni", int8), ("avx2", int8), ("baseline", "f32")] {
        for (judge, precision) in [("judge", "f32"), ("small", precision)] {
            let (_, message) = on(isa, dir.path(), &["score", &pairs(), "--judge", judge]);
            assert!(message.contains(&format!("scoring in {precision}")), "{isa}, {judge}: {message}");
        }
        if precision == "f32" {
            let asked = ["score", &pairs(), "--judge", "judge", "--precision", "int8"];
            let refused = kudos(dir.path()).env("KUDOS_ISA", isa).args(asked).output().unwrap();
            assert_eq!(refused.status.code(), Some(1));
        }
        let (checks, message) = on(isa, dir.path(), &["verify", "--judge", "judge"]);
        let int8 = if precision == "int8" { "ok" } else { "skip" };
        let found = checks.lines().find(|line| line.contains("precision int8")).unwrap();
        assert!(found.starts_with(int8), "{isa}: {found} {message}");
        let base = golden().display().to_string();
        let data = pairs();
        let arguments = train_args(&data, &base, isa, &["--max-steps", "3"]);
        assert!(kudos(dir.path()).env("KUDOS_ISA", isa).args(arguments).status().unwrap().success());
        let settings = std::fs::read_to_string(dir.path().join(isa).join("training_args.json")).unwrap();
        assert!(settings.contains("\"precision\": \"f32\""), "{settings}");
    }
}

/// The golden's pairs, as many as `count`, with a weight of 0 where `weightless` says so.
fn weighted_pairs(dir: &Path, count: usize, weightless: impl Fn(usize) -> bool) {
    let rows = read_lines(&golden().join("pairs.jsonl")).into_iter().take(count).enumerate().map(|(n, mut row)| {
        row["weight"] = if weightless(n) { 0.into() } else { 1.into() };
        row.to_string() + "\n"
    });
    std::fs::write(dir.join("weighted.jsonl"), rows.collect::<String>()).unwrap();
}

/// A pair of weight 0 among what is held out made the loss NaN, and the first evaluation the best for ever.
#[test]
fn c1_weights_of_0_are_no_comparisons() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    weighted_pairs(dir.path(), 40, |n| n % 4 == 0);
    for more in [&["--eval", "weighted.jsonl"][..], &["--eval-fraction", "0.5"], &["--loss", "plackett-luce"]] {
        let flags = [&["--overwrite", "--max-steps", "20", "--eval-every", "5", "--json"], more].concat();
        let output =
            run(dir.path(), &[&["train", "weighted.jsonl", "--base", &base, "-o", "judge"], &flags[..]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("not used: 10 comparisons of weight 0"), "{said}");
        let steps = read_lines(&dir.path().join("judge/run/metrics.jsonl"));
        assert!(steps.iter().all(|step| step["loss"].is_f64()), "{steps:?}");
        let evaluated: Vec<_> = steps.iter().filter_map(|step| step.get("eval_loss")).collect();
        assert!(evaluated.len() == 4 && evaluated.iter().all(|loss| loss.is_f64()), "{evaluated:?}");
    }
    let report: Value = serde_json::from_slice(
        &run(dir.path(), &["eval", "weighted.jsonl", "--judge", "judge", "--json", "--quiet"]).stdout,
    )
    .unwrap();
    assert_eq!(report["data"][0]["pairs"], 30);
    weighted_pairs(dir.path(), 10, |_| true);
    let message = error(dir.path(), &train_args("weighted.jsonl", &base, "none", &[]));
    assert!(message.contains("every comparison has weight 0"), "{message}");
    let message = error(dir.path(), &train_args(&pairs(), &base, "none", &["--eval", "weighted.jsonl"]));
    assert!(
        message.contains("--eval weighted.jsonl") && message.contains("every comparison has weight 0"),
        "{message}"
    );
}

/// A step too small to change anything: the loss cannot fall, so each recipe stops after two evaluations that are no better.
#[test]
fn c5_an_early_stop_stops_each_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    for recipe in ["default", "trl"] {
        let flags = "--head-first false --max-steps 40 --learning-rate 1e-12 --eval-every 2 --early-stop 2 --recipe";
        let more: Vec<&str> = flags.split(' ').chain([recipe, "--eval-fraction", "0.25", "--overwrite"]).collect();
        let output = run(dir.path(), &[&["train", &pairs(), "--base", &base, "-o", "judge"], &more[..]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("the held-out loss no longer fell"), "{recipe}: {said}");
        let steps = read_lines(&dir.path().join("judge/run/metrics.jsonl")).len();
        assert!(steps < 40, "{recipe}: {steps} steps");
        let last = format!("kept: the weights of step {steps}");
        assert!(recipe == "default" || said.contains(&last), "TRL's recipe keeps the last: {said}");
        let message = usage(
            dir.path(),
            &train_args(&pairs(), &base, "none", &["--recipe", recipe, "--early-stop", "2", "--eval-fraction", "0"]),
        );
        assert!(message.contains("--early-stop is 2, expected held-out data"), "{message}");
    }
}

#[test]
fn the_trl_recipe_says_that_it_ignores_weights() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    weighted_pairs(dir.path(), 8, |_| false);
    let said = |data: &str| {
        let args =
            ["train", data, "--base", &base, "-o", "judge", "--overwrite", "--recipe", "trl", "--max-steps", "1"];
        String::from_utf8(run(dir.path(), &args).stderr).unwrap()
    };
    assert!(!said("weighted.jsonl").contains("ignores `weight`"));
    let text = std::fs::read_to_string(dir.path().join("weighted.jsonl")).unwrap();
    std::fs::write(dir.path().join("weighted.jsonl"), text.replacen("\"weight\":1", "\"weight\":0.5", 1)).unwrap();
    assert_eq!(said("weighted.jsonl").matches("--recipe trl ignores `weight`").count(), 1);
}

/// Others read the token limit from the tokenizer's files.
#[test]
fn f6_a_judges_limit_is_in_its_tokenizer_files() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    let limited = ["--max-steps", "1", "--max-length", "24", "--truncation", "keep_response"];
    ok(dir.path(), &train_args(&pairs(), &base, "judge", &limited));
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small", "--quiet"]);
    ok(dir.path(), &train_args(&pairs(), "judge", "next", &["--max-steps", "1"]));
    for judge in ["judge", "small", "next"] {
        let json = |file: &str| -> Value {
            serde_json::from_slice(&std::fs::read(dir.path().join(judge).join(file)).unwrap()).unwrap()
        };
        assert_eq!(json("reward.json")["max_length"], 24, "{judge}");
        assert_eq!(json("tokenizer_config.json")["model_max_length"], 24, "{judge}");
        assert_eq!(json("sentence_bert_config.json")["max_seq_length"], 24, "{judge}");
        let same = |file: &str| {
            std::fs::read(dir.path().join(judge).join(file)).unwrap() == std::fs::read(golden().join(file)).unwrap()
        };
        assert!(same("tokenizer.json"), "{judge}");
    }
    let card = std::fs::read_to_string(dir.path().join("judge/README.md")).unwrap();
    assert!(
        card.contains("max_length=24") && card.contains("cuts a text that is too long from the start of its prompt"),
        "{card}"
    );
}

/// Files of another judge beside the new one's would change its ids or its weights.
#[test]
fn c6_overwriting_leaves_nothing_of_another_judge() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden().display().to_string();
    let old = dir.path().join("judge");
    std::fs::create_dir_all(old.join("run")).unwrap();
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    std::fs::write(old.join("model.safetensors.index.json"), index).unwrap();
    let data = pairs();
    let args = train_args(&data, &base, "judge", &["--max-steps", "1"]);
    let message = error(dir.path(), &args);
    assert!(message.contains("it already holds a judge"), "an index is a judge: {message}");
    let stale = [
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.int8.safetensors",
        "run/folds.json",
        "run/out_of_fold.jsonl",
        "run/suspects.jsonl",
        "run/ensemble/1/old",
    ];
    std::fs::create_dir_all(old.join("run/ensemble/1")).unwrap();
    stale.iter().for_each(|file| std::fs::write(old.join(file), "{}").unwrap());
    std::fs::write(old.join("report.html"), "of another").unwrap();
    std::fs::write(old.join("notes.txt"), "mine").unwrap();
    let bad = error(dir.path(), &[train_args("absent.jsonl", &base, "judge", &[]), vec!["--overwrite"]].concat());
    assert!(old.join("vocab.txt").exists(), "nothing is removed for a command that cannot run: {bad}");
    ok(dir.path(), &[args, vec!["--overwrite"]].concat());
    let left: Vec<_> = stale.iter().filter(|file| old.join(file).exists()).collect();
    assert!(left.is_empty() && !old.join("model.safetensors.index.json").exists(), "{left:?}");
    assert!(std::fs::read_to_string(old.join("report.html")).unwrap() != "of another");
    assert!(old.join("notes.txt").exists(), "what is no file of a judge stays");
}

#[test]
fn c6_the_base_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let before = judge_bytes(&dir.path().join("judge"));
    let message = error(dir.path(), &train_args(&pairs(), "judge", "./judge", &["--overwrite", "--max-steps", "1"]));
    assert!(message.contains("it is the base, which training does not replace"), "{message}");
    assert!(before == judge_bytes(&dir.path().join("judge")));
}

#[test]
fn c6_quantizing_over_another_judge_leaves_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    judge(dir.path());
    let small = dir.path().join("small");
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small", "--quiet"]);
    let fresh = judge_bytes(&small);
    std::fs::write(small.join("special_tokens_map.json"), r#"{"cls_token": "<s>"}"#).unwrap();
    ok(dir.path(), &["quantize", "--judge", "judge", "-o", "small", "--quiet", "--overwrite"]);
    assert!(fresh == judge_bytes(&small));
}

/// Checkpoints of a time before the head was stored in them.
#[test]
fn c10_a_checkpoint_without_the_head_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    bert_without_pooler(dir.path());
    let flags = ["--eval-fraction", "0.5", "--max-steps", "1", "--learning-rate", "1e-12"];
    ok(dir.path(), &train_args(&pairs(), "base", "judge", &flags));
    let path = dir.path().join("judge/run/checkpoint.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let text = |bytes: &[u8], from: usize, what: &str| {
        from + bytes[from..].windows(what.len()).position(|w| w == what.as_bytes()).unwrap()
    };
    let start = text(&bytes, 0, "head_layer\\\":[") + "head_layer\\\":[".len();
    let end = text(&bytes, start, "]");
    bytes[start..end].fill(b' ');
    std::fs::write(&path, bytes).unwrap();
    let message = error(dir.path(), &[train_args(&pairs(), "base", "judge", &flags), vec!["--resume"]].concat());
    assert!(message.contains("checkpoint.safetensors") && message.contains("earlier version"), "{message}");
}
