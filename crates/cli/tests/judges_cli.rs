//! A decoder judge through the commands, by the real binary: the scores of transformers, and a judge in every respect.

mod binary;

use binary::{error, run};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/judges").join(name).canonicalize().unwrap()
}

/// The conversations of the golden judge as rows, and their scores in transformers.
fn chats() -> (Vec<Value>, Vec<f64>) {
    let text = std::fs::read(golden("chat").join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let row = |chat: &Value| {
        let (response, prompt) = chat["messages"].as_array().unwrap().split_last().unwrap();
        json!({"prompt": prompt, "response": [response]})
    };
    let chats = expected["chats"].as_array().unwrap();
    (chats.iter().map(row).collect(), chats.iter().map(|chat| chat["score"].as_f64().unwrap()).collect())
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn score_gives_the_scores_of_transformers() {
    let (rows, expected) = chats();
    let dir = tempfile::tempdir().unwrap();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.path().join("chats.jsonl"), text).unwrap();
    let judge = golden("chat").display().to_string();
    let printed = ok(dir.path(), &["score", "chats.jsonl", "--judge", &judge, "--precision", "f32"]);
    let scored: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(scored.len(), expected.len());
    for (row, expected) in scored.iter().zip(expected) {
        let found = row["score"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4, "{row}: expected {expected}");
    }
}

#[test]
fn best_and_eval_take_a_decoder() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = "{\"prompt\": \"What is it?\", \"chosen\": \"A good day.\", \"rejected\": \"no\"}\n".repeat(2)
        + "{\"prompt\": \"Which?\", \"chosen\": \"Yes.\", \"rejected\": \"It depends.\"}\n";
    std::fs::write(dir.path().join("pairs.jsonl"), pairs).unwrap();
    let judge = golden("chat").display().to_string();
    let best = ok(dir.path(), &["best", "pairs.jsonl", "--judge", &judge]);
    assert!(best.lines().count() >= 2, "{best}");
    let eval = ok(dir.path(), &["eval", "pairs.jsonl", "--judge", &judge]);
    assert!(eval.contains("accuracy"), "{eval}");
}

#[test]
fn verify_finds_a_decoder_sound() {
    let dir = tempfile::tempdir().unwrap();
    let judge = golden("chat").display().to_string();
    let output = run(dir.path(), &["verify", "--judge", &judge]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_judge_that_cannot_be_trusted_ends_the_command() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), "{\"prompt\": \"what is it ?\", \"response\": \"a good day .\"}\n")
        .unwrap();
    for (name, part) in [("two_labels", "2 outputs"), ("auto_map", "auto_map"), ("missing_head", "score.weight")] {
        let judge = golden("refused").join(name).display().to_string();
        let message = error(dir.path(), &["score", "rows.jsonl", "--judge", &judge]);
        assert!(message.contains(part), "{name}: {message}");
    }
}
