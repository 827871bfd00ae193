//! `kudos convert-judge` by the real binary: the log odds that transformers computes for every family, a judge in every
//! respect, and what is refused. `golden/make_convert_golden.py` made the models and the numbers.

mod binary;

use binary::{error, ok, run, usage};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/convert").canonicalize().unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn expected() -> Map<String, Value> {
    read(&golden().join("expected.json")).as_object().unwrap().clone()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A directory with `model`, what it is asked with, and `rows.jsonl`; and how to convert it into `judge`.
fn folder(case: &str) -> (TempDir, Vec<String>) {
    let (dir, expected) = (tempfile::tempdir().unwrap(), expected());
    let facts = &expected[case];
    copy(&golden().join(case), &dir.path().join("model"));
    let is_gguf = dir.path().join("model/model.gguf").exists();
    if !is_gguf {
        copy(&golden().join("tokenizer").join(facts["tokenizer"].as_str().unwrap()), &dir.path().join("model"));
    }
    let rows: String = expected["rows"].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let model = if is_gguf { "model/model.gguf" } else { "model" };
    let mut args = ["convert-judge", model, "-o", "judge"].map(str::to_owned).to_vec();
    if let Some(flag) = facts["flag"].as_str() {
        std::fs::write(dir.path().join("asked.txt"), facts["file"].as_str().unwrap()).unwrap();
        args.extend([format!("--{flag}"), "asked.txt".to_owned()]);
    }
    (dir, args)
}

/// The tokens are those that nobody has to name.
fn typed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn scores(dir: &Path, more: &[&str]) -> Vec<Value> {
    let args = [&["score", "rows.jsonl", "--judge", "judge"], more].concat();
    ok(dir, &args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn scores_are_the_log_odds_of_transformers() {
    let expected = expected();
    for (case, facts) in expected.iter().filter(|(case, _)| *case != "rows") {
        let (dir, args) = folder(case);
        ok(dir.path(), &typed(&args));
        let scored = scores(dir.path(), &["--precision", "f32"]);
        let [wanted, ids] = ["scores", "ids"].map(|key| facts[key].as_array().unwrap());
        assert_eq!(scored.len(), wanted.len(), "{case}");
        for ((row, wanted), ids) in scored.iter().zip(wanted).zip(ids) {
            assert_eq!(row["tokens"].as_u64().unwrap() as usize, ids.as_array().unwrap().len(), "{case} {row}");
            let [found, wanted] = [&row["score"], wanted].map(|score| score.as_f64().unwrap());
            assert!((found - wanted).abs() < 1e-4, "{case}: {found} instead of {wanted}");
        }
        let reward = read(&dir.path().join("judge/reward.json"));
        assert_eq!(reward["recipe"]["answer_tokens"], facts["tokens"], "{case}");
        assert_eq!(reward["recipe"]["answers"], facts["answers"], "{case}");
    }
}

/// The types of a model's tensors, by their names.
fn types(path: &Path) -> Map<String, Value> {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, tensor)| (name, tensor["dtype"].clone()))
        .collect()
}

#[test]
fn the_judge_is_a_sequence_classifier_with_the_models_own_tensors() {
    let (dir, args) = folder("qwen3");
    ok(dir.path(), &typed(&args));
    let config = read(&dir.path().join("judge/config.json"));
    assert_eq!(config["architectures"], json!(["Qwen3ForSequenceClassification"]));
    assert_eq!((&config["id2label"], &config["dtype"]), (&json!({"0": "LABEL_0"}), &json!("float32")));
    assert_eq!(config["pad_token_id"], 0, "the tokenizer's, since no rendering ends in it");
    let mut own = types(&dir.path().join("model/model.safetensors"));
    own.remove("lm_head.weight").unwrap();
    own.insert("score.weight".into(), "F32".into());
    assert_eq!(types(&dir.path().join("judge/model.safetensors")), own);
    assert!(own.values().any(|kind| kind == "BF16"), "a body in 16 bits keeps them");
    let limit = read(&dir.path().join("judge/tokenizer_config.json"))["model_max_length"].clone();
    assert_eq!(limit, read(&dir.path().join("judge/reward.json"))["max_length"]);
}

#[test]
fn every_command_gives_the_same_scores() {
    for case in ["qwen3", "gguf", "gpt2"] {
        let (dir, args) = folder(case);
        ok(dir.path(), &typed(&args));
        let printed = ok(dir.path(), &["verify", "--judge", "judge"]);
        assert!(printed.contains("ok") && !printed.contains("FAIL"), "{case}: {printed}");
    }
}

#[test]
fn a_row_that_the_template_refuses_is_located() {
    let (dir, args) = folder("mistral");
    ok(dir.path(), &typed(&args));
    let template = dir.path().join("judge/chat_template.jinja");
    let text = std::fs::read_to_string(&template).unwrap();
    std::fs::write(
        &template,
        format!("{text}{{% if prompt == '' %}}{{{{ raise_exception('no prompt') }}}}{{% endif %}}"),
    )
    .unwrap();
    std::fs::write(
        dir.path().join("rows.jsonl"),
        "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"\", \"response\": \"b\"}\n",
    )
    .unwrap();
    let output = run(dir.path(), &["score", "rows.jsonl", "--judge", "judge"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("rows.jsonl:2") && said.contains("no prompt"), "{said}");
}

#[test]
fn answers_are_one_token_each() {
    let (dir, args) = folder("qwen2");
    let refused = |tokens: &str| error(dir.path(), &[&typed(&args)[..], &["--tokens", tokens]].concat());
    let several = refused("No,Absolutely");
    assert!(several.contains("\"Absolutely\" is not one token after this template, but \"A\""), "{several}");
    let offered = refused("no,yes");
    assert!(offered.contains("one token would be \" No\", \"No\""), "{offered}");
    let same = usage(dir.path(), &[&typed(&args)[..], &["--tokens", "Yes,Yes"]].concat());
    assert!(same.contains("two words that differ"), "{same}");
    for typed_tokens in ["Yes", "Yes,", "a,b,c", ""] {
        usage(dir.path(), &[&typed(&args)[..], &["--tokens", typed_tokens]].concat());
    }
    assert!(!dir.path().join("judge/config.json").exists());
}

#[test]
fn a_template_must_ask_about_the_response() {
    let (dir, args) = folder("qwen2");
    let with = |text: &str, flag: &str| {
        std::fs::write(dir.path().join("asked.txt"), text).unwrap();
        run(dir.path(), &[&typed(&args)[..], &[flag, "asked.txt"]].concat())
    };
    let message = |text: &str, flag: &str| {
        let output = with(text, flag);
        assert!(!output.status.success(), "{text}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(message("Is {{ prompt }} good?", "--question").contains("{{ response }}"));
    assert!(message("{# response #}{{ prompt }}", "--template").contains("nothing of the answer"));
    assert!(message("{{ response | shout }}", "--template").contains("shout"));
    assert!(message("{% if response %}", "--template").contains("does not parse"));
    assert!(message("{{ response", "--question").contains("does not parse"));
    let odd = with("{{ response }} and {{ prompt }}", "--template");
    let said = String::from_utf8(odd.stderr).unwrap();
    assert!(odd.status.success() && said.contains("note: ") && said.contains("most likely"), "{said}");
}

#[test]
fn nothing_is_lost_when_a_conversion_fails() {
    let (dir, args) = folder("qwen2");
    ok(dir.path(), &typed(&args));
    let before = scores(dir.path(), &[]);
    let again = error(dir.path(), &typed(&args));
    assert!(again.contains("already holds a judge") && again.contains("--overwrite"), "{again}");
    error(dir.path(), &[&typed(&args)[..], &["--overwrite", "--tokens", "nope,Yes"]].concat());
    assert_eq!(scores(dir.path(), &[]), before);
    let names = || std::fs::read_dir(dir.path().join("judge")).unwrap().count();
    let files = names();
    ok(dir.path(), &[&typed(&args)[..], &["--overwrite"]].concat());
    assert_eq!((names(), scores(dir.path(), &[])), (files, before));
    let itself = usage(dir.path(), &["convert-judge", "model", "-o", "model", "--overwrite"]);
    assert!(itself.contains("the model itself") && dir.path().join("model/model.safetensors").exists(), "{itself}");
}

#[test]
fn models_that_answer_nothing_are_refused() {
    let (dir, args) = folder("llama");
    let config = dir.path().join("model/config.json");
    let original = read(&config);
    let refused = |key: &str, value: Value| {
        let mut changed = original.clone();
        changed[key] = value;
        std::fs::write(&config, changed.to_string()).unwrap();
        error(dir.path(), &typed(&args))
    };
    assert!(refused("model_type", json!("bert")).contains("model_type"));
    assert!(refused("auto_map", json!({"AutoModel": "a.B"})).contains("auto_map"));
    assert!(refused("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    assert!(refused("vocab_size", json!(300)).contains("shape"));
    std::fs::write(&config, original.to_string()).unwrap();
    // A judge of the same family has no logits.
    ok(dir.path(), &typed(&args));
    let message = error(dir.path(), &["convert-judge", "judge", "-o", "other"]);
    assert!(message.contains("lm_head.weight") && message.contains("has no logits"), "{message}");
    let long = error(dir.path(), &[&typed(&args)[..], &["--overwrite", "--max-length", "9000"]].concat());
    assert!(long.contains("9000") && long.contains("512"), "{long}");
    let short = error(dir.path(), &[&typed(&args)[..], &["--overwrite", "--max-length", "20"]].concat());
    assert!(short.contains("20"), "{short}");
}

/// With steps too small to move anything, the trained judge is the converted one.
#[test]
fn training_starts_from_the_answers() {
    let (dir, args) = folder("qwen3");
    ok(dir.path(), &typed(&args));
    let converted = scores(dir.path(), &["--precision", "f32"]);
    let pairs: String =
        (0..6).map(|i| format!("{}\n", json!({"prompt": format!("p{i}"), "chosen": "a", "rejected": "b"}))).collect();
    std::fs::write(dir.path().join("pairs.jsonl"), pairs).unwrap();
    let still = ["--head-first", "false", "--max-steps", "1", "--learning-rate", "1e-12", "--precision", "f32"];
    let start = ["train", "pairs.jsonl", "--base", "model", "-o", "judge", "--overwrite", "--head-from", "No,Yes"];
    let output = run(dir.path(), &[&start[..], &still].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("log odds of \"Yes\" over \"No\""), "{said}");
    for (trained, converted) in scores(dir.path(), &["--precision", "f32"]).iter().zip(&converted) {
        let [trained, converted] = [trained, converted].map(|row| row["score"].as_f64().unwrap());
        assert!((trained - converted).abs() < 1e-4, "{said}: {trained} instead of {converted}");
    }
    assert!(!dir.path().join("judge/.base").exists(), "what the run started from is removed");
    own_template(dir.path(), &start, &still);
    let both = usage(dir.path(), &[&start[..], &["--new-head"]].concat());
    assert!(both.contains("--new-head"), "{both}");
    let several =
        error(dir.path(), &["train", "pairs.jsonl", "--base", "model", "-o", "other", "--head-from", "No,Absolutely"]);
    assert!(several.contains("not one token") && !dir.path().join("other/.base").exists(), "{several}");
}

/// A template of one's own is asked in both commands.
fn own_template(dir: &Path, start: &[&str], still: &[&str]) {
    let before = scores(dir, &["--precision", "f32"]);
    std::fs::write(dir.join("t.jinja"), "{{ prompt }}: {{ response }}?{{ '\\n' }}").unwrap();
    let flags = ["--template", "t.jinja"];
    let convert = ["convert-judge", "model", "-o", "judge", "--overwrite", "--tokens", "No,Yes"];
    ok(dir, &[&convert[..], &flags].concat());
    let converted = scores(dir, &["--precision", "f32"]);
    let apart = |a: &Value, b: &Value| (a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs();
    assert!(converted.iter().zip(&before).any(|(a, b)| apart(a, b) > 1e-3), "another question, another score");
    let output = run(dir, &[start, still, &flags].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (trained, converted) in scores(dir, &["--precision", "f32"]).iter().zip(&converted) {
        assert!(apart(trained, converted) < 1e-4, "{trained} instead of {converted}");
    }
    let alone = usage(dir, &["train", "pairs.jsonl", "--base", "model", "-o", "other", "--template", "t.jinja"]);
    assert!(alone.contains("--head-from"), "{alone}");
    std::fs::write(dir.join("t.jinja"), "Is it good?").unwrap();
    let never = usage(dir, &[start, &flags].concat());
    assert!(never.contains("never says"), "{never}");
}

/// Pairs whose better response is the one that the model says yes to, or the other one.
fn labelled(dir: &Path, agree: bool) {
    let texts: Vec<String> = (0..30).flat_map(|i| [format!("{i} is a river"), format!("the sea of {i}")]).collect();
    let row = |(i, text): (usize, &String)| format!("{}\n", json!({"prompt": format!("p{}", i / 2), "response": text}));
    let rows: String = texts.iter().enumerate().map(row).collect();
    std::fs::write(dir.join("rows.jsonl"), rows).unwrap();
    let score: Vec<f64> = scores(dir, &[]).iter().map(|row| row["score"].as_f64().unwrap()).collect();
    let pair = |i: usize| {
        let first = (score[2 * i] > score[2 * i + 1]) == agree;
        let (chosen, rejected) = if first { (2 * i, 2 * i + 1) } else { (2 * i + 1, 2 * i) };
        format!("{}\n", json!({"prompt": format!("p{i}"), "chosen": texts[chosen], "rejected": texts[rejected]}))
    };
    std::fs::write(dir.join("pairs.jsonl"), (0..30).map(pair).collect::<String>()).unwrap();
    std::fs::write(dir.join("other.jsonl"), pair(0).replace("p0", "other")).unwrap();
}

/// The answers are where a head starts only if they predict the data better than nothing does.
#[test]
fn answers_that_mislead_are_left() {
    let (dir, args) = folder("qwen3");
    ok(dir.path(), &typed(&args));
    for (agree, chosen) in [(true, "its own"), (false, "the new one")] {
        labelled(dir.path(), agree);
        let train =
            ["train", "pairs.jsonl", "--eval", "other.jsonl", "--base", "model", "-o", "trained", "--overwrite"];
        let more = ["--head-from", "No,Yes", "--max-steps", "1", "--precision", "f32"];
        let output = run(dir.path(), &[&train[..], &more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        // Scores of so narrow a toy may differ by more in fewer bits than the self-test allows.
        assert!(output.status.success() || said.contains("the judge is written"), "{agree}: {said}");
        assert!(said.contains(&format!("starting from {chosen}")), "{agree}: {said}");
    }
}
