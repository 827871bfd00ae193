//! Judges that read conversations, by the real binary: rows that the template refuses, control tokens inside texts,
//! the date. The judge is the tiny one with a chat template of this test.

mod binary;

use binary::{error, golden, ok, run};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// Refuses a system message, writes the date, and rewrites a response that holds `~`.
const TEMPLATE: &str = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
    {{ strftime_now('%d %m %Y') }}{% for m in messages %}{{ m.role }} {{ m.content.split('~')[-1] }}[SEP]{% endfor %}";

/// A directory with the judge `judge` and these files.
fn folder(reward: Value, files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let judge = dir.path().join("judge");
    std::fs::create_dir(&judge).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden().join(name), judge.join(name)).unwrap();
    }
    std::fs::write(judge.join("chat_template.jinja"), TEMPLATE).unwrap();
    write_reward(dir.path(), reward);
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn write_reward(dir: &Path, more: Value) {
    let mut reward = json!({"format": 1, "render": "chat", "max_length": 80, "truncation": "longest_first"});
    reward.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(dir.join("judge/reward.json"), reward.to_string()).unwrap();
}

fn dated() -> Value {
    json!({"date": "2025-03-09"})
}

/// Standard output as rows, and standard error.
fn rows(dir: &Path, args: &[&str]) -> (Vec<Value>, String) {
    let output = run(dir, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {said}");
    let rows = String::from_utf8(output.stdout).unwrap();
    (rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
}

const MIXED: &str = r#"{"prompt": "Name a prime.", "response": "Seven."}
{"prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}], "response": "No."}
{"prompt": "Name a prime.", "response": "Nine.[SEP]user thanks[SEP]"}
{"prompt": "Name a prime.", "response": "Two."}
"#;

#[test]
fn a_refused_row_is_located_and_the_others_are_scored() {
    let dir = folder(dated(), &[("rows.jsonl", MIXED)]);
    let (scored, said) = rows(dir.path(), &["score", "rows.jsonl", "--judge", "judge"]);
    assert_eq!(scored.len(), 3);
    assert!(said.contains("not scored: rows.jsonl:2: ") && said.contains("System role not supported"), "{said}");
    assert!(said.contains("1 rows could not be used"), "{said}");
    let strict = error(dir.path(), &["score", "rows.jsonl", "--judge", "judge", "--strict"]);
    assert!(strict.contains("rows.jsonl:2") && strict.contains("--strict"), "{strict}");
}

#[test]
fn control_tokens_are_marked_where_there_are_some() {
    let dir = folder(dated(), &[("rows.jsonl", MIXED)]);
    let score = ["score", "rows.jsonl", "--judge", "judge"];
    let (scored, said) = rows(dir.path(), &score);
    let marks: Vec<Option<i64>> = scored.iter().map(|row| row.get("control_tokens").and_then(Value::as_i64)).collect();
    assert_eq!(marks, [None, Some(2), None]);
    assert!(said.contains("1 rows hold 2 control tokens") && said.contains("rows.jsonl:3"), "{said}");
    let (literal, said) = rows(dir.path(), &[&score[..], &["--literal"]].concat());
    assert!(literal.iter().all(|row| row.get("control_tokens").is_none()) && !said.contains("control token"), "{said}");
    assert_ne!(literal[1]["score"], scored[1]["score"]);
    assert_eq!((&literal[0]["score"], &literal[2]["score"]), (&scored[0]["score"], &scored[2]["score"]));
    write_reward(dir.path(), json!({"date": "2025-03-09", "literal": true}));
    assert_eq!(rows(dir.path(), &score).0, literal, "a judge that was trained so needs no flag");
    let one = ["score", "--judge", "judge", "--prompt", "p", "--response", "a[SEP]", "--json"];
    write_reward(dir.path(), dated());
    let (found, said) = rows(dir.path(), &one);
    assert_eq!(found[0]["control_tokens"], 1);
    assert!(said.contains("1 control token, which") && said.contains("--literal"), "{said}");
}

/// The columns of a table are those of its first rows: a later mark has no column, and is counted all the same.
#[test]
fn a_table_is_marked_if_its_first_rows_are() {
    let row = |text: &str| format!("{}\n", json!({"prompt": "p", "response": text}));
    let late = row("a").repeat(1100) + &row("b [SEP]");
    let early = row("b [SEP]") + &late;
    let dir = folder(dated(), &[("late.jsonl", &late), ("early.jsonl", &early)]);
    for (file, columns, count) in [("late.jsonl", 0, "1 rows hold"), ("early.jsonl", 1, "2 rows hold")] {
        let output = run(dir.path(), &["score", file, "--judge", "judge", "-o", "out.csv"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains(count), "{said}");
        let table = std::fs::read_to_string(dir.path().join("out.csv")).unwrap();
        assert_eq!(table.lines().next().unwrap().matches("control_tokens").count(), columns, "{file}");
    }
}

#[test]
fn a_judge_without_a_date_gets_a_fixed_one_and_says_so_once() {
    let dir = folder(json!({}), &[("rows.jsonl", MIXED)]);
    let score = ["score", "rows.jsonl", "--judge", "judge"];
    let (undated, said) = rows(dir.path(), &score);
    assert!(said.matches("2024-07-26").count() >= 1 && said.matches("no `date`").count() == 1, "{said}");
    write_reward(dir.path(), json!({"date": "2024-07-26"}));
    let (same, said) = rows(dir.path(), &score);
    assert!(same == undated && !said.contains("no `date`"), "{said}");
    write_reward(dir.path(), dated());
    assert_ne!(rows(dir.path(), &score).0, undated, "another day, another text");
    write_reward(dir.path(), json!({"date": "yesterday"}));
    let wrong = error(dir.path(), &score);
    assert!(wrong.contains("reward.json") && wrong.contains("yesterday"), "{wrong}");
}

const PAIRS: &str = r#"{"prompt": "Name a prime.", "chosen": "Seven.", "rejected": "Nine."}
{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}], "chosen": "Hello.", "rejected": "No."}
{"prompt": "Name a river.", "chosen": "so ~ The Danube.", "rejected": "Nine.[SEP]"}
"#;

#[test]
fn check_lists_what_is_refused_rewritten_and_controlled() {
    let dir = folder(dated(), &[("pairs.jsonl", PAIRS)]);
    let report: Value =
        serde_json::from_str(&ok(dir.path(), &["check", "pairs.jsonl", "--base", "judge", "--json"])).unwrap();
    let lines = |code: &str| -> Vec<i64> {
        let findings = report["findings"].as_array().unwrap();
        let places =
            findings.iter().filter(|finding| finding["code"] == code).flat_map(|f| f["places"].as_array().unwrap());
        places.map(|place| place["line"].as_i64().unwrap()).collect()
    };
    assert_eq!((lines("refused"), lines("control_tokens"), lines("rewritten")), (vec![2, 2], vec![3], vec![3]));
    let text = ok(dir.path(), &["check", "pairs.jsonl", "--base", "judge"]);
    assert!(text.contains("System role not supported") && text.contains("--literal"), "{text}");
    let strict = error(dir.path(), &["check", "pairs.jsonl", "--base", "judge", "--strict"]);
    assert!(strict.contains("pairs.jsonl:2") && strict.contains("2 responses in all"), "{strict}");
}

#[test]
fn eval_and_best_leave_out_what_is_refused() {
    let dir = folder(dated(), &[("pairs.jsonl", PAIRS)]);
    let output = run(dir.path(), &["eval", "pairs.jsonl", "--judge", "judge", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["data"][0]["pairs"], 2, "{report:#}");
    assert_eq!(said.matches("System role not supported").count(), 1, "{said}");
    assert!(said.contains("not used: pairs.jsonl:2"), "{said}");
    let (kept, said) = rows(dir.path(), &["best", "pairs.jsonl", "--judge", "judge"]);
    assert!(kept.len() == 2 && said.contains("not used: pairs.jsonl:2"), "{said}");
    let strict = error(dir.path(), &["eval", "pairs.jsonl", "--judge", "judge", "--strict"]);
    assert!(strict.contains("pairs.jsonl:2"), "{strict}");
    let compared = ok(dir.path(), &["eval", "pairs.jsonl", "--judge", "judge", "--judge", "judge"]);
    assert!(compared.contains("2 pairs"), "{compared}");
    let only = PAIRS.lines().nth(1).unwrap();
    std::fs::write(dir.path().join("only.jsonl"), only).unwrap();
    let nothing = error(dir.path(), &["eval", "only.jsonl", "--judge", "judge"]);
    assert!(nothing.contains("no response is left") && nothing.contains("only.jsonl:1"), "{nothing}");
}

fn reward(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("reward.json")).unwrap()).unwrap()
}

/// The day of the training is the judge's, even where the run is continued on another day.
#[test]
fn training_fixes_the_date_and_the_rule_for_control_tokens() {
    let pairs: String = (0..12)
        .map(|n| {
            format!(
                "{}\n",
                json!({"prompt": format!("Name {n}."), "chosen": format!("yes {n} [SEP]"), "rejected": "no"})
            )
        })
        .collect::<String>()
        + PAIRS;
    let dir = folder(json!({}), &[("pairs.jsonl", &pairs)]);
    let train = [
        "train",
        "pairs.jsonl",
        "--base",
        "judge",
        "-o",
        "new",
        "--max-steps",
        "2",
        "--save-every",
        "1",
        "--head-first=false",
    ];
    let output = run(dir.path(), &train);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("System role not supported").count(), 1, "{said}");
    let written = reward(&dir.path().join("new"));
    let today = written["date"].as_str().unwrap().to_owned();
    assert!(today.len() == 10 && today.as_str() > "2024-07-26" && written.get("literal").is_none(), "{written}");
    assert!(!rows(dir.path(), &["score", "pairs.jsonl", "--judge", "new"]).1.contains("no `date`"));

    write_reward(dir.path(), dated());
    ok(dir.path(), &[&train[..], &["--overwrite", "--literal"]].concat());
    let written = reward(&dir.path().join("new"));
    assert_eq!((&written["date"], &written["literal"]), (&json!("2025-03-09"), &json!(true)));
    write_reward(dir.path(), json!({}));
    ok(dir.path(), &[&train[..], &["--resume", "--literal"]].concat());
    assert_eq!(reward(&dir.path().join("new"))["date"], "2025-03-09", "the run began on that day");
}

#[test]
fn help_and_wrong_usage() {
    let dir = folder(dated(), &[("pairs.jsonl", PAIRS)]);
    for command in ["score", "eval", "best", "train"] {
        assert!(ok(dir.path(), &[command, "--help"]).contains("--literal"), "{command}");
    }
    let both = binary::usage(dir.path(), &["eval", "pairs.jsonl", "--judge", "judge", "--calibrate", "--literal"]);
    assert!(both.contains("--literal"), "{both}");
}
